"""Run the checks and say what each took: `python tests/stages.py test|check [stage …]`.

All stages run even when one fails, so that one run tells everything. What computes runs alone, one after the other; then what mostly
waits for processes that it started runs side by side, each with its output shown when it ends. Standard library only; it
runs the programs of the environment that it is started with.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
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
WAITING = ("contract", "e2e")
"""Stages that leave most of two cores alone: a quarter of an hour each, side by side as long as the longer one."""
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
    waiting = [name for name in chosen if name in WAITING]
    yield from (run(name, known[name]) for name in chosen if name not in waiting or len(waiting) == 1)
    if len(waiting) > 1:
        print(f"\n== {' and '.join(waiting)}, side by side: each is shown when it has ended", flush=True)
        with ThreadPoolExecutor(len(waiting)) as pool:
            for done in as_completed([pool.submit(_kept, name, known[name]) for name in waiting]):
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
