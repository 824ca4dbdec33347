"""Every option of llama.cpp, with several values, against the parser of llama.cpp's own server: both take it, alike.

So the two ways of starting it are one: what `server_binary` is told makes the same settings as the wheel's child does of
it. It takes no model, and a second for all of them.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from freehold.engines.base import Placement, Value
from freehold.engines.llama_cpp import ENGINE
from freehold.engines.shared.option_check import check_options
from freehold.testing.check_engine import _values

PARSER = Path(__file__).parents[2] / "llama_parser.py"
HERE = str(Path(__file__).parent)
GOOD: dict[str, list[Value]] = {
    "n_batch": [4, 1111],  # 4 slots
    "tensor_split": ["3,1", "0.5,0.25,1"],
    "fit_target": ["512", "512,1024"],
    "override_tensor": ["blk\\.1.*=CPU", "a=CPU,b=CPU"],
    "slot_save_path": [HERE],
    "lora": ["/a.gguf", "/a.gguf,/b.gguf"],
    "lora_scaled": ["/a.gguf:0.5", "/a.gguf:-1,/b.gguf:2"],
    "chat_template": ["chatml", "{{ messages[0].content }}"],
    "chat_template_file": [__file__],
    "chat_template_kwargs": ['{"enable_thinking": false, "depth": 3, "who": "you"}'],
    "rope_scale": [0.001, 4],
    "repeat_penalty": [0.01, 1.1],
}
"""Values where any text or the kit's numbers would not do."""


def walk() -> Iterator[tuple[str, Value]]:
    for option in ENGINE.options:
        if option.name != "server_binary":
            yield from ((option.name, value) for value in GOOD.get(option.name, _values(option)))


def command(options: dict[str, Value]) -> list[str]:
    assert ENGINE.command is not None
    place = Placement(
        model="a-model", weights=Path("/w/m.gguf"), host="127.0.0.1", port=4321, options=options
    )
    argv = ENGINE.command(place).argv
    return list(argv[argv.index("--host") :])


def ask(commands: list[list[str]]) -> list[dict[str, Any]]:
    lines = "".join(json.dumps(words) + "\n" for words in commands)
    root = str(Path(__file__).parents[3])
    done = subprocess.run(
        [sys.executable, str(PARSER)],
        input=lines,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": root},
        check=False,
    )
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if answers and "unknown" in answers[0]:
        pytest.skip(f"llama.cpp's own parser cannot be asked: {answers[0]['unknown']}")
    assert len(answers) == len(commands), done.stderr[-2000:]
    return answers


@cache
def walked() -> dict[tuple[str, Value], dict[str, Any]]:
    steps = list(walk())
    return dict(zip(steps, ask([command({name: value}) for name, value in steps]), strict=True))


@pytest.mark.parametrize("name", [option.name for option in ENGINE.options if option.name != "server_binary"])
def test_an_option_is_taken_by_llama_cpp_and_means_the_same_to_the_wheel(name: str) -> None:
    answers = [answer for (option, _), answer in walked().items() if option == name]
    assert answers
    assert all(answer == {"theirs": True, "ours": True, "differences": []} for answer in answers), answers


def test_all_options_are_walked_with_all_choices() -> None:
    names = {name for name, _ in walk()}
    assert names | {"server_binary"} == {option.name for option in ENGINE.options}
    assert len(walked()) > 180


def test_every_option_reaches_the_command() -> None:
    for option in ENGINE.options:
        assert option.flag or option.name == "server_binary"


@pytest.mark.parametrize(
    ("options", "off"),
    [
        ({"lora_scaled": "/a.gguf:0"}, True),
        ({"lora_scaled": "/a.gguf:0.0,/b.gguf:1"}, True),
        ({"lora_scaled": "/a.gguf:0", "cache_prompt": True}, False),
        ({"lora_scaled": "/a.gguf:0.5"}, False),
        ({"lora": "/a.gguf"}, False),
    ],
)
def test_where_requests_choose_adapters_no_cache_is_used_again(
    options: dict[str, Value], *, off: bool
) -> None:
    assert ("--no-cache-prompt" in command(options)) is off


def test_a_drafting_model_drafts_without_more_words() -> None:
    words = command({"spec_draft_model": "/d.gguf"})
    assert words[words.index("--spec-type") + 1] == "draft-simple"


def test_many_at_once_mean_the_same_too() -> None:
    options: dict[str, Value] = {
        "n_gpu_layers": 20, "split_mode": "row", "tensor_split": "3,1", "main_gpu": 1, "flash_attn": "on",
        "cache_type_k": "q8_0", "cache_type_v": "q8_0", "n_cpu_moe": 3, "override_tensor": "a=CPU", "kv_unified": True,
        "lora_scaled": "/a.gguf:0.5", "lora": "/b.gguf", "mmproj": "/mm.gguf", "spec_draft_model": "/d.gguf",
        "spec_type": "draft-simple", "spec_draft_n_max": 7, "rope_scaling": "yarn", "rope_scale": 4, "yarn_orig_ctx": 4096,
        "embeddings": True, "pooling": "last", "load_mode": "mlock", "numa": "isolate", "prio": 2, "poll": 0, "temp": 0,
    }  # fmt: skip
    assert ask([command(options)]) == [{"theirs": True, "ours": True, "differences": []}]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cache_type_v": "q8_0", "flash_attn": "off"}, "needs flash attention"),
        ({"n_batch": 2}, "n_batch 2 is less than n_parallel 4"),
        ({"n_parallel": 200, "n_batch": 128}, "n_batch 128 is less"),
        ({"chat_template": "chatml", "chat_template_file": "x"}, "say the same thing"),
        ({"spec_draft_n_max": 3}, "no drafting model"),
        ({"tensor_split": "a,b"}, "another shape"),
        ({"lora_scaled": "/a.gguf"}, "another shape"),
        ({"override_tensor": "x"}, "another shape"),
    ],
)
def test_what_cannot_be_together_is_told_before_the_start(options: dict[str, Value], words: str) -> None:
    (problem,) = check_options(ENGINE, options, lambda name: name)
    assert words in problem.message
    assert problem.where in options
    assert problem.hint


@pytest.mark.parametrize(
    "options",
    [
        {"cache_type_v": "q8_0"},
        {"cache_type_v": "f16", "flash_attn": "off"},
        {"spec_type": "draft-mtp", "spec_draft_n_max": 2},
    ],
)
def test_what_can_be_together_is_not_refused(options: dict[str, Value]) -> None:
    assert check_options(ENGINE, options, lambda name: name) == []
