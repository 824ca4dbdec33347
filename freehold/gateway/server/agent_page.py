"""The agent's part of the gateway's `/metrics`: shown while it is the agent's present word, gone when it is not.

The text comes rendered and checked and is passed on unread. What says whether it may be believed is the gateway's own, so that it
holds when agent, controller or both are dead: whether it is there, and how old the agent's last word is. Each worker has the whole
text and shows it only when it is the one that is scraped, so it is on the page once. It judges no node.
"""

from freehold.core.clock import SYSTEM_CLOCK, Clock
from freehold.core.events import AgentMetrics
from freehold.telemetry.metrics import Metrics

STALE_S = 30.0
"""An agent's word that is older says nothing of now. Source: `health.snapshot`: three periods of 10 s, as `freehold health` has it."""


class AgentPage:
    """What the agent said last."""

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._metrics: AgentMetrics | None = None
        self._heard = True

    def __repr__(self) -> str:
        return f"<AgentPage up={self.up}, {self.age_s} s>"

    def take(self, metrics: AgentMetrics) -> None:
        """Take the agent's newest word over."""
        self._metrics = metrics

    def lose(self) -> None:
        """Show nothing of it any more: the controller is gone, and the agent ends with it."""
        self._heard = False

    @property
    def age_s(self) -> float | None:
        """Return the seconds since the agent spoke last; None: it has not."""
        told_s = None if self._metrics is None else self._metrics.told_monotonic_s
        return None if told_s is None else max(0.0, self._clock.monotonic_s() - told_s)

    @property
    def up(self) -> bool:
        """Return whether there is a word of the agent that speaks for now."""
        age_s = self.age_s
        return (
            self._heard
            and age_s is not None
            and age_s <= STALE_S
            and bool(self._metrics and self._metrics.text)
        )

    def watch(self, metrics: Metrics) -> None:
        """Let a page's metrics say whether the agent is up and how old its word is; nothing where there is no agent to be."""
        metrics.gauge("freehold_health_up").read_from(
            lambda: {} if self._metrics is None else {(): float(self.up)}
        )
        metrics.gauge("freehold_health_snapshot_age_seconds").read_from(
            lambda: {} if (age_s := self.age_s) is None else {(): age_s}
        )

    def text(self) -> bytes:
        """Return what is to be appended to a page in Prometheus' text format; empty while the agent is not up."""
        return self._metrics.text.encode() if self._metrics is not None and self.up else b""
