"""Take SGLang's flags from its own parser: `PYTHONPATH=WHEEL:tests/flag_lists python sglang_flags.py OUT.json`.

WHEEL is the unpacked wheel (`pip download --no-deps sglang==VERSION`). The interpreter needs torch (a CPU build will do),
transformers, msgspec and some small packages; no GPU and no kernel of SGLang is touched, since only the parser is built.
Packages for pictures and sound, which SGLang imports before its flags, are stood in for when they are missing or broken.
Help texts are not taken.
"""

import argparse
import importlib.abc
import importlib.machinery
import json
import sys
import types
from pathlib import Path
from typing import Any, ClassVar

STOOD_IN_FOR = ("torchvision", "torchcodec", "torchaudio")
JSON_TYPES = {"loads", "json_list_type", "parse_cuda_graph_config_arg"}
PLAIN_TYPES = {"int": "int", "human_readable_int": "int", "float": "float"}


class _AnyName(type):
    def __getattr__(cls, name: str) -> str:
        if name.startswith("__"):
            raise AttributeError(name)
        return name


class _Empty(types.ModuleType):
    __path__: ClassVar[list[str]] = []
    __version__ = "0"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _AnyName(name, (), {})


class _StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name: str, _path: Any, _target: Any = None) -> importlib.machinery.ModuleSpec | None:
        known = name.partition(".")[0] in STOOD_IN_FOR
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if known else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _Empty(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


def to_flag(action: argparse.Action) -> dict[str, Any]:
    """Return one flag of an argparse parser in the form of the list."""
    negatable = isinstance(action, argparse.BooleanOptionalAction)
    names = [name for name in action.option_strings if not (negatable and name.startswith("--no-"))]
    return {
        "flag": names[0],
        "type": _type(action),
        "choices": list(action.choices)
        if isinstance(action.choices, list | tuple)
        else sorted(action.choices or ()),
        "items": PLAIN_TYPES.get(getattr(action.type, "__name__", ""), "str")
        if _type(action) == "list"
        else "str",
        "default": _default(action.default),
        "negatable": negatable,
        "aliases": names[1:],
    }


def _type(action: argparse.Action) -> str:
    if action.nargs == 0:
        return "bool"
    if action.nargs in ("+", "*"):
        return "list"
    name = getattr(action.type, "__name__", "str")
    return "json" if name in JSON_TYPES else PLAIN_TYPES.get(name, "str")


def _default(value: object) -> object:
    try:
        json.dumps(value)
    except TypeError:  # one that is worked out by code
        return None
    return None if value is argparse.SUPPRESS else value


def main(out: Path) -> None:
    """Build the parser and write its list."""
    sys.meta_path.insert(0, _StandIns())
    from sglang.srt import server_args  # noqa: PLC0415
    from sglang.version import __version__ as version  # noqa: PLC0415
    from write import write_list  # noqa: PLC0415

    parser = argparse.ArgumentParser(add_help=False)
    server_args.ServerArgs.add_cli_args(parser)
    write_list(
        out,
        program="python -m sglang.launch_server",
        version=version,
        source=f"argparse parser of sglang.srt.server_args of the wheel sglang {version}, built on a CPU",
        flags=[to_flag(action) for action in parser._actions],
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
