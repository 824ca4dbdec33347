"""Run the checks one after the other and say what each took: `python tests/stages.py test|check [stage …]`.

All stages run even when one fails, so that one run tells everything. Standard library only; it runs the programs of
the environment that it is started with.
"""

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
STATIC = (
    ("ruff", (BIN / "ruff", "check", ".")),
    ("format", (BIN / "ruff", "format", "--check", ".")),
    ("mypy", (BIN / "mypy",)),
    ("imports", (BIN / "lint-imports", "--no-logo")),
)
FOLDERS = ("tidy", "unit", "contract", "golden", "simulation", "e2e")
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
    outcomes = [run(name, known[name]) for name in chosen]
    print("\n" + "\n".join(f"{each.verdict:>8}  {each.took_s:7.1f} s  {each.name}" for each in outcomes))
    print(f"{'':8}  {sum(each.took_s for each in outcomes):7.1f} s  in all", flush=True)
    return int(any(each.verdict == "FAILED" for each in outcomes))


def stages(which: str) -> dict[str, tuple[Path | str, ...]]:
    """Return the commands of `test` or `check` by stage name; nothing for another word."""
    static = dict(STATIC)
    tests = {name: (sys.executable, "-m", "pytest", "-q", *SLOWEST, f"tests/{name}") for name in FOLDERS}
    return {"check": static, "test": {**static, **tests}}.get(which, {})


def run(name: str, command: tuple[Path | str, ...]) -> Outcome:
    """Run one stage with its output shown, and time it."""
    if name in FOLDERS and not list((ROOT / "tests" / name).glob("**/test_*.py")):
        return Outcome(name=name, verdict="none yet", took_s=0.0)
    print(f"\n== {name}", flush=True)
    started_s = time.monotonic()
    code = subprocess.run(command, cwd=ROOT, check=False).returncode
    return Outcome(name=name, verdict="FAILED" if code else "ok", took_s=time.monotonic() - started_s)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
