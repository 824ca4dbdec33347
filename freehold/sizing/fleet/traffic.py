"""A team's traffic: how many tokens of which sizes, hour by hour. What sizes a fleet is its peak, what pays for it its sum.

Both the forecast of flags and the history of a usage file end up here. Nothing here reads files or knows prices.
"""

from dataclasses import dataclass

HOURS_PER_MONTH = 730.0
"""Source: 8,760 h a year / 12; the convention of research and cloud price lists alike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hour:
    """What came in one hour of a history; times are UTC."""

    hour: int
    """Hours since the Unix epoch."""
    requests: int
    input_tokens: int
    cached_tokens: int
    """Those of the input tokens that a cache held."""
    output_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BadRow:
    """A row of a usage file that could not be used; it is counted and shown, never dropped in silence."""

    where: str
    """`file:line` or `file[index]`."""
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """A month's traffic. Tokens are whole-month sums; input includes cached."""

    input_tokens_per_month: float
    output_tokens_per_month: float
    cached_share: float
    """Of the input tokens, 0 to 1: those that a prefix cache holds."""
    input_tokens_per_request: float
    output_tokens_per_request: float
    peak_over_mean: float
    """Tokens/s of the busiest hour (99th percentile hour of a history) over the month's mean; at least 1."""
    batch_share: float = 0.0
    """Of all tokens, those that can wait a day, for which APIs give a batch discount."""
    hours: tuple[Hour, ...] = ()
    """The history that it was read from; empty: a forecast."""
    source: str = "flags"
    """What it was read from, for the report."""
    by_model: tuple[tuple[str, float], ...] = ()
    """Of a history: model names of the file and their tokens, most first."""
    bad_rows: tuple[BadRow, ...] = ()
    """At most the first 100."""
    bad_rows_total: int = 0
    rows_total: int = 0
    paid_usd_per_month: float | None = None
    """What the file says was paid, per month; None: it does not say."""
    assumed: tuple[str, ...] = ()
    """Sentences on what was assumed because it was not given."""

    @property
    def tokens_per_month(self) -> float:
        """Return input and output tokens together."""
        return self.input_tokens_per_month + self.output_tokens_per_month
