"""Measure whether the gateway holds: idle crowds, bad disks, jumping clocks, dead and frozen replicas, greed, refusals.

    python benchmarks/hold.py                 all of it, about seven minutes
    python benchmarks/hold.py --only idle     one part (may be given again): idle, disk, clock, dead, freeze, fair, refuse

Each part runs `freehold up` in a folder of its own and prints its figures and a verdict per bar. idle, disk, clock and
refuse use the mock engine and the load client of benchmarks/gateway; dead and freeze the fake engine; fair the real model.
Exit code: 0 all bars hold, 3 one does not, 1 none failed but something could not be measured.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(1, str(Path(__file__).resolve().parent / "gateway"))

import build
from holding import clock, dead, disk, fair, freeze, idle, refuse
from stack import Bar, CannotMeasureError

PARTS: dict[str, Callable[[], list[Bar]]] = {
    "idle": idle.measure,
    "disk": disk.measure,
    "clock": clock.measure,
    "dead": dead.measure,
    "freeze": freeze.measure,
    "fair": fair.measure,
    "refuse": refuse.measure,
}
FAILURES = (CannotMeasureError, build.CannotMeasureError, subprocess.TimeoutExpired)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=PARTS, action="append", help="one part (may be given again)")
    code = 0
    for name in parser.parse_args().only or PARTS:
        print(f"{name}: {sys.modules[PARTS[name].__module__].__doc__}", flush=True)
        try:
            found = PARTS[name]()
        except FAILURES as exc:
            print(f"cannot measure: {exc}", file=sys.stderr)
            code = code or 1
            continue
        print("\n".join(map(str, found)), flush=True)
        if not all(bar.holds for bar in found):
            code = 3
    return code


if __name__ == "__main__":
    sys.exit(main())
