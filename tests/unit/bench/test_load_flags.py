"""The flags of `freehold bench`: loads, sizes, bounds, and who is benched; every mistake at once."""

from pathlib import Path

import pytest

from freehold.bench.analysis.load import Load
from freehold.bench.analysis.sizes import Given, Range
from freehold.bench.contenders import context_of, entries_of
from freehold.bench.load_flags import LoadAsk, read_load
from freehold.core.problems import Problem
from freehold.cost.intake.flags import FlagReader
from freehold.cost.intake.numbers import tokens
from freehold.spec.model import ModelSpec

SHA = "a" * 64


def read(**said: str) -> tuple[LoadAsk | None, list[Problem]]:
    reader = FlagReader()
    found = read_load(said, reader, state_path=Path("/nowhere"), models=("m",))
    return found, reader.problems


def asked(**said: str) -> LoadAsk:
    found, problems = read(**said)
    assert problems == []
    assert found is not None
    return found


def test_nobody_said_anything():
    found = asked()
    assert found.conditions.loads == tuple(Load(kind="concurrency", value=value) for value in (1, 2, 4, 8))
    assert found.sizes == Given(prompt=Range(512, 512), answer=Range(128, 128))
    assert (found.conditions.runs, found.conditions.seed, found.conditions.requests) == (3, 1, None)
    assert (found.conditions.warm_up_s, found.conditions.duration_s) == (5.0, 30.0)
    assert (found.conditions.slo.ttft_s, found.conditions.slo.itl_s) == (2.0, 0.05)
    assert found.through == ("direct",)


def test_what_was_said():
    found = asked(
        rate="0.5,1,1",
        concurrency="4",
        prompt_tokens="100..900",
        warm_up="0s",
        slo_ttft="500ms",
        through="both",
        requests="100",
        shared_prefix="64",
    )
    assert found.conditions.loads == (
        Load(kind="rate", value=0.5),
        Load(kind="rate", value=1.0),
        Load(kind="concurrency", value=4),
    )
    assert found.conditions.warm_up_s == 0.0
    assert found.conditions.slo.ttft_s == 0.5
    assert (found.conditions.requests, found.conditions.shared_prefix_tokens) == (100, 64)
    assert found.through == ("direct", "gateway")
    assert found.conditions.shape == "prompts of 100 to 900 tokens, answers of 128"


def test_a_published_shape_says_where_it_is_from():
    said = asked(shape="azure-code").conditions.shape
    assert "github.com/Azure/AzurePublicDataset" in said
    assert "360 of its 8,819" in said


@pytest.mark.parametrize(
    ("said", "where"),
    [
        ({"rate": "-1"}, "--rate"),
        ({"rate": "nan"}, "--rate"),
        ({"concurrency": "1.5"}, "--concurrency"),
        ({"concurrency": "100", "requests": "100"}, "--requests"),
        ({"rate": ",".join(str(number) for number in range(1, 70))}, "--rate"),
        ({"speed": "2"}, "--speed"),
        ({"shape": "azure"}, "--shape"),
        ({"shape": "own"}, "--shape"),
        ({"shape": "own", "since": "yesterday"}, "--since"),
        ({"shape": "azure-code", "prompt_tokens": "5"}, "--shape"),
        ({"prompt_tokens": "900..100"}, "--prompt-tokens"),
        ({"answer_tokens": "0"}, "--answer-tokens"),
        ({"through": "both ways"}, "--through"),
        ({"runs": "1000"}, "--runs"),
        ({"seed": "x"}, "--seed"),
        ({"warm_up": "5"}, "--warm-up"),
    ],
)
def test_what_is_wrong_is_told_by_its_flag(said: dict[str, str], where: str) -> None:
    found, problems = read(**said)
    assert found is None
    assert [each.where for each in problems] == [where]


def test_every_mistake_at_once():
    assert [each.where for each in read(rate="x", shape="y", runs="z")[1]] == ["--rate", "--runs", "--shape"]


def test_tokens_as_a_number_or_a_range():
    read_tokens = tokens(1e7)
    assert read_tokens("--t", "2k") == (2000, 2000)
    assert read_tokens("--t", "1..2k") == (1, 2000)
    assert isinstance(read_tokens("--t", "1..x"), Problem)


MODELS = [
    ModelSpec(
        name="m", engine="llama-cpp", source="file:///w.gguf", sha256=SHA, engine_options={"n_ctx": 4096}
    )
]


def entries(
    *settings: str, engines: tuple[str, ...] = ()
) -> tuple[list[tuple[str, dict[str, object]]], list[Problem]]:
    reader = FlagReader()
    found = entries_of(MODELS, reader, on=engines, settings=settings)
    return [(each.label, dict(each.options)) for each in found], reader.problems


def test_a_model_alone_is_benched_as_it_is():
    assert entries() == ([("llama-cpp", {"n_ctx": 4096})], [])


def test_a_grid_names_what_differs():
    found, problems = entries(
        "llama-cpp.n_parallel=2,4", "llama-cpp.n_ctx=2048", "llama-cpp.flash_attn=on,off"
    )
    assert problems == []
    assert [label for label, _ in found] == [
        "llama-cpp n_parallel=2 flash_attn=on",
        "llama-cpp n_parallel=2 flash_attn=off",
        "llama-cpp n_parallel=4 flash_attn=on",
        "llama-cpp n_parallel=4 flash_attn=off",
    ]
    assert found[0][1] == {"n_ctx": 2048, "n_parallel": 2, "flash_attn": "on"}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("llama-cpp.n_parallel=x", "must be of type int"),
        ("llama-cpp.n_parallel=0", "must be at least"),
        ("llama-cpp.n_paralel=1", "has no option"),
        ("lama.n_parallel=1", "there is no engine"),
        ("n_parallel=1", "is not ENGINE.OPTION=VALUE"),
        ("llama-cpp.embeddings=yes", "must be of type bool"),
        ("external.slots=1", "is not benched"),
        ("llama-cpp.seed=" + ",".join(map(str, range(70))), "are more than 64"),
    ],
)
def test_a_setting_that_cannot_be(settings: str, words: str) -> None:
    _, problems = entries(settings)
    assert any(words in each.message for each in problems), problems


def test_an_engine_that_nobody_can_start():
    _, problems = entries(engines=("external", "lama"))
    assert [each.where for each in problems][:2] == ["--engines", "--engines"]


def test_the_smallest_known_context_bounds_all():
    reader = FlagReader()
    found = entries_of(MODELS, reader, settings=("llama-cpp.n_parallel=1,4",))
    assert context_of(found) == 1024
