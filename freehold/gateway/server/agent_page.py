"""The agent's part of the gateway's `/metrics`: shown while the agent's report is current, absent when it is not.

The text arrives rendered and checked and is passed on unread. The gateway itself adds whether the agent is up and how old its
report is, so both are true when agent, controller or both are dead. Each worker has the whole text and shows it only when that
worker is scraped, so it is on the page once. It judges no node.
"""

from freehold.core.clock import SYSTEM_CLOCK, Clock
from freehold.core.events import AgentMetrics
from freehold.telemetry.metrics import Metrics

STALE_S = 30.0
"""An older report is not current. Source: `health.snapshot`: three periods of 10 s, as `freehold health` has it."""


class AgentPage:
    """The agent's last report."""

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._metrics: AgentMetrics | None = None
        self._connected = True

    def __repr__(self) -> str:
        return f"<AgentPage up={self.up}, {self.age_s} s>"

    def take(self, metrics: AgentMetrics) -> None:
        """Use the agent's newest report."""
        self._metrics = metrics

    def lose(self) -> None:
        """Show nothing of it any more: the controller is gone, and the agent ends with it."""
        self._connected = False

    @property
    def age_s(self) -> float | None:
        """Return the seconds since the agent's last report; None: there was none."""
        told_s = None if self._metrics is None else self._metrics.told_monotonic_s
        return None if told_s is None else max(0.0, self._clock.monotonic_s() - told_s)

    @property
    def up(self) -> bool:
        """Return whether there is a current report."""
        age_s = self.age_s
        return (
            self._connected
            and age_s is not None
            and age_s <= STALE_S
            and bool(self._metrics and self._metrics.text)
        )

    def watch(self, metrics: Metrics) -> None:
        """Add to a page whether the agent is up and how old its report is; nothing where no agent is configured."""
        metrics.gauge("freehold_health_up").read_from(
            lambda: {} if self._metrics is None else {(): float(self.up)}
        )
        metrics.gauge("freehold_health_snapshot_age_seconds").read_from(
            lambda: {} if (age_s := self.age_s) is None else {(): age_s}
        )

    def text(self) -> bytes:
        """Return what is to be appended to a page in Prometheus' text format; empty while the agent is not up."""
        return self._metrics.text.encode() if self._metrics is not None and self.up else b""
