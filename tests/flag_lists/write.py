"""Write a flag list as `freehold/engines/flags/` has it: one flag a line, sorted, so that a new version is a small diff."""

import json
from pathlib import Path
from typing import Any

USUAL: dict[str, Any] = {
    "items": "str",
    "choices": [],
    "default": None,
    "negatable": False,
    "repeats": False,
    "aliases": [],
}


def write_list(path: Path, *, program: str, version: str, source: str, flags: list[dict[str, Any]]) -> None:
    """Write the list; what is as usual is left out of a flag."""
    rows = [
        {key: value for key, value in flag.items() if key not in USUAL or value != USUAL[key]}
        for flag in sorted(flags, key=lambda flag: str(flag["flag"]))
    ]
    head = json.dumps({"program": program, "version": version, "source": source}, indent=1)[:-2]
    body = ",\n".join("  " + json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text(f'{head},\n "flags": [\n{body}\n ]\n}}\n', encoding="utf-8")
