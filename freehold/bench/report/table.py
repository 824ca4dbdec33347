"""A bench as lines of text: one row per candidate and load, medians over the runs with their ends, then the choice.

It works out nothing but medians, and does not colour or print.
"""

import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import msgspec

from freehold.bench.analysis.choose import Choice, results_at, sent_late
from freehold.bench.analysis.compare import Differs, Runs, differs, runs
from freehold.bench.analysis.figures import Distribution
from freehold.bench.analysis.load import Load
from freehold.bench.analysis.results import BenchFile, Result, Through

YARDSTICK = "transformers"
"""The engine that serves one request at a time, without continuous batching or a paged cache."""
UNKNOWN = "unknown"
"""What stands where nothing could be read: never a zero."""
_HEADS = (
    *("engine", "load", "asked", "req/s", "tokens/s", "goodput/s", "% in SLO", "TTFT p50", "p95"),
    *("token p50", "refused", "failed", "cores", "MB", "J/token"),
)
_LEFT = 3
"""Columns that are words."""


def lines_of(bench: BenchFile, columns: int | None = None) -> list[str]:
    """Return the table, heads first: times in ms, medians of the runs, with their ends where engines are compared by them.

    Wider than `columns`, each row becomes a block of lines; None: a line may have any length.
    """
    rows = [list(_HEADS)]
    for candidate, load, sides in _points(bench):
        for results in filter(None, sides.values()):
            late = any(sent_late(each, bench.conditions.slo.ttft_s) for each in results)
            rows.append([candidate, load.words() + (" (late)" if late else ""), *_cells(results)])
    return fitted(rows, columns)


def _points(bench: BenchFile) -> Iterator[tuple[str, Load, dict[Through, list[Result]]]]:
    """Yield each candidate at each load with its results by each way."""
    ways: tuple[Through, ...] = ("direct", "gateway")
    for candidate in bench.candidates:
        for load in bench.conditions.loads:
            yield (
                candidate.id,
                load,
                {each: results_at(bench, candidate.id, load=load, through=each) for each in ways},
            )


def _cells(results: Sequence[Result]) -> list[str]:
    figures = [each.figures for each in results]

    def both(get: Callable[[Result], float | None]) -> str:
        return spread_text(runs(get(each) for each in results))

    def middle(get: Callable[[Result], float | None], digits: int = 0) -> str:
        found = runs(get(each) for each in results)
        return UNKNOWN if found is None else f"{found.median:,.{digits}f}"

    return [
        results[0].through,
        middle(lambda each: each.figures.requests_per_s, 2),
        both(lambda each: each.figures.output_tokens_per_s),
        both(lambda each: each.figures.goodput_tokens_per_s),
        middle(lambda each: _times(each.figures.slo_share, 100)),
        middle(lambda each: _at(each.figures.ttft_s, "p50")),
        middle(lambda each: _at(each.figures.ttft_s, "p95")),
        middle(lambda each: _at(each.figures.token_s, "p50"), 1),
        str(sum(each.refused for each in figures)),
        _failures(results),
        middle(lambda each: each.resources.cpu_cores, 2),
        middle(lambda each: _times(each.resources.memory_peak_bytes, 1e-6)),
        middle(lambda each: each.joules_per_token, 2),
    ]


def _failures(results: Iterable[Result]) -> str:
    sums: dict[str, int] = {}
    for each in results:
        for kind, count in each.figures.errors.items():
            sums[kind] = sums.get(kind, 0) + count
    return ", ".join(f"{count} {kind}" for kind, count in sorted(sums.items())) or "0"


def _at(found: Distribution | None, share: str) -> float | None:
    return None if found is None else float(getattr(found, share)) * 1e3


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def spread_text(found: Runs | None, digits: int = 1) -> str:
    """Return `91.0 (90.0-92.0)`, a single run as `91.0`, and `unknown` where nothing is known."""
    if found is None:
        return UNKNOWN
    low, middle, high = (f"{value:,.{digits}f}" for value in (found.low, found.median, found.high))
    return middle if low == high else f"{middle} ({low}-{high})"


def aligned(rows: Sequence[Sequence[str]], *, left: int) -> list[str]:
    """Return rows as lines with columns under each other, the first `left` of them to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def fitted(rows: Sequence[Sequence[str]], columns: int | None) -> list[str]:
    """Return rows, heads first, as a table; where it is wider than `columns`, as a block of lines per row, no figure cut."""
    lines = aligned(rows, left=_LEFT)
    if columns is None or max(map(len, lines)) <= columns:
        return lines
    heads, *rest = rows
    found = [f"{', '.join(heads[:_LEFT])}:"]
    for row in rest:
        figures = [f"{head} {cell}".strip() for head, cell in zip(heads[_LEFT:], row[_LEFT:], strict=True)]
        for text, indent in (
            (", ".join(row[:_LEFT]), ""),
            ("; ".join(_whole(each) for each in figures), "    "),
        ):
            wrapped = textwrap.wrap(
                text, columns, initial_indent=indent, subsequent_indent="    ", break_long_words=False,
                break_on_hyphens=False,
            )  # fmt: skip
            found += [line.replace("\xa0", " ") for line in wrapped]
    return found


def _whole(text: str) -> str:
    """Return a text whose blanks are no place to break a line at."""
    return text.replace(" ", "\xa0")


def gpu_lines(bench: BenchFile) -> list[str]:
    """Return on which GPUs each candidate ran, whose watts are in its J/token; empty: the machine has none that can be read."""
    if not bench.machine.gpus:
        return []
    everything = f"all {len(bench.machine.gpus)} of the machine count, since it is not known which it had"
    return [
        f"GPUs of {each.id}: "
        + (everything if each.gpus is None else ", ".join(map(str, each.gpus)) or "none")
        for each in bench.candidates
    ]


def choice_lines(choice: Choice) -> list[str]:
    """Return who wins and why, then what to doubt."""
    head = f"winner: {choice.winner.candidate.id}" if choice.winner else "winner: none"
    return [
        head,
        *(f"  {reason}" for reason in choice.reasons),
        *(f"  doubt: {doubt}" for doubt in choice.doubts),
    ]


def overhead_lines(bench: BenchFile) -> list[str]:
    """Return what the gateway adds to time to first token and takes from tokens/s, where both ways were measured."""
    return [
        f"gateway before {candidate} at {load.words()}: {_overhead(sides)}"
        for candidate, load, sides in _points(bench)
        if all(sides.values())
    ]


def yardstick_lines(bench: BenchFile) -> list[str]:
    """Return how many times the yardstick's tokens/s each other engine gave, load by load, where Transformers was measured."""
    yardstick = next((each.id for each in bench.candidates if each.engine == YARDSTICK), "")
    said = []
    for candidate in bench.candidates:
        for load in bench.conditions.loads if candidate.id != yardstick else ():
            own, other = (_tokens(bench, name, load) for name in (candidate.id, yardstick))
            if own is None or other is None or not other.median:
                continue
            verdict = differs(own, other)
            doubt = "" if verdict in {Differs.MORE, Differs.LESS} else f" ({verdict})"
            times = own.median / other.median
            said.append(
                f"{candidate.id} at {load.words()}: {times:.2f} times the yardstick's tokens/s{doubt}"
            )
    return said


def _tokens(bench: BenchFile, candidate: str, load: Load) -> Runs | None:
    found = results_at(bench, candidate, load=load, through="direct")
    return runs(each.figures.output_tokens_per_s for each in found)


def _overhead(sides: Mapping[Through, list[Result]]) -> str:
    def side(name: Through, get: Callable[[Result], float | None]) -> Runs | None:
        return runs(get(each) for each in sides[name])

    parts = []
    for word, unit, get in (
        ("TTFT p50", "ms", lambda each: _at(each.figures.ttft_s, "p50")),
        ("tokens/s", "", lambda each: each.figures.output_tokens_per_s),
    ):
        bare, behind = side("direct", get), side("gateway", get)
        if bare is None or behind is None:
            parts.append(f"{word} {UNKNOWN}")
            continue
        change = behind.median - bare.median
        verdict = differs(behind, bare)
        said = "" if verdict in {Differs.MORE, Differs.LESS} else f" ({verdict})"
        parts.append(f"{word} {change:+.1f}{f' {unit}' if unit else ''} of {bare.median:,.1f}{said}")
    return ", ".join(parts)


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """One candidate at one load, now and in another bench: runs of goodput (tokens/s) and of the 95th percentile of TTFT (ms)."""

    candidate: str
    load: str
    through: Through
    goodput_then: Runs | None
    goodput_now: Runs | None
    goodput: Differs
    """How now stands to then."""
    ttft_then: Runs | None
    ttft_now: Runs | None
    ttft: Differs


def compared(old: BenchFile, new: BenchFile) -> list[Compared]:
    """Return how each candidate that both benches have stands now to then, load by load."""
    return [
        _compared(candidate, then, now)
        for candidate, load, sides in _points(new)
        for through, now in sides.items()
        if now and (then := results_at(old, candidate, load=load, through=through))
    ]


def _compared(name: str, then: Sequence[Result], now: Sequence[Result]) -> Compared:
    goodput = [runs(each.figures.goodput_tokens_per_s for each in side) for side in (then, now)]
    ttft = [runs(_at(each.figures.ttft_s, "p95") for each in side) for side in (then, now)]
    return Compared(
        candidate=name,
        load=now[0].load.words(),
        through=now[0].through,
        goodput_then=goodput[0],
        goodput_now=goodput[1],
        goodput=_verdict(goodput[1], goodput[0]),
        ttft_then=ttft[0],
        ttft_now=ttft[1],
        ttft=_verdict(ttft[1], ttft[0]),
    )


def _verdict(now: Runs | None, then: Runs | None) -> Differs:
    return Differs.UNKNOWN if now is None or then is None else differs(now, then)


def compared_lines(old: BenchFile, new: BenchFile, columns: int | None = None) -> list[str]:
    """Return the same as a table, or as blocks where it is wider than `columns`."""
    rows = [["engine", "load", "asked", "goodput/s then", "now", "", "TTFT p95 then", "now", ""]]
    for each in compared(old, new):
        sides = (each.goodput_then, each.goodput_now, each.ttft_then, each.ttft_now)
        texts = [spread_text(side) for side in sides]
        rows.append(
            [each.candidate, each.load, each.through, *texts[:2], each.goodput, *texts[2:], each.ttft]
        )
    if len(rows) == 1:
        return ["the two benches have no candidate and load in common"]
    return fitted(rows, columns)
