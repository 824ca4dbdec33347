"""The queue in front of one model's targets: which requests may wait, for how long, and which are rejected. Pure.

A request starts at once where there is room. Else it waits, if it can be expected to start in time and the queue has room for
it. Otherwise it is rejected at once, with the time after which a retry is worthwhile. Three bounds always hold: requests,
tokens and time. The largest waiting request does not count in the bound on tokens: it may wait whatever its size, and no other
request is rejected for it. In an overload (`overload.Overload`) the time is short, so that what is started is answered while
its client still waits; in a burst it is long, so that all of it is served. Order is `fair_queue`'s business, room is
`concurrency_limit`'s. Nothing here knows sockets, tasks or clocks: the time is an argument, and the results are which requests
to start and which to reject.
"""

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from itertools import takewhile
from math import inf
from typing import Generic, Literal

from freehold.gateway.queue.fair_queue import LONG, Claim, FairQueue, Flow, Owner
from freehold.gateway.queue.overload import Overload, QueueRate

Reason = Literal[
    "queue_full",  # as many requests, or tokens, wait as may wait
    "pushed_out",  # it gave its place to a caller that has less here, or a higher priority
    "wait_too_long",  # it would have to wait longer than a request may
    "waited_too_long",  # it did
    "deadline_too_close",  # it could not be answered by its own deadline
    "deadline_passed",  # its own deadline came while it waited
    "no_replica",  # no target is left that it could wait for
]
STARTS_IN_OVERLOAD = 2.0
"""In an overload a request may wait at least as long as this many starts take, so that a request is there to start when
a slot is free. Source: our own choice."""
LIGHT = 1.6
"""How many times longer than others a caller may wait in an overload, if another waiting caller has had more. Its turn comes
soon, but slots often come free several at a time, one answer's length apart. Source: our own choice, by simulation:
beside a greedy caller, of callers that ask for four fifths of their share 7 % were rejected without it, 4 % with it, where an
answer takes as long as `overload_wait`."""
# Source of the next: our own choice. Without credit, by simulation, one in twenty of callers that ask for four fifths of
# their share came in a clump and was refused; with more credit than this nothing is gained.
CREDIT_S = 2.0
"""What a caller may save up while it asks for less than its share, in seconds of all that the model serves."""
_LEARN_EVERY = 4  # While no request waits, one of so many is measured.
RETRY_AFTER_S_MIN = 1.0
"""Shortest retry time of a rejection, seconds. Source: Retry-After counts whole seconds (RFC 9110 10.2.3)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueBounds:
    """The bounds of a queue."""

    max_requests: int = 512
    """Requests of the model that wait."""
    max_tokens: int = 1_000_000
    """Cost of what waits, without the largest waiting request, tokens."""
    max_wait_s: float = 20.0
    overload_wait_s: float = 1.0
    """Longest wait while more comes than goes, seconds."""


@dataclass(frozen=True, slots=True)
class TurnedAway(Generic[Owner]):
    """A rejected request, the reason, and after how many seconds a retry is worthwhile."""

    claim: Claim[Owner]
    reason: Reason
    retry_after_s: float


class RequestQueue(Generic[Owner]):
    """One model's queue."""

    __slots__ = ("_arrivals", "_due", "_ended", "_overload", "_pace", "_serial", "_sizes", "bounds", "places", "tokens",
                 "turns", "under_way", "waiting")  # fmt: skip

    def __init__(self, bounds: QueueBounds) -> None:
        self.bounds = bounds
        self.turns: FairQueue[Owner] = FairQueue()
        self.under_way = 0
        """Requests that were started and are not over."""
        self.waiting = 0
        self.tokens = 0
        """Cost of what waits."""
        self.places = 1
        """Requests that all targets together may work on; the caller keeps it up."""
        self._pace = QueueRate()
        self._overload = Overload()
        self._arrivals: OrderedDict[Claim[Owner], None] = OrderedDict()
        self._sizes: list[int] = []
        """Costs of what waits, the largest last."""
        self._due: list[tuple[float, int, Claim[Owner]]] = []
        self._serial = 0
        self._ended = 0

    def __repr__(self) -> str:
        return f"<RequestQueue {self.under_way} under way, {self.waiting} wait with {self.tokens} tokens>"

    # What starts at once

    def begin(self, flow: Flow[Owner], cost_tokens: int) -> None:
        """Count a start that did not have to wait; only while no request waits."""
        self.under_way += 1
        self.turns.charge(flow, cost_tokens)

    def end(
        self, flow: Flow[Owner], cost_tokens: int, *, service_s: float | None, really_tokens: int | None
    ) -> None:
        """Count a start as over.

        `service_s`: seconds from its start to its answer's end, None: there was none. `really_tokens`: what the engine
        counted, None: that is not known.
        """
        self.under_way -= 1
        flow.under_way -= 1
        flow.held_tokens -= cost_tokens
        if really_tokens is not None:
            flow.counter += (really_tokens - cost_tokens) / flow.weight
        self._ended += 1
        if service_s is not None and (self.waiting or not self._ended % _LEARN_EVERY):
            self._pace.ended(cost_tokens, service_s)

    # What waits

    def offer(self, claim: Claim[Owner], now_s: float) -> list[TurnedAway[Owner]]:
        """Let a claim wait, and return what is rejected for that: nothing, the claim itself, or claims that give way to it."""
        rate = self._pace.tokens_per_s(self.places)
        self._overload.came(claim.cost_tokens, now_s, rate)
        usual_tokens = self._pace.mean_tokens
        claim.long = bool(usual_tokens) and claim.cost_tokens > LONG * usual_tokens
        self.turns.credit_tokens = CREDIT_S * rate
        reason = self._hopeless(claim, now_s)
        if reason is not None:
            return [self._turned(claim, reason)]
        victims: list[Claim[Owner]] = []
        if self._is_full(claim.cost_tokens, self._sizes, self.tokens):
            victims = self._who_give_way(claim)
            if not victims:
                return [self._turned(claim, "queue_full")]
        gone = [self._turn(victim, "pushed_out") for victim in victims]
        self._put(claim, now_s)
        return gone

    def _hopeless(self, claim: Claim[Owner], now_s: float) -> Reason | None:
        wait_s = self._wait_s(claim)
        if wait_s > self._bound_s() * self._patience(claim.flow):
            return "wait_too_long"
        if now_s + wait_s + self._pace.service_s(claim.cost_tokens) > claim.deadline_s:
            return "deadline_too_close"
        return None

    def _is_full(self, cost_tokens: int, sizes: list[int], tokens: int) -> bool:
        """Return whether one more of that cost is too much in addition to waiting ones of these costs (sorted) and their sum."""
        if not sizes:
            return False
        over = tokens + cost_tokens - max(cost_tokens, sizes[-1]) > self.bounds.max_tokens
        return over or len(sizes) >= self.bounds.max_requests

    def _who_give_way(self, claim: Claim[Owner]) -> list[Claim[Owner]]:
        """Return the claims whose places a new one takes: of later priorities, or of callers that keep as much as it has.

        Empty: all that may be taken is not enough. Source of the rule for equals: longest queue drop (Suter et al., "Buffer
        management schemes for supporting TCP in gigabit routers with per-flow queueing", IEEE JSAC 17:6, 1999). So a caller
        that waits with less than half of the bound is not refused for the tokens of one other caller of its weight.
        """
        sizes, tokens = self._sizes.copy(), self.tokens
        victims: list[Claim[Owner]] = []
        for other, least_tokens in self._who_may_give_way(claim):
            left_tokens = other.waiting_tokens
            for victim in other.newest_first():
                if left_tokens - victim.cost_tokens < least_tokens:
                    continue
                left_tokens -= victim.cost_tokens
                tokens -= victim.cost_tokens
                del sizes[bisect_left(sizes, victim.cost_tokens)]
                victims.append(victim)
                if not self._is_full(claim.cost_tokens, sizes, tokens):
                    return victims
        return []

    def _who_may_give_way(self, claim: Claim[Owner]) -> Iterator[tuple[Flow[Owner], float]]:
        """Yield the flows that may have to give way to a claim, with the tokens that each keeps in any case."""
        flow, smallest_tokens = claim.flow, self._sizes[0]
        share = (flow.waiting_tokens + claim.cost_tokens) / flow.weight
        for other in self.turns.heaviest_first():
            least_tokens = share * other.weight if other.priority == flow.priority else 0.0
            spare_tokens = other.waiting_tokens - least_tokens
            if other is flow or other.priority < flow.priority or spare_tokens < smallest_tokens:
                return  # each flow after it has less, or goes first
            yield other, least_tokens

    def _put(self, claim: Claim[Owner], now_s: float) -> None:
        if not self.waiting:
            self._pace.stands(now_s)
        self.turns.put(claim)
        self._arrivals[claim] = None
        self.waiting += 1
        self.tokens += claim.cost_tokens
        insort(self._sizes, claim.cost_tokens)
        if claim.deadline_s < inf:
            self._note_deadline(claim)

    def _note_deadline(self, claim: Claim[Owner]) -> None:
        self._serial += 1
        if len(self._due) > 2 * self.waiting + 64:  # claims that left are still in it: keep it bounded
            self._due = [due for due in self._due if due[2] in self._arrivals]
            heapify(self._due)
        start_by_s = claim.deadline_s - self._pace.service_s(claim.cost_tokens)
        heappush(self._due, (start_by_s, self._serial, claim))

    def next(self) -> Claim[Owner] | None:
        """Return the claim whose turn it is, if any waits; it keeps waiting until `take`."""
        return self.turns.next()

    def take(self, claim: Claim[Owner], now_s: float) -> None:
        """Start the claim that `next` gave."""
        self.turns.take(claim)
        self.under_way += 1
        self._pace.started(claim.cost_tokens, now_s)
        self._forget(claim)

    def remove(self, claim: Claim[Owner]) -> None:
        """Forget a claim whose client left."""
        self.turns.remove(claim)
        self._forget(claim)

    def _forget(self, claim: Claim[Owner]) -> None:
        del self._arrivals[claim]
        self.waiting -= 1
        self.tokens -= claim.cost_tokens
        del self._sizes[bisect_left(self._sizes, claim.cost_tokens)]
        if not self.waiting:
            self._pace.empty()
            self._overload.empty()
            self._due.clear()

    def expire(self, now_s: float) -> list[TurnedAway[Owner]]:
        """Reject, and return, the claims that waited too long; called often while something waits."""
        gone: list[TurnedAway[Owner]] = []
        bound_s = self._bound_s()
        for claim in list(takewhile(lambda claim: claim.arrived_s <= now_s - bound_s, self._arrivals)):
            if claim.arrived_s <= now_s - bound_s * self._patience(claim.flow):
                gone += [self._turn(claim, "waited_too_long")]
        while self._due and self._due[0][0] <= now_s:
            claim = heappop(self._due)[2]
            if claim in self._arrivals:
                gone.append(self._turn(claim, "deadline_passed"))
        return gone

    def clear(self, hopeless: Callable[[Owner], bool] = lambda _owner: True) -> list[TurnedAway[Owner]]:
        """Reject, and return, the claims without a target: all of them, or those that are `hopeless`."""
        return [self._turn(claim, "no_replica") for claim in list(self._arrivals) if hopeless(claim.owner)]

    def _turn(self, claim: Claim[Owner], reason: Reason) -> TurnedAway[Owner]:
        turned = self._turned(claim, reason)
        self.remove(claim)
        return turned

    def _turned(self, claim: Claim[Owner], reason: Reason) -> TurnedAway[Owner]:
        rate = self._pace.tokens_per_s(self.places)
        return TurnedAway(claim, reason, max(RETRY_AFTER_S_MIN, self.tokens / rate if rate else 0.0))

    # How things are

    def tidy(self, now_s: float) -> None:
        """Forget what is over: an overload without new requests, callers that are gone; called now and then."""
        self.turns.tidy()
        if not self.waiting:
            self._overload.fade(now_s)

    @property
    def overloaded(self) -> bool:
        """Return whether more comes than goes, so that waits are kept short."""
        return self._overload.on

    def _bound_s(self) -> float:
        bounds = self.bounds
        if not self._overload.on:
            return bounds.max_wait_s
        rate = self._pace.tokens_per_s(self.places)
        starts_s = STARTS_IN_OVERLOAD * self._pace.mean_tokens / rate if rate else 0.0
        return min(bounds.max_wait_s, max(bounds.overload_wait_s, starts_s))

    def _patience(self, flow: Flow[Owner]) -> float:
        """Return how many times the bound on waits holds for one caller."""
        return LIGHT if self._overload.on and self.turns.is_behind(flow) else 1.0

    def _wait_s(self, claim: Claim[Owner]) -> float:
        """Return how long a claim would wait, seconds; 0 also while that is not known."""
        rate = self._pace.tokens_per_s(self.places)
        return self.turns.ahead_tokens(claim.flow, long=claim.long) / rate if rate else 0.0
