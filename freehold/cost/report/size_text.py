"""What `freehold size` says in a terminal: does it fit, what it holds, how fast it is, what it needs around it.

Each figure comes with its unit and its range. What does not fit says why, and no speed is shown for it.
"""

from collections.abc import Iterable, Sequence

from rich.console import Console, RenderableType
from rich.text import Text

from freehold.catalog.facts import Calibration
from freehold.core.spread import Spread
from freehold.cost.model import rounding
from freehold.cost.model.rounding import DASH, TIMES, bytes_text, plain_number
from freehold.cost.report import outline
from freehold.cost.report.clean import clean
from freehold.cost.report.terminal import Row, columns, heading, pairs, points, print_parts
from freehold.sizing.replica.answer import Reason, SecondOpinion, Sized, SizedFleet
from freehold.sizing.replica.explain import Rests

RESTS_MOST = 12
"""Measurements that are listed. Our own choice: a screen; --json has all."""


def show_sized(
    sized: Sized,
    fleet: SizedFleet | None = None,
    *,
    second: SecondOpinion | str = "",
    console: Console | None = None,
) -> None:
    """Print what one replica holds and does, and, if a traffic was given, the fleet that carries it.

    `second` is another program's opinion of the speed, or why there is none; empty: not asked for.
    """
    parts: list[RenderableType] = [heading("Size", _asked(sized)), _answer(sized), pairs(_memory(sized))]
    if sized.fits and sized.concurrency:
        parts += [Text(), heading("Speed of one replica", _at(sized)), pairs(_speed(sized))]
    if second:
        parts += [Text(), *_second(second, sized.output_tokens_per_s)]
    if sized.notes:
        parts += [Text(), points(map(clean, sized.notes))]
    if fleet is not None:
        parts += [
            Text(),
            heading("SizedFleet", f"{rounding.tokens(fleet.peak_tokens_per_s)} tokens/s at the peak"),
        ]
        parts += [pairs(_fleet(fleet)), *_reasons(fleet.reasons)]
    print_parts(parts, console or Console())


def show_explained(
    sized: Sized, rests: Sequence[Rests], *, vector: Calibration, console: Console | None = None
) -> None:
    """Print what the time between tokens is made of, the vector, its correction and the measurements that it rests on."""
    parts: list[RenderableType] = [
        Text(),
        heading("Where that comes from", outline.HOW_FAR_OFF),
        pairs(_made_of(sized, vector)),
    ]
    if rests:
        table = columns(
            (("measured by", False), ("replica", False), ("measured", True), ("said", True), ("off", True))
        )
        for each in rests[:RESTS_MOST]:
            table.add_row(*map(Text, _rest(each)))
        more = len(rests) - RESTS_MOST
        parts += [table, *[Text(f"{more} more in --json", style="dim")] * (more > 0)]
    print_parts(parts, console or Console())


def _made_of(sized: Sized, vector: Calibration) -> Iterable[Row]:
    made, used = sized.parts, sized.correction
    if made is not None:
        longer = "reading" if made.reading >= made.calculating else "calculating"
        yield "between tokens", f"{sized.itl_ms.mid:.3g} ms: {longer}, links, overhead and others' prompts"
        for name in ("reading", "calculating", "links", "overhead", "prompts"):
            overlapped = ", meanwhile" if name in {"reading", "calculating"} and name != longer else ""
            yield f"  {name}", f"{getattr(made, name):.3g} ms{overlapped}"
        yield "batch", f"{sized.concurrency:,} sequences, a token each in that time"
    reached = f"{vector.hbm_efficiency:.0%} of the bandwidth and {vector.flops_efficiency:.0%} of the operations are reached"
    yield (
        "vector",
        f"{clean(vector.id)}: {reached}; {vector.error_mean_abs:.0%} off on rows it was not fitted on",
    )
    if used is not None and not sized.untested:
        by = f"{used.rows} rows of {used.sources} sources"
        yield (
            "correction",
            f"{TIMES}{used.ratio:g} ({clean(used.id)}: {by}); nine in ten within {TIMES}/÷{1 + used.part:.2f}",
        )
    else:
        yield "correction", f"none: {clean(sized.untested) or 'no published measurement is like this'}"


def _rest(each: Rests) -> tuple[str, ...]:
    row = each.row
    what = f"{row.gpus} {TIMES} {row.gpu}, {row.model} {row.quant}, {row.engine}, {row.concurrency:,} at once"
    off = f"{each.said_tokens_per_s / row.output_tokens_per_s - 1:+.0%}{'' if each.inside else ' outside'}"
    return (
        clean(row.measured_by),
        clean(what),
        rounding.amount(row.output_tokens_per_s),
        rounding.amount(each.said_tokens_per_s) if each.said_tokens_per_s else "no room",
        off,
    )


def _asked(sized: Sized) -> str:
    ask = sized.ask
    return (
        f"{clean(ask.shape.name)}, {ask.quant}, on {ask.gpus:,} {TIMES} {clean(ask.gpu.id)} with {ask.engine}"
    )


def _answer(sized: Sized) -> Text:
    if sized.fits and sized.concurrency:
        return Text("It fits.", style="bold green")
    if sized.fits:
        why = f": {clean(sized.why_not)}" if sized.why_not else "."
        return Text(f"It fits, but serves no sequence as asked{why}", style="bold yellow")
    why = clean(sized.why_not).removeprefix("does not fit ")
    on = "It does not fit " if why != clean(sized.why_not) else "It does not fit: "
    return Text(f"{on}{why}", style="bold red")


def _memory(sized: Sized) -> Iterable[Row]:
    yield (
        "weights",
        f"{bytes_text(sized.weights_bytes)}, {bytes_text(sized.weights_bytes_per_gpu)} on each GPU",
    )
    split = f"tensor parallel {sized.tensor_parallel}, pipeline parallel {sized.pipeline_parallel}"
    yield "split", f"{split}; {plain_number(sized.ask.gpu.memory_gb)} GB of memory on each GPU"
    yield "KV cache", f"{sized.kv_bytes_per_token:,} bytes a token, at {sized.ask.kv_bits} bit"
    if sized.fits:
        yield "", f"room for {rounding.tokens(sized.kv_cache_tokens)} tokens"
        yield "sequences at once", f"at most {sized.concurrency_max:,} of {_length(sized)} tokens"


def _length(sized: Sized) -> str:
    return f"{sized.ask.input_tokens:,.0f} + {sized.ask.output_tokens:,.0f}"


def _at(sized: Sized) -> str:
    asked = sized.ask.concurrency
    less = f" (asked: {asked:,})" if asked != sized.concurrency else ""
    many = "1 sequence" if sized.concurrency == 1 else f"{sized.concurrency:,} sequences"
    return f"at {many} at once{less} of {_length(sized)} tokens; middle (5th-95th percentile)"


def _speed(sized: Sized) -> Iterable[Row]:
    yield "output", f"{rounding.spread(sized.output_tokens_per_s)} tokens/s"
    yield "first token", _milliseconds(sized.ttft_ms)
    yield "", f"95 of 100 within {_milliseconds(sized.ttft_p95_ms)}; an SLO is held by the middle"
    yield "between tokens", _milliseconds(sized.itl_ms)
    yield "limited by", clean(sized.bound_by)
    yield "calibration", clean(sized.calibration)


def _second(second: SecondOpinion | str, ours: Spread) -> list[RenderableType]:
    if isinstance(second, str):
        return [heading("Second opinion"), Text(f"None: {clean(second)}")]
    rows = [
        ("output", f"{rounding.amount(second.output_tokens_per_s)} tokens/s"),
        ("beside ours", compared(second, ours)),
        ("first token", rounding.seconds(second.ttft_ms / 1000)),
        ("between tokens", rounding.seconds(second.itl_ms / 1000)),
        ("asked", clean(second.note)),
    ]
    return [heading("Second opinion", clean(second.version)), pairs(rows)]


def compared(second: SecondOpinion, ours: Spread) -> str:
    """Return its rate over our middle one, and in plain words whether it lies in our range."""
    ratio = f"{second.output_tokens_per_s / ours.mid:.2f} {TIMES} our middle"
    if second.output_tokens_per_s > ours.high:
        return f"{ratio}: the two disagree, it is faster than our whole range; measure before you count on either"
    if second.output_tokens_per_s < ours.low:
        return f"{ratio}: the two disagree, it is slower than our whole range; measure before you count on either"
    return f"{ratio}: the two agree, it is within our range"


def _milliseconds(found: Spread) -> str:
    """Return a time with its range, each end in the unit that suits it."""
    low, mid, high = (rounding.seconds(value / 1000) for value in (found.low, found.mid, found.high))
    return mid if low == high else f"{mid} ({low}{DASH}{high})"


def _fleet(fleet: SizedFleet) -> Iterable[Row]:
    spare = f", {fleet.spare_replicas} of them spare" if fleet.spare_replicas else ", no spare"
    yield "replicas", f"{fleet.replicas + fleet.spare_replicas}{spare}"
    yield "GPUs", f"{fleet.gpus} in {fleet.nodes} node{'' if fleet.nodes == 1 else 's'}"
    yield (
        "capacity",
        f"{rounding.spread(fleet.capacity_tokens_per_s)} tokens/s within the SLO, input and output",
    )
    yield "used", f"{rounding.percent(fleet.utilisation)} of it in the mean hour"
    yield "engine", fleet.sized.ask.engine
    yield (
        "storage",
        f"{clean(fleet.storage)} or faster: weights are loaded in {_milliseconds(fleet.load_time_s.times(1000))}",
    )
    yield "network", f"{clean(fleet.network)} or faster"
    yield "host RAM", f"{plain_number(fleet.host_ram_gb)} GB in all"


def _reasons(reasons: Iterable[Reason]) -> list[RenderableType]:
    texts = [clean(f"{each.text} ({each.source})" if each.source else each.text) for each in reasons]
    return [Text(), heading("Why"), points(texts)] if texts else []
