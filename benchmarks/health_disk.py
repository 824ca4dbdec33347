"""Measure the disk watch on a real, faulty block device: how soon slow reads are found, whom it blames, what it costs.

    python benchmarks/health_disk.py               both faults, some three minutes
    python benchmarks/health_disk.py --only slow   one part: slow, throttled

Reader, child and probe are the ones in service, at one read a second; the disk is nbdkit behind a loop device (tests/faulty_disk.py).
Needs root and Debian's nbdkit and libnbd-bin. Exit code: 0 all bars hold, 3 one does not, 1 it could not be measured.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(1, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(1, str(Path(__file__).resolve().parents[1]))

from stack import Bar, CannotMeasureError

from faulty_disk import FaultyDisk, blkio_cgroup, throttled, why_not
from freehold.core.findings import Finding, Verdict
from freehold.health.checks.storage_latency import PROBE
from freehold.health.collectors.disks import DiskOptions, DiskReader
from freehold.health.model.probe import Expected
from freehold.health.model.view import View

FOUND_WITHIN_S = 60.0
CORE_SHARE_PCT = 0.2
CHILD_MB = 12.0
CALL_MS = 1.0
SIZE_BYTES = 16 << 20


class Watch:
    """The reader in service, looked at once a second."""

    def __init__(self, path: Path) -> None:
        self.reader = DiskReader(str(path), DiskOptions(size_bytes=SIZE_BYTES, smart=False))
        self.views: list[View] = []
        self.calls_s: list[float] = []
        self.alarms = 0

    def look(self) -> Finding:
        """Read once and judge the window."""
        began_s = time.thread_time()
        volume = self.reader.read()
        self.calls_s.append(time.thread_time() - began_s)
        self.views.append(View(at_s=time.time(), monotonic_s=time.monotonic(), volumes=(volume,)))
        recent = [
            view for view in self.views if view.monotonic_s > self.views[-1].monotonic_s - PROBE.window_s
        ]
        return PROBE.check(recent, Expected())[0]

    def until(self, wanted: Callable[[Finding], bool], limit_s: float) -> tuple[Finding, float]:
        """Return the finding that is wanted, or the last one, and how long it took."""
        began_s = time.monotonic()
        while True:
            finding, elapsed_s = self.look(), time.monotonic() - began_s
            if wanted(finding) or elapsed_s > limit_s:
                return finding, elapsed_s
            self.alarms += finding.verdict in {Verdict.DEGRADED, Verdict.UNHEALTHY}
            time.sleep(1.0)


@contextmanager
def watched() -> Iterator[tuple[FaultyDisk, Watch]]:
    """A disk that is well and a reader that knows it."""
    with tempfile.TemporaryDirectory() as folder, FaultyDisk(Path(folder)) as disk:
        seen = Watch(disk.path)
        try:
            finding, took_s = seen.until(lambda finding: finding.verdict is not Verdict.UNKNOWN, 60)
            if finding.verdict is not Verdict.HEALTHY:
                raise CannotMeasureError(f"the disk is not well before any fault: {finding.message}")
            print(f"  well after {took_s:.0f} s: {finding.message}", flush=True)
            yield disk, seen
        finally:
            seen.reader.close()
            deadline_s = time.monotonic() + 10
            while seen.reader.pids and time.monotonic() < deadline_s:
                time.sleep(0.05)


def slow() -> list[Bar]:
    """Reads that come to take 80 ms; and what child and reader cost meanwhile."""
    with watched() as (disk, seen):
        (child,) = seen.reader.pids
        cpu_s, began_s = cpu_of(child), time.monotonic()
        seen.until(lambda _: False, 30)
        disk.slow(on=True)
        finding, took_s = seen.until(
            lambda finding: finding.verdict is not Verdict.HEALTHY, FOUND_WITHIN_S * 2
        )
        print(f"  {finding.verdict} {finding.reason}: {finding.message}")
        spent_s = (cpu_of(child) - cpu_s) / (time.monotonic() - began_s)
        calls = sorted(seen.calls_s)
        return [
            Bar(name="80 ms reads are found within", value=took_s, limit=FOUND_WITHIN_S, unit=" s"),
            Bar(
                name="and are the disk's", value=float(finding.reason == "slow_disk"), limit=1, at_least=True
            ),
            Bar(name="alarms while the disk was well", value=seen.alarms, limit=0),
            Bar(name="CPU of the child, of a core", value=100 * spent_s, limit=CORE_SHARE_PCT, unit=" %"),
            Bar(
                name="CPU of one look in the agent, median",
                value=1000 * calls[len(calls) // 2],
                limit=CALL_MS,
                unit=" ms",
            ),
            Bar(name="memory of the child (RSS)", value=memory_mb(child, "Rss"), limit=CHILD_MB, unit=" MB"),
            Bar(
                name="memory of the child, its share (PSS)",
                value=memory_mb(child, "Pss"),
                limit=CHILD_MB,
                unit=" MB",
            ),
        ]


def limited() -> list[Bar]:
    """A cgroup's limit that the reader shares with somebody who reads without pause."""
    if blkio_cgroup() is None:
        raise CannotMeasureError("no cgroup here can limit reads (blkio of v1 or io of v2)")
    with watched() as (disk, seen):
        greedy = DiskReader(str(disk.path), DiskOptions(size_bytes=SIZE_BYTES, interval_s=0.001, smart=False))
        try:
            greedy.read()
            with throttled(disk.device, (*seen.reader.pids, *greedy.pids), reads_per_s=10):
                finding, took_s = seen.until(
                    lambda finding: finding.verdict is not Verdict.HEALTHY and bool(greedy.read()),
                    FOUND_WITHIN_S * 2,
                )
        finally:
            greedy.close()
        print(f"  {finding.verdict} {finding.reason}: {finding.message}")
        return [
            Bar(name="throttled reads are found within", value=took_s, limit=FOUND_WITHIN_S, unit=" s"),
            Bar(
                name="and are the limit's",
                value=float(finding.reason == "slow_throttled"),
                limit=1,
                at_least=True,
            ),
            Bar(name="alarms before", value=seen.alarms, limit=0),
        ]


def cpu_of(pid: int) -> float:
    """CPU seconds of a process, ever, in nanoseconds' steps."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def memory_mb(pid: int, kind: str) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(f"{kind}:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise CannotMeasureError("this kernel has no smaps_rollup")


PARTS: dict[str, Callable[[], list[Bar]]] = {"slow": slow, "throttled": limited}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=PARTS, action="append", help="one part (may be given again)")
    if why := why_not():
        print(f"cannot measure: a faulty disk {why}", file=sys.stderr)
        return 1
    code = 0
    for name in parser.parse_args().only or PARTS:
        print(f"{name}: {PARTS[name].__doc__}", flush=True)
        try:
            bars = PARTS[name]()
        except CannotMeasureError as exc:
            print(f"cannot measure: {exc}", file=sys.stderr)
            code = code or 1
            continue
        print("\n".join(map(str, bars)), flush=True)
        code = code if all(bar.holds for bar in bars) else 3
    return code


if __name__ == "__main__":
    sys.exit(main())
