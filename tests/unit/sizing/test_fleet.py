"""Fleets: replicas at the peak, spares, what one can buy, utilisation; a load test overrides the model."""

import shlex
import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.cli.choose.bench import command as bench_flags
from freehold.core.spread import Spread
from freehold.sizing.fleet.advise import SERVERS, Figure, Need, Wish, recommend, weigh
from freehold.sizing.fleet.choose import Among, _counts, bench_command, candidates, usual_quants
from freehold.sizing.fleet.fleet import (
    FleetTarget,
    capacity,
    crossing_links,
    fleet,
    peak_tokens_per_s,
    round_gpus,
)
from freehold.sizing.fleet.links import networks
from freehold.sizing.model.words import Engine
from freehold.sizing.replica.answer import MeasuredSpeed, SizedFleet, Slo
from freehold.sizing.replica.memory import BITS
from freehold.sizing.replica.replica import size
from sizing_box import ask, catalog, model, traffic

SLO = Slo(ttft_s=2.0, itl_s=0.05)
EAGER = Wish(prefer="throughput", team=("tensorrt-llm",), model_churn="low")


def of(
    name: str, gpu: str = "h100-sxm", *, tokens: float = 9e9, plan: FleetTarget | None = None, **changes: Any
) -> SizedFleet:
    return fleet(
        ask(name, gpu, **changes), traffic(tokens), plan=plan or FleetTarget(slo=SLO), catalog=catalog()
    )


def test_replicas_are_counted_at_the_peak_and_utilisation_over_the_clock():
    found = of("llama-3.3-70b", gpus=2, quant="fp8", tokens=90e9)
    mean = 90e9 / (730 * 3600)
    assert found.peak_tokens_per_s == pytest.approx(2.5 * mean)
    each = capacity(found.sized)
    assert (found.replicas - 1) * each.mid < found.peak_tokens_per_s <= found.replicas * each.mid
    assert found.utilisation == pytest.approx(mean / found.capacity_tokens_per_s.mid)
    assert found.utilisation <= 1 / 2.5 + 1e-9
    assert each.mid == pytest.approx(4 * found.sized.output_tokens_per_s.mid), "three tokens in for one out"


def test_what_can_wait_is_moved_out_of_the_peak():
    assert peak_tokens_per_s(traffic(batch_share=0.5)) == pytest.approx(0.5 * peak_tokens_per_s(traffic()))
    assert peak_tokens_per_s(traffic(batch_share=1.0)) == pytest.approx(peak_tokens_per_s(traffic()) / 2.5)


@given(st.floats(1e6, 1e13))
def test_two_percent_of_an_h100_is_still_one(tokens: float):
    found = of("llama-3.1-8b", tokens=tokens)
    assert found.replicas >= 1
    assert 0 < found.utilisation <= 1
    assert found.capacity_tokens_per_s.mid >= found.peak_tokens_per_s * 0.999999
    assert found.gpus >= found.replicas * found.sized.ask.gpus
    assert found.nodes * 8 >= found.gpus


def test_200_million_tokens_a_month_are_a_hundredth_of_an_h100():
    assert 0.002 < of("llama-3.1-8b", tokens=200e6).utilisation < 0.011


@pytest.mark.parametrize(
    ("gpu", "needed", "expected"),
    [
        ("h100-sxm", 1, (1, 1)),
        ("h100-sxm", 3, (4, 1)),
        ("h100-sxm", 5, (8, 1)),
        ("h100-sxm", 9, (16, 2)),
        ("l40s", 9, (10, 2)),
        ("mi300x", 17, (24, 3)),
    ],
)
def test_gpus_come_in_certain_numbers(gpu: str, needed: int, expected: tuple[int, int]):
    assert round_gpus(needed, gpu=catalog().gpus[gpu], per_node=8) == expected


@pytest.mark.parametrize(
    ("gpu", "needed", "expected"),
    [
        ("h100-sxm", 1, (8, 1)),
        ("h200-sxm", 9, (16, 2)),
        ("b200-sxm", 3, (8, 1)),
        ("b300-sxm", 8, (8, 1)),
        ("mi300x", 2, (8, 1)),
        ("mi325x", 5, (8, 1)),
        ("mi355x", 17, (24, 3)),
        ("gb200-nvl72", 3, (72, 9)),
        ("gb200-nvl72", 73, (144, 18)),
        ("l40s", 3, (4, 1)),
        ("h100-pcie", 1, (1, 1)),
    ],
)
def test_what_is_bought_comes_in_whole_boards_and_racks(gpu: str, needed: int, expected: tuple[int, int]):
    assert round_gpus(needed, gpu=catalog().gpus[gpu], per_node=8, bought=True) == expected


def test_spares_are_bought_but_do_not_serve():
    bare, spared = (
        of("llama-3.3-70b", gpus=2, quant="fp8", plan=FleetTarget(slo=SLO, spares=count)) for count in (0, 2)
    )
    assert (spared.replicas, spared.spare_replicas) == (bare.replicas, 2)
    assert spared.gpus > bare.gpus
    assert spared.utilisation == bare.utilisation
    assert spared.capacity_tokens_per_s == bare.capacity_tokens_per_s


def test_a_fleet_that_cannot_be_has_no_replicas_and_a_reason():
    found = of("llama-3.3-70b")
    assert (found.replicas, found.spare_replicas, found.utilisation) == (0, 0, 0.0)
    assert found.capacity_tokens_per_s.high == 0
    assert "does not fit" in found.sized.why_not


def test_a_cache_lets_one_replica_carry_more():
    asked = ask("llama-3.1-8b")
    cold, warm = (
        fleet(asked, traffic(cached_share=share), plan=FleetTarget(slo=SLO), catalog=catalog())
        for share in (0.0, 0.8)
    )
    assert warm.sized.output_tokens_per_s.mid > 1.1 * cold.sized.output_tokens_per_s.mid
    assert warm.sized.ask.cached_share == 0.8


def test_a_load_test_replaces_the_model():
    test = MeasuredSpeed(
        engine="vllm",
        gpu="h100-sxm",
        gpus=1,
        quant="bf16",
        output_tokens_per_s=123.0,
        concurrency=4,
        source="bench",
    )
    found = of("llama-3.1-8b", plan=FleetTarget(slo=SLO, measured=(test,)))
    assert found.sized.output_tokens_per_s.mid == 123
    assert found.sized.calibration == "measured"
    assert any("measured 123 tokens/s (bench)" in note for note in found.sized.notes)
    assert found.replicas > of("llama-3.1-8b").replicas
    other = of("llama-3.1-8b", quant="fp8", plan=FleetTarget(slo=SLO, measured=(test,)))
    assert other.sized.calibration == "vllm-dense", "another quantisation was not measured"


def test_stages_across_nodes_name_their_link_and_why_tensor_parallel_is_not_across():
    found = of("llama-3.1-405b", gpus=16, quant="bf16")
    assert found.sized.pipeline_parallel == 2
    text = " ".join(reason.text for reason in found.reasons)
    assert "is enough for pipeline stages" in text
    assert "insufficient for tensor parallel across nodes" in text
    enough, _ = crossing_links(found.sized, networks(catalog().links))
    assert enough[0].id == found.network or found.network == "10gbe"


def test_everything_needed_is_named():
    found = of("llama-3.3-70b", gpus=4)
    assert found.storage in catalog().storage
    assert found.network in catalog().links
    assert found.host_ram_gb > 141
    assert found.load_time_s.low > 10
    text = " ".join(reason.text for reason in found.reasons)
    assert "Mbit/s" in text
    assert "NVMe is needed" in text


@pytest.mark.parametrize("name", ["llama-3.1-8b", "llama-3.3-70b", "gpt-oss-120b", "deepseek-v3"])
def test_candidates_carry_the_traffic_and_none_beats_another(name: str):
    found = candidates(model(name), traffic(), plan=FleetTarget(slo=SLO), catalog=catalog(), among=Among())
    assert len({each.sized.ask.gpu.id for each in found}) >= 7
    for each in found:
        sized = each.sized
        assert each.replicas >= 1
        assert each.capacity_tokens_per_s.mid >= each.peak_tokens_per_s
        asked = replace(sized.ask, concurrency=sized.concurrency)
        again = size(asked, catalog().calibrations, catalog().corrections)
        assert again.output_tokens_per_s.mid == sized.output_tokens_per_s.mid
        assert again.itl_ms.mid <= 50
        per_gpu = capacity(sized).mid / sized.ask.gpus
        for other in found:
            if other is not each and other.sized.ask.gpu == sized.ask.gpu:
                better = capacity(other.sized).mid / other.sized.ask.gpus > per_gpu
                assert not (
                    other.gpus < each.gpus and BITS[other.sized.ask.quant] >= BITS[sized.ask.quant] and better
                )


def test_all_gpus_take_less_than_half_a_second_of_cpu():
    began = time.process_time()
    candidates(model("llama-3.3-70b"), traffic(), plan=FleetTarget(slo=SLO), catalog=catalog(), among=Among())
    assert time.process_time() - began < 0.5


def test_candidates_are_only_what_was_asked_for():
    found = candidates(
        model("llama-3.1-8b"),
        traffic(),
        plan=FleetTarget(slo=SLO),
        catalog=catalog(),
        among=Among(gpus=("h100-sxm", "mi300x", "no-such-gpu"), quants=("fp8",), engines=("tensorrt-llm",)),
    )
    assert {(each.sized.ask.gpu.id, each.sized.ask.quant, each.sized.ask.engine) for each in found} == {
        ("h100-sxm", "fp8", "tensorrt-llm")
    }


def test_how_a_model_is_usually_loaded():
    gpus = catalog().gpus
    assert usual_quants(model("gpt-oss-120b"), gpus["h100-sxm"]) == ("mxfp4",)
    assert usual_quants(model("llama-3.1-8b"), gpus["a100-sxm-80"]) == ("bf16", "int4")
    stored = replace(model("llama-3.1-8b"), weights_bytes=5_000_000_000, quant="gguf")
    assert usual_quants(stored, gpus["rtx-4090"]) == ("gguf",)


def need(name: str = "llama-3.1-8b", gpu: str | None = "h100-sxm", **changes: Any) -> Need:
    return Need(shape=model(name), gpu=catalog().gpus[gpu] if gpu else None, **{"quant": "bf16", **changes})


@pytest.mark.parametrize(
    ("asked", "engine", "word"),
    [
        (need(gpu=None), "llama-cpp", "CPU"),
        (need(quant="gguf"), "llama-cpp", "GGUF"),
        (need(gpu="rtx-4090", quant="int4"), "llama-cpp", "consumer"),
        (need(), "vllm", "most models"),
        (need("deepseek-v3", "h200-sxm", quant="fp8"), "sglang", "latent"),
        (
            need(gpu="mi300x", wish=EAGER),
            "vllm",
            "vLLM",
        ),
        (need("qwen3-30b-a3b"), "vllm", "mixture"),
    ],
)
def test_an_engine_and_why(asked: Need, engine: str, word: str):
    found = recommend(asked, ratios=catalog().engine_ratios)
    assert found.engine == engine
    assert word in " ".join(reason.text for reason in found.reasons)


def test_tensorrt_llm_only_where_measured_pairs_and_the_team_speak_for_it():
    eager = {"wish": EAGER, "quant": "fp8"}
    ratios = catalog().engine_ratios
    pays = recommend(need("llama-3.3-70b", "h200-sxm", **eager), ratios=ratios)
    assert pays.engine == "tensorrt-llm", "+20 % on this pair"
    assert "1.20 times" in pays.reasons[0].text
    assert recommend(need("gpt-oss-120b", "h200-sxm", **eager), ratios=ratios).engine == "vllm", (
        "-14 % on this pair"
    )
    newcomers = recommend(
        need("llama-3.3-70b", "h200-sxm", **{**eager, "wish": replace(EAGER, team=())}), ratios=ratios
    )
    assert newcomers.engine == "vllm"
    assert "+10.8%" in newcomers.against[0].text
    assert "not the +30 to +50 %" in newcomers.against[0].text
    assert newcomers.against[0].source
    amd = recommend(need(gpu="mi300x"), ratios=ratios)
    assert "does not run on amd" in amd.against[0].text


@pytest.mark.parametrize(
    ("asked", "engine", "word"),
    [
        (need("deepseek-v3", "h200-sxm", quant="fp8", wish=Wish(prefer="latency")), "vllm", "latency first"),
        (need("deepseek-v3", "h200-sxm", quant="fp8", wish=EAGER), "tensorrt-llm", "as fast as SGLang"),
        (need(wish=Wish(team=("sglang",))), "sglang", "has run SGLang"),
        (need(wish=Wish(team=("sglang", "vllm"))), "vllm", "has run vLLM"),
        (need(wish=Wish(team=("sglang",), prefer="simplicity")), "vllm", "asks the least"),
        (need(gpu="rtx-4090", wish=Wish(prefer="simplicity")), "llama-cpp", "consumer"),
        (need(gpu="rtx-4090", wish=Wish(team=("llama-cpp",))), "llama-cpp", "consumer"),
        (need(gpu="rtx-4090", quant="fp8", wish=Wish(prefer="simplicity")), "vllm", "asks the least"),
        (need(wish=Wish(team=("llama-cpp",))), "vllm", "asks the least"),
    ],
)
def test_what_the_team_wants_changes_the_engine(asked: Need, engine: str, word: str):
    found = recommend(asked, ratios=catalog().engine_ratios)
    assert found.engine == engine
    assert word in " ".join(reason.text for reason in found.reasons)


def test_what_tensorrt_llm_would_still_need_is_said():
    found = recommend(
        need(wish=Wish(prefer="throughput", model_churn="high")), ratios=catalog().engine_ratios
    )
    said = " ".join(reason.text for reason in found.against)
    assert "a team member who has run it and models that seldom change" in said
    assert "would also need" not in str(recommend(need(), ratios=catalog().engine_ratios).against)


LATENT = ("deepseek-v3", "kimi-k2", "glm-5")


def gpus_by_card(name: str, tokens: float, engines: tuple[Engine, ...] = ()) -> dict[str, int]:
    """Return the fewest GPUs of a fleet per data-centre card: with these engines, else with the ones that are advised."""
    cards = tuple(gpu.id for gpu in catalog().gpus.values() if not gpu.consumer)
    among = Among(gpus=cards, engines=engines)
    found = candidates(
        model(name), traffic(tokens), plan=FleetTarget(slo=SLO), catalog=catalog(), among=among
    )
    fewest: dict[str, int] = {}
    for each in found:
        gpu = each.sized.ask.gpu.id
        fewest[gpu] = min(fewest.get(gpu, each.gpus), each.gpus)
    return fewest


@pytest.mark.parametrize("name", LATENT)
@pytest.mark.parametrize("tokens", [9e9, 500e9])
def test_the_advised_engine_needs_at_most_a_tenth_more_than_the_best(name: str, tokens: float):
    advised = gpus_by_card(name, tokens)
    by_engine = [gpus_by_card(name, tokens, (engine,)) for engine in SERVERS]
    assert len(advised) >= 10
    for card, gpus in advised.items():
        assert gpus <= 1.1 * min(found[card] for found in by_engine if card in found), card
    assert set(advised) == {card for found in by_engine for card in found}


def test_500_billion_tokens_of_deepseek_take_no_720_gpus():
    assert gpus_by_card("deepseek-v3", 500e9)["b200-sxm"] <= 176


def figure(needed: float, *rates: float) -> Figure:
    return Figure(needed=needed, text=f"{needed:g} GPUs", tokens_per_s=Spread(*rates))


def test_the_wish_decides_among_engines_that_need_alike_and_else_the_figures():
    asked = need("deepseek-v3", "h200-sxm", quant="fp8")
    wished = recommend(asked)
    assert wished.engine == "sglang"
    alike: dict[Engine, Figure] = {"vllm": figure(100, 80, 100, 120), "sglang": figure(109, 50, 92, 170)}
    found = weigh(wished, alike, wish=asked.wish, bench="freehold bench X")
    assert found.engine == "sglang"
    assert (
        "within 10% of the best by our own figures: sglang 109 GPUs, vllm 100 GPUs" in found.reasons[1].text
    )
    assert found.reasons[-1].text.endswith("overlap; a load test settles it: freehold bench X")
    far: dict[Engine, Figure] = {**alike, "sglang": figure(120, 50, 60, 70)}
    better = weigh(wished, far, wish=asked.wish, bench="freehold bench X")
    assert better.engine == "vllm"
    assert "vllm is the best by our own figures: vllm 100 GPUs, sglang 120 GPUs" in better.reasons[0].text
    assert "freehold bench" not in str(better.reasons), "the ranges are apart"
    pinned = weigh(wished, {**far, "tensorrt-llm": figure(80, 90, 125, 170)}, wish=asked.wish)
    assert pinned.engine == "tensorrt-llm"
    assert "TensorRT-LLM needs throughput first and a team member" in pinned.against[0].text
    assert weigh(wished, {"vllm": figure(1, 1, 1, 1)}, wish=asked.wish).engine == "vllm", (
        "the only one that can"
    )


def test_the_load_test_that_is_named_is_one_that_bench_understands():
    asked = ask("deepseek-v3", "b200-sxm", gpus=8, quant="fp8", cached_share=0.5)
    line = bench_command(size(asked, catalog().calibrations), ("vllm", "sglang"), Slo(ttft_s=0.5, itl_s=0.05))
    words = shlex.split(line)
    assert words[:4] == ["freehold", "bench", "--engines", "vllm,sglang"]
    known = {option for each in bench_flags.params for option in each.opts}
    assert {word for word in words if word.startswith("--")} <= known


def test_candidates_take_the_wish_and_say_why():
    found = candidates(
        model("llama-3.3-70b"),
        traffic(),
        plan=FleetTarget(slo=SLO),
        catalog=catalog(),
        among=Among(gpus=("h200-sxm",), quants=("fp8",), wish=EAGER),
    )
    assert {each.sized.ask.engine for each in found} == {"tensorrt-llm"}
    assert all("team can pin versions" in each.reasons[0].text for each in found)


def test_a_load_test_overrides_the_engine_and_the_figure_of_candidates():
    test = MeasuredSpeed(
        engine="sglang",
        gpu="h100-sxm",
        gpus=8,
        quant="fp8",
        output_tokens_per_s=9000.0,
        concurrency=64,
        source="mine",
    )
    found = candidates(
        model("llama-3.1-8b"),
        traffic(),
        plan=FleetTarget(slo=SLO, measured=(test,)),
        catalog=catalog(),
        among=Among(gpus=("h100-sxm",), quants=("fp8",)),
    )
    assert {each.sized.ask.engine for each in found} == {"sglang"}
    assert all("your load test" in each.reasons[0].text for each in found)
    assert [each.sized.output_tokens_per_s.mid for each in found if each.sized.ask.gpus == 8] in (
        [9000.0],
        [],
    )
    tried = _counts(model("llama-3.1-8b"), catalog().gpus["h100-sxm"], "fp8", [test])
    assert tried == [1, 2, 4, 8], "that of the load test is tried too"


def test_your_own_load_test_decides():
    tests = [
        MeasuredSpeed(
            engine=engine, gpu="h100-sxm", gpus=gpus, quant="bf16", output_tokens_per_s=rate, concurrency=8
        )
        for engine, gpus, rate in (("vllm", 1, 1000.0), ("sglang", 2, 2400.0), ("tensorrt-llm", 4, 3000.0))
    ]
    found = recommend(need(), tests)  # type: ignore[arg-type]
    assert found.engine == "sglang", "per GPU"
    assert "1,200 tokens/s per GPU" in found.reasons[0].text
    assert len(found.against) == 2
    assert recommend(need(quant="fp8"), tests).engine == "vllm", "nothing was measured there"
