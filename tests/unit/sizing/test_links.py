"""Links: the table of a 70B over two nodes, and that 1 and 10 GbE are insufficient for the one use and enough for the other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.sizing.fleet.links import (
    balancer_mbit_s,
    judge,
    networks,
    pipeline_crossing,
    tensor_crossing,
)
from freehold.sizing.fleet.staging import host_ram_gb, least_for_rebuild, load_over_s, stage
from sizing_box import catalog, model

LINKS = catalog().links


@pytest.mark.parametrize(
    ("link", "tensor_1", "tensor_32", "prompt_s", "pipe_32", "pipe_prompt"),
    [
        ("1gbe", 30, 725, 184, 4.5, 1147),
        ("10gbe", 8.6, 78, 18.4, 0.5, 115),
        ("100gbe-roce", 1.8, 8.9, 1.9, 0.06, 12),
        ("400g-ndr-ib", 1.3, 3.1, 0.5, 0.02, 3),
        ("nvlink4-hopper", 1.0, 1.2, 0.060, None, None),
    ],
)
def test_a_70b_over_two_nodes(
    link: str,
    tensor_1: float,
    tensor_32: float,
    prompt_s: float,
    pipe_32: float | None,
    pipe_prompt: float | None,
):
    shape, row = model("llama-3.3-70b"), LINKS[link]
    assert tensor_crossing(shape, row, ranks=2, sequences=1).decode_ms == pytest.approx(tensor_1, rel=0.06)
    crossing = tensor_crossing(shape, row, ranks=2, sequences=32)
    assert crossing.decode_ms == pytest.approx(tensor_32, rel=0.06)
    assert crossing.prefill_ms / 1e3 == pytest.approx(prompt_s, rel=0.1)
    if pipe_32 is not None:
        piped = pipeline_crossing(shape, row, stages=2, sequences=32)
        assert piped.decode_ms == pytest.approx(pipe_32, rel=0.1)
        assert piped.prefill_ms == pytest.approx(pipe_prompt, rel=0.06)


@pytest.mark.parametrize(
    ("link", "tensor", "pipeline"),
    [
        ("1gbe", False, False),
        ("10gbe", False, True),
        ("100gbe-roce", False, True),
        ("400g-ndr-ib", True, True),
    ],
)
def test_which_link_is_enough_for_what(link: str, tensor: bool, pipeline: bool):  # noqa: FBT001 - a table's columns
    """Decode is 15 to 20 ms there and an 8k prompt about 2 s."""
    shape, row = model("llama-3.3-70b"), LINKS[link]
    across = tensor_crossing(shape, row, ranks=2, sequences=32)
    stages = pipeline_crossing(shape, row, stages=2, sequences=32)
    found = judge(row, across, use="tensor parallel across nodes", step_ms=17, prompt_ms=2000)
    assert found.enough == tensor
    assert ("is enough" if tensor else "is insufficient") in found.reason.text
    assert f"{across.decode_ms:.3g} ms" in found.reason.text
    assert judge(row, stages, use="pipeline stages", step_ms=17, prompt_ms=2000).enough == pipeline


def test_replicas_behind_a_balancer_need_next_to_nothing():
    assert balancer_mbit_s(10_000) == pytest.approx(16)
    assert balancer_mbit_s(10_000) < LINKS["1gbe"].effective_gb_s_per_dir * 8000 / 50


@pytest.mark.parametrize(
    ("where", "seconds"),
    [("1gbe", 20 * 60), ("10gbe", 2 * 60), ("100gbe-roce", 12)],
)
def test_a_70b_in_16_bit_over_a_link(where: str, seconds: float):
    assert load_over_s(141e9, LINKS[where]) == pytest.approx(seconds, rel=0.05)


def test_a_rebuild_takes_the_slowest_link_that_is_in_time():
    found = least_for_rebuild(networks(LINKS), 141e9)
    assert found is not None
    assert found.id == "1gbe", "20 of 30 minutes"
    larger = least_for_rebuild(networks(LINKS), 700e9)
    assert larger is not None
    assert larger.id == "10gbe"
    assert least_for_rebuild(networks(LINKS), 1e18) is None


def test_nvme_is_needed_where_weights_are_large():
    small = stage(catalog().storage, 16e9, gpus=1)
    assert (small.storage, small.in_time) == ("sata-ssd", True)
    large = stage(catalog().storage, 141e9, gpus=4)
    assert large.storage.startswith("nvme")
    assert large.in_time
    never = stage(catalog().storage, 141e9, gpus=1)
    assert not never.in_time, "one GPU's loader is the limit, whatever the disk"
    assert never.load_time_s.low > 60
    assert stage({}, 16e9, gpus=1).storage == ""


def test_no_loader_is_advised_as_a_disk():
    slow = {
        name: row for name, row in catalog().storage.items() if not name.startswith(("nvme", "sata", "nfs"))
    }
    assert slow
    assert stage(slow, 16e9, gpus=1).storage == ""


@given(st.floats(1e8, 1e12), st.integers(1, 16))
def test_more_weights_never_load_faster_and_need_more_memory(weights: float, gpus: int):
    one, two = (stage(catalog().storage, weights * factor, gpus=gpus) for factor in (1, 2))
    same_disk = one.storage == two.storage
    assert not same_disk or two.load_time_s.mid >= one.load_time_s.mid
    assert one.load_time_s.low <= one.load_time_s.high
    assert host_ram_gb(2 * weights, gpus=gpus) > host_ram_gb(weights, gpus=gpus) > weights / 1e9
