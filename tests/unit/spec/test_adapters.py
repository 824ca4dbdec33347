"""Adapters in freehold.yaml: what must be there, what must not, and names that are taken."""

import pytest

from freehold.spec.changes import How, compare
from freehold.spec.load import load_text
from freehold.spec.model import Spec

ENGINES = ("external", "llama-cpp")
SHA = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
TONE = f"{{name: tone, source: file:///tone.gguf, sha256: {SHA}}}"


def text(adapters: str, *, model: str = f"engine: llama-cpp, source: file:///w.gguf, sha256: {SHA}") -> str:
    return f"version: 1\nmodels:\n- {{name: m, {model}, adapters: [{adapters}]}}\n"


def problems(yaml: str) -> list[str]:
    loaded = load_text(yaml, name="f", engines=ENGINES, env={})
    return [f"{p.message} ({p.hint})" for p in loaded.problems]


def spec(yaml: str) -> Spec:
    found = load_text(yaml, name="f", engines=ENGINES, env={}).spec
    assert found is not None
    return found


def test_an_adapter_is_a_name_a_source_and_a_hash() -> None:
    (adapter,) = spec(text(TONE)).models[0].adapters
    assert (adapter.name, adapter.source, adapter.sha256) == ("tone", "file:///tone.gguf", SHA)


def test_an_external_servers_adapter_is_a_name_there() -> None:
    model = 'engine: external, endpoints: ["http://127.0.0.1:9"]'
    (adapter,) = spec(text("{name: tone, upstream_name: their-tone}", model=model)).models[0].adapters
    assert adapter.upstream_name == "their-tone"
    said = problems(text(TONE, model=model))
    assert [line.partition(" is")[0] for line in said] == [
        "models[0].adapters[0].source",
        "models[0].adapters[0].sha256",
    ]


@pytest.mark.parametrize(
    ("adapters", "words"),
    [
        ("{name: tone}", ["adapters[0].source is missing", "adapters[0].sha256 is missing"]),
        (f"{TONE}, {TONE}", ["adapters[1].name 'tone' is taken (the first is at f:3"]),
        (TONE.replace("tone,", "M,", 1), ["adapters[0].name 'M' is taken (the first is at f:3:10)"]),
        (TONE[:-1] + ", upstream_name: x}", ["upstream_name is not for engine llama-cpp"]),
        ("{nam: tone}", ["nam"]),
        ("7", ["adapters[0]"]),
    ],
)
def test_mistakes(adapters: str, words: list[str]) -> None:
    said = problems(text(adapters))
    for word in words:
        assert any(word in line for line in said), said


def test_another_adapter_replaces_replicas_one_by_one() -> None:
    changes = compare(spec(text("")), spec(text(TONE)), str).changes
    assert [(c.how, c.what) for c in changes] == [(How.ROLL, "models.m.adapters")]
    assert "nothing -> tone (b179c9523d0e)" in str(changes[0])
