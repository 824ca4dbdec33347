"""Which engine to run, and why: from what can run at all, from measured pairs, from the team's need. One answer, its reasons.

A load test of the user's own (`freehold bench`) overrides all of it. It sizes nothing: `weigh` is given what each engine needs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from freehold.catalog.facts import EngineRatio, GpuFacts
from freehold.core.spread import Spread
from freehold.sizing.model.shape import ModelShape
from freehold.sizing.model.words import Churn, Engine, Prefer, Quant
from freehold.sizing.replica.answer import MeasuredSpeed, Reason
from freehold.sizing.replica.split import LLAMA_CPP_QUANTS

SERVERS: tuple[Engine, ...] = ("vllm", "sglang", "tensorrt-llm")
"""Engines whose figures are compared, the one that asks the least of a team first. llama.cpp is not: its vector rests on no
measured row, so only rules advise it."""
NEAR = 1.1
"""Of what the engine with the least needs: up to there the team's wish decides. Source: docs/decisions/0016."""

WORTH_PINNING = 1.15
"""Median gain from which TensorRT-LLM is advised to a team that wants throughput. Why: below it, what it costs in pinned
versions and slower support of new models is not paid back; the median of all measured pairs is 1.108."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a team wants of an engine; empty: not given."""

    prefer: Prefer = ""
    """Which counts first; if not given, what asks the least of the team."""
    team: tuple[Engine, ...] = ()
    """Engines that the team has run before."""
    model_churn: Churn = ""
    """Whether new models should run soon after they appear; if not given, they should."""


NO_WISH = Wish()
"""Nothing was given. Source: our own choice, see the fields."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What the engine is for."""

    shape: ModelShape
    gpu: GpuFacts | None
    """None: no GPU, the CPU."""
    quant: Quant
    wish: Wish = NO_WISH


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """The engine and what it rests on, strongest reason first; `against` says why the others are not it."""

    engine: Engine
    reasons: tuple[Reason, ...]
    against: tuple[Reason, ...]
    settled: bool = False
    """Whether no figure can change it: a load test of the user's own, or the one engine that is built for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """What one engine comes to by our own figures: one deployment of it, the one that needs least."""

    needed: float
    """What serves the same traffic: GPUs, or time per token; lower is better."""
    text: str
    """As reasons have it: `128 GPUs`, `9,000 tokens/s`."""
    tokens_per_s: Spread
    """Per GPU, within the SLO."""


def weigh(advice: Advice, figures: Mapping[Engine, Figure], *, wish: Wish, bench: str = "") -> Advice:
    """Return the engine of the wish if it needs at most a tenth more than the best one, else the best, with both figures.

    `bench` is the command that would settle it; it is named where the ranges of two engines overlap.
    """
    if advice.settled or not figures:
        return advice
    best = min(figures, key=lambda engine: figures[engine].needed)
    near = [engine for engine in figures if figures[engine].needed <= NEAR * figures[best].needed]
    engine = next(each for each in (advice.engine, *wish.team, *SERVERS, best) if each in near)
    others = [each for each in figures if each != engine]
    if not others:
        return advice if engine == advice.engine else _alone(engine, advice)
    listed = ", ".join(f"{each} {figures[each].text}" for each in (engine, *others))
    why = f"within {NEAR - 1:.0%} of the best" if engine != best else "the best"
    reasons = [Reason(text=f"{engine} is {why} by our own figures: {listed}")]
    rivals = [each for each in others if _overlap(figures[each], figures[engine])]
    if rivals and bench:
        text = f"the ranges of {engine} and {' and '.join(rivals)} overlap; a load test settles it: {bench}"
        reasons.append(Reason(text=text))
    if engine == advice.engine:
        return Advice(engine=engine, reasons=(*advice.reasons, *reasons), against=advice.against)
    pinned = engine == "tensorrt-llm"
    lacking = (Reason(text=f"TensorRT-LLM needs {' and '.join(_lacking(wish))}"),) if pinned else ()
    return Advice(engine=engine, reasons=tuple(reasons), against=lacking if pinned else advice.against)


def _alone(engine: Engine, advice: Advice) -> Advice:
    text = f"{engine} is the only server that keeps the SLO here by our own figures"
    return Advice(engine=engine, reasons=(Reason(text=text),), against=advice.against)


def _overlap(one: Figure, other: Figure) -> bool:
    return one.tokens_per_s.high >= other.tokens_per_s.low and other.tokens_per_s.high >= one.tokens_per_s.low


def recommend(
    need: Need, measured: Sequence[MeasuredSpeed] = (), ratios: Mapping[str, EngineRatio] | None = None
) -> Advice:
    """Return the advised engine with its reasons; `ratios` are the catalog's measured pairs of engines."""
    tested = _tested(need, measured)
    if tested:
        return tested
    only = _only_llama_cpp(need)
    if only:
        return Advice(engine="llama-cpp", reasons=(only,), against=(), settled=True)
    return _server(need, ratios or {})


def _tested(need: Need, measured: Sequence[MeasuredSpeed]) -> Advice | None:
    """Return the fastest engine of the user's own load tests on this GPU and quantisation, per GPU."""
    fitting = [each for each in measured if need.gpu and (each.gpu, each.quant) == (need.gpu.id, need.quant)]
    if not fitting:
        return None
    best = max(fitting, key=_per_gpu)
    others = [each for each in fitting if each.engine != best.engine]
    reason = Reason(
        text=f"your load test: {_per_gpu(best):,.0f} tokens/s per GPU with {best.engine}", source=best.source
    )
    against = tuple(
        Reason(text=f"{each.engine}: {_per_gpu(each):,.0f} tokens/s per GPU", source=each.source)
        for each in others
    )
    return Advice(engine=best.engine, reasons=(reason,), against=against, settled=True)


def _per_gpu(measured: MeasuredSpeed) -> float:
    return measured.output_tokens_per_s / measured.gpus


def _only_llama_cpp(need: Need) -> Reason | None:
    if need.gpu is None:
        return Reason(text="without a GPU, llama.cpp is the engine that is built for CPUs")
    if need.quant == "gguf":
        return Reason(text="the weights are a GGUF file, which is llama.cpp's own format")
    if not need.gpu.consumer or need.quant not in LLAMA_CPP_QUANTS:
        return None
    card = f"{need.gpu.id} is a consumer card"
    if need.quant == "int4":
        return Reason(text=f"{card} and the weights have 4 bits: llama.cpp has the most formats for that")
    if need.wish.prefer == "simplicity" or set(need.wish.team) == {"llama-cpp"}:
        return Reason(text=f"{card}, and llama.cpp is one program without a Python stack")
    return None


def _server(need: Need, ratios: Mapping[str, EngineRatio]) -> Advice:
    """Return one of the three servers for data-centre cards."""
    pinned = _pinned(need, ratios)
    if pinned:
        return pinned
    wish, ratio = need.wish, ratios.get("trtllm-over-vllm")
    against = (*_against_trt(need, ratio), *_missing(need))
    easy = wish.prefer in {"latency", "simplicity"}
    if need.shape.attention == "mla" and not easy:
        return Advice(engine="sglang", reasons=(_for_latent(need, ratios),), against=against)
    if "sglang" in wish.team and "vllm" not in wish.team and not easy:
        text = "the team has run SGLang before, and no measured pair here favours another engine"
        return Advice(engine="sglang", reasons=(Reason(text=text),), against=against)
    return Advice(engine="vllm", reasons=_for_vllm(need), against=against)


def _pinned(need: Need, ratios: Mapping[str, EngineRatio]) -> Advice | None:
    """Return TensorRT-LLM where the card runs it, the team wants and can, and measured pairs say that it pays."""
    if not _runs_trt(need) or _lacking(need.wish):
        return None
    latent = need.shape.attention == "mla"
    other, ratio = (
        ("SGLang", ratios.get("trtllm-over-sglang")) if latent else ("vLLM", ratios.get("trtllm-over-vllm"))
    )
    gain = _gain(need, ratio)
    if gain < WORTH_PINNING:
        return None
    text = f"TensorRT-LLM is {gain:.2f} times as fast as {other} on matched pairs like this one, and the team can pin versions"
    return Advice(engine="tensorrt-llm", reasons=(_cited(text, ratio),), against=())


def engines_for(need: Need) -> tuple[Engine, ...]:
    """Return the servers that are worth a figure here: TensorRT-LLM on NVIDIA's data-centre cards only."""
    return SERVERS if _runs_trt(need) else tuple(each for each in SERVERS if each != "tensorrt-llm")


def _runs_trt(need: Need) -> bool:
    return need.gpu is not None and need.gpu.vendor == "nvidia" and not need.gpu.consumer


def _lacking(wish: Wish) -> list[str]:
    """Return what TensorRT-LLM would need of the team and is not given."""
    conditions = {
        "throughput first": wish.prefer == "throughput",
        "a team member who has run it": "tensorrt-llm" in wish.team,
        "models that seldom change": wish.model_churn == "low",
    }
    return [name for name, given in conditions.items() if not given]


def _missing(need: Need) -> tuple[Reason, ...]:
    """Return why TensorRT-LLM is not advised to a team that leans towards it; empty where nothing points there."""
    lacking = _lacking(need.wish)
    leaning = need.wish.prefer == "throughput" or "tensorrt-llm" in need.wish.team
    if not (leaning and lacking and _runs_trt(need)):
        return ()
    return (Reason(text=f"TensorRT-LLM would also need {' and '.join(lacking)}"),)


def _for_latent(need: Need, ratios: Mapping[str, EngineRatio]) -> Reason:
    ratio = ratios.get("trtllm-over-sglang")
    text = f"{need.shape.name} keeps a latent KV cache (MLA) on every rank, which SGLang spreads over its data-parallel attention"
    if ratio:
        text += f"; TensorRT-LLM is {ratio.median:.2f} times as fast there ({ratio.iqr[0]:.2f} to {ratio.iqr[1]:.2f}), where its versions can be pinned"
    return _cited(text, ratio)


def _for_vllm(need: Need) -> tuple[Reason, ...]:
    wish = need.wish
    texts = {
        "vLLM runs the most models and cards, new ones first, and asks the least of the team": True,
        "latency first: vLLM's measured first tokens keep to what is calculated more closely than any other engine's": (
            wish.prefer == "latency"
        ),
        "models change often: vLLM needs no build per model": wish.model_churn != "low",
        "the team has run vLLM before": "vllm" in wish.team,
        "the team has named no engine that it has run before: vLLM has the largest community": not wish.team,
        "mixture of experts: measured pairs differ by model, so test before choosing another": (
            need.shape.family == "moe"
        ),
    }
    return tuple(Reason(text=text) for text, holds in texts.items() if holds)


def _against_trt(need: Need, ratio: EngineRatio | None) -> tuple[Reason, ...]:
    if need.gpu is not None and need.gpu.vendor != "nvidia":
        return (Reason(text=f"TensorRT-LLM does not run on {need.gpu.vendor} GPUs"),)
    if ratio is None:
        return ()
    low, high = ratio.iqr
    text = (
        f"TensorRT-LLM: median {ratio.median - 1:+.1%} over vLLM on {ratio.matched_pairs} matched pairs "
        f"(half of them {low - 1:+.0%} to {high - 1:+.0%}), not the +30 to +50 % that guides promise"
    )
    return (_cited(text, ratio),)


def _gain(need: Need, ratio: EngineRatio | None) -> float:
    """Return the ratio of the group that is nearest: same model family name and GPU where there is one, else the median."""
    if ratio is None or need.gpu is None:
        return 1.0
    card, model = need.gpu.id.split("-")[0], need.shape.name.lower()
    near = [
        value
        for group, value in ratio.by_group.items()
        if f" {card} " in f" {group} " and _alike(model, group)
    ]
    return sum(near) / len(near) if near else ratio.median


def _alike(model: str, group: str) -> bool:
    ours, theirs = model.split("-"), group.split(" ", maxsplit=1)[0].lower().split("-")
    return (ours[0], ours[-1]) == (theirs[0], theirs[-1])


def _cited(text: str, ratio: EngineRatio | None) -> Reason:
    return Reason(text=text, source=f"{ratio.source} ({ratio.as_of})" if ratio else "")
