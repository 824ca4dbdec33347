"""What a review is made from: the stack's own ledger of a period as traffic, and what was measured beside it.

It only reads: the ledger file, what still lies in the spool, and the files that were named. What was not measured is None,
never zero. What endpoints of others answered is not the machines' work: it has a sentence of its own. It judges
nothing: that is `freehold/cost`.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from freehold.core.clock import wall_s
from freehold.core.errors import FreeholdError
from freehold.core.problems import Problem
from freehold.cost.intake.measured_files import NodeOutage, Watts, down_node_hours, read_incidents, read_watts
from freehold.ledger.books import read_ledger
from freehold.ledger.files.own_ledger import notes_on, uses_of
from freehold.ledger.foreign.gather import Gathered, TimeWindow
from freehold.ledger.foreign.history import traffic_of
from freehold.ledger.foreign.spans import HOUR_S
from freehold.ledger.journal import Span
from freehold.ledger.records.money import PICOUSD_PER_USD
from freehold.ledger.records.rollup import UsageTally
from freehold.sizing.fleet.traffic import Traffic

_MOST = 0.95  # Of the hours: a part that is missing beyond this is worth a sentence.
_MINUTES_BELOW_H = 3  # A time that is shorter is shown in minutes.
_US = 1_000_000  # Microseconds in a second.


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredFiles:
    """What was measured beside the ledger; None: nothing."""

    watts: Path | None = None
    incidents: Path | None = None
    models: frozenset[str] = frozenset()
    """The stack's own models, as far as they are known: records of requests by an adapter bear the adapter's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnsweredElsewhere:
    """What endpoints of others answered in the period."""

    tokens: int
    """Input and output, above 0."""
    usd: float | None
    """What was recorded of its cost; None: nothing was."""
    cost_unknown: int
    """Requests of which it is not known what they cost."""
    endpoints: tuple[str, ...]
    """Their names, most tokens first."""

    @property
    def text(self) -> str:
        """Return it in a sentence."""
        usd = "at an unknown cost" if self.usd is None else f"for {self.usd:,.2f} USD"
        more = f", and {self.cost_unknown:,} requests at an unknown cost" if self.cost_unknown else ""
        return (
            f"{self.tokens:,} tokens of the period were answered by {', '.join(self.endpoints)} "
            f"{usd}{more if self.usd is not None else ''}: neither is in the figures of these machines."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredPeriod:
    """A period as it was. Where there are problems, what they are about is None."""

    since_s: float
    """From when the ledger covers it: the beginning asked for, or the hour of the first record if that is later."""
    until_s: float
    """Up to when: the end asked for, or now."""
    traffic: Traffic | None
    """Of the stack's own machines. None: no tokens of theirs were recorded."""
    overflow: AnsweredElsewhere | None = None
    """None: no other endpoint answered."""
    requests: int = 0
    """All that were recorded, failed ones included."""
    failed: int = 0
    interrupted: int = 0
    lost: int = 0
    """Requests that could not be recorded."""
    tokens_by_endpoint: tuple[tuple[str, int], ...] = ()
    """Input and output tokens by who answered, most first: cloud endpoints that were overflowed to are among them."""
    watts: Watts | None = None
    """None: not measured."""
    incidents: tuple[NodeOutage, ...] | None = None
    """Of the period; None: no list was kept."""
    down_node_hours: float | None = None
    """Hours that nodes were out by these incidents, summed over the nodes; None: no list was kept."""
    problems: tuple[Problem, ...] = ()

    @property
    def days(self) -> float:
        """Return how long the period is."""
        return self.hours / 24

    @property
    def hours(self) -> float:
        """Return how long the period is."""
        return max(0.0, self.until_s - self.since_s) / HOUR_S


def measured_period(
    state_path: Path,
    files: MeasuredFiles,
    *,
    since_s: float,
    until_s: float,
    now_s: float | None = None,
) -> MeasuredPeriod:
    """Return what the stack with this state folder did from `since_s` up to `until_s` (Unix seconds).

    All that is wrong with the named files and the ledger comes back as problems, at once.
    """
    until_s = min(until_s, wall_s() if now_s is None else now_s)
    problems: list[Problem] = []
    tallies, began_s = _tallies(state_path, since_s, until_s, problems)
    watts = _watts(files.watts, began_s, until_s, problems)
    incidents = _incidents(files.incidents, began_s, until_s, problems)
    gathered = _gathered([tally for tally in tallies if _is_own(tally, files.models)], began_s, until_s)
    overflow = _overflow([tally for tally in tallies if not _is_own(tally, files.models)])
    return MeasuredPeriod(
        since_s=began_s,
        until_s=until_s,
        traffic=_traffic(gathered, watts, overflow),
        overflow=overflow,
        requests=sum(tally.requests for tally in tallies),
        failed=sum(tally.failed for tally in tallies),
        interrupted=sum(tally.interrupted for tally in tallies),
        lost=sum(tally.lost for tally in tallies),
        tokens_by_endpoint=_by_endpoint(tallies),
        watts=watts,
        incidents=incidents,
        down_node_hours=None if incidents is None else down_node_hours(incidents, began_s, until_s),
        problems=tuple(problems),
    )


def _tallies(
    state_path: Path, since_s: float, until_s: float, problems: list[Problem]
) -> tuple[list[UsageTally], float]:
    """Return the sums of the period, and from when on the stack kept its ledger."""
    since_us, until_us = int(since_s * _US), max(int(since_s * _US), int(until_s * _US))
    try:
        tallies = read_ledger(state_path, Span(since_us=since_us, until_us=until_us)).tallies
        before = read_ledger(state_path, Span(until_us=since_us)).tallies
    except (FreeholdError, OSError) as exc:
        hint = exc.hint if isinstance(exc, FreeholdError) else ""
        problems.append(
            Problem(where=str(state_path), message=f"the ledger cannot be read: {exc}", hint=hint)
        )
        return [], since_s
    first_s = min((tally.hour * HOUR_S for tally in tallies), default=since_s)
    return tallies, since_s if before else max(since_s, float(first_s))


def _gathered(tallies: list[UsageTally], began_s: float, until_s: float) -> Gathered:
    gathered = Gathered(window=TimeWindow(since_s=began_s, until_s=until_s, now_s=until_s))
    for index, use in enumerate(uses_of(tallies, since_s=began_s)):
        gathered.take(use, index)
    gathered.notes += notes_on(tallies)
    # The ledger was kept all the time, so the hours without a request before the end were quiet ones.
    gathered.first_s, gathered.last_s = began_s, until_s
    gathered.end_file()
    return gathered


def _traffic(gathered: Gathered, watts: Watts | None, overflow: AnsweredElsewhere | None) -> Traffic | None:
    """Return the period's traffic, with what was assumed of the watts and a sentence on what others answered."""
    if not gathered.total.tokens:
        return None
    traffic = traffic_of(gathered, "Freehold's own ledger")
    said = [*watts.notes] if watts else []
    hours = (gathered.window.until_s - gathered.window.since_s) / HOUR_S
    if watts and watts.covered_h < _MOST * hours:
        said.append(
            f"Watts were measured for {_of(watts.covered_h, hours)}: the rest is assumed to be like them."
        )
    said += [overflow.text] if overflow else []
    return replace(traffic, assumed=(*traffic.assumed, *said))


def _is_own(tally: UsageTally, models: frozenset[str]) -> bool:
    """Return whether the stack's own machines answered: a model's replicas are MODEL-N, its listed endpoints MODEL-ext-N.

    An own model that has a price differs from a fallback by that name; without a price, a number at the end will do.
    """
    stem, _, number = tally.endpoint.rpartition("-")
    if not tally.endpoint:
        return True
    return number.isdigit() and (
        stem.removesuffix("-ext") in {tally.model, *models} or not (tally.priced or tally.cost_unknown)
    )


def _overflow(tallies: list[UsageTally]) -> AnsweredElsewhere | None:
    """Return what these endpoints of others answered, or None where they answered nothing."""
    by_endpoint = _by_endpoint(tallies)
    if not by_endpoint:
        return None
    priced = any(tally.priced for tally in tallies)
    return AnsweredElsewhere(
        tokens=sum(tokens for _, tokens in by_endpoint),
        usd=sum(tally.cost_picousd for tally in tallies) / PICOUSD_PER_USD if priced else None,
        cost_unknown=sum(tally.cost_unknown for tally in tallies),
        endpoints=tuple(name for name, _ in by_endpoint),
    )


def _of(part_h: float, whole_h: float) -> str:
    """Return a part of a time: `3 of 720 hours`, `12 of 90 minutes`; never of 0."""
    if whole_h < _MINUTES_BELOW_H:
        return f"{max(part_h * 60, 1):,.0f} of {max(whole_h * 60, 1):,.0f} minutes"
    return (
        f"{part_h:,.0f} of {whole_h:,.0f} hours" if part_h >= 1 else f"{part_h:.1f} of {whole_h:,.0f} hours"
    )


def _by_endpoint(tallies: list[UsageTally]) -> tuple[tuple[str, int], ...]:
    sums: dict[str, int] = {}
    for tally in tallies:
        tokens = tally.prompt_tokens + tally.completion_tokens + tally.estimated_tokens
        sums[tally.endpoint] = sums.get(tally.endpoint, 0) + tokens
    return tuple(
        sorted(((name, tokens) for name, tokens in sums.items() if tokens), key=lambda item: -item[1])
    )


def _watts(path: Path | None, since_s: float, until_s: float, problems: list[Problem]) -> Watts | None:
    found = None if path is None else read_watts(path, since_s, until_s)
    if isinstance(found, Problem):
        problems.append(found)
        return None
    return found


def _incidents(
    path: Path | None, since_s: float, until_s: float, problems: list[Problem]
) -> tuple[NodeOutage, ...] | None:
    if path is None:
        return None
    found, faults = read_incidents(path, until_s)
    problems += faults
    return (
        None if faults else tuple(each for each in found if each.end_s > since_s and each.start_s < until_s)
    )
