"""Small files of /proc and /sys, and the cgroups that a process is in: text that cannot hang. Nothing here judges."""

import os
import re
from collections.abc import Iterator
from pathlib import Path


def text_of(path: Path) -> str:
    """Return a file's text without the blanks around it; empty where it cannot be read."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def unescaped(text: str) -> str:
    """Return the text without the octal escapes that the kernel writes for space, tab, newline and backslash."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def cgroup_paths(root: Path, process: str, controller: str) -> Iterator[tuple[int, str]]:
    """Yield version (1 or 2) and path of the cgroups of a process (`self` or its pid) that have the controller."""
    for line in text_of(root / "proc" / process / "cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            yield 2, path
        elif controller in controllers.split(","):
            yield 1, path


def cgroup_folders(root: Path, path: str, *, version: int, controller: str) -> list[Path]:
    """Return the folders of a cgroup and of all above it, the nearest first; empty where they are not mounted."""
    kind, option = ("cgroup", controller) if version == 1 else ("cgroup2", "")
    for line in text_of(root / "proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        ends = right.split(" ")
        if len(ends) > 2 and ends[0] == kind and (not option or option in ends[2].split(",")):
            top = root / unescaped(left.split(" ")[4]).lstrip("/")
            here = Path(os.path.normpath("/" + path))
            return [top / str(each).lstrip("/") for each in (here, *here.parents)]
    return []
