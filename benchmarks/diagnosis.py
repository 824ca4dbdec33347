"""Score diagnosis on the labelled corpus: confusion matrix, right or undetermined, wrong hardware verdicts, false cordons.

    python benchmarks/diagnosis.py           a few seconds
    python benchmarks/diagnosis.py --all     every incident, with what was said of it
    python benchmarks/diagnosis.py --folder OTHER/   another corpus in the same form

The tuning part and the held-out part (never tuned on) are scored apart. Benign kernel lines are diagnosed whole and in 500
random windows with a fixed seed: none may take a node out. Labels are justified in the corpus. A label that is a list is an honest
dispute: any of it is right. An incident may be a raw kernel log (`log`), name the `actions` that are acceptable, and forbid to take the
node out (`must_not_cordon`). Exit code: 0 the bars hold, 3 they do not. It does not measure probes, readers or speed.
"""

import argparse
import random
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from freehold.core.places import read_tree
from freehold.health.evidence.diagnose import Diagnosis
from freehold.health.evidence.escalation import TAKES_OUT
from freehold.health.incident_file.read import read_incident, read_kernel_log
from freehold.health.incidents.conclusions import diagnose_all, foremost

CORPUS = Path(__file__).parent.parent / "tests" / "corpus"
RIGHT_MIN, WRONG_HARDWARE_MAX, UNDETERMINED_MAX = 0.95, 0.01, 0.15
"""Bars: the first two are the project's, the third our own, so that nobody wins by saying nothing."""
WINDOWS, SEED = 500, 20261127
NONE = "none"


@dataclass(frozen=True)
class Scored:
    """One incident and what was said of it."""

    id: str
    labels: tuple[str, ...]
    """The first is the likeliest; more than one only where sources honestly disagree."""
    said: str
    diagnosis: Diagnosis | None
    components: tuple[str, ...]
    """Names of the one that it is; empty: not sure, so not judged."""
    ignored: tuple[str, ...]
    actions: tuple[str, ...] = ()
    """Acceptable ones; empty: not judged."""
    must_not_cordon: bool = False

    @property
    def label(self) -> str:
        """Return the label to count it under: what was said where that is right, else the likeliest."""
        return self.said if self.right else self.labels[0]

    @property
    def right(self) -> bool:
        """Return whether a label was said."""
        return self.said in self.labels

    @property
    def wrong(self) -> bool:
        """Return whether it is neither right nor an honest `undetermined`."""
        return not self.right and self.said not in {"undetermined", NONE}

    @property
    def missed(self) -> bool:
        """Return whether a fault was called none."""
        return self.said == NONE and not {NONE, "undetermined"} & set(self.labels)

    @property
    def other_action(self) -> str:
        """Return the action that was given and is not acceptable; empty: none such."""
        action = "none" if self.diagnosis is None else str(self.diagnosis.action)
        return action if self.actions and action not in self.actions else ""

    @property
    def false_cordon(self) -> bool:
        """Return whether it takes a node out where that is forbidden."""
        return self.must_not_cordon and self.diagnosis is not None and self.diagnosis.action in TAKES_OUT


def incidents(path: Path) -> list[dict[str, Any]]:
    tree = read_tree(path.read_text("utf-8"), path.name)
    assert not tree.mistakes, tree.mistakes
    assert isinstance(tree.data, dict), path
    return list(tree.data["incidents"])


def score(entry: dict[str, Any]) -> Scored:
    told = read_kernel_log(entry["log"]) if "log" in entry else read_incident(entry["file"], entry["id"])
    assert not told.problems, told.problems
    main = foremost(diagnose_all(told.cases))
    said = NONE if main is None or not main.problem else str(main.hypothesis)
    return Scored(
        entry["id"],
        several(entry["label"]),
        said,
        main,
        several(entry.get("component", [])),
        told.ignored,
        actions=several(entry.get("actions", [])),
        must_not_cordon=bool(entry.get("must_not_cordon")),
    )


def several(value: str | list[str]) -> tuple[str, ...]:
    """Return one text, or a list of them, as a tuple."""
    return (value,) if isinstance(value, str) else tuple(value)


def report(name: str, scored: list[Scored]) -> bool:
    faults = [s for s in scored if s.label != NONE]
    wrong, missed = [s for s in scored if s.wrong], [s for s in scored if s.missed]
    hardware = [s for s in wrong if s.said == "hardware"]
    undetermined = [s for s in faults if s.said == "undetermined" and not s.right]
    fine = 1 - (len(wrong) + len(missed)) / len(scored)
    print(f"\n{name}: {len(scored)} incidents")
    print(f"  right                {sum(s.right for s in scored) / len(scored):6.1%}")
    print(f"  right or undetermined{fine:6.1%}   (bar {RIGHT_MIN:.0%})")
    print(f"  wrong hardware       {len(hardware) / len(scored):6.1%}   (bar {WRONG_HARDWARE_MAX:.0%})")
    print(
        f"  undetermined though the cause is known {len(undetermined) / max(1, len(faults)):.1%}   (bar {UNDETERMINED_MAX:.0%})"
    )
    cordons = sum(s.false_cordon for s in scored)
    print(
        f"  cordons where none may be {cordons} (bar 0), other actions than the label's {sum(bool(s.other_action) for s in scored)}"
    )
    for s in [*wrong, *missed]:
        print(
            f"  WRONG {s.id}: said {s.said}, is {'/'.join(s.labels)}: {s.diagnosis.summary if s.diagnosis else ''}"
        )
    for s in undetermined:
        print(f"  undetermined {s.id}, is {s.label}: {s.diagnosis.summary if s.diagnosis else ''}")
    for s in scored:
        if s.labels == (NONE,) and s.said != NONE:
            print(
                f"  RAISED {s.id}: {s.said}, {s.diagnosis.action if s.diagnosis else ''}, though nothing is wrong"
            )
        if s.components and s.diagnosis and s.diagnosis.component not in s.components:
            print(f"  COMPONENT {s.id}: said {s.diagnosis.component}, is {' or '.join(s.components)}")
        if s.other_action:
            print(f"  ACTION {s.id}: said {s.other_action}, acceptable {', '.join(s.actions)}")
        if s.false_cordon:
            print(f"  FALSE CORDON {s.id}: {s.diagnosis.summary if s.diagnosis else ''}")
        if s.ignored:
            print(f"  IGNORED {s.id}: {', '.join(s.ignored)}")
    ok = fine >= RIGHT_MIN and len(hardware) / len(scored) <= WRONG_HARDWARE_MAX and cordons == 0
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
    cordons = sum(main.action in TAKES_OUT for main in raised)
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
    own = args.folder / "kernel_benign.txt"
    benign = own if own.exists() else CORPUS / "kernel_benign.txt"
    if benign.exists():
        ok = false_cordons(benign) == 0 and ok
    return 0 if ok else 3


if __name__ == "__main__":
    sys.exit(main())
