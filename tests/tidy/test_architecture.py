"""Every file that docs/ARCHITECTURE.md names exists, and so does what the other pages name or link to.

It checks names and links, not whether a page says the truth about a file.
"""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tidy.source import ROOT

ARCHITECTURE = ROOT / "docs" / "ARCHITECTURE.md"
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    ROOT / "benchmarks" / "README.md",
]
PAGES += sorted((ROOT / "docs").glob("*.md"))
ROOMS = sorted(path.name for path in (ROOT / "freehold").iterdir() if (path / "__init__.py").exists())
TOPS = "|".join(["freehold", "docs", "tests", "benchmarks", "examples", *ROOMS])
NAME = re.compile(rf"(?<![\w./:~<-])(?:{TOPS})/[\w/.*-]*[\w/*]")
LINK = re.compile(r"\]\(([^)\s]+)\)")
PLACEHOLDER = re.compile(r"[A-Z]{4,}|…")
"""`engines/NAME.py` stands for a file, `bench/README.md` is one."""
NAMES_LEAST = 100
"""So many ARCHITECTURE.md has at least: a page of which no name is recognised would pass too."""


def named(text: str) -> Iterator[str]:
    """Yield the paths that a page names, without those that stand for others."""
    for name in NAME.findall(text):
        if not PLACEHOLDER.search(
            name.replace("README", "").replace("ARCHITECTURE", "").replace("STYLE", "")
        ):
            yield name


def exists(name: str, beside: Path = ROOT) -> bool:
    """Whether a path, or a pattern, matches a file of the repository, of the package, or beside the page."""
    return any(any(top.glob(name.rstrip("/"))) for top in (ROOT, ROOT / "freehold", beside))


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub makes of a page's headings."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def test_every_file_that_the_architecture_names_exists() -> None:
    names = list(named(ARCHITECTURE.read_text(encoding="utf-8")))
    gone = sorted({name for name in names if not exists(name)})
    assert not gone, "docs/ARCHITECTURE.md names files that do not exist: " + ", ".join(gone)
    assert len(names) >= NAMES_LEAST


def layers() -> Iterator[str]:
    """Yield a row for each room whose inside has layers, as pyproject.toml declares them."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    for contract in contracts:
        if contract["type"] == "layers" and contract["containers"] != ["freehold"]:
            room = contract["containers"][0].removeprefix("freehold.")
            steps = [[name.strip(" ()") for name in layer.split("|")] for layer in contract["layers"]]
            row = " → ".join(" ".join(shown(room, name) for name in step) for step in steps)
            yield f"| {room} | {row} |"


def shown(room: str, name: str) -> str:
    return f"`{room}/{name}/`" if (ROOT / "freehold" / room / name).is_dir() else f"`{room}/{name}.py`"


def test_the_inside_of_rooms_is_as_the_import_contracts_have_it() -> None:
    lines = ARCHITECTURE.read_text(encoding="utf-8").splitlines()
    missing = [row for row in layers() if row not in lines]
    assert not missing, "docs/ARCHITECTURE.md, Rooms, must have these rows:\n" + "\n".join(missing)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    files = {
        name for name in named(page.read_text(encoding="utf-8")) if re.search(r"\.(py|md|ya?ml|svg)$", name)
    }
    gone = sorted(name for name in files if not exists(name, page.parent))
    assert not gone, f"{page.relative_to(ROOT)} names files that do not exist: " + ", ".join(gone)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    broken = []
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken, f"{page.relative_to(ROOT)} has links to nowhere: " + ", ".join(broken)


def test_what_counts_as_a_name() -> None:
    text = "`gateway/run.py`, freehold/cli/serve/up.py. docs/plan.md; `engines/NAME.py`, ~/freehold/x, a `View`/`Finding`"
    assert list(named(text)) == ["gateway/run.py", "freehold/cli/serve/up.py", "docs/plan.md"]
    assert exists("core/clock.py")
    assert exists("freehold/core/")
    assert exists("weights/fetch_*.py")
    assert not exists("core/clocks.py")
