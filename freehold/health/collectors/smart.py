"""What a disk reports about itself, through `smartctl --json` where that is installed: rarely, in a process of its own.

The command may hang on a sick disk, so nothing waits for it: it is started, looked at on each call, and killed at its deadline;
one that does not die is left, and none is started after it. Names are those of `checks/storage_errors.py`, which judges
them; nothing is judged here. ATA disks have no such log: only what their attributes share with it is given.
"""

import contextlib
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from operator import or_
from typing import Any

import msgspec

from freehold.core import clock
from freehold.health.collectors.child_process import ChildProcess
from freehold.health.model.view import Reading, State

EVERY_S = 3600.0
"""Between two questions. Source: smartd asks every 30 minutes; wear and spare move in days, so half as often is enough."""
DEADLINE_S = 20.0
"""For one answer: smartctl needs 10 to 100 ms on NVMe, seconds on a disk that spins up. Our own choice."""
OUTPUT_MOST = 1_000_000
"""Bytes of an answer that are read; a whole report has some 10 kB. Our own bound."""
_REAL_DISK = re.compile(r"(nvme\d+)n\d+(?:p\d+)?$|(sd[a-z]+)\d*$")
_DENIED = re.compile(r"permission denied|not permitted", re.IGNORECASE)
"""strerror(3) of EACCES and EPERM, as smartctl shows them."""
_NVME = {
    "critical_warning": "critical_warning",
    "media_errors": "media_errors",
    "available_spare": "available_spare_pct",
    "available_spare_threshold": "available_spare_threshold_pct",
    "percentage_used": "percentage_used_pct",
}
_ATA = {5: "reallocated_sectors", 187: "media_errors", 197: "pending_sectors", 198: "uncorrectable_sectors"}


def disk_of(device: str) -> str | None:
    """Return the path that smartctl takes for a block device's name; None: a loop, dm or virtual disk, which has no SMART."""
    found = _REAL_DISK.match(device)
    return f"/dev/{found[1] or found[2]}" if found else None


def readings_of(report: bytes) -> dict[str, Reading]:
    """Return the readings in smartctl's JSON, by name; `{"smart": Reading}` with the reason where there are none."""
    try:
        page = msgspec.json.decode(report, type=dict[str, Any])
    except msgspec.MsgspecError as exc:
        return {"smart": Reading(state=State.UNKNOWN, detail=f"smartctl answered no JSON: {exc}")}
    nvme, ata = page.get("nvme_smart_health_information_log"), page.get("ata_smart_attributes")
    found = _named(nvme) if isinstance(nvme, dict) else {}
    found |= _attributes(ata) if isinstance(ata, dict) else {}
    message = _message(page)
    state = State.DENIED if _DENIED.search(message) else State.UNSUPPORTED
    return found or {"smart": Reading(state=state, detail=message)}


def _named(log: dict[str, Any]) -> dict[str, Reading]:
    return {
        name: Reading(value=log[key])
        for key, name in _NVME.items()
        if isinstance(log.get(key), int) and not isinstance(log.get(key), bool)
    }


def _attributes(table: dict[str, Any]) -> dict[str, Reading]:
    with contextlib.suppress(KeyError, TypeError, AttributeError):
        return {
            _ATA[row["id"]]: Reading(value=int(row["raw"]["value"]))
            for row in table["table"]
            if row.get("id") in _ATA
        }
    return {}


def _message(page: dict[str, Any]) -> str:
    with contextlib.suppress(KeyError, TypeError, IndexError):
        return str(page["smartctl"]["messages"][0]["string"])
    return "no SMART log in smartctl's answer"


def worst_of(disks: Sequence[Mapping[str, Reading]]) -> dict[str, Reading]:
    """Return one set of readings for several disks: counts added, warnings joined, the worst of wear and spare.

    A reading that one of them could not give is kept with the readings of the others.
    """
    merged: dict[str, Reading] = {}
    for name in dict.fromkeys(name for disk in disks for name in disk):
        seen = [disk[name] for disk in disks if name in disk]
        merged[name] = next((one for one in seen if one.state not in (State.OK, State.UNSUPPORTED)), seen[0])
        values = [int(one.value) for one in seen if isinstance(one.value, int)]
        if values:
            merged[name] = Reading(value=_joined(name, values))
    least = min((disk for disk in disks if _SPARE in disk), key=_spare_left, default=None)
    return merged if least is None else merged | {name: least[name] for name in _SPARES if name in least}


_SPARE = "available_spare_pct"
_SPARES = (_SPARE, "available_spare_threshold_pct")


def _spare_left(disk: Mapping[str, Reading]) -> float:
    spare, least = (disk[name].value if name in disk else None for name in _SPARES)
    return (spare if isinstance(spare, int) else 100) - (least if isinstance(least, int) else 0)


def _joined(name: str, values: Sequence[int]) -> int:
    if name == "critical_warning":
        return reduce(or_, values)
    return max(values) if name.endswith("_pct") else sum(values)


class SmartReaders:
    """Asks for every real disk under a volume, each by itself."""

    def __init__(self, command: str | None = None) -> None:
        """`command` is smartctl's path; None: it is looked for."""
        self._command = command
        self._disks: dict[str, SmartReader] = {}

    def read(self, devices: Iterable[str]) -> dict[str, Reading]:
        """Return the last readings of the disks under a volume, as one; never waits."""
        disks = dict.fromkeys(disk for device in devices if (disk := disk_of(device)) is not None)
        for disk in disks:
            self._disks.setdefault(disk, SmartReader(disk, self._command))
        return worst_of([self._disks[disk].read() for disk in disks])

    def close(self) -> None:
        """Kill what still runs."""
        for reader in self._disks.values():
            reader.close()


class SmartReader:
    """Asks for one disk; `read` never waits."""

    def __init__(self, disk: str, command: str | None) -> None:
        """`disk` is its path; `command` is smartctl's, None: it is looked for."""
        self._disk = disk
        self._command = (
            command or shutil.which("smartctl") or shutil.which("smartctl", path="/usr/sbin:/sbin")
        )
        self._process: ChildProcess | None = None
        self._pipe = b""
        self._due_s = 0.0
        self._late_s = 0.0
        self._last: dict[str, Reading] = {}

    def read(self) -> dict[str, Reading]:
        """Return the last readings of the disk; empty: it was not asked yet."""
        if self._command is None:
            return {"smart": Reading(state=State.ABSENT, detail="smartctl (smartmontools) is not installed")}
        now_s = clock.monotonic_s()
        if self._process is not None:
            self._look(self._process, now_s)
        elif now_s >= self._due_s:
            self._ask(self._command, now_s)
        return self._last

    def close(self) -> None:
        """Kill what still runs."""
        if self._process is not None:
            self._process.abandon()

    def _ask(self, command: str, now_s: float) -> None:
        self._due_s, self._late_s, self._pipe = now_s + EVERY_S, now_s + DEADLINE_S, b""
        try:
            self._process = ChildProcess([command, "--json=c", "--attributes", "--health", self._disk])
        except OSError as exc:
            self._last = {"smart": Reading(state=State.DENIED, detail=f"{command}: {exc.strerror}")}

    def _look(self, process: ChildProcess, now_s: float) -> None:
        ended = process.gone()
        while data := process.read():
            self._pipe = (self._pipe + data)[:OUTPUT_MOST]
        if ended:
            process.abandon()
            self._process = None
            # Of a killed process the reading is HUNG already; the rest of its answer says less.
            self._last = self._last if now_s >= self._late_s else readings_of(self._pipe)
        elif now_s >= self._late_s:
            process.kill()
            self._last = {"smart": Reading(state=State.HUNG, detail=f"no answer within {DEADLINE_S:g} s")}
