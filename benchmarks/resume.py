"""Kill the replica under many streams of the real model, and print what their callers get.

    python benchmarks/resume.py --streams 20 --rounds 3

Two replicas of SmolLM2-135M with one compute thread each, `freehold up` with default settings, `--streams` plain streams
on each, temperature 0. One replica gets SIGKILL; the other goes on with its streams beside its own. Printed: whole
answers, the longest silence of the resumed ones, and how many texts are those of a run in which nobody died, beside how
many are the same in two such runs (a batch of another size rounds differently, so even those differ). The silence has
the prefill of all prompts and texts in it, which is most of it on a CPU. Exit code: 0 all answers are whole, 3 not.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from e2e import dying
from e2e.box import Box
from waiting import wait_until

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "01-one-box" / "freehold.yaml"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--streams", type=int, default=20, help="streams on each replica (default 20)")
    parser.add_argument("--rounds", type=int, default=3, help="how often to kill (default 3)")
    args = parser.parse_args()
    box = Box(home=Path(tempfile.mkdtemp(prefix="resume-")))
    try:
        with box.foreground("--config", str(dying.config(box, EXAMPLE, streams=args.streams))) as stack:
            fine = [asyncio.run(dying.undisturbed(stack.url, args.streams)) for _ in range(2)]
            first = statistics.median(caller.at_s[0] - caller.began_s for caller in fine[1])
            print(f"undisturbed: {dying.same(*fine)} of {2 * args.streams} texts are the same in two runs")
            print(
                f"  first token p50 {first:.2f} s: the prefill of {args.streams} prompts at once by each replica"
            )
            whole = True
            for number in range(args.rounds):
                wait_until(lambda: all(r["state"] == "ready" for r in stack.replicas()), timeout_s=60)
                callers, killed_s = asyncio.run(dying.disturbed(stack, args.streams, after=5 + 15 * number))
                whole &= tell(callers, killed_s, fine[0])
    finally:
        box.kill_all()
    return 0 if whole else 3


def tell(callers: list[dying.Caller], killed_s: float, fine: list[dying.Caller]) -> bool:
    """Print one round and return whether all answers were whole."""
    resumed = [caller for caller in callers if caller.resumed]
    gaps = sorted(caller.gap_s(killed_s) for caller in resumed) or [0.0]
    first = min((t for c in resumed for t in c.at_s if t > killed_s), default=killed_s) - killed_s
    pairs = list(zip(callers, fine, strict=True))
    print(
        f"killed: {sum(c.whole for c in callers)} of {len(callers)} whole, {len(resumed)} resumed,"
        f" gap p50 {statistics.median(gaps):.2f} s, max {gaps[-1]:.2f} s, first token after {first:.2f} s;"
        f" same text: {sum(a.text == b.text for a, b in pairs if a.resumed)} of the resumed,"
        f" {sum(a.text == b.text for a, b in pairs if not a.resumed)} of the {len(callers) - len(resumed)} others"
    )
    for caller in callers:
        if not caller.whole:
            print(f"  stream {caller.number}: {caller.failure or 'no end'}")
    return all(caller.whole for caller in callers)


if __name__ == "__main__":
    sys.exit(main())
