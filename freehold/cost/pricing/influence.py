"""What the answer depends on: one input at a time from its low to its high, everything else at its middle.

The inputs are found by watching which ones the cost lines ask for, so that no line's input is forgotten. Inputs that
move together are not moved together here: the draws do that.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from freehold.core.spread import Spread
from freehold.cost.model.case import CostSetting, Offer
from freehold.cost.model.draw import Keeper, Middle, Vector
from freehold.cost.model.result import Influence
from freehold.cost.pricing.price import middle_usd, price


@dataclass(frozen=True, slots=True)
class Watcher(Keeper):
    """A sampler of middle values that remembers what it was asked for."""

    seen: dict[str, Spread] = field(default_factory=dict)
    _middle: Middle = field(default_factory=Middle)

    def take(self, name: str, spread: Spread) -> Vector:
        """Return the middle value, and remember the input."""
        self.seen.setdefault(name, spread)
        return self._middle.take(name, spread)


def inputs_of(setting: CostSetting, *offers: Offer) -> dict[str, Spread]:
    """Return the inputs that the prices of these options depend on, by name."""
    watcher = Watcher()
    for offer in offers:
        price(offer, setting, draws=watcher)
    return watcher.seen


def tornado(
    mine: Offer,
    other: Offer | None,
    *,
    setting: CostSetting,
    spans: Mapping[str, Spread],
    given: frozenset[str],
) -> tuple[Influence, ...]:
    """Return the influences on the difference of two options (mine less the other), the greatest first.

    `spans` overrides the range of some inputs; `given` names those that the user gave. Without another option it is
    the option's own cost.
    """
    offers = (mine, other) if other else (mine,)
    found = [
        _influence(name, spans.get(name, spread), lambda held: _difference(mine, other, setting, held), given)
        for name, spread in inputs_of(setting, *offers).items()
    ]
    moving = [each for each in found if each.usd_per_month_at_low != each.usd_per_month_at_high]
    return tuple(
        sorted(moving, key=lambda each: -abs(each.usd_per_month_at_high - each.usd_per_month_at_low))
    )


def _influence(
    name: str, spread: Spread, difference: Callable[[Middle], float], given: frozenset[str]
) -> Influence:
    return Influence(
        name=name.rsplit(":", maxsplit=1)[-1],
        low_value=spread.low,
        high_value=spread.high,
        unit=unit_of(name),
        usd_per_month_at_low=difference(Middle(values={name: spread.low})),
        usd_per_month_at_high=difference(Middle(values={name: spread.high})),
        asked=name in given,
    )


def _difference(mine: Offer, other: Offer | None, setting: CostSetting, held: Middle) -> float:
    return middle_usd(mine, setting, held=held) - (middle_usd(other, setting, held=held) if other else 0.0)


def unit_of(name: str) -> str:
    """Return the unit that an input's name ends with, in words."""
    words = name.rsplit(":", maxsplit=1)[-1].split("_")
    if "usd" in words:
        return " ".join(["USD", *words[words.index("usd") + 1 :]])
    if "per" in words:
        return " ".join(words[words.index("per") - 1 :])
    return words[-1]
