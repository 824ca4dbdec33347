"""Which request is next: by priority, then by tokens served so far, then short before long, each without starving. Pure.

Between callers this is the Virtual Token Counter (Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024,
arXiv:2401.00588) with weights: every start adds its cost to its caller's counter, the lowest counter goes first, and a
caller that comes back is lifted to near where the others are, so that no caller saves up more than a little. Costs are estimates at the start,
corrected when the real usage is known; a caller is lifted only to what the others really had, not to what is held for
requests of theirs that are under way. There are no clocks here and no limits: `queue` has those.
"""

from collections import OrderedDict
from collections.abc import Iterator
from operator import attrgetter
from typing import Generic, TypeVar

from freehold.gateway.callers.keys import PRIORITY_FIRST, PRIORITY_LAST

PASSED_MAX = 16
"""Starts of other priorities after which a priority that waits has one start. Source: our own choice: the lowest is
promised a seventeenth. Counted in starts and not in seconds, since in an overload all wait equally long."""
KNOWN_MAX = 4096
"""Callers that are remembered for what they had though nothing of them is here. Source: our own bound."""
LONG = 4.0
"""How many times the usual cost makes a request long. Source: our own choice."""

Owner = TypeVar("Owner")


class Claim(Generic[Owner]):
    """One request that waits for its start."""

    __slots__ = ("arrived_s", "cost_tokens", "deadline_s", "flow", "long", "owner")

    def __init__(
        self, owner: Owner, flow: "Flow[Owner]", *, cost_tokens: int, arrived_s: float, deadline_s: float
    ) -> None:
        self.owner = owner
        self.flow = flow
        self.cost_tokens = cost_tokens
        self.arrived_s = arrived_s
        self.deadline_s = deadline_s
        """When its whole answer must be there; infinity: whenever."""
        self.long = False

    def __repr__(self) -> str:
        return f"<Claim of {self.flow.caller!r}, {self.cost_tokens} tokens>"


class _Lane(Generic[Owner]):
    """The claims of one flow that are short, or long, in the order of their arrival."""

    __slots__ = ("claims", "served", "tokens")

    def __init__(self) -> None:
        self.claims: OrderedDict[Claim[Owner], None] = OrderedDict()
        self.tokens = 0
        self.served = 0
        """Tokens started out of this lane, lifted as counters are."""


class Flow(Generic[Owner]):
    """One caller at one priority: what it was given and what waits of it."""

    __slots__ = ("_shift", "caller", "counter", "held_tokens", "lanes", "priority", "under_way", "waiting",
                 "waiting_tokens", "weight")  # fmt: skip

    def __init__(self, caller: str, priority: int) -> None:
        self.caller = caller
        self.priority = priority
        self.weight = 1.0
        self.counter = 0.0
        """Tokens started, over the weight; comparable between flows of one line only."""
        self.under_way = 0
        self.held_tokens = 0
        """What is charged for requests under way, whose real usage is not known."""
        self.waiting = 0
        self.waiting_tokens = 0
        self.lanes: tuple[_Lane[Owner], _Lane[Owner]] = (_Lane(), _Lane())
        self._shift = 1.0

    def __repr__(self) -> str:
        return f"<Flow {self.caller!r} at {self.priority}: {self.waiting} wait, counter {self.counter:.0f}>"

    @property
    def settled(self) -> float:
        """Return the counter without what is under way."""
        return self.counter - self.held_tokens / self.weight

    def shift(self, part: float) -> None:
        """Let the caller have only that part (above 0) of its weight here, since it waits elsewhere too; 1 is all."""
        self.weight *= part / self._shift
        self._shift = part

    def weigh(self, weight: float) -> None:
        """Take a weight over, as it is everywhere together."""
        self.weight = weight * self._shift

    def start(self, cost_tokens: int) -> None:
        """Charge a start."""
        self.under_way += 1
        self.held_tokens += cost_tokens
        self.counter += cost_tokens / self.weight

    def head(self) -> Claim[Owner]:
        """Return the claim that goes first: the first of the lane that was served less."""
        short, long = self.lanes
        lane = short if short.claims and (not long.claims or short.served <= long.served) else long
        return next(iter(lane.claims))

    def newest_first(self) -> Iterator[Claim[Owner]]:
        """Yield what waits in the order in which it is to give way: the newest first, long ones before short ones."""
        short, long = self.lanes
        yield from reversed(long.claims)
        yield from reversed(short.claims)

    def put(self, claim: Claim[Owner]) -> None:
        """Let a claim wait at the end of its lane."""
        lane, other = self.lanes[claim.long], self.lanes[not claim.long]
        if not lane.claims:
            lane.served = max(lane.served, other.served) if other.claims else 0
        lane.claims[claim] = None
        lane.tokens += claim.cost_tokens
        self.waiting += 1
        self.waiting_tokens += claim.cost_tokens

    def before_tokens(self, *, long: bool) -> int:
        """Return the tokens of this flow that would start before one more claim, short or long."""
        lane, other = self.lanes[long], self.lanes[not long]
        served = lane.served if lane.claims else other.served
        return lane.tokens + min(other.tokens, max(0, served + lane.tokens - other.served))

    def remove(self, claim: Claim[Owner]) -> None:
        """Forget a claim that waits."""
        lane = self.lanes[claim.long]
        del lane.claims[claim]
        lane.tokens -= claim.cost_tokens
        self.waiting -= 1
        self.waiting_tokens -= claim.cost_tokens


class _Rank(Generic[Owner]):
    """The flows of one priority of which something waits."""

    __slots__ = ("flows", "passed", "tokens")

    def __init__(self) -> None:
        self.flows: dict[Flow[Owner], None] = {}
        self.passed = 0
        """Starts of other priorities since the last start of this one."""
        self.tokens = 0


class FairQueue(Generic[Owner]):
    """The order in which claims start. Each choice looks at every caller that waits, once."""

    __slots__ = ("_flows", "_last", "_ranks", "credit_tokens")

    def __init__(self) -> None:
        self._flows: dict[tuple[str, int], Flow[Owner]] = {}
        self._ranks: dict[int, _Rank[Owner]] = {}
        self._last: dict[int, Flow[Owner]] = {}
        self.credit_tokens = 0.0
        """How far behind the others a caller that comes back may be put, tokens; the caller of this class keeps it up."""

    def __repr__(self) -> str:
        return f"<FairQueue {len(self._flows)} flows known, priorities that wait: {sorted(self._ranks)}>"

    def flow(self, caller: str, weight: float, priority: int) -> Flow[Owner]:
        """Return a caller's flow, made where it is not known; its weight is taken over."""
        flow = self._flows.get((caller, priority)) or self._new_flow(caller, priority)
        if weight != flow.weight:
            flow.weigh(weight)
        return flow

    def _new_flow(self, caller: str, priority: int) -> Flow[Owner]:
        # A priority outside counts as the nearest one.
        bounded = max(PRIORITY_FIRST, min(PRIORITY_LAST, priority))
        flow = self._flows.get((caller, bounded)) or Flow(caller, bounded)
        return self._flows.setdefault((caller, bounded), flow)

    def waiting(self) -> Iterator[Flow[Owner]]:
        """Yield the flows of which something waits."""
        for rank in self._ranks.values():
            yield from rank.flows

    def charge(self, flow: Flow[Owner], cost_tokens: int) -> None:
        """Count a start while no request waits."""
        if self._last.get(flow.priority) is not flow:
            self._lift(flow)
            self._last[flow.priority] = flow
        # As `start` does; a call less, since every request passes here.
        flow.under_way += 1
        flow.held_tokens += cost_tokens
        flow.counter += cost_tokens / flow.weight

    def _lift(self, flow: Flow[Owner]) -> None:
        flow.counter = max(flow.counter, self._level(flow) - self.credit_tokens / flow.weight)

    def _level(self, flow: Flow[Owner]) -> float:
        """Return where `flow`, of which nothing waits, joins: at the least of those that wait, or where the last was."""
        rank = self._ranks.get(flow.priority)
        if rank is not None:
            return min(other.settled for other in rank.flows)
        last = self._last.get(flow.priority, flow)
        return last.settled if last is not flow else 0.0

    def put(self, claim: Claim[Owner]) -> None:
        """Let a claim wait for its turn."""
        flow = claim.flow
        if not flow.waiting:
            self._lift(flow)
        flow.put(claim)
        rank = self._ranks.get(flow.priority)
        if rank is None:
            rank = self._ranks[flow.priority] = _Rank()
        rank.flows[flow] = None
        rank.tokens += claim.cost_tokens

    def remove(self, claim: Claim[Owner]) -> None:
        """Forget a claim that waits."""
        flow = claim.flow
        rank = self._ranks[flow.priority]
        flow.remove(claim)
        rank.tokens -= claim.cost_tokens
        if not flow.waiting:
            del rank.flows[flow]
            if not rank.flows:
                del self._ranks[flow.priority]

    def next(self) -> Claim[Owner] | None:
        """Return the claim whose turn it is, and leave it where it is; None: nothing waits."""
        if not self._ranks:
            return None
        flows = self._ranks[self._next_priority()].flows
        return min(flows, key=_counter).head()

    def _next_priority(self) -> int:
        if len(self._ranks) == 1:
            return next(iter(self._ranks))
        longest_passed = max(self._ranks, key=lambda priority: (self._ranks[priority].passed, -priority))
        return longest_passed if self._ranks[longest_passed].passed >= PASSED_MAX else min(self._ranks)

    def take(self, claim: Claim[Owner]) -> None:
        """Start the claim that `next` gave."""
        flow = claim.flow
        for priority, rank in self._ranks.items():
            rank.passed = 0 if priority == flow.priority else rank.passed + 1
        flow.lanes[claim.long].served += claim.cost_tokens
        self.remove(claim)
        self._last[flow.priority] = flow
        flow.start(claim.cost_tokens)

    def ahead_tokens(self, flow: Flow[Owner], *, long: bool) -> float:
        """Return the tokens that wait now and would start before one more claim of `flow`."""
        before = flow.before_tokens(long=long)
        if not flow.waiting:
            self._lift(flow)
        own = flow.counter + before / flow.weight
        total = float(before)
        for priority, rank in self._ranks.items():
            if priority < flow.priority:
                total += rank.tokens
            elif priority == flow.priority:
                others = (other for other in rank.flows if other is not flow)
                total += sum(min(o.waiting_tokens, max(0.0, (own - o.counter) * o.weight)) for o in others)
        return total

    def is_behind(self, flow: Flow[Owner]) -> bool:
        """Return whether some caller that waits at the same priority has had more than this one."""
        rank = self._ranks.get(flow.priority)
        return rank is not None and any(other.counter > flow.counter for other in rank.flows)

    def heaviest_first(self) -> Iterator[Flow[Owner]]:
        """Yield the flows in the order in which they are to give way: the last priority first, then by the most that waits."""
        for priority in sorted(self._ranks, reverse=True):
            yield from sorted(self._ranks[priority].flows, key=_share, reverse=True)

    def tidy(self) -> None:
        """Forget idle callers where that changes no caller's turn; called now and then."""
        idle = [key for key, flow in self._flows.items() if not flow.waiting and not flow.under_way]
        quiet = len(idle) == len(self._flows)
        forgive = quiet or len(self._flows) > KNOWN_MAX
        if quiet:
            self._last.clear()
        levels = {priority: last.settled for priority, last in self._last.items()}
        levels |= {priority: min(f.settled for f in rank.flows) for priority, rank in self._ranks.items()}
        for caller, priority in idle:
            flow = self._flows[caller, priority]
            owes = flow.counter > levels.get(priority, 0.0)
            if forgive or not (owes or self._last.get(priority) is flow):
                del self._flows[caller, priority]


_counter = attrgetter("counter")


def _share(flow: Flow[Owner]) -> float:
    return flow.waiting_tokens / flow.weight
