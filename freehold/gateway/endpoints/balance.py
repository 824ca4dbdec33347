"""Which of the endpoints with room gets a request: the one that has its prompt's beginning in cache, or the idlest. Pure.

Load is tokens under way over the requests that an endpoint may be given at once: four long prompts are more than four
short ones, and eight slots take twice what four do. A conversation goes to its home on a ring (consistent hashing with
bounded loads) as long as the home carries at most a quarter more than the mean, so that its prefix is computed once.
It does not know which endpoints answer: `outlier_detection` does.
"""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Protocol, TypeVar

LOAD_MAX = 1.25
"""How much of the mean load an endpoint may carry and still be given a conversation because of its cache. Source: the c
of Mirrokni, Thorup and Zadimoghaddam, "Consistent Hashing with Bounded Loads" (SODA 2018, arXiv:1608.01350), at the
1.25 with which Vimeo took it into HAProxy (hash-balance-factor; Rodland, 2016)."""
_POINTS = 128
"""Points on the ring of the endpoint with the most slots, others in proportion. Source: our own choice: the largest
share of the ring is then about a tenth over the mean (deviation 1/sqrt(128))."""


class RoutingLoad(Protocol):
    """The load of a candidate; `queue.concurrency_limit.ConcurrencyLimit` is one."""

    limit: int
    tokens: int


class RoutingCandidate(Protocol):
    """An endpoint with room; `target.UpstreamTarget` is one."""

    id: str

    @property
    def gate(self) -> RoutingLoad:
        """Return its limit (requests at once, at least 1) and the tokens under way there."""


C = TypeVar("C", bound=RoutingCandidate)


def choose(candidates: Sequence[C], *, turn: int) -> C | None:
    """Return the candidate with the least outstanding tokens for its limit, or None when there is none.

    `turn` counts requests: ties go round, so that idle replicas share the work.
    """
    count = len(candidates)
    if not count:
        return None
    turn %= count
    best = candidates[turn]
    least = best.gate.tokens / best.gate.limit
    for candidate in (*candidates[turn + 1 :], *candidates[:turn]):
        gate = candidate.gate
        load = gate.tokens / gate.limit
        if load < least:
            best, least = candidate, load
    return best


class Ring:
    """The homes of conversations: points in proportion to slots, so that an endpoint that joins or leaves moves only its own share."""

    __slots__ = ("_ids", "_points")

    def __init__(self, slots: Mapping[str, int]) -> None:
        """Take each endpoint's slots by its id; 0 is unknown and counts as the most that another one has."""
        most = max(slots.values(), default=0) or 1
        points = sorted(
            (point, name)
            for name, count in slots.items()
            for point in _points(name, max(1, _POINTS * (count or most) // most))
        )
        self._points = [point for point, _ in points]
        self._ids = [name for _, name in points]

    def __repr__(self) -> str:
        return f"<Ring of {len(set(self._ids))} endpoints, {len(self._points)} points>"

    def walk(self, key: int) -> Iterator[str]:
        """Yield the endpoints' ids in the order in which they are asked to take `key` (32 bits), the home first."""
        ids = self._ids
        seen: set[str] = set()
        start = bisect_right(self._points, key)
        for at in range(start - len(ids), start):  # negative ones count from the end
            if ids[at] not in seen:
                seen.add(ids[at])
                yield ids[at]

    def home(self, key: int) -> str:
        """Return the first of `walk`; the ring must not be empty."""
        ids = self._ids
        at = bisect_right(self._points, key)
        return ids[at] if at < len(ids) else ids[0]


def _points(name: str, count: int) -> Iterator[int]:
    for number in range(count):
        yield int.from_bytes(blake2b(f"{name}#{number}".encode(), digest_size=4).digest())


def choose_by_key(
    candidates: Sequence[C], ring: Ring, *, key: int, cost_tokens: int, prompt_tokens: int = 0
) -> tuple[C, bool] | None:
    """Return the first on the ring that carries less than `LOAD_MAX` times its share of all tokens, and if it is home.

    The request's own cost counts among them, so that an idle endpoint always may. The home may carry the request's
    prompt more, since that is what another one would have to compute; without this, three requests at once on two
    replicas were enough to send conversations away (measured: docs/decisions/0005-routing.md). None: all that would
    are full.
    """
    tokens, limits = cost_tokens, 0
    for candidate in candidates:
        gate = candidate.gate
        tokens += gate.tokens
        limits += gate.limit
    bound = LOAD_MAX * tokens / limits if limits else 0.0
    home = ring.home(key)
    for candidate in candidates:
        if candidate.id == home:
            if candidate.gate.tokens - prompt_tokens < bound * candidate.gate.limit:
                return candidate, True
            break
    by_id = {candidate.id: candidate for candidate in candidates}
    for name in ring.walk(key):
        found = by_id.get(name)
        if found is not None and found.gate.tokens < bound * found.gate.limit:
            return found, name == home
    return None
