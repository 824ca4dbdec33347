"""How fast a queue moves, and whether more comes than goes. Pure: the time is an argument.

`QueueRate` turns tokens that wait into seconds: from what left the queue while it stood, or, before that is known, from how
long requests take (Little's law). `Overload` distinguishes a burst, which will be worked off, from an overload, which will not.
"""

from math import exp

_MEMORY_S = (
    5.0  # What was measured fades with this time constant. Source: our own choice: some tens of answers.
)
_MEASURED_MIN = 4  # Starts from a standing queue before their rate is trusted. Source: our own choice.
_KEPT = (
    0.9  # Weight of the past in the mean cost and service time: about ten requests. Source: our own choice.
)


class QueueRate:
    """How fast one model works its queue off."""

    __slots__ = ("_cost", "_mark_s", "_service_s", "_standing_s", "_started", "_tokens")

    def __init__(self) -> None:
        self._cost = 0.0
        self._service_s = 0.0
        self._mark_s: float | None = None
        self._tokens = 0.0
        self._standing_s = 0.0
        self._started = 0

    def __repr__(self) -> str:
        return f"<QueueRate {self._started} starts measured, {self._service_s:.2f} s each>"

    @property
    def mean_tokens(self) -> float:
        """Return the mean cost of recent requests, tokens; 0 is unknown."""
        return self._cost

    def ended(self, cost_tokens: int, service_s: float) -> None:
        """Learn from one request that was worked on for `service_s`."""
        if not self._cost:
            self._cost, self._service_s = float(cost_tokens), service_s
            return
        self._cost += (cost_tokens - self._cost) * (1 - _KEPT)
        self._service_s += (service_s - self._service_s) * (1 - _KEPT)

    def stands(self, now_s: float) -> None:
        """Note that something waits from now on."""
        if self._mark_s is None:
            self._mark_s = now_s

    def empty(self) -> None:
        """Note that nothing waits any more: what comes now measures the callers, not the engines."""
        self._mark_s = None

    def started(self, cost_tokens: int, now_s: float) -> None:
        """Learn from one start out of the standing queue."""
        if self._mark_s is None:
            return
        passed_s = now_s - self._mark_s
        fade = exp(-passed_s / _MEMORY_S)
        self._tokens = self._tokens * fade + cost_tokens
        self._standing_s = self._standing_s * fade + passed_s
        self._mark_s = now_s
        self._started += 1

    def tokens_per_s(self, places: int) -> float:
        """Return the rate, tokens of cost per second; 0 is unknown. `places` are the requests worked on at once."""
        if self._started >= _MEASURED_MIN and self._standing_s:
            return self._tokens / self._standing_s
        return places * self._cost / self._service_s if self._service_s else 0.0

    def service_s(self, cost_tokens: int) -> float:
        """Return how long a request of that cost may take, seconds: never more than the usual; 0 is unknown."""
        return self._service_s * min(1.0, cost_tokens / self._cost) if self._cost else 0.0


class Overload:
    """Whether a standing queue grows for good.

    A burst grows a queue once, callers that wait for their answers before they ask again keep its length, chance makes
    it breathe; only when much more comes than goes, twice in a row and without the queue ever being empty, is it an
    overload. It is over when that is no longer so twice in a row, or when the queue is empty. The idea, a standing queue
    and not a long one is what is wrong, is CoDel's (RFC 8289); that it then bounds the wait is from "Fail at Scale"
    (B. Maurer, ACM Queue 13:8, 2015).
    """

    # Source of all four: our own choice, by simulation at 0.5 to 4 times what engines can, 2 to 17 answers a second: nothing
    # is refused at half load, and at twice and four times goodput is 94 % or more.
    WINDOW_S = 0.5
    """Shortest look, seconds."""
    CAME_MIN = 4
    """Fewest arrivals of a look, so that a slow model with few callers is not judged by two requests."""
    RATIO = 1.25
    """How many times more tokens must come than go."""
    OVER_S = 2.0
    """An overload is over when for so long no request had to wait, seconds."""

    __slots__ = ("_came", "_came_tokens", "_last_s", "_run", "_since_s", "on")

    def __init__(self) -> None:
        self._last_s = 0.0
        self._begin_again()

    def __repr__(self) -> str:
        return f"<Overload {'on' if self.on else 'off'}, {self._came} came>"

    def _begin_again(self) -> None:
        self.on = False
        self._run = 0
        self._came = 0
        self._came_tokens = 0
        self._since_s: float | None = None

    def came(self, cost_tokens: int, now_s: float, tokens_per_s: float) -> None:
        """Count one request that found a queue, or no room; `tokens_per_s` is what goes, 0: unknown."""
        self.fade(now_s)
        if self._since_s is None:
            self._since_s = now_s
        self._last_s = now_s
        self._came += 1
        self._came_tokens += cost_tokens
        passed_s = now_s - self._since_s
        if self._came >= self.CAME_MIN and passed_s >= self.WINDOW_S:
            self._look(grows=self._came_tokens > self.RATIO * tokens_per_s * passed_s > 0)
            self._came, self._came_tokens, self._since_s = 0, 0, now_s

    def fade(self, now_s: float) -> None:
        """End an overload in which no request had to wait for long enough."""
        if self.on and now_s - self._last_s > self.OVER_S:
            self._begin_again()

    def empty(self) -> None:
        """Note that nothing waits: it was no overload; but in one, where few may wait, that is chance."""
        if not self.on:
            self._begin_again()

    def _look(self, *, grows: bool) -> None:
        self._run = self._run + 1 if grows != self.on else 0
        if self._run == 2:
            self.on, self._run = not self.on, 0
