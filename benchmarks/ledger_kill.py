"""Kill a gateway under load again and again, and count what the ledger lost or counted twice.

`python benchmarks/ledger_kill.py --runs 200`: exit code 0 when nothing was, 3 when something was, 1 when no client had
an answer that could have been. It uses the gateway, spool and drainer as shipped, in front of an engine made of bytes;
`--folder` chooses the disk under the ledger file.
"""

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from gateway_rig.killing import Verdict, kill_many


def exit_code(verdict: Verdict) -> int:
    """Say what the counts come to."""
    if verdict.missing or verdict.doubled:
        return 3
    return 0 if verdict.ended else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200, help="how often to kill (default 200)")
    parser.add_argument("--seed", type=int, default=1, help="when to kill")
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="ledger-kill-", dir=args.folder))
    started_s = time.monotonic()
    verdict = kill_many(folder, runs=args.runs, seed=args.seed)
    print(f"{verdict} in {time.monotonic() - started_s:.0f} s")
    shutil.rmtree(folder)
    if not verdict.ended:
        print("cannot measure: no client had a whole answer", file=sys.stderr)
    return exit_code(verdict)


if __name__ == "__main__":
    sys.exit(main())
