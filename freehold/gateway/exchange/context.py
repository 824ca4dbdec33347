"""What all exchanges of one gateway process share: settings, clock, metrics, logs, and where bytes and records go.

It holds things and decides nothing. The gateway fills it and keeps it current.
"""

from collections.abc import Callable
from pathlib import Path

from freehold.gateway.answers.stream_log import PackBudget
from freehold.gateway.counters.request_metrics import GatewayMetrics
from freehold.gateway.endpoints.target import UpstreamTarget
from freehold.gateway.exchange.access_log import AccessLog
from freehold.gateway.exchange.crash_retry import CrashRetry, InterruptedRequest
from freehold.gateway.exchange.ledger_record import LedgerWriter
from freehold.gateway.exchange.quarantine import Quarantine, SentRequest
from freehold.gateway.exchange.retry_budget import RetryBudget
from freehold.gateway.exchange.write_batch import WriteBatch
from freehold.gateway.settings import Settings
from freehold.telemetry.logs import get_logger


class ExchangeContext:
    """The shared things of one gateway process."""

    __slots__ = ("access_log", "crash_retry", "date_line", "draining", "ledger", "log", "metrics", "now_s", "pack_budget",
                 "quarantine", "retry_budget", "settings", "tick_s", "write_batch")  # fmt: skip

    def __init__(self, settings: Settings, now_s: Callable[[], float]) -> None:
        self.settings = settings
        self.now_s = now_s
        """The loop's clock, seconds."""
        self.tick_s = now_s()
        """The time of the last tick: exact enough for deadlines of seconds, and free."""
        self.date_line = b""
        """The header line with the date."""
        self.draining = False
        """The process finishes what is under way and ends."""
        self.log = get_logger("gateway")
        self.metrics = GatewayMetrics()
        self.retry_budget = RetryBudget(self.tick_s)
        self.pack_budget = PackBudget()
        self.quarantine = Quarantine()
        self.crash_retry: CrashRetry | None = None
        """Retries requests whose engine crashed; None: there is no fleet that reports how engines end."""
        self.access_log = AccessLog(settings.access_log)
        self.ledger: LedgerWriter | None = None
        """Writes requests into the ledger; None: there is no ledger."""
        if settings.spool_path:
            self.ledger = LedgerWriter(Path(settings.spool_path), max_bytes=settings.spool_max_bytes)
            self.ledger.watch(self.metrics.metrics)
        self.write_batch = WriteBatch(None if self.ledger is None else self.ledger.write)
        """What leaves at the end of this turn of the loop."""

    def may_have_crashed(self, request: InterruptedRequest, target: UpstreamTarget) -> bool:
        """Return whether a request waits until it is known whether its engine crashed; then it goes on by itself."""
        return self.crash_retry is not None and self.crash_retry.takes(request, target)

    def left_running(self, request: SentRequest, target: UpstreamTarget) -> None:
        """Remember a request that leaves its engine at work: that may still crash."""
        if self.crash_retry is not None:
            self.crash_retry.leaves(request, target)

    def __repr__(self) -> str:
        return f"<ExchangeContext generation {self.settings.generation}{', draining' * self.draining}>"
