"""Engines are found: those of the folder, and those of other packages through their entry points."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from freehold import engines

GOOD = """
import dataclasses
from freehold.engines.external import ENGINE as EXTERNAL
ENGINE = dataclasses.replace(EXTERNAL, name="elsewhere")
THIEF = dataclasses.replace(EXTERNAL, name="llama-cpp")
TEXT = "no engine"
"""
Install = Callable[[str, str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Give `install(module source, entry point)`: a package on the path with its real metadata."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def put(source: str, point: str) -> None:
        (tmp_path / "engine_elsewhere.py").write_text(source)
        info = tmp_path / "engine_elsewhere-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: engine-elsewhere\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[freehold.engines]\n{point}\n")
        monkeypatch.delitem(sys.modules, "engine_elsewhere", raising=False)
        engines._find.cache_clear()

    yield put
    engines._find.cache_clear()


def test_the_folder_is_the_registry() -> None:
    here = {path.stem for path in Path(engines.__file__).parent.glob("*.py")}
    public = {name for name in here if not name.startswith("_")} - {"base"}
    assert {name.replace("-", "_") for name in engines.all_engines()} == public
    assert not engines.engine_problems()


def test_an_engine_of_another_package_is_found(install: Install) -> None:
    install(GOOD, "elsewhere = engine_elsewhere:ENGINE")
    assert "elsewhere" in engines.all_engines()
    assert engines.engine_problems() == ()


@pytest.mark.parametrize(
    ("source", "point", "words"),
    [
        (GOOD, "elsewhere = engine_missing:ENGINE", "ModuleNotFoundError"),
        (GOOD, "elsewhere = engine_elsewhere:NOTHING", "AttributeError"),
        ("this is no Python", "elsewhere = engine_elsewhere:ENGINE", "SyntaxError"),
        ("ENGINE = 1 + ''", "elsewhere = engine_elsewhere:ENGINE", "TypeError"),
        (GOOD, "elsewhere = engine_elsewhere:TEXT", "but str"),
        (GOOD, "other-name = engine_elsewhere:ENGINE", "calls itself 'elsewhere'"),
        (GOOD, "llama-cpp = engine_elsewhere:THIEF", "already an engine named 'llama-cpp'"),
    ],
)
def test_a_broken_one_is_told_and_harms_no_other(
    install: Install, source: str, point: str, words: str
) -> None:
    own = set(engines.all_engines())
    install(source, point)
    (problem,) = engines.engine_problems()
    assert words in problem.message
    assert "engine-elsewhere" in problem.where
    assert set(engines.all_engines()) == own
    assert engines.all_engines()["llama-cpp"].managed


def test_what_all_engines_gives_is_the_callers_own() -> None:
    engines.all_engines().clear()
    assert engines.all_engines()
