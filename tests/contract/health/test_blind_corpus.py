"""The bars on incidents that were written without the rules, and on harmless kernel lines; its README tells the first scores."""

from pathlib import Path
from typing import Any

import pytest

from freehold.core.places import read_tree
from freehold.health.evidence.diagnose import Diagnosis
from freehold.health.evidence.escalation import TAKES_OUT
from freehold.health.incident_file.read import read_incident, read_kernel_log
from freehold.health.incidents.conclusions import diagnose_all, foremost

BLIND = Path(__file__).parents[2] / "corpus" / "blind"
WORDS = {
    "hardware",
    "software",
    "driver",
    "facility",
    "network",
    "storage",
    "configuration",
    "undetermined",
    "none",
}


def entries() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for path in sorted(BLIND.glob("*.yaml")):
        tree = read_tree(path.read_text("utf-8"), path.name)
        assert not tree.mistakes, tree.mistakes
        assert isinstance(tree.data, dict)
        found.extend(tree.data["incidents"])
    return found


def labels(entry: dict[str, Any]) -> set[str]:
    label = entry["label"]
    return {label} if isinstance(label, str) else set(label)


def said_of(entry: dict[str, Any]) -> Diagnosis | None:
    told = read_kernel_log(entry["log"]) if "log" in entry else read_incident(entry["file"], entry["id"])
    assert not told.problems, told.problems
    assert not told.ignored, told.ignored
    main = foremost(diagnose_all(told.cases))
    return main if main is not None and main.problem else None


def test_it_is_large_and_justified() -> None:
    found = entries()
    assert len(found) >= 75
    assert sum("log" in entry for entry in found) >= 15
    assert sum("none" in labels(entry) for entry in found) >= 15
    assert len({entry["id"] for entry in found}) == len(found)
    assert all(len(entry["why"]) > 10 for entry in found)
    assert set().union(*map(labels, found)) <= WORDS


def test_the_bars_hold() -> None:
    said = [(entry, said_of(entry)) for entry in entries()]
    words = [(labels(entry), str(main.hypothesis) if main else "none") for entry, main in said]
    good = [word in label or word == "undetermined" for label, word in words]
    hardware = [word == "hardware" and "hardware" not in label for label, word in words]
    dodged = [word == "undetermined" and word not in label for label, word in words]
    cordons = [
        entry["id"]
        for entry, main in said
        if entry.get("must_not_cordon") and main and main.action in TAKES_OUT
    ]
    raised = [entry["id"] for entry, main in said if labels(entry) == {"none"} and main]
    assert sum(good) >= 0.95 * len(words)
    assert sum(hardware) <= 0.01 * len(words)
    assert sum(dodged) <= 0.15 * len(words)
    assert (cordons, raised) == ([], [])


@pytest.mark.parametrize("length", [25, 150, 1000])
def test_harmless_lines_raise_nothing(length: int) -> None:
    text = (BLIND / "kernel_benign.txt").read_text("utf-8")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("# ")]
    assert len(lines) >= 400
    for start in range(0, len(lines), 25):
        main = foremost(diagnose_all(read_kernel_log("\n".join(lines[start : start + length])).cases))
        assert main is None or not main.problem, (start, main.summary)
