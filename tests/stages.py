"""Run the checks and say what each took: `python tests/stages.py test|check [stage …]`.

All stages run even when one fails, so that one run tells everything. The first ones run alone, one after the other; then two lanes
run side by side, each stage with its output shown when it ends. Standard library only; it
runs the programs of the environment that it is started with.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
STATIC = (
    ("ruff", (BIN / "ruff", "check", ".")),
    ("format", (BIN / "ruff", "format", "--check", ".")),
    ("mypy", (BIN / "mypy",)),
    ("imports", (BIN / "lint-imports", "--no-logo")),
)
FOLDERS = ("tidy", "unit", "golden", "simulation", "contract", "e2e")
LANES = (("contract",), ("unit", "golden", "simulation", "e2e"))
"""Stages of one lane run one after the other, the lanes side by side. `contract` mostly waits for processes that it started, for
as long as all of the other lane takes, so that two cores are enough for both."""
SLOWEST = ("--durations=12", "--durations-min=5")
"""So that a run tells where its minutes went."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    name: str
    verdict: str
    took_s: float


def main(arguments: list[str]) -> int:
    """Return 0 when every stage passed, 1 when one failed, 2 for a wrong argument."""
    known = stages(arguments[0] if arguments else "")
    chosen = arguments[1:] or list(known)
    if not known or not set(chosen) <= set(known):
        print(f"usage: stages.py test|check [{'|'.join(stages('test'))} …]", file=sys.stderr)
        return 2
    outcomes = list(_outcomes(chosen, known))
    print("\n" + "\n".join(f"{each.verdict:>8}  {each.took_s:7.1f} s  {each.name}" for each in outcomes))
    print(f"{'':8}  {sum(each.took_s for each in outcomes):7.1f} s  in all", flush=True)
    return int(any(each.verdict == "FAILED" for each in outcomes))


def stages(which: str) -> dict[str, tuple[Path | str, ...]]:
    """Return the commands of `test` or `check` by stage name; nothing for another word."""
    static = dict(STATIC)
    tests = {name: (sys.executable, "-m", "pytest", "-q", *SLOWEST, f"tests/{name}") for name in FOLDERS}
    return {"check": static, "test": {**static, **tests}}.get(which, {})


def _outcomes(chosen: list[str], known: dict[str, tuple[Path | str, ...]]) -> Iterator[Outcome]:
    lanes = [lane for each in LANES if (lane := [name for name in each if name in chosen])]
    if len(lanes) < len(LANES):
        yield from (run(name, known[name]) for name in chosen)
        return
    yield from (run(name, known[name]) for name in chosen if not any(name in lane for lane in lanes))
    shown = ", ".join(" then ".join(lane) for lane in lanes)
    print(f"\n== side by side: {shown}; each is shown when it has ended", flush=True)
    with ExitStack() as stack:
        pools = [(stack.enter_context(ThreadPoolExecutor(1)), lane) for lane in lanes]
        running = [pool.submit(_kept, name, known[name]) for pool, lane in pools for name in lane]
        for done in as_completed(running):
            outcome, text = done.result()
            print(f"\n== {outcome.name}\n{text}", flush=True)
            yield outcome


def _kept(name: str, command: tuple[Path | str, ...]) -> tuple[Outcome, str]:
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        outcome = run(name, command, output)
        output.seek(0)
        return outcome, output.read()


def run(name: str, command: tuple[Path | str, ...], output: IO[str] | None = None) -> Outcome:
    """Run one stage, with its output shown or put into a file, and time it."""
    if name in FOLDERS and not list((ROOT / "tests" / name).glob("**/test_*.py")):
        return Outcome(name=name, verdict="none yet", took_s=0.0)
    if output is None:
        print(f"\n== {name}", flush=True)
    started_s = time.monotonic()
    code = subprocess.run(command, cwd=ROOT, check=False, stdout=output, stderr=output).returncode
    return Outcome(name=name, verdict="FAILED" if code else "ok", took_s=time.monotonic() - started_s)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
