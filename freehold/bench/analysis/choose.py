"""Which candidate to serve with: the one with the highest goodput within the SLO. Pure.

Among those that no run separates it is the one that takes less memory, else the one with fewer options. A candidate's goodput is that of its best load, by the median of its runs. A load counts only where the bench itself kept
up and where it was measured in every run. Where no candidate kept the SLO, none is chosen.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from freehold.bench.analysis.compare import Differs, Runs, differs, runs
from freehold.bench.analysis.load import Load
from freehold.bench.analysis.results import BenchFile, Candidate, Result, Through

LATE_SHARE = 0.2
"""Of the SLO's time to first token, how late the bench may send nineteen in twenty requests before a load says more of the
bench than of the engine. Source: our own choice."""


FEW = 20
"""Fewer measured requests in a run are doubted. Source: of fewer than 20 the 95th percentile is but the slowest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """A candidate at the load at which most of its tokens kept the SLO."""

    candidate: Candidate
    load: Load
    goodput: Runs
    """Tokens/s."""
    results: tuple[Result, ...]
    memory: Runs | None
    """Peak bytes; None: unknown."""
    against: Differs = Differs.UNKNOWN
    """How its goodput stands to the winner's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Who wins, by how much, and what to know before believing it."""

    winner: Best | None
    others: tuple[Best, ...]
    """Those that kept the SLO at some load, most goodput first."""
    reasons: tuple[str, ...]
    doubts: tuple[str, ...]


def choose(bench: BenchFile, through: Through = "direct") -> Choice:
    """Return the choice among all candidates of a bench, as they are reached `through`."""
    found = [best for each in bench.candidates if (best := best_of(bench, each, through)) is not None]
    ranked = sorted(found, key=lambda best: -best.goodput.median)
    if not ranked:
        return Choice(winner=None, others=(), reasons=(_why_nobody(bench, through),), doubts=_doubts(bench))
    top = ranked[0]
    tied = [top, *(best for best in ranked[1:] if _alike(best.goodput, top.goodput))]
    winner = min(tied, key=lambda best: _cost(best, tied))
    others = tuple(
        replace(best, against=differs(best.goodput, winner.goodput)) for best in ranked if best is not winner
    )
    doubts = (*_doubts(bench), *_few(winner))
    return Choice(winner=winner, others=others, reasons=_reasons(winner, tied, others), doubts=doubts)


def _why_nobody(bench: BenchFile, through: Through) -> str:
    if bench.interrupted:
        return "it was ended before any load had all its runs"
    if not bench.results:
        return "no engine started: the doubts hold each engine's message"
    wanted = bench.conditions.runs
    pairs = ((each.id, load) for each in bench.candidates for load in bench.conditions.loads)
    if all(len(results_at(bench, name, load=load, through=through)) < wanted for name, load in pairs):
        return "no engine completed all runs of any load: the doubts hold each engine's message"
    return "no engine kept the SLO at any load: loosen it, lower the load, or measure other engines"


def _alike(one: Runs, other: Runs) -> bool:
    """Return whether two may be separated by something else than their goodput: the usual run of each is a run of the other.

    One bad run of the better is enough for `differs` to claim nothing; it is no reason to take one that gives half as much.
    """
    usual = one.low <= other.median <= one.high and other.low <= one.median <= other.high
    return usual and differs(one, other) is Differs.SAME


def best_of(bench: BenchFile, candidate: Candidate, through: Through) -> Best | None:
    """Return a candidate's best load; None: it kept the SLO at none that counts."""
    found = []
    for load in bench.conditions.loads:
        results = results_at(bench, candidate.id, load=load, through=through)
        goodput = runs(each.figures.goodput_tokens_per_s for each in results)
        if goodput is None or len(results) < bench.conditions.runs or not goodput.median:
            continue
        if any(sent_late(each, bench.conditions.slo.ttft_s) for each in results):
            continue
        memory = runs(each.resources.memory_peak_bytes for each in results)
        found.append(
            Best(candidate=candidate, load=load, goodput=goodput, results=tuple(results), memory=memory)
        )
    return max(found, key=lambda best: best.goodput.median, default=None)


def results_at(bench: BenchFile, candidate: str, *, load: Load, through: Through) -> list[Result]:
    """Return the runs of one candidate at one load."""
    wanted = (candidate, load, through)
    return [each for each in bench.results if (each.candidate, each.load, each.through) == wanted]


def sent_late(result: Result, ttft_s: float) -> bool:
    """Return whether the bench was too late itself for its figures to be the engine's."""
    late = result.figures.late_s
    return late is not None and late.p95 > LATE_SHARE * ttft_s


def _cost(best: Best, tied: Sequence[Best]) -> tuple[float, int, float]:
    """Return what decides a tie: memory where it is known of all, then options, then goodput itself."""
    known = all(each.memory is not None for each in tied)
    memory = best.memory.median if known and best.memory is not None else 0.0
    return (memory, len(best.candidate.options), -best.goodput.median)


_NO_ORDER = {
    Differs.SAME: "no difference beyond the runs' spread",
    Differs.UNKNOWN: "a single run cannot show whether that differs",
}


def _reasons(winner: Best, tied: Sequence[Best], others: Iterable[Best]) -> tuple[str, ...]:
    said = [
        f"{winner.candidate.id} gave {_rate(winner.goodput)} output tokens/s within the SLO at {winner.load.words()}"
    ]
    for other in others:
        times = f"{winner.candidate.id} gave {winner.goodput.median / other.goodput.median:.2f} times as much"
        said.append(
            f"{other.candidate.id} gave {_rate(other.goodput)}: {_NO_ORDER.get(other.against, times)}"
        )
    if len(tied) > 1:
        why = (
            "takes the least memory"
            if all(each.memory is not None for each in tied)
            else "has the fewest options"
        )
        said.append(f"of those that do not differ, {winner.candidate.id} {why}")
    return tuple(said)


def _rate(goodput: Runs) -> str:
    if len(goodput.values) == 1:
        return f"{goodput.median:,.1f}"
    return f"{goodput.median:,.1f} ({goodput.low:,.1f} to {goodput.high:,.1f})"


def _few(winner: Best) -> tuple[str, ...]:
    least = min(each.figures.requests for each in winner.results)
    if least >= FEW:
        return ()
    return (f"a run of the winner measured {least} requests: a longer --duration gives more certainty",)


def _other_weights(bench: BenchFile) -> list[str]:
    """Return for each model whose candidates computed with different weights that this was no comparison of engines alone."""
    said = []
    for model in dict.fromkeys(each.model for each in bench.candidates):
        used = {
            (each.weights_sha256 or each.weights): f"{each.engine} {each.weights}"
            for each in bench.candidates
            if each.model == model
        }
        if len(used) > 1:
            named = ", ".join(dict.fromkeys(used.values()))
            said.append(f"{model}: not the same weights ({named}); how good the answers are was not measured")
    return said


def _doubts(bench: BenchFile) -> tuple[str, ...]:
    said = [f"{each.id}: {each.failed}" for each in bench.candidates if each.failed]
    said += _other_weights(bench)
    models = len({each.model for each in bench.candidates})
    if models > 1:
        said.append(f"{models} models are measured and one winner is named: --model measures one alone")
    if bench.interrupted:
        said.append("it was ended before all was measured: loads without all their runs do not count")
    before, cores = bench.machine.load_before, bench.machine.cores
    if before is not None and cores and before > cores / 4:
        said.append(f"the machine was busy before it began: load {before:.1f} on {cores} cores")
    if bench.conditions.runs == 1:
        said.append("one run has no spread: --runs 3 separates differences from chance")
    late = {each.load.words() for each in bench.results if sent_late(each, bench.conditions.slo.ttft_s)}
    if late:
        said.append(
            f"the bench could not send in time at {', '.join(sorted(late))}: these loads do not count"
        )
    wrong = sum(each.figures.wrong_length for each in bench.results)
    if wrong:
        said.append(f"{wrong} answers had not the length asked for")
    return tuple(said)
