"""Ways of serving (an API, renting, buying), how often each is the cheapest, and the same decision made again: what if.

What an input would change is found by deciding again with that input moved, over fewer of the same draws: so a threshold
is one of the verdict and not of two options. What the answer is called and why is not said here.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce

import numpy as np

from freehold.cost.model.case import CostSetting, Offer
from freehold.cost.model.draw import Draws, HeldDraws, Vector
from freehold.cost.model.inputs import PlanInputs
from freehold.cost.model.offers import offers_of
from freehold.cost.model.percentiles import cheapest_shares
from freehold.cost.model.result import Word
from freehold.cost.pricing.price import middle_usd, price
from freehold.cost.pricing.ranking import Ranked, Ranking
from freehold.sizing.model.words import Engine
from freehold.sizing.replica.answer import SizedFleet

UNDECIDED_BELOW = 0.6
"""How often the advised way must be the cheapest. Our own choice: 3 in 5 is a lean."""
AGAIN_DRAWS = 2000
"""For deciding again. Source: the share of so many is known to a point, and a threshold is shown in three digits."""
OPTIONS_KEPT = 8
"""Of one way, when one price or assumption is moved: the cheapest ones. Our own choice: the ninth would have to overtake all."""


PEOPLE = "staff_fte"
"""The input that people are where they are given, for machines rented or bought."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """A way of serving: its word, its options cheapest first, and the share of draws in which it is the cheapest."""

    word: Word
    options: tuple[Ranked, ...]
    share: float

    @property
    def best(self) -> Ranked:
        """Return its cheapest option."""
        return self.options[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lead:
    """The way that is most often the cheapest, its cheapest option at middle values, and the shares of all ways."""

    word: Word
    offer: Offer
    shares: Mapping[Word, float]


def alternatives_of(ranking: Ranking) -> list[Alternative]:
    """Return the ways of serving of which an option may win, the one most often the cheapest first."""
    groups: dict[Word, list[Ranked]] = {}
    for each in ranking.options:
        if each.may_win:
            groups.setdefault(word_of(each.offer, ranking.inputs), []).append(each)
    shares = cheapest_shares([_least([each.priced.total for each in group]) for group in groups.values()])
    ways = [
        Alternative(word=word, options=tuple(group), share=share)
        for (word, group), share in zip(groups.items(), shares, strict=True)
    ]
    return sorted(ways, key=lambda way: -way.share)


def _least(totals: Sequence[Vector]) -> Vector:
    return reduce(np.minimum, totals)


def word_of(offer: Offer, inputs: PlanInputs) -> Word:
    """Return the verdict's word for an option; where the API in use is not given, any API is staying with one."""
    if offer.kind == "api":
        return "stay" if offer.paid_today or not inputs.paid_today else "change-api"
    return offer.kind


@dataclass(slots=True)
class Again:
    """The decision of a plan, made again with some inputs held or at another traffic."""

    ranking: Ranking
    people_said: bool = False
    """As if the user had said how many people there are, rented or bought: the one input `PEOPLE`."""
    _setting: CostSetting = field(init=False)
    _draws: Draws = field(init=False)
    _near: dict[Word, list[Offer]] = field(init=False)
    _all: dict[Word, list[Offer]] = field(init=False)

    def __post_init__(self) -> None:
        """Sort out who can win where one input moves, and where the traffic does."""
        inputs = self.ranking.inputs
        self._setting = _people_said(self.ranking.setting) if self.people_said else self.ranking.setting
        self._draws = Draws(min(inputs.draws, AGAIN_DRAWS), inputs.seed)
        ways = alternatives_of(self.ranking)
        self._near = {way.word: [each.offer for each in way.options[:OPTIONS_KEPT]] for way in ways}
        self._all = {way.word: list(_cheapest_of_each_fleet(way.options)) for way in ways}

    def word(self, held: Mapping[str, float] | None = None, *, scale: float = 1.0) -> Word:
        """Return the verdict's word with these inputs at these values, or at so many times the traffic."""
        draws, groups = HeldDraws(self._draws, held or {}), self._near if scale == 1 else self._all
        totals = [self._least_of(group, draws, scale) for group in groups.values()]
        shares = dict(zip(groups, cheapest_shares(totals), strict=True))
        lead = max(shares, key=lambda word: shares[word], default=None)
        return lead if lead is not None and shares[lead] >= UNDECIDED_BELOW else "undecided"

    def _least_of(self, group: Sequence[Offer], draws: HeldDraws, scale: float) -> Vector:
        setting = self._setting
        priced = (price(each, setting, draws=draws, tokens_scale=scale, fleet_scale=scale) for each in group)
        return _least([each.total for each in priced])


def ways_by_engine(ranking: Ranking) -> dict[Engine, Lead]:
    """Return the way that is most often the cheapest if one engine ran everywhere, by engine.

    Only the least fleet of each GPU is looked at, and of its offers the cheapest ones at middle values: over fewer draws.
    """
    found = {}
    apis = [each.offer for each in ranking.options if each.offer.kind == "api" and each.may_win]
    for engine, fleets in ranking.inputs.by_engine.items():
        least: dict[str, SizedFleet] = {}
        for each in sorted(fleets, key=lambda fleet: fleet.gpus):
            least.setdefault(each.sized.ask.gpu.id, each)
        offers = offers_of(replace(ranking.inputs, fleets=tuple(least.values()), apis=()))
        machines = [each for each in offers if each.complete and each.eligible]
        if machines:
            found[engine] = _lead([*apis, *machines], ranking)
    return found


def _lead(offers: Sequence[Offer], ranking: Ranking) -> Lead:
    setting, draws = ranking.setting, Draws(AGAIN_DRAWS, ranking.inputs.seed)
    groups: dict[Word, list[Offer]] = {}
    for each in sorted(offers, key=lambda offer: middle_usd(offer, setting)):
        groups.setdefault(word_of(each, ranking.inputs), []).append(each)
    totals = [
        _least([price(each, setting, draws=draws).total for each in group[:OPTIONS_KEPT]])
        for group in groups.values()
    ]
    shares = dict(zip(groups, cheapest_shares(totals), strict=True))
    word = max(shares, key=lambda each: shares[each])
    return Lead(word=word, offer=groups[word][0], shares=shares)


def _people_said(setting: CostSetting) -> CostSetting:
    own, rent = setting.own, setting.rent
    people = replace(own.staff_fte, name=PEOPLE, asked=True)
    return replace(setting, own=replace(own, staff_fte=people), rent=replace(rent, staff_fte=people))


def _cheapest_of_each_fleet(options: Sequence[Ranked]) -> Iterator[Offer]:
    """Yield the options but for dearer rentals of a fleet: at any traffic the same rental of it is the cheapest."""
    seen: set[int] = set()
    for each in options:
        fleet = id(each.offer.fleet)
        if each.offer.fleet is None or fleet not in seen:
            seen.add(fleet)
            yield each.offer
