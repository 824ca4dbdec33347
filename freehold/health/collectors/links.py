"""Reads network interfaces, RDMA ports and TCP's retransmissions: text of /sys and /proc, which cannot hang.

An interface counts when hardware is behind it, when it bonds such interfaces, or when the configuration names it; containers' and tunnels'
do not. An RDMA counter that may not be read is left alone for a while: each attempt makes some drivers write a
line into the kernel's log. Nothing here judges.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from freehold.core import clock
from freehold.health.collectors.kernel_files import text_of
from freehold.health.model.view import Interface, RdmaPort, Reading, State

RDMA_EVERY_S = 5.0
"""Between two readings: some drivers ask their firmware for each counter. Our own choice."""
ASK_AGAIN_S = 600.0
"""After a counter was refused; doubled each time. Our own choice: rights change by hand."""
ASK_AGAIN_MOST_S = 86_400.0
"""A day, where the doubling ends. Our own choice."""
IFF_UP = 0x1
"""linux/if.h: switched on by the administrator."""
RDMA_UP = ("ACTIVE", "LinkUp")
"""Words of state and phys_state of a port that works (kernel Documentation/ABI/stable/sysfs-class-infiniband)."""
COUNTERS = (
    *(f"{way}_{count}" for count in ("packets", "bytes", "errors", "dropped") for way in ("rx", "tx")),
    *("rx_crc_errors", "rx_missed_errors", "rx_over_errors", "tx_carrier_errors"),
)
"""Of /sys/class/net/X/statistics (kernel Documentation/ABI/testing/sysfs-class-net-statistics)."""


_MARKS = ("device", "bonding")


def read_interfaces(root: Path = Path("/"), *, named: Iterable[str] = ()) -> tuple[Interface, ...]:
    """Return the interfaces that count, by name; `named` always do."""
    folder = root / "sys/class/net"
    always = set(named)
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208 -- names, not paths
    except OSError:
        return ()
    return tuple(
        _interface(folder / name)
        for name in names
        if name in always or any((folder / name / mark).exists() for mark in _MARKS)
    )


def _interface(folder: Path) -> Interface:
    flags = text_of(folder / "flags")
    statistics = folder / "statistics"
    counters = {name: text_of(statistics / name) for name in COUNTERS}
    return Interface(
        name=folder.name,
        operstate=text_of(folder / "operstate"),
        carrier=_number(folder / "carrier"),
        carrier_changes=_number(folder / "carrier_changes"),
        carrier_ups=_number(folder / "carrier_up_count"),
        speed_mbit_s=_speed(folder),
        wanted_up=bool(int(flags, 16) & IFF_UP) if flags else True,
        counters={name: int(text) for name, text in counters.items() if text.isdigit()},
    )


def _speed(folder: Path) -> Reading:
    found = _number(folder / "speed")
    # -1 is the kernel's value for a speed that is not known (virtual cards, link down); EINVAL with a link up is a driver
    # that has no such call.
    unknown = isinstance(found.value, int) and found.value <= 0
    if unknown or (found.state is State.TRANSIENT and text_of(folder / "carrier") == "1"):
        return Reading(state=State.UNSUPPORTED, detail="the driver does not know")
    return found


def _number(path: Path) -> Reading:
    try:
        return Reading(value=int(path.read_text()))
    except FileNotFoundError:
        return Reading(state=State.UNSUPPORTED, detail=f"no {path.name}")
    except PermissionError as exc:
        return Reading(state=State.DENIED, detail=str(exc.strerror))
    except OSError as exc:
        # EINVAL: the interface is down, and the kernel does not say
        return Reading(state=State.TRANSIENT, detail=str(exc.strerror))
    except ValueError:
        return Reading(state=State.UNKNOWN, detail="not a number")


def read_tcp(root: Path = Path("/")) -> tuple[Reading, Reading]:
    """Return the segments that TCP has sent again, and has sent, since boot (/proc/net/snmp: RetransSegs, OutSegs)."""
    rows = [
        line.split()[1:] for line in text_of(root / "proc/net/snmp").splitlines() if line.startswith("Tcp:")
    ]
    if len(rows) != 2:
        missing = Reading(state=State.UNSUPPORTED, detail="no Tcp in /proc/net/snmp")
        return missing, missing
    counts = dict(zip(*rows, strict=False))
    retransmitted, sent = (counts.get(name, "") for name in ("RetransSegs", "OutSegs"))
    return _counted(retransmitted), _counted(sent)


def _counted(text: str) -> Reading:
    return Reading(value=int(text)) if text.isdigit() else Reading(state=State.UNKNOWN)


@dataclass(slots=True)
class _Refused:
    until_s: float
    again_s: float


class RdmaReader:
    """Gives the view's RDMA ports."""

    def __init__(
        self,
        root: Path = Path("/"),
        *,
        counters: Iterable[str],
        time: clock.Clock = clock.SYSTEM_CLOCK,
        every_s: float = RDMA_EVERY_S,
    ) -> None:
        """`counters` are the names to read, those that a check judges: a port has a hundred more."""
        self._folder = root / "sys/class/infiniband"
        self._counters = tuple(counters)
        self._clock = time
        self._every_s = every_s
        self._due_s = float("-inf")
        self._last: tuple[RdmaPort, ...] = ()
        self._refused: dict[Path, _Refused] = {}
        self._were_up: set[Path] = set()
        self._places: dict[Path, dict[str, Path]] = {}

    def read(self) -> tuple[RdmaPort, ...]:
        """Return every port, as it was at most `every_s` ago; empty: this node has no RDMA device."""
        now_s = self._clock.monotonic_s()
        if now_s >= self._due_s:
            self._due_s = now_s + self._every_s
            self._last = tuple(self._port(folder, now_s) for folder in self._ports())
        return self._last

    def _ports(self) -> list[Path]:
        try:
            return sorted(self._folder.glob("*/ports/*"), key=lambda path: (path.parts[-3], int(path.name)))
        except (OSError, ValueError):
            return []

    def _port(self, folder: Path, now_s: float) -> RdmaPort:
        counters: dict[str, int] = {}
        denied: list[str] = []
        for name, path in self._where(folder).items():
            count = self._count(path, now_s)
            if count is None:
                denied.append(name)
            else:
                counters[name] = count
        state, physical_state = _word(folder / "state"), _word(folder / "phys_state")
        if (state, physical_state) == RDMA_UP:
            self._were_up.add(folder)
        return RdmaPort(
            device=folder.parts[-3],
            port=int(folder.name),
            state=state,
            physical_state=physical_state,
            was_up=folder in self._were_up,
            counters=counters,
            denied=tuple(denied),
        )

    def _where(self, folder: Path) -> dict[str, Path]:
        if folder not in self._places:
            self._places[folder] = {
                name: path
                for name in self._counters
                for path in (folder / "counters" / name, folder / "hw_counters" / name)
                if path.exists()
            }
        return self._places[folder]

    def _count(self, path: Path, now_s: float) -> int | None:
        """Return the counter; None: it was refused, now or lately."""
        refused = self._refused.get(path)
        if refused is not None and now_s < refused.until_s:
            return None
        try:
            count = int(path.read_text())
        except (OSError, ValueError):
            again_s = min(2 * refused.again_s, ASK_AGAIN_MOST_S) if refused else ASK_AGAIN_S
            self._refused[path] = _Refused(now_s + again_s, again_s)
            return None
        self._refused.pop(path, None)
        return count


def _word(path: Path) -> str:
    """Return `ACTIVE` of `4: ACTIVE`."""
    return text_of(path).partition(":")[2].strip()
