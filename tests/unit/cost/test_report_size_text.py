"""What `freehold size` says: each figure with its unit, a reason where it does not fit, and no speed of what cannot run."""

import io
from dataclasses import replace
from datetime import date

import pytest
from rich.console import Console

from freehold.catalog.facts import GpuFacts, Verified
from freehold.core.spread import Spread
from freehold.cost.report.size_text import compared, show_explained, show_sized
from freehold.sizing.model.shape import ModelShape
from freehold.sizing.replica.answer import Reason, SecondOpinion, SizeAsk, Sized, SizedFleet
from freehold.sizing.replica.explain import rests_on
from freehold.sizing.replica.replica import size
from plan_samples import HOSTILE
from sizing_box import ask, catalog

SHAPE = ModelShape(
    name="llama-3.1-8b",
    layers=32,
    hidden=4096,
    heads=32,
    kv_heads=8,
    head_dim=128,
    vocab=128256,
    context=131072,
    params_total=8.03e9,
    params_active=8.03e9,
    params_embedding=1.05e9,
)
GPU = GpuFacts(
    id="h100-sxm",
    vendor="nvidia",
    memory_gb=80,
    mem_bw_gb_s=3350,
    bf16_dense_tflops=989,
    fp8_dense_tflops=1979,
    fp4_dense_tflops=None,
    tdp_w=700,
    scale_up_gb_s_per_dir=450,
    source="vendor",
    as_of=date(2026, 10, 1),
    verified=Verified.READ,
)
ASK = SizeAsk(
    shape=SHAPE,
    gpu=GPU,
    gpus=2,
    engine="vllm",
    quant="fp8",
    input_tokens=1024,
    output_tokens=256,
    concurrency=64,
)
SIZED = Sized(
    ask=ASK,
    fits=True,
    why_not="",
    tensor_parallel=2,
    pipeline_parallel=1,
    weights_bytes=9_080_000_000,
    weights_bytes_per_gpu=4_540_000_000,
    kv_bytes_per_token=131_072,
    kv_cache_tokens=1_010_000,
    concurrency_max=789,
    concurrency=64,
    output_tokens_per_s=Spread(4100, 5120, 6333),
    ttft_ms=Spread(90, 180, 1360),
    ttft_p95_ms=Spread(120, 240, 480),
    itl_ms=Spread(9.5, 11.2, 13.1),
    bound_by="memory bandwidth",
    calibration="vllm-dense",
    notes=("A note.",),
)
FLEET = SizedFleet(
    sized=SIZED,
    replicas=3,
    spare_replicas=1,
    gpus=8,
    nodes=1,
    capacity_tokens_per_s=Spread(60000, 76800, 90000),
    peak_tokens_per_s=71234,
    utilisation=0.31,
    load_time_s=Spread(1.2, 2.0, 14),
    storage="nvme-gen4",
    network="10gbe",
    host_ram_gb=256,
    reasons=(Reason(text="vLLM: fast, and the model changes often", source="measured pairs"),),
)


def shown(
    sized: Sized, fleet: SizedFleet | None = None, *, second: SecondOpinion | str = "", columns: int = 100
) -> str:
    console = Console(file=io.StringIO(), width=columns)
    show_sized(sized, fleet, second=second, console=console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_what_fits_says_what_it_holds_and_how_fast_it_is():
    text = shown(SIZED)
    for part in (
        "It fits.",
        "9.08 GB, 4.54 GB on each GPU",
        "tensor parallel 2, pipeline parallel 1; 80 GB",
        "131,072 bytes a token, at 16 bit",
        "room for 1.01M tokens",
        "at most 789 of 1,024 + 256 tokens",
        "5,120 (4,100\N{EN DASH}6,330) tokens/s",
        "180 ms (90 ms\N{EN DASH}1.36 s)",
        "11.2 ms (9.5 ms\N{EN DASH}13.1 ms)",
        "memory bandwidth",
        "2 \N{MULTIPLICATION SIGN} h100-sxm with vllm",
        "A note.",
    ):
        assert part in text, part
    assert "SizedFleet" not in text


def test_less_concurrency_than_asked_is_said():
    assert "at 40 sequences at once (asked: 64)" in shown(replace(SIZED, concurrency=40))
    assert "asked" not in shown(SIZED)


def test_what_does_not_fit_says_why_and_shows_no_speed():
    text = shown(replace(SIZED, fits=False, why_not="the weights need 141 GB, two GPUs have 144 GB at 90%"))
    assert "It does not fit: the weights need 141 GB" in text
    assert "tokens/s" not in text
    assert "room for" not in text


def test_what_fits_but_meets_no_slo_shows_no_speed():
    text = shown(replace(SIZED, concurrency=0))
    assert "It fits, but serves no sequence as asked." in text
    assert "tokens/s" not in text


def test_the_fleet_says_replicas_nodes_and_what_it_needs():
    text = shown(SIZED, FLEET)
    for part in (
        "71.2k tokens/s at the peak",
        "4, 1 of them spare",
        "8 in 1 node\n",
        "76,800 (60,000\N{EN DASH}90,000) tokens/s within the SLO",
        "31% of it in the mean hour",
        "nvme-gen4 or faster: weights are loaded in 2 s (1.2 s\N{EN DASH}14 s)",
        "10gbe or faster",
        "256 GB in all",
        "vLLM: fast, and the model changes often (measured pairs)",
    ):
        assert part in text, part


@pytest.mark.parametrize("columns", [60, 80, 100])
def test_no_line_is_wider_than_the_terminal(columns: int):
    assert max(map(len, shown(SIZED, FLEET, columns=columns).splitlines())) <= columns


def test_markup_in_names_is_shown():
    text = shown(replace(SIZED, notes=(HOSTILE,), why_not=HOSTILE, fits=False), columns=160)
    assert "[red]x[/red]" in text
    assert "\x1b" not in text


def test_a_second_opinion_stands_beside_ours():
    second = SecondOpinion(
        output_tokens_per_s=5500, ttft_ms=210, itl_ms=10.4, version="aiconfigurator-core 0.12.0", note="as X"
    )
    text = " ".join(shown(SIZED, second=second).split())
    for part in ("Second opinion aiconfigurator-core 0.12.0", "5,500 tokens/s", "210 ms", "10.4 ms", "as X"):
        assert part in text
    assert "1.07 \N{MULTIPLICATION SIGN} our middle: the two agree, it is within our range" in text


@pytest.mark.parametrize(
    ("rate", "said"),
    [
        (4100, "0.80 \N{MULTIPLICATION SIGN} our middle: the two agree"),
        (4099, "the two disagree, it is slower"),
        (6333, "the two agree"),
        (6334, "1.24 \N{MULTIPLICATION SIGN} our middle: the two disagree, it is faster"),
    ],
)
def test_what_lies_outside_our_range_disagrees(rate: float, said: str):
    second = SecondOpinion(output_tokens_per_s=rate, ttft_ms=1, itl_ms=1, version="x")
    assert said in compared(second, SIZED.output_tokens_per_s)


def test_no_second_opinion_says_why():
    assert "None: it is not installed" in shown(SIZED, second="it is not installed")
    assert "Second opinion" not in shown(SIZED)


def test_what_does_not_fit_and_what_is_one_are_said_once():
    unfit = replace(SIZED, fits=False, why_not="does not fit 8 x h200-sxm: 170 GB are needed")
    assert "It does not fit 8 x h200-sxm: 170 GB are needed" in shown(unfit)
    assert "at 1 sequence at once" in shown(
        replace(SIZED, concurrency=1, ask=replace(SIZED.ask, concurrency=1))
    )


def test_where_a_figure_comes_from_names_its_parts_its_correction_and_the_rows_it_rests_on():
    facts = catalog()
    found = size(
        ask("gpt-oss-120b", gpu="mi300x", quant="mxfp4", concurrency=64),
        facts.calibrations,
        facts.corrections,
    )
    console = Console(file=io.StringIO(), width=100)
    vector = facts.calibrations[found.calibration]
    show_explained(found, rests_on(found, facts), vector=vector, console=console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "reading" in text
    assert "docs/how-far-off.md" in text
    assert "amd-moe: 10 rows of 3 sources" in text
    assert "inferencex" in text
