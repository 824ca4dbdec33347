"""The data files beside engine files: strict, and complete for the engines that have one."""

import re
from pathlib import Path

import pytest

from freehold.engines.shared import engine_data
from freehold.engines.shared.engine_data import load_engine_data

FOLDER = Path(engine_data.__file__).parents[1]
GOOD = """\
phases = [{ words = 'loading', says = "loading weights" }]
options = [{ name = "slots", type = "int", help = "requests at once" }]
[[exits]]
kind = "port_in_use"
words = ['a\\d', 'b|c']
summary = "s"
hint = "h"
restart = true
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(engine_data, "files", lambda _package: tmp_path)
    load_engine_data.cache_clear()
    return tmp_path


def test_every_data_file_belongs_to_an_engine_file() -> None:
    for path in FOLDER.glob("*.toml"):
        assert path.with_suffix(".py").is_file()
        assert load_engine_data(path.stem).options


def test_alternatives_are_one_regular_expression(folder: Path) -> None:
    (folder / "x.toml").write_text(GOOD)
    (rule,) = load_engine_data("x").exits
    assert rule.words == re.compile(r"a\d|b|c")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('summary = "s"', 'summary = "s"\nsumary = "s"'),
        ('help = "requests at once"', 'help = "requests at once", unit = "1"'),
        ("phases = ", "fases = "),
        ('kind = "port_in_use"', 'kind = "port_taken"'),
        ('hint = "h"', ""),
    ],
)
def test_what_does_not_belong_in_a_data_file_is_an_error(folder: Path, old: str, new: str) -> None:
    assert old in GOOD
    (folder / "x.toml").write_text(GOOD.replace(old, new))
    with pytest.raises(ValueError, match=r"\w"):
        load_engine_data("x")
