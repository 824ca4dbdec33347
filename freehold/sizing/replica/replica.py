"""One replica: does it fit, what does it hold, how fast is it; at a load, or at the most that an SLO allows.

It buys nothing and counts no replicas (`fleet`), and knows no prices.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from freehold.catalog.facts import Calibration
from freehold.core.spread import Spread
from freehold.sizing.model.words import Quant
from freehold.sizing.replica import memory
from freehold.sizing.replica.answer import Batch, SizeAsk, Sized, Slo, StepParts
from freehold.sizing.replica.memory import Number, Room, room
from freehold.sizing.replica.pace import ReplicaLoad, ReplicaPace, pace
from freehold.sizing.replica.roofline import RooflineSetting
from freehold.sizing.replica.split import notes_on, split, why_not_at_all
from freehold.sizing.replica.vector import NO_CORRECTIONS, Chosen, Corrections, Kind, choose_vector

Calibrations = Mapping[str, Calibration]

LLAMA_CPP_SHARE = 0.97
"""Of the GPU's memory, what llama.cpp uses: all that is free but a margin. Source: it has no flag for a share, and 70B Q4_K_M
with 1,024 tokens ran on an L40S of 48 GB (GPU-Benchmarks-on-LLM-Inference, 2024-05)."""
SEQUENCES_MAX = 1024
"""Sequences at once beyond which no SLO is searched. Source: vLLM's largest default of max_num_seqs."""
FEWER_BITS: tuple[Quant, ...] = ("fp8", "int4")
"""What is tried where a model does not fit, in this order."""
GPUS_MAX = 64
"""How many GPUs are tried where a model does not fit: eight nodes of eight. Why: a first deployment is not larger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Frame:
    """A replica without a load: its memory and its vector."""

    ask: SizeAsk
    tensor: int
    pipeline: int
    room: Room
    sequence_bytes: float
    """On one GPU, of one sequence of the asked length."""
    chosen: Chosen

    @property
    def sequences(self) -> int:
        """Return how many sequences of the asked length the cache holds."""
        return max(0, int(self.room.kv // self.sequence_bytes)) if self.sequence_bytes > 0 else 0

    @property
    def load(self) -> ReplicaLoad:
        """Return the asked lengths."""
        ask = self.ask
        return ReplicaLoad(
            input_tokens=ask.input_tokens, output_tokens=ask.output_tokens, cached_share=ask.cached_share
        )

    @property
    def setting(self) -> RooflineSetting:
        """Return what the roofline needs."""
        return RooflineSetting(
            shape=self.ask.shape,
            gpu=self.ask.gpu,
            quant=self.ask.quant,
            kv_bits=self.ask.kv_bits,
            tensor_parallel=self.tensor,
            pipeline_parallel=self.pipeline,
            calibration=self.chosen.calibration,
            pipelined=self.ask.engine != "llama-cpp",
            network_b_s=self.ask.network_gb_s * 1e9,
        )


def size(ask: SizeAsk, calibrations: Calibrations, corrections: Corrections = NO_CORRECTIONS) -> Sized:
    """Return what a replica holds and does at the asked load, the concurrency cut to what its KV cache holds.

    Where it does not fit or cannot run, `fits` is false, the rates are 0 and `why_not` says why and what would.
    """
    frame = _frame(ask, calibrations, corrections)
    why = why_not_at_all(ask) or _why_no_room(frame)
    if why:
        return _sized(frame, None, concurrency=0, why_not=why)
    concurrency = max(1, min(ask.concurrency, frame.sequences))
    return _sized(frame, pace(frame.setting, float(concurrency), load=frame.load), concurrency=concurrency)


def at_slo(
    ask: SizeAsk, slo: Slo, *, calibrations: Calibrations, corrections: Corrections = NO_CORRECTIONS
) -> Sized:
    """Return the replica at the largest concurrency at which mean ITL and the 95th percentile of TTFT hold, by their middles.

    The middle of `ttft_p95_ms` is what is held. Its doubt is in the range of `output_tokens_per_s`: the low end is the rate at
    the concurrency that would hold if first tokens were as late as `ttft_p95_ms.high`, the high end if as early as its low.
    If not even one sequence would hold then, the low end is one sequence's rate: it would run, and be late.

    The asked concurrency is ignored. Where even one sequence misses the SLO, it fits, its concurrency is 0 and `why_not`
    says by how much. Figures at saturation are not what a service may count on: that is `size`.
    """
    frame = _frame(ask, calibrations, corrections)
    why = why_not_at_all(ask) or _why_no_room(frame)
    if why:
        return _sized(frame, None, concurrency=0, why_not=why)
    counts = np.arange(1.0, min(frame.sequences, SEQUENCES_MAX) + 1)
    paces = pace(frame.setting, counts, load=frame.load)
    in_time = np.asarray(paces.itl_s) <= slo.itl_s
    fewest, best, most = (
        int(np.max(counts, where=in_time & (late <= slo.ttft_s), initial=0))
        for late in reversed(frame.chosen.late_first_token(paces.ttft_p95_s))
    )
    if not best:
        one = pace(frame.setting, 1.0, load=frame.load)
        return _sized(frame, None, concurrency=0, why_not=_why_too_slow(frame, one, slo))
    sized = _sized(
        replace(frame, ask=replace(ask, concurrency=best)),
        pace(frame.setting, float(best), load=frame.load),
        concurrency=best,
    )
    rates = np.asarray(paces.output_per_s)
    ends = (float(rates[count - 1]) for count in (max(fewest, 1), most))
    widened = sized.output_tokens_per_s.or_between(*ends)
    bound = "KV cache" if best == frame.sequences else sized.bound_by
    return replace(sized, output_tokens_per_s=widened, bound_by=bound)


def batch(ask: SizeAsk, calibrations: Calibrations, corrections: Corrections = NO_CORRECTIONS) -> Batch | str:
    """Return how long `ask.concurrency` requests take that start together; a sentence where they cannot run.

    All prompts pass first, then all answers: the wall time is that of the steady state, the ITL is that of decode alone.
    More than the KV cache holds run in turns.
    """
    frame = _frame(ask, calibrations, corrections)
    why = why_not_at_all(ask) or _why_no_room(frame)
    if why:
        return why
    together = max(1, min(ask.concurrency, frame.sequences))
    found = pace(frame.setting, float(together), load=frame.load)
    turns = ask.concurrency / together
    prompts = float(found.prompt_s) * ask.concurrency
    wall = prompts + turns * ask.output_tokens * float(found.step.total_s)
    return Batch(
        requests=ask.concurrency,
        prefill_s=prompts,
        itl_ms=float(found.step.total_s) * 1e3,
        wall_s=wall,
        output_tokens_per_s=frame.chosen.around(ask.concurrency * ask.output_tokens / wall),
    )


def _frame(ask: SizeAsk, calibrations: Calibrations, corrections: Corrections) -> _Frame:
    tensor, pipeline = split(ask)
    has, sequence_bytes = _memory_of(ask, tensor, pipeline)
    kind = Kind(engine=ask.engine, shape=ask.shape, gpu=ask.gpu, quant=ask.quant)
    return _Frame(
        ask=ask,
        tensor=tensor,
        pipeline=pipeline,
        room=has,
        sequence_bytes=sequence_bytes,
        chosen=choose_vector(calibrations, kind, corrections=corrections),
    )


def _memory_of(ask: SizeAsk, tensor: int, pipeline: int) -> tuple[Room, float]:
    """Return the room on one GPU, and the bytes that a sequence of the asked length takes of it."""
    parts, length = (tensor, pipeline), ask.input_tokens + ask.output_tokens
    share = LLAMA_CPP_SHARE if ask.engine == "llama-cpp" else ask.memory_utilisation
    has = room(ask.shape, ask.gpu, quant=ask.quant, split=parts, utilisation=share)
    whole = float(memory.kv_bytes_of_sequence(ask.shape, length, ask.kv_bits))
    return has, whole * memory.kv_share_per_gpu(ask.shape, tensor, pipeline)


def _why_no_room(frame: _Frame) -> str:
    if frame.sequences >= 1:
        return ""
    ask, has = frame.ask, frame.room
    needed = has.budget - has.kv
    if has.kv <= 0:
        gigabytes = f"{needed / 1e9:,.1f} GB of weights and working memory per GPU, {has.budget / 1e9:,.1f} GB may be used"
        return f"does not fit {ask.gpus} x {ask.gpu.id}: {gigabytes}{_what_would(ask)}"
    left = f"{has.kv / 1e9:,.1f} GB per GPU are left, one sequence takes {frame.sequence_bytes / 1e9:,.1f} GB"
    return f"no sequence of this length fits {ask.gpus} x {ask.gpu.id}: {left}{_what_would(ask)}"


def _what_would(ask: SizeAsk) -> str:
    """Return what would make it fit, as the end of a sentence: fewer bits, more GPUs, a shorter sequence."""
    ways = [
        f"{quant} weights"
        for quant in FEWER_BITS
        if _bits_fewer(ask, quant) and _holds(replace(ask, quant=quant))
    ]
    more = (ask.gpus * 2**step for step in range(1, 7))
    enough = next((count for count in more if count <= GPUS_MAX and _holds(replace(ask, gpus=count))), None)
    ways += [f"{enough} GPUs"] if enough else []
    tokens = _longest(ask)
    ways += [f"sequences of at most {tokens:,} tokens"] if tokens else []
    return f"; would fit: {', or '.join(ways)}" if ways else "; no smaller quantisation nor 64 GPUs would do"


def _bits_fewer(ask: SizeAsk, quant: Quant) -> bool:
    return memory.weights_bytes(ask.shape, quant) < memory.weights_bytes(
        ask.shape, ask.quant
    ) and not why_not_at_all(replace(ask, quant=quant))


def _holds(ask: SizeAsk) -> bool:
    return not why_not_at_all(ask) and _sequences_of(ask) >= 1


def _sequences_of(ask: SizeAsk) -> float:
    has, each = _memory_of(ask, *split(ask))
    return has.kv / each if each > 0 else 0.0


def _longest(ask: SizeAsk) -> int:
    """Return how long a single sequence may be, in whole thousands of tokens; 0: not even one thousand fits."""
    asked = ask.input_tokens + ask.output_tokens
    part = _sequences_of(ask)
    return int(asked * part) // 1000 * 1000 if 0 < part < 1 else 0


def _why_too_slow(frame: _Frame, one: ReplicaPace, slo: Slo) -> str:
    itl, ttft = float(one.itl_s) * 1e3, float(frame.chosen.late_first_token(one.ttft_p95_s)[1])
    return (
        f"misses the SLO with a single sequence: {itl:.3g} ms between tokens ({slo.itl_s * 1e3:.3g} asked), "
        f"first token after {ttft:.3g} s ({slo.ttft_s:.3g} asked)"
    )


def _sized(frame: _Frame, found: ReplicaPace | None, *, concurrency: int, why_not: str = "") -> Sized:
    ask, none = frame.ask, Spread.exactly(0.0)
    length = ask.input_tokens + ask.output_tokens
    return Sized(
        ask=ask,
        fits=frame.sequences >= 1 and not why_not_at_all(ask),
        why_not=why_not,
        tensor_parallel=frame.tensor,
        pipeline_parallel=frame.pipeline,
        weights_bytes=round(memory.weights_bytes(ask.shape, ask.quant)),
        weights_bytes_per_gpu=round(frame.room.weights),
        kv_bytes_per_token=memory.kv_bytes_per_token(ask.shape, ask.kv_bits),
        kv_cache_tokens=max(0, int(frame.room.kv / frame.sequence_bytes * length)) if frame.sequences else 0,
        concurrency_max=frame.sequences,
        concurrency=concurrency,
        output_tokens_per_s=frame.chosen.around(float(found.output_per_s)) if found else none,
        ttft_ms=_ms(frame.chosen.first_token(found.ttft_s, found.ttft_p95_s)) if found else none,
        ttft_p95_ms=_ms(frame.chosen.late_first_token(found.ttft_p95_s)) if found else none,
        itl_ms=frame.chosen.around(float(found.itl_s) * 1e3) if found else none,
        bound_by=_bound_by(frame, found, concurrency) if found else "",
        calibration=frame.chosen.calibration.id,
        parts=_parts(found) if found else None,
        correction=frame.chosen.correction,
        untested=frame.chosen.untested,
        notes=(*frame.chosen.notes, *notes_on(ask, frame.tensor, frame.pipeline), *_cut(ask, concurrency)),
    )


def _ms(seconds: tuple[Number, Number, Number]) -> Spread:
    low, mid, high = (float(each) * 1e3 for each in seconds)
    return Spread(low, mid, high)


def _parts(found: ReplicaPace) -> StepParts:
    step = found.step
    return StepParts(
        reading=float(step.memory_s) * 1e3,
        calculating=float(step.compute_s) * 1e3,
        links=float(step.link_s) * 1e3,
        overhead=float(step.overhead_s) * 1e3,
        prompts=(float(found.itl_s) - float(step.total_s)) * 1e3,
    )


def _cut(ask: SizeAsk, concurrency: int) -> tuple[str, ...]:
    if not 0 < concurrency < ask.concurrency:
        return ()
    return (
        f"{ask.concurrency} sequences do not fit at once: figures are for {concurrency}, the others wait",
    )


def _bound_by(frame: _Frame, found: ReplicaPace, concurrency: int) -> str:
    """Return what takes most of a token's time; the KV cache where it cut the concurrency."""
    if concurrency < frame.ask.concurrency:
        return "KV cache"
    step = found.step
    reading, calculating = float(step.memory_s), float(step.compute_s)
    prompts = float(found.itl_s) - float(step.total_s)
    parts = {
        "memory bandwidth": reading if reading >= calculating else 0.0,
        "compute": prompts + (calculating if calculating > reading else 0.0),
        "overhead": float(step.link_s) + float(step.overhead_s),
    }
    return max(parts, key=lambda name: parts[name])
