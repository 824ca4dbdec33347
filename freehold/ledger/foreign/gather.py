"""Items of usage files added up: hour by hour, with what they cover, cost, and what could not be used. Pure.

The state is bounded by the years that the rows lie in, never by how many there are. It draws no conclusions: see history.
"""

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from freehold.ledger.foreign.seen import SeenRows
from freehold.ledger.foreign.spans import HOUR_S, Spans
from freehold.ledger.foreign.use import Item, LeftOut, Paid, Unusable, Use
from freehold.sizing.fleet.traffic import BadRow

BAD_ROWS_SHOWN = 100
"""Source: freehold.sizing.fleet.traffic.Traffic.bad_rows."""
SKEW_S = 300.0
"""How far ahead of our clock a row may lie. Source: our own choice: clocks without NTP drift by seconds a day."""
_MODELS_MAX = 1000  # Names that are kept apart: a file may make up a new one in each row.
_OTHER_MODELS = "(others)"


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeWindow:
    """The time that was asked for; rows outside are read and do not count."""

    since_s: float = 0.0
    until_s: float = float("inf")
    now_s: float = float("inf")


@dataclass(slots=True)
class Sums:
    """What was used in an hour, or altogether."""

    requests: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0

    @property
    def tokens(self) -> int:
        """Return input and output together."""
        return self.input_tokens + self.output_tokens

    def add(self, use: Use) -> None:
        """Add a row."""
        self.requests += use.requests
        self.input_tokens += use.input_tokens
        self.cached_tokens += use.cached_tokens or 0
        self.output_tokens += use.output_tokens


@dataclass(slots=True)
class Gathered:
    """All that was read so far, of all files together."""

    window: TimeWindow = field(default_factory=TimeWindow)
    where: Callable[[int], str] = str
    """Says where in the file that is being read a row stands."""
    total: Sums = field(default_factory=Sums)
    hours: defaultdict[int, Sums] = field(default_factory=lambda: defaultdict(Sums))
    """By hour since the epoch; buckets longer than an hour are spread evenly over theirs."""
    active: set[int] = field(default_factory=set)
    """Hours in which any good row of a log of requests lies."""
    fine: Spans = field(default_factory=Spans)
    """Covered by buckets of at most an hour."""
    coarse: Spans = field(default_factory=Spans)
    """Covered by buckets that are longer."""
    logged: Spans = field(default_factory=Spans)
    """Covered by logs of requests: each file from its first row to its last."""
    coarse_tokens: int = 0
    batch_tokens: int = 0
    uncached_requests: int = 0
    """Requests that do not say how many tokens a cache held."""
    models: Counter[str] = field(default_factory=Counter)
    usd: float = 0.0
    priced_requests: int = 0
    invoiced_usd: float = 0.0
    invoiced: Spans = field(default_factory=Spans)
    left_out: Counter[str] = field(default_factory=Counter)
    bad_rows: list[BadRow] = field(default_factory=list)
    bad_rows_total: int = 0
    rows_total: int = 0
    outside_rows: int = 0
    seen: SeenRows = field(default_factory=SeenRows)
    notes: list[str] = field(default_factory=list)
    accepted_rows: int = 0
    """Rows that were not bad."""
    first_s: float = float("inf")
    last_s: float = float("-inf")

    def take(self, item: Item, number: int) -> None:
        """Add an item; `number` is its row's in the file."""
        self.rows_total += 1
        if isinstance(item, Unusable):
            self._bad(number, str(item))
        elif item.start_s > self.window.now_s + SKEW_S:
            self._bad(number, "it lies in the future")
        elif not isinstance(item, LeftOut) and item.identity and self.seen.again(item.identity):
            self._bad(number, "a row like it came before")
        else:
            self.accepted_rows += 1
            self._accept(item)

    def _accept(self, item: Use | Paid | LeftOut) -> None:
        if isinstance(item, Use):
            self._use(item)
        elif isinstance(item, Paid):
            self._paid(item)
        else:
            self._left_out(item)

    def _bad(self, number: int, reason: str) -> None:
        self.bad_rows_total += 1
        if len(self.bad_rows) < BAD_ROWS_SHOWN:
            self.bad_rows.append(BadRow(where=self.where(number), reason=reason))

    def end_file(self) -> None:
        """Note what the log of requests that was read last covers."""
        window = self.window
        if self.first_s <= self.last_s:
            self.logged.add(max(self.first_s, window.since_s), min(self.last_s, window.until_s))
        self.first_s, self.last_s = float("inf"), float("-inf")

    def _inside(self, start_s: float) -> bool:
        return self.window.since_s <= start_s < self.window.until_s

    def _moment(self, start_s: float) -> None:
        self.first_s = min(self.first_s, start_s)
        self.last_s = max(self.last_s, start_s)
        if self._inside(start_s):
            self.active.add(int(start_s // HOUR_S))

    def _left_out(self, item: LeftOut) -> None:
        self._moment(item.start_s)
        if self._inside(item.start_s):
            self.left_out[item.reason] += 1
        else:
            self.outside_rows += 1

    def _paid(self, item: Paid) -> None:
        if not self._inside(item.start_s):
            self.outside_rows += 1
            return
        self.invoiced_usd += item.usd
        self.invoiced.add(item.start_s, min(item.end_s, self.window.now_s))

    def _use(self, use: Use) -> None:
        start_s = use.start_s
        if use.end_s <= start_s:
            self._moment(start_s)
        if not self._inside(start_s):
            self.outside_rows += 1
            return
        spans = self.coarse if use.end_s - start_s > HOUR_S else self.fine
        spans.add(start_s, use.end_s)  # a single request has no length and adds nothing
        if use.requests or use.input_tokens or use.output_tokens:
            self._count(use)

    def _count(self, use: Use) -> None:
        self.total.add(use)
        if use.end_s - use.start_s > HOUR_S:
            self._spread(use)
        else:
            self.hours[int(use.start_s // HOUR_S)].add(use)
        tokens = use.input_tokens + use.output_tokens
        self.models[
            use.model if use.model in self.models or len(self.models) < _MODELS_MAX else _OTHER_MODELS
        ] += tokens
        if use.cached_tokens is None:
            self.uncached_requests += use.requests
        if use.usd is not None:
            self.usd += use.usd
            self.priced_requests += use.requests
        if use.batch:
            self.batch_tokens += tokens

    def _spread(self, use: Use) -> None:
        """Spread a long bucket evenly over its hours; what does not divide goes to the first ones, so that nothing is lost."""
        self.coarse_tokens += use.input_tokens + use.output_tokens
        first, end_s = int(use.start_s // HOUR_S), min(use.end_s, self.window.now_s)
        hours = range(first, max(first + 1, -int(-end_s // HOUR_S)))
        for index, hour in enumerate(hours):
            sums = self.hours[hour]
            sums.requests += _share(use.requests, len(hours), index)
            sums.input_tokens += _share(use.input_tokens, len(hours), index)
            sums.cached_tokens += _share(use.cached_tokens or 0, len(hours), index)
            sums.output_tokens += _share(use.output_tokens, len(hours), index)


def _share(whole: int, parts: int, index: int) -> int:
    return whole // parts + (index < whole % parts)
