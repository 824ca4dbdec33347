"""Score diagnosis on the labelled corpus: confusion matrix, right or undetermined, wrong hardware verdicts, false cordons.

    python benchmarks/diagnosis.py           a few seconds
    python benchmarks/diagnosis.py --all     every incident, with what was said of it
    python benchmarks/diagnosis.py --folder OTHER/   another corpus in the same form

The tuning part and the held-out part (never tuned on) are scored apart. Benign kernel lines are diagnosed whole and in 500
random windows with a fixed seed: none may take a node out. Labels are justified in the corpus. Exit code: 0 the bars hold, 3 they do
not. It does not measure probes, readers or speed.
"""

import argparse
import random
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from freehold.core.places import read_tree
from freehold.health.diagnose import Diagnosis
from freehold.health.incident_file import diagnose_all, foremost, read_incident, read_kernel_log

CORPUS = Path(__file__).parent.parent / "tests" / "corpus"
RIGHT_MIN, WRONG_HARDWARE_MAX, UNDETERMINED_MAX = 0.95, 0.01, 0.15
"""Bars: the first two are the project's, the third our own, so that nobody wins by saying nothing."""
WINDOWS, SEED = 500, 20261127
NONE = "none"


@dataclass(frozen=True)
class Scored:
    """One incident and what was said of it."""

    id: str
    label: str
    said: str
    diagnosis: Diagnosis | None
    component: str | None
    ignored: tuple[str, ...]

    @property
    def right(self) -> bool:
        """Return whether the label was said."""
        return self.said == self.label

    @property
    def wrong(self) -> bool:
        """Return whether it is neither right nor an honest `undetermined`."""
        return not self.right and self.said not in {"undetermined", NONE}

    @property
    def missed(self) -> bool:
        """Return whether a fault was called none."""
        return self.said == NONE and self.label not in {NONE, "undetermined"}


def incidents(path: Path) -> list[dict[str, Any]]:
    tree = read_tree(path.read_text("utf-8"), path.name)
    assert not tree.mistakes, tree.mistakes
    assert isinstance(tree.data, dict), path
    return list(tree.data["incidents"])


def score(entry: dict[str, Any]) -> Scored:
    told = read_incident(entry["file"], entry["id"])
    assert not told.problems, told.problems
    main = foremost(diagnose_all(told.cases))
    said = NONE if main is None or not main.problem else str(main.hypothesis)
    return Scored(entry["id"], entry["label"], said, main, entry.get("component"), told.ignored)


def report(name: str, scored: list[Scored]) -> bool:
    faults = [s for s in scored if s.label != NONE]
    wrong, missed = [s for s in scored if s.wrong], [s for s in scored if s.missed]
    hardware = [s for s in wrong if s.said == "hardware"]
    undetermined = [s for s in faults if s.said == "undetermined" and s.label != "undetermined"]
    fine = 1 - (len(wrong) + len(missed)) / len(scored)
    print(f"\n{name}: {len(scored)} incidents")
    print(f"  right                {sum(s.right for s in scored) / len(scored):6.1%}")
    print(f"  right or undetermined{fine:6.1%}   (bar {RIGHT_MIN:.0%})")
    print(f"  wrong hardware       {len(hardware) / len(scored):6.1%}   (bar {WRONG_HARDWARE_MAX:.0%})")
    print(
        f"  undetermined though the cause is known {len(undetermined) / max(1, len(faults)):.1%}   (bar {UNDETERMINED_MAX:.0%})"
    )
    for s in [*wrong, *missed]:
        print(f"  WRONG {s.id}: said {s.said}, is {s.label}: {s.diagnosis.summary if s.diagnosis else ''}")
    for s in undetermined:
        print(f"  undetermined {s.id}, is {s.label}: {s.diagnosis.summary if s.diagnosis else ''}")
    for s in scored:
        if s.component and s.diagnosis and s.diagnosis.component != s.component:
            print(f"  COMPONENT {s.id}: said {s.diagnosis.component}, is {s.component}")
        if s.ignored:
            print(f"  IGNORED {s.id}: {', '.join(s.ignored)}")
    ok = fine >= RIGHT_MIN and len(hardware) / len(scored) <= WRONG_HARDWARE_MAX
    return ok and len(undetermined) / max(1, len(faults)) <= UNDETERMINED_MAX


def matrix(scored: list[Scored]) -> None:
    words = [
        "hardware",
        "software",
        "driver",
        "facility",
        "network",
        "storage",
        "configuration",
        "undetermined",
        NONE,
    ]
    count = Counter((s.label, s.said) for s in scored)
    print("\nis \\ said".ljust(16) + "".join(word[:6].rjust(8) for word in words))
    for label in words:
        print(label.ljust(15) + "".join(str(count[label, said] or ".").rjust(8) for said in words))


def false_cordons(path: Path) -> int:
    """Return how many windows of benign lines took a node out or raised anything at all."""
    lines = [
        line for line in path.read_text("utf-8").splitlines() if line.strip() and not line.startswith("# ")
    ]
    dice = random.Random(SEED)
    starts = [(0, len(lines)), *((dice.randrange(len(lines)), dice.randint(1, 120)) for _ in range(WINDOWS))]
    raised = [
        main for start, length in starts if (main := said_of(lines[start : start + length])) is not None
    ]
    for main in raised[:5]:
        print(f"  RAISED {main.action}: {main.summary}")
    cordons = sum(main.takes_out for main in raised)
    print(
        f"\nbenign: {len(lines)} lines, {len(starts)} windows: {cordons} false cordons (bar 0), {len(raised)} raised anything (bar 0)"
    )
    return len(raised)


def said_of(lines: list[str]) -> Diagnosis | None:
    """Return the foremost problem that kernel lines are said to have; None: none."""
    main = foremost(diagnose_all(read_kernel_log("\n".join(lines)).cases))
    return main if main is not None and main.problem else None


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--all", action="store_true", help="print every incident")
    parser.add_argument("--folder", type=Path, default=CORPUS / "incidents")
    args = parser.parse_args(argv)
    tuned = [
        score(e)
        for path in sorted(args.folder.glob("*.yaml"))
        if path.stem != "held_out"
        for e in incidents(path)
    ]
    held = args.folder / "held_out.yaml"
    held_out = [score(entry) for entry in incidents(held)] if held.exists() else []
    ok = report("tuning part", tuned)
    ok = (report("held-out part", held_out) and ok) if held_out else ok
    matrix(tuned + held_out)
    if args.all:
        for s in tuned + held_out:
            d = s.diagnosis
            print(
                f"{'ok ' if s.right else 'NOT'} {s.id:32} {s.label:14} {s.said:14} {d.confidence if d else 0:5.2f} {d.action if d else '':18} {d.component if d else ''}"
            )
    benign = CORPUS / "kernel_benign.txt"
    if benign.exists():
        ok = false_cordons(benign) == 0 and ok
    return 0 if ok else 3


if __name__ == "__main__":
    sys.exit(main())
