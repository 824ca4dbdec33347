"""Logs: JSON lines, one record each, through a bounded queue to a writer thread, so that no caller waits for a disk.

The idea: `get_logger("fleet.run").info("replica ready", replica="m-0", seconds=2.1)` costs some microseconds on the
caller's thread (secrets and prompts out, encode, queue) and never more. Where the disk is slow or full, records are
dropped and counted: `LogHandle.dropped_total`, exposed as `freehold_log_dropped_total`. What libraries log through
`logging` at warning or above takes the same path.

What it deliberately does not do: no record is promised, no text format for people (`freehold logs` renders), and
before `configure` nothing is written at all, so importing Freehold has no effect on a program's output.
"""

import atexit
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, cast

import msgspec
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

from freehold.core.clock import SYSTEM_CLOCK, Clock
from freehold.telemetry.redact import TEXT_CHARS_MAX, clean_field, is_plain, may_hold_secret
from freehold.telemetry.writer import FileTarget, HasFileno, LineWriter, StreamTarget

LevelName = Literal["debug", "info", "warning", "error", "critical"]
Logger = FilteringBoundLogger

QUEUE_RECORDS = 8192
"""Records that wait for the disk at most: at 300 bytes each 2.5 MB, or 1.6 s of 5,000 records a second."""
MAX_BYTES = 32 * 1024 * 1024
"""Size of one log file; with `BACKUPS` a process keeps 128 MiB of logs at most."""
BACKUPS = 3
"""Rotated files kept besides the present one."""
RECORD_BYTES_MAX = 64 * 1024
"""Longest line; of a longer record only the head is kept. Bounds the queue's memory together with its length."""
EXIT_TIMEOUT_S = 1.0
"""How long an interpreter's exit waits for queued records without `close`: a person would not wait longer."""
LIBRARY_LEVEL = logging.WARNING
"""From libraries only records that may need action: httpx2 alone logs every request at info."""


def get_logger(name: str) -> Logger:
    """Return the logger of a module, named `room.module`; it may be made before `configure` and follows it.

    For a hot path take `.bind()` of it after `configure`: that saves resolving the configuration per call.
    """
    return cast("Logger", structlog.get_logger(name))


def configure(
    target: Path | HasFileno,
    *,
    level: LevelName = "info",
    queue_records: int = QUEUE_RECORDS,
    max_bytes: int = MAX_BYTES,
    backups: int = BACKUPS,
) -> "LogHandle":
    """Send all loggers' records to a file (rotated by size) or to an open stream, and return the handle to end it.

    Never blocks nor fails on the target: it is opened by the writer thread, and what cannot be written is counted.
    A second call replaces the first, which then must still be closed by its owner.
    """
    file = FileTarget(target, max_bytes=max_bytes, backups=backups) if isinstance(target, Path) else None
    writer: LineWriter[bytes] = LineWriter(
        file or StreamTarget(cast("HasFileno", target)), queue_records=queue_records, render=bytes
    )
    bridge = _LibraryBridge(LIBRARY_LEVEL)
    _install(writer.offer, level)
    logging.getLogger().addHandler(bridge)
    return LogHandle(writer=writer, bridge=bridge)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LogHandle:
    """A configured log."""

    writer: LineWriter[bytes]
    bridge: logging.Handler

    def __post_init__(self) -> None:
        atexit.register(self.close, EXIT_TIMEOUT_S)

    @property
    def dropped_total(self) -> int:
        """Records lost so far, for `freehold_log_dropped_total`."""
        return self.writer.dropped_total

    @property
    def last_error(self) -> str:
        """The last failure of the target in words, or empty."""
        return self.writer.last_error

    def close(self, timeout_s: float = EXIT_TIMEOUT_S) -> bool:
        """Write what is queued for at most `timeout_s` seconds; return whether all of it was written.

        Later records are dropped. Closing again does nothing more.
        """
        atexit.unregister(self.close)
        logging.getLogger().removeHandler(self.bridge)
        return self.writer.close(timeout_s)


class _QueueLogger:
    """What structlog calls with the finished line; knows its name for the processors."""

    def __init__(self, offer: Callable[[bytes], object], name: str = "") -> None:
        self.name = name
        self.debug = self.info = self.warning = self.error = self.critical = offer


class _LibraryBridge(logging.Handler):
    """Takes what libraries log through `logging` into the same queue."""

    def emit(self, record: logging.LogRecord) -> None:
        """Pass the record on; its arguments are merged into the text, its traceback is kept."""
        fields = {"exc_info": record.exc_info} if record.exc_info else {}
        getattr(get_logger(record.name), _level_name(record.levelno))(record.getMessage(), **fields)


def _level_name(number: int) -> LevelName:
    names: tuple[LevelName, ...] = ("debug", "info", "warning", "error", "critical")
    return names[min(max(number // 10, 1), 5) - 1]


def _install(offer: Callable[[bytes], object], level: LevelName, clock: Clock = SYSTEM_CLOCK) -> None:
    def stamp(logger: WrappedLogger, level_name: str, event: EventDict) -> EventDict:
        moment = datetime.fromtimestamp(clock.wall_s(), UTC).isoformat(timespec="microseconds")
        head = {"at": moment, "level": level_name, "logger": logger.name, "event": event.pop("event", "")}
        return {**head, **event}

    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            stamp,
            structlog.processors.format_exc_info,
            encode,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *names: _QueueLogger(offer, *names),
        cache_logger_on_first_use=False,
    )


def encode(_logger: WrappedLogger, _level_name: str, event: EventDict) -> bytes:
    """Return the record as one JSON line without secrets and prompts, at most `RECORD_BYTES_MAX` long."""
    return _encode_plain(event) or _encode_cleaned(event)


def _encode_plain(event: EventDict) -> bytes | None:
    """Encode what nearly every record is, short plain fields, at a third of the cost; None: it needs cleaning."""
    for name, value in event.items():
        if not is_plain(name, value):
            return None
    try:
        line = msgspec.json.encode(event)
    except UnicodeEncodeError:  # a lone surrogate, as in a file name that is not UTF-8
        return None
    if len(line) > TEXT_CHARS_MAX or not line.isascii() or may_hold_secret(line.decode().lower()):
        return None
    return line + b"\n"


def _encode_cleaned(event: EventDict) -> bytes:
    cleaned = {name: clean_field(name, value) for name, value in event.items()}
    line = msgspec.json.encode(cleaned)
    if len(line) >= RECORD_BYTES_MAX:
        head = {name: cleaned[name] for name in ("at", "level", "logger", "event") if name in cleaned}
        line = msgspec.json.encode({**head, "cut_from_bytes": len(line)})
    return line + b"\n"


_install(len, "critical")
