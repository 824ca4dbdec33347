"""The package's own YAML files say the same to the quick reader as to the strict one, which also finds keys that stand twice."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

import freehold
from freehold.core.own_files import read_own
from freehold.core.places import read_tree

PACKAGE = Path(freehold.__file__).parent
FILES = [*PACKAGE.glob("health/*/*.yaml"), *PACKAGE.glob("catalog/data/health/*.yaml")]


def test_both_readers_agree_on_every_file() -> None:
    assert len(FILES) > 20
    for path in FILES:
        tree = read_tree(path.read_text("utf-8"), path.name)
        assert tree.mistakes == []
        assert read_own("freehold", str(path.relative_to(PACKAGE)), Any) == tree.data


def test_a_file_of_another_form_raises() -> None:
    with pytest.raises(msgspec.ValidationError):
        read_own("freehold.health.checks", "clock.yaml", dict[str, int])
