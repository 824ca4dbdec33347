"""How much one target may work on at once: its known slots, or a limit found by watching its first bytes. Pure.

An engine that is given more than it can work on queues without a bound and without an order, so the rest waits in the
gateway's own queue. Where the slots are known they are the most; where they are not, the limit starts low, doubles
while the time to the first byte stays what it was (as TCP starts, RFC 5681), and follows Gradient2 from then on; past
it, one more is let in whenever every request there has had a first byte, since then none waits there. It does not decide
which request is next.
"""

from math import sqrt

START = 8
"""Limit of a target whose slots are unknown, requests. Source: our own choice, twice llama.cpp's usual four slots: low
enough not to drown a small engine before the first answers come, and eight answers double it."""
LIMIT_MAX = 1024
"""Largest limit that is found by watching. Source: vLLM's largest default of max_num_seqs."""
_UNNOTICED_S = 0.05
"""A first byte that comes sooner did not wait, seconds. Source: our own choice; what no reader notices."""
_WINDOW = 10  # Samples per adjustment. Source: concurrency-limits, WindowedLimit.DEFAULT_WINDOW_SIZE.
_SEEN_IDLE = 8  # While a target has little to do, one answer of so many is looked at. Source: our own choice.
# Source of the next three: Gradient2 in Netflix's concurrency-limits (Gradient2Limit: rttTolerance, smoothing, and the
# gradient's floor); the allowed queue is the square root of the limit, as in its predecessor GradientLimit.
_TOLERANCE = 1.5
_SMOOTHING = 0.2
_GRADIENT_MIN = 0.5
_RISE = 2 / 601  # Weight of one sample in the base. Source: Gradient2Limit's longWindow of 600.
_FALL = 0.2  # The same for a sample below it. Source: our own choice, as quick as the limit itself.
_BUSY = 0.9  # What is left of the limit after a "busy". Source: AIMDLimit's back-off ratio, same library.


class Gradient2:
    """A limit that follows the ratio of the usual to the present time to the first byte.

    Source: Gradient2 of Netflix's concurrency-limits ("Performance Under Load", Netflix technology blog, 2018). What
    differs: a window counts by its least sample, so that long prompts among short ones are not taken for a queue; streamed
    and whole answers have a base each, since the first byte of a whole answer is its end; and the base hardly follows
    what is taken for a queue, since with Gradient2's plain average a lasting overload becomes the new usual (simulated: a
    server with 4 slots was given 40).
    """

    __slots__ = ("_bases", "_least", "_most", "_samples", "_starting", "limit")

    def __init__(self, *, start: int, most: int) -> None:
        self.limit = float(start)
        self._most = most
        self._starting = start < most
        self._bases: dict[bool, _Base] = {}
        self._samples = 0
        self._least = 0.0

    def __repr__(self) -> str:
        return f"<Gradient2 {self.limit:.1f} of {self._most}{', starting' * self._starting}>"

    def sample(self, seconds: float, *, streamed: bool, in_flight: int) -> bool:
        """Take one time to the first byte, seconds, and return whether the limit was looked at again."""
        base = self._bases.get(streamed)
        if base is None:
            base = self._bases[streamed] = _Base(seconds)
        ratio = seconds / max(base.value, _UNNOTICED_S)
        base.add(seconds)
        self._least = min(self._least, ratio) if self._samples else ratio
        self._samples += 1
        if self._samples < min(_WINDOW, self.limit):
            return False
        self._samples = 0
        self._adjust(self._least, in_flight)
        return True

    def _adjust(self, ratio: float, in_flight: int) -> None:
        if in_flight < self.limit / 2:
            return  # an unused limit is no evidence about a higher one
        gradient = max(_GRADIENT_MIN, min(1.0, _TOLERANCE / max(ratio, _TOLERANCE)))
        if self._starting:
            self._starting = gradient == 1.0
            self._set(self.limit * (2 if self._starting else 0.5))
            return
        wanted = self.limit * gradient + sqrt(self.limit)
        self._set(self.limit * (1 - _SMOOTHING) + wanted * _SMOOTHING)

    def busy(self, in_flight: int) -> None:
        """Lower the limit: the target answered that it has no room."""
        self._starting = False
        self._set(min(self.limit, float(in_flight)) * _BUSY)

    def _set(self, limit: float) -> None:
        self.limit = max(1.0, min(float(self._most), limit))


class _Base:
    """The time to the first byte of a request that did not wait, as far as can be known: it falls fast and rises slowly."""

    __slots__ = ("value",)

    def __init__(self, value: float) -> None:
        self.value = value

    def add(self, value: float) -> None:
        rise = _RISE if value <= self.value * _TOLERANCE else _RISE / 10
        self.value += (value - self.value) * (_FALL if value < self.value else rise)


class ConcurrencyLimit:
    """The room at one target: requests under way and the tokens that they may need, each with its bound."""

    __slots__ = (
        "_awaited",
        "_gradient",
        "_most",
        "_seen",
        "_stale",
        "in_flight",
        "known",
        "limit",
        "token_budget",
        "tokens",
    )

    def __init__(self, *, slots: int, token_budget: int = 0) -> None:
        """Take the slots (0: unknown) and the tokens of context that fit at once (0: unknown)."""
        self.known = slots > 0
        self._most = slots or LIMIT_MAX
        self._gradient = Gradient2(start=slots or START, most=self._most)
        self.limit = slots or START
        """Requests that may be under way now; never over the slots, where these are known."""
        self.token_budget = token_budget
        self.in_flight = 0
        self.tokens = 0
        self._awaited = 0  # of those, the ones without a first byte yet
        self._seen = 0
        self._stale = 0  # first bytes to come that were sent for under a higher limit, and are no evidence about this one

    def __repr__(self) -> str:
        return f"<ConcurrencyLimit {self.in_flight} of {self.limit}, {self.tokens} tokens of {self.token_budget or 'unknown'}>"

    def present(self) -> int:
        """Return the requests under way at the target, of all workers."""
        return self.in_flight

    def has_room(self, cost_tokens: int) -> bool:
        """Return whether a request of that cost may start here now; an idle target takes any."""
        if self.in_flight >= self.limit and (self.known or self._awaited or self.in_flight >= self._most):
            return False
        return not self.token_budget or self.tokens + cost_tokens <= self.token_budget or not self.in_flight

    def enter(self, cost_tokens: int) -> bool:
        """Return whether a request may start here now, and count it if so."""
        if not self.has_room(cost_tokens):
            return False
        self.in_flight += 1
        self._awaited += 1
        self.tokens += cost_tokens
        return True

    def leave(self, cost_tokens: int, *, began: bool, whole_s: float | None = None) -> None:
        """Count the same request out.

        `began`: `first_byte` was called for it; `whole_s`: seconds after which its answer came whole in one read, if it
        did, since then `first_byte` was not called.
        """
        if whole_s is not None:
            self._learn(whole_s, streamed=False)
        self.in_flight -= 1
        self._awaited -= not began
        self.tokens -= cost_tokens

    def retire(self) -> None:
        """Note that the target takes no more requests; those under way continue."""

    def first_byte(self, seconds: float, *, streamed: bool = True) -> None:
        """Learn from the first byte of an answer's body, `seconds` after its request was sent."""
        self._awaited -= 1
        self._learn(seconds, streamed=streamed)

    def _learn(self, seconds: float, *, streamed: bool) -> None:
        self._seen += 1
        if self._stale:
            self._stale -= 1
            return
        present = self.present()
        if present * 2 < self.limit and self._seen % _SEEN_IDLE:
            return
        if self._gradient.sample(seconds, streamed=streamed, in_flight=present):
            limit = int(self._gradient.limit)
            if limit < self.limit:
                self._stale = self._awaited
            self.limit = limit

    def busy(self) -> None:
        """Lower the limit: the target answered that it has no room."""
        self._gradient.busy(self.present())
        self.limit = int(self._gradient.limit)
