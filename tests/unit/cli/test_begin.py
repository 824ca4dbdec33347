"""The first moments of the command."""

import sys
from importlib.machinery import ModuleSpec

import pytest

from freehold.__main__ import run


def test_ctrl_c_while_modules_are_loaded_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    class CtrlC:
        @staticmethod
        def find_spec(name: str, *_: object) -> ModuleSpec | None:
            if name == "freehold.cli.main":
                raise KeyboardInterrupt
            return None

    monkeypatch.delitem(sys.modules, "freehold.cli.main", raising=False)
    monkeypatch.delattr("freehold.cli.main", raising=False)
    monkeypatch.setattr(sys, "meta_path", [CtrlC, *sys.meta_path])
    assert run() == 130
