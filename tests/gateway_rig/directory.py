"""A directory without a gateway around it: its queues stand still, so that a test sees only where requests go."""

from collections.abc import Callable

from freehold.gateway.counters.request_metrics import GatewayMetrics
from freehold.gateway.endpoints.directory import Directory
from freehold.gateway.queue.admission import Admission
from freehold.gateway.queue.queue import QueueBounds
from freehold.gateway.wire.ports import Timer


class StillLoop:
    """A loop whose time does not pass and whose timers never fire."""

    def time(self) -> float:
        return 0.0

    def call_later(self, delay: float, callback: Callable[[], object], /) -> Timer:
        del delay, callback
        return self

    def cancel(self) -> None:
        """Nothing to cancel."""


def still_directory(metrics: GatewayMetrics) -> Directory:
    """Return an empty directory."""
    return Directory(metrics.for_model, lambda model: Admission(model, QueueBounds(), StillLoop()), prices={})
