"""The kernel's log as it comes: /dev/kmsg without blocking, facility 0 alone, with what the kernel overwrote counted.

A program that may write /dev/kmsg (a container can) writes as facility 1 or higher: those records are skipped, so that
nothing in user space can make this node look broken. Fragments that the kernel marks `+` join the record before. Times
since boot become Unix seconds by the two clocks' difference at the time of reading. Nothing here knows what a line means,
and nothing asks journald.
"""

import os
from pathlib import Path

import msgspec

from freehold.core.clock import SYSTEM_CLOCK, Clock
from freehold.health.kernel_log.events import may_be_event
from freehold.health.kernel_log.formats import FACILITY_KERNEL, KmsgRecord, parse_log_file, parse_record
from freehold.health.model.view import Kernel, KernelLine, State

__all__ = ["KernelLog", "parse_log_file"]

_RECORD_BYTES = 16_384  # twice CONSOLE_EXT_LOG_MAX of the kernel (8192): a shorter buffer gives EINVAL
RECORDS_MOST = 50_000
"""Records that one reading takes at most; a kernel's buffer holds fewer, so only a flood leaves some for the next."""
LINES_MOST = 1_000
"""Lines that one view keeps at most: those that may be events first. Our own choice: a sound node has a few a minute."""


class KernelLog:
    """A reader of the kernel's log. It opens the device at the first reading and tries again where that failed."""

    def __init__(
        self,
        *,
        path: Path = Path("/dev/kmsg"),
        clock: Clock = SYSTEM_CLOCK,
        lookback_s: float = 0.0,
        trust_user_lines: bool = False,
    ) -> None:
        """Start after the newest record, or `lookback_s` seconds before now.

        `trust_user_lines` is for tests alone: what a program wrote is then taken for the kernel's own.
        """
        self._path = path
        self._clock = clock
        self._lookback_s = lookback_s
        self._trust_user_lines = trust_user_lines
        self._file = -1
        self._expected: int | None = None

    def read(self) -> Kernel:
        """Return what came since the reading before; never blocks and never raises for the device's sake.

        State DENIED without the right to read, ABSENT without the device, UNKNOWN with the error's text otherwise.
        """
        try:
            if self._file < 0:
                self._open()
            lines, lost = self._drain()
        except PermissionError as error:
            return self._failed(State.DENIED, error)
        except FileNotFoundError as error:
            return self._failed(State.ABSENT, error)
        except OSError as error:
            return self._failed(State.UNKNOWN, error)
        kept = _likeliest_events(lines)
        detail = (
            f"{len(lines) - len(kept)} lines that are not events left out" if len(kept) < len(lines) else ""
        )
        return Kernel(lines=tuple(kept), lost=lost, detail=detail)

    def close(self) -> None:
        """Close the device; a reading after that opens it again."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
            self._expected = None

    def _failed(self, state: State, error: OSError) -> Kernel:
        self.close()
        return Kernel(state=state, detail=f"{self._path}: {error.strerror or error}")

    def _open(self) -> None:
        self._file = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        # SEEK_SET is the oldest record there is, SEEK_END the place after the newest (dev-kmsg).
        os.lseek(self._file, 0, os.SEEK_SET if self._lookback_s else os.SEEK_END)

    def _drain(self) -> tuple[list[KernelLine], int]:
        wall_minus_boot_s = self._clock.wall_s() - self._clock.monotonic_s()
        since_s = (
            self._clock.wall_s() - self._lookback_s if self._expected is None and self._lookback_s else 0.0
        )
        lines: list[KernelLine] = []
        lost = 0
        for _ in range(RECORDS_MOST):
            try:
                data = os.read(self._file, _RECORD_BYTES)
            except BlockingIOError:
                break
            except BrokenPipeError:  # overwritten; the next record's number says how many were
                lost += self._expected is None
                continue
            if not data:
                break
            record = parse_record(data)
            if record:
                lost += max(0, record.sequence - self._expected) if self._expected is not None else 0
                self._expected = record.sequence + 1
                self._take(record, lines, wall_minus_boot_s=wall_minus_boot_s)
        return [line for line in lines if line.at_s >= since_s], lost

    def _take(self, record: KmsgRecord, lines: list[KernelLine], *, wall_minus_boot_s: float) -> None:
        facility = FACILITY_KERNEL if self._trust_user_lines else record.facility
        if facility != FACILITY_KERNEL:
            return
        if record.continues and lines:
            lines[-1] = msgspec.structs.replace(lines[-1], text=lines[-1].text + record.text)
            return
        lines.append(
            KernelLine(
                at_s=wall_minus_boot_s + record.since_boot_s,
                text=record.text,
                facility=facility,
                level=record.level,
                sequence=record.sequence,
            )
        )


def _likeliest_events(lines: list[KernelLine]) -> list[KernelLine]:
    """Return at most `LINES_MOST` lines in their order: what may be an event, then the newest of the rest."""
    if len(lines) <= LINES_MOST:
        return lines
    telling = [index for index, line in enumerate(lines) if may_be_event(line)]
    taken = set(telling[-LINES_MOST:])
    rest = (index for index in range(len(lines) - 1, -1, -1) if index not in taken)
    taken.update(index for index, _ in zip(rest, range(LINES_MOST - len(taken)), strict=False))
    return [lines[index] for index in sorted(taken)]
