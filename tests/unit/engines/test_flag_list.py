"""Flags as data: as options, checked, and as the words of a command line."""

import dataclasses

import msgspec
import pytest

from freehold.engines import all_engines
from freehold.engines.base import Engine, Value
from freehold.engines.shared import flag_list
from freehold.engines.shared.flag_list import FlagList, ProgramFlag, option_name, render_flags, to_options
from freehold.engines.shared.option_check import check_options

FLAGS = (
    ProgramFlag(flag="--max-num-seqs", type="int", default=256),
    ProgramFlag(flag="--block-size", type="int", choices=(1, 16)),
    ProgramFlag(flag="--dtype", type="str", choices=("auto", "half")),
    ProgramFlag(flag="--enforce-eager", type="bool", negatable=True),
    ProgramFlag(flag="--enable-metrics", type="bool"),
    ProgramFlag(flag="--config", type="json"),
    ProgramFlag(flag="--paths", type="list"),
    ProgramFlag(flag="--middleware", type="list", repeats=True),
    ProgramFlag(flag="--host", type="str"),
    ProgramFlag(flag="--sizes", type="list", items="int"),
    ProgramFlag(flag="--parts", type="list", choices=("q", "k")),
)


def engine() -> Engine:
    options = to_options(FLAGS, helps={"dtype": "kind of numbers"}, reserved=("host",))
    good = all_engines()["external"]
    return dataclasses.replace(
        good, options=options, reserved={"host": "gateway.listen is where clients come"}
    )


def mistakes(**options: Value) -> list[str]:
    return [
        f"{problem.message}|{problem.hint}" for problem in check_options(engine(), options, lambda name: name)
    ]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_num_seqs": 4}, ["--max-num-seqs=4"]),
        ({"dtype": "half", "max_num_seqs": 4}, ["--max-num-seqs=4", "--dtype=half"]),
        ({"enforce_eager": True}, ["--enforce-eager"]),
        ({"enforce_eager": False}, ["--no-enforce-eager"]),
        ({"enable_metrics": False}, []),
        ({"config": '{"a": 1}'}, ['--config={"a": 1}']),
        ({"paths": 'a=/x "b=/y z"'}, ["--paths", "a=/x", "b=/y z"]),
        ({"paths": 'it"s'}, ["--paths", 'it"s']),
        ({"middleware": "m.A m.B"}, ["--middleware=m.A", "--middleware=m.B"]),
        ({"of_the_engine_file": 1}, []),
    ],
)
def test_options_become_words(options: dict[str, Value], words: list[str]) -> None:
    assert render_flags(FLAGS, options) == words


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"block_size": 16}, []),
        ({"block_size": 7}, ["must be one of 1, 16"]),
        ({"config": "{"}, ["must be JSON"]),
        ({"config": "[1]"}, []),
        ({"host": "0.0.0.0"}, ["cannot be set here|gateway.listen"]),
        ({"sizes": "1 2", "parts": "k q"}, []),
        ({"sizes": "1 two x"}, ["must be of type int, not 'two'", "not 'x'"]),
        ({"sizes": "[1, 2.5]"}, ["must be of type int, not '2.5'"]),
        ({"parts": "q v"}, ["must be one of q, k, not 'v'"]),
        ({"max_num_seq": 3}, ["did you mean 'max_num_seqs'"]),
        ({"max_num_seqs": "many"}, ["must be of type int"]),
    ],
)
def test_values_are_checked(options: dict[str, Value], words: list[str]) -> None:
    told = mistakes(**options)
    assert len(told) == len(words)
    assert all(word in text for word, text in zip(words, told, strict=True))


def test_help_says_what_is_known() -> None:
    helps = {option.name: option.help for option in engine().options}
    assert helps["dtype"] == "kind of numbers"
    assert helps["max_num_seqs"] == "see the documentation of --max-num-seqs; the program's own default: 256"
    assert "JSON" in helps["config"]


def test_a_flag_is_called_as_in_the_documentation() -> None:
    assert option_name("--max-num-seqs") == option_name("--max_num_seqs") == "max_num_seqs"


def test_a_list_with_a_foreign_field_is_refused() -> None:
    good = {"program": "p", "version": "1", "source": "s", "flags": [{"flag": "--a", "type": "int"}]}
    assert msgspec.convert(good, FlagList).flags[0].name == "a"
    with pytest.raises(msgspec.ValidationError, match="helps"):
        msgspec.convert({**good, "flags": [{"flag": "--a", "type": "int", "helps": "x"}]}, FlagList)


def test_a_list_that_is_not_there_is_an_error() -> None:
    with pytest.raises(OSError, match="no-such"):
        flag_list.load_flags("no-such.json")
