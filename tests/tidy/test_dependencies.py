"""What is installed to run Freehold is what Freehold at work imports: nothing that only tests need."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
IMPORTED_AS = {"nvidia_ml_py": "pynvml", "pyyaml": "yaml"}
"""Packages that are imported by another name than they are installed by."""


def test_every_runtime_dependency_is_imported_outside_testing() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = [re.split(r"[>=<;\s]", text)[0].replace("-", "_") for text in project["dependencies"]]
    names = [IMPORTED_AS.get(name, name) for name in names]
    files = [path for path in (ROOT / "freehold").rglob("*.py") if "testing" not in path.parts]
    source = "\n".join(path.read_text() for path in files)
    imported = set(re.findall(r"^\s*(?:import|from) ([\w.]+)", source, re.MULTILINE))
    unused = [name for name in names if not any(f"{each}.".startswith(f"{name}.") for each in imported)]
    assert len(names) > 5
    assert unused == []
