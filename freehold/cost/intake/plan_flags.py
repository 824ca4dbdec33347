"""The flags of `freehold plan` read into a record, and those that `size` and `review` share with it.

Names that only the catalog knows (models, GPUs, APIs, regions) are checked where the catalog is read. Nothing here
reads a file.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from freehold.core.spread import Spread
from freehold.cost.intake.flags import SITES, FlagReader, assumption_bounds, flags_in
from freehold.cost.intake.numbers import spread
from freehold.cost.intake.rental_quotes import Rentals

if TYPE_CHECKING:  # `freehold plan --help` need not wait for these
    from freehold.sizing.fleet.advise import Wish
    from freehold.sizing.replica.answer import MeasuredSpeed

DEFAULT_MODEL = "llama-3.1-8b"
USUAL_INPUT_TOKENS, USUAL_OUTPUT_TOKENS = 1500.0, 500.0
"""Of a mean request. Source: our own choice: a chat with a few turns, or a short document."""
USUAL_PEAK = 2.5
"""Busiest hour over the mean. Source: the middle of the diurnal range of 2 to 3 that public traces show; a history replaces it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanAsk:
    """What was asked, as [plan] of flags.toml says it; None or empty: not given."""

    usage: tuple[Path, ...] = ()
    usage_format: str = ""
    tokens_per_month: float | None = None
    input_share: float = 0.75
    """Of all tokens. Source: research takes 3 to 1 as a chat's mean mix."""
    input_tokens: float | None = None
    output_tokens: float | None = None
    cached_share: float | None = None
    batch_share: float | None = None
    peak: float | None = None
    growth: float = 0.0
    model: str = ""
    """Empty: not chosen."""
    slo_ttft_s: float = 2.0
    """Source: our own choice: what people wait for a chat's first word."""
    slo_itl_s: float = 0.05
    """Source: 20 tokens/s, some three times as fast as people read."""
    gpus: tuple[str, ...] = ()
    quants: tuple[str, ...] = ()
    engine: str = ""
    spares: int | None = None
    api: str = ""
    compare: tuple[str, ...] = ()
    region: str = "US"
    site: str = SITES[0]
    assumptions: dict[str, Spread] = field(default_factory=dict)
    """By the names of cost.model.inputs, what flags said."""
    rentals: Rentals = field(default_factory=dict)
    node: Spread | None = None
    prices: tuple[Path, ...] = ()
    model_config: Path | None = None
    wish: "Wish | None" = None
    """What the team wants of an engine."""
    measured: "tuple[MeasuredSpeed, ...]" = ()
    """Its own load tests."""


def chosen_model(ask: PlanAsk) -> str:
    """Return the model that was named; where neither a model nor a file of its shape was, the default one."""
    return ask.model or ("" if ask.model_config else DEFAULT_MODEL)


def read_plan_flags(
    given: Mapping[str, Any], reader: FlagReader, *, without: Collection[str] = ()
) -> PlanAsk:
    """Return what the flags say, as the command line passes them; problems are in the reader. `without`: what means something else."""
    flags = flags_in("plan")
    found = reader.fields({name: flag for name, flag in flags.items() if name not in without}, given)
    if "input_tokens" in found and "output_tokens" in found:
        if "input_share" in found:
            message = "repeats what --input-tokens and --output-tokens give"
            reader.wrong("--input-output", message, "leave it out")
        found["input_share"] = found["input_tokens"] / (found["input_tokens"] + found["output_tokens"])
    return PlanAsk(**found, assumptions=_assumptions(given, reader))


def _assumptions(given: Mapping[str, Any], reader: FlagReader) -> dict[str, Spread]:
    """Return the assumptions that flags give; the same one twice with two values is a problem."""
    found: dict[str, Spread] = {}
    shown: dict[str, str] = {}
    for name, flag, text in _texts(given, reader):
        value = reader.take(spread(assumption_bounds(name)), flag, text)
        if name in shown and value is not None and value != found.get(name, value):
            reader.wrong(flag, f"{text} contradicts {shown[name]}", "give it once")
        elif value is not None:
            found[name], shown[name] = value, f"{flag}{'=' if ' ' in flag else ' '}{text}"
    return found


def _texts(given: Mapping[str, Any], reader: FlagReader) -> Iterator[tuple[str, str, str]]:
    """Yield the name, the flag and the text of each assumption that was given."""
    for flag in flags_in("assumptions").values():
        if not flag.several and given.get(flag.param) is not None:
            yield flag.fills, flag.name, given[flag.param]
    for text in given.get("set") or ():
        name, equals, number = (part.strip() for part in text.partition("="))
        if equals:
            yield name, f"--set {name}", number
        else:
            reader.wrong("--set", f"{text!r} has no =", "for example --set residual_fraction=10%..30%")
