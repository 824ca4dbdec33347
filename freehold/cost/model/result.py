"""What a plan says: options with ranges, break-evens, rules of thumb beside the team's numbers, one verdict.

These are the shapes of `freehold plan --json`; the published schema is made from them. Money is USD. Nothing is
rounded here: that is for whoever shows it.
"""

from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["api", "rent", "buy"]
Word = Literal["stay", "rent", "buy", "change-api", "undecided"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Percentiles:
    """Percentiles over the draws."""

    p10: float
    p50: float
    p90: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOption:
    """One way to serve the traffic, priced."""

    id: str
    kind: Kind
    provider: str
    gpu: str
    """Catalog id; empty for an API."""
    count: int
    """GPUs; 0 for an API."""
    model: str
    """What answers: the API's model, or the open model that is run."""
    engine: str
    quant: str
    replicas: int
    usd_per_month: Percentiles
    usd_per_million_tokens: Percentiles
    lines: dict[str, Percentiles]
    """By cost line (the file's name), USD per month; they add up to the total in every draw."""
    utilisation: float | None
    """Served over what all GPUs that are paid for would carry within the SLO, idle and spare ones too; None for an API."""
    capital_usd: Percentiles | None
    incomplete: tuple[str, ...]
    """What has no price: then the total is a least one, and the option cannot win."""
    terms: str = ""
    """`on-demand`, `reserved 12 months`, `colocation`, …"""
    paid_today: bool = False
    sources: tuple[str, ...] = ()
    """`what: source (date, how verified)`."""
    warnings: tuple[str, ...] = ()
    can_win: bool = True
    """False: listed only, as a spot machine or a consumer card is (the warnings say why), or incomplete."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakEven:
    """Where one option becomes cheaper than another."""

    option: str
    """Id of the rented or bought one."""
    against: str
    """Id of the alternative."""
    tokens_per_month: Percentiles | None
    """None: at no traffic that the option can carry."""
    utilisation: Percentiles | None
    """At that traffic, of what the `gpus` that it takes carry within the SLO; None: it would have to serve more than it can."""
    payback_month: Percentiles | None
    """Bought: the month in which its sum has fallen below the alternative's; None: not within its life."""
    chance_cheaper: float
    """Share of the draws in which the option is cheaper at the traffic as it is."""
    gpus: int | None = None
    """That would carry the traffic of the break-even, as they can be rented or bought: fewer than the option's where that
    traffic is less than today's. None: there is no break-even."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Influence:
    """How much the answer moves with one input from its low to its high, everything else at its middle."""

    name: str
    low_value: float
    high_value: float
    unit: str
    usd_per_month_at_low: float
    usd_per_month_at_high: float
    asked: bool
    """Whether the user said this value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A rule of thumb of the field beside what the team's numbers say."""

    claim: str
    verdict: Literal["holds", "does not hold", "depends", "unknown"]
    computed: str
    """What was computed from the team's own numbers, in a sentence with its figures."""
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TurningPoint:
    """Something that would change the verdict."""

    what: str
    """In words: `a rental below 1.70 USD per GPU-hour`."""
    to: str
    """What the verdict would then be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanVerdict:
    """The one answer."""

    word: Word
    option: str
    """Id of the option that is advised; empty: undecided."""
    confidence: float
    """Share of the draws in which it is the cheapest of all complete options."""
    confidence_word: Literal["high", "medium", "low"]
    headline: str
    text: str
    would_change_it: tuple[TurningPoint, ...]
    ask_first: tuple[str, ...]
    """The inputs that were not given and that can change the verdict: rental quote and staffing first; empty: none can."""
    next_command: str
    doubts: tuple[str, ...] = ()
    """Stale, secondary or implausible facts that the verdict rests on, and whether another model will do."""
    confidence_reason: str = ""
    """Why the confidence word is what it is, in a sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Cost of one option over one quantity, at middle values: for plots."""

    option: str
    x: tuple[float, ...]
    """Values of what `over` names, ascending."""
    usd_per_month: tuple[float, ...]
    """One for each of `x`."""
    over: str = "tokens_per_month"
    """What `x` holds: the traffic in `curves`; in `sensitivity` the input that is varied, by its name:
    `rental_usd_per_gpu_hour` or `staff_fte`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanResult:
    """A whole plan."""

    version: int
    today: str
    summary: dict[str, str | float | int]
    """The asked traffic, model and SLO, for the head of a report."""
    options: tuple[PlanOption, ...]
    """Cheapest first; the incomplete ones last."""
    break_even: tuple[BreakEven, ...]
    tornado: tuple[Influence, ...]
    """Of the difference between the best owned or rented option and the API; most influential first."""
    sensitivity: tuple[Curve, ...]
    """Monthly cost of the best rented and bought options over the rental price and over staffing."""
    curves: tuple[Curve, ...]
    rules: tuple[Rule, ...]
    verdict: PlanVerdict
    assumptions: tuple[dict[str, str | float | bool], ...] = ()
    notes: tuple[str, ...] = field(default_factory=tuple)
    tornado_option: str = ""
    """Id of the option whose cost the tornado is of; empty: there is none."""
    tornado_against: str = ""
    """Id of the API that is taken off: the one in use, else of the same model, else the cheapest; empty: nothing is."""
    curves_at: str = "middle inputs"
    """What curves are worked out at; options and rules are the middle of the draws, which skewed inputs put elsewhere."""
