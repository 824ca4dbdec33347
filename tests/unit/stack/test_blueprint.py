"""A blueprint is complete: what is written down is what runs, without its secrets."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from freehold.core.errors import Permanent
from freehold.core.events import GpuId
from freehold.engines import all_engines
from freehold.fleet.control.state_dir import StateDir
from freehold.spec.example import example_text
from freehold.spec.load import load_text
from freehold.spec.model import Spec
from freehold.stack.blueprint import FILE_NAME, _plain, decode, encode, read_blueprint, write_blueprint
from freehold.stack.config import Config
from freehold.stack.decide.replicas import GivenGpus, InstalledEngine, LocalAdapter, LocalModel
from freehold.stack.resolve import Resolved, resolve, resolve_config, restore, with_gpus

TEXT = """
version: 1
models:
  - name: a
    engine: llama-cpp
    source: file://x.gguf
    sha256: "0000000000000000000000000000000000000000000000000000000000000000"
    replicas: 2
    engine_options: {n_ctx: 4096}
    adapters: [{name: a-lora, source: file://l.gguf, sha256: "1111111111111111111111111111111111111111111111111111111111111111"}]
  - {name: b, engine: external, endpoints: ["http://h:1"], api_key_env: B_KEY, price: {input_usd_per_million_tokens: 1, output_usd_per_million_tokens: 2}}
gateway: {listen: "127.0.0.1:0", queue: {max_wait: 7s}, auth: keys}
fallback:
  - name: cloud
    url: https://api.example.com/v1
    api_key_env: CLOUD_KEY
    budget_usd_per_day: 1.5
    price: {input_usd_per_million_tokens: 1, output_usd_per_million_tokens: 2}
health: {network: {peers: ["n=10.0.0.2:9"], listen: "10.0.0.1:9", key_file: k}}
"""


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setenv("B_KEY", "s3cret-b")
    monkeypatch.setenv("CLOUD_KEY", "s3cret-cloud")
    loaded = load_text(TEXT, engines=all_engines(), env={})
    assert loaded.spec is not None, loaded.problems
    keys = {"b": "s3cret-b"}
    return Config(spec=loaded.spec, path=None, api_keys=keys, fallback_keys={"cloud": "s3cret-cloud"})


@pytest.fixture
def resolved(config: Config, tmp_path: Path) -> Resolved:
    found = resolve_config(config, StateDir(tmp_path))
    assert isinstance(found, Resolved)
    return found


def complete(resolved: Resolved) -> Resolved:
    """Return the same with everything that a real node would add."""
    local = LocalModel(
        weights=Path("/w/x.gguf"),
        adapters={"a-lora": LocalAdapter(path=Path("/w/l.gguf"), rank=8)},
        environment=InstalledEngine(path=Path("/e/vllm-1"), mark="m", made_at="today"),
        built_for_gpus=2,
    )
    given = GivenGpus(gpus=(GpuId(index=1, uuid="GPU-1"),), shared=True)
    blueprint = msgspec.structs.replace(
        resolved.blueprint, models={"a": local}, gpus={"a-0": given}, rounds={"a": 3}, notes=("a note",)
    )
    return Resolved(blueprint=blueprint, config=resolved.config)


def test_what_is_written_is_what_is_read(resolved: Resolved, tmp_path: Path) -> None:
    blueprint = complete(resolved).blueprint
    again = decode(encode(blueprint))
    assert again == blueprint
    assert (again.id, again.weights, again.to_fetch) == (blueprint.id, blueprint.weights, [])
    assert again.replicas({}) == blueprint.replicas({})
    write_blueprint(blueprint, tmp_path)
    assert read_blueprint(tmp_path) == blueprint
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o777 == 0o600


def test_every_key_of_a_file_comes_back() -> None:
    """The example with the keys that it shows as comments: written as users write them, and read as the same."""
    text = re.sub(r"^( *)# (?=( |- )*[a-z_]+:( |$))", r"\1", example_text(), flags=re.MULTILINE)
    loaded = load_text(text, engines=all_engines(), env={})
    assert loaded.spec is not None, loaded.problems
    assert loaded.spec.fallback
    assert loaded.spec.health.expect.link_mbit_s
    again = Spec.model_validate(_plain(loaded.spec))
    assert again == loaded.spec


def test_no_secret_is_in_it_and_each_is_read_again(resolved: Resolved, tmp_path: Path) -> None:
    write_blueprint(resolved.blueprint, tmp_path)
    text = (tmp_path / FILE_NAME).read_text()
    assert "s3cret" not in text
    assert json.loads(text)["generation"] == 1
    again = restore(StateDir(tmp_path))
    assert isinstance(again, Resolved)
    assert again.replicas == resolved.replicas
    assert again.replicas[-1].api_key == "s3cret-b"
    assert again.gateway == resolved.gateway
    assert again.gateway.fallbacks[0].api_key == "s3cret-cloud"


def test_a_key_that_is_gone_is_a_problem(
    resolved: Resolved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_blueprint(resolved.blueprint, tmp_path)
    monkeypatch.delenv("CLOUD_KEY")
    problems = restore(StateDir(tmp_path))
    assert isinstance(problems, list)
    assert [problem.where for problem in problems] == ["fallback[0].api_key_env"]


def test_the_next_blueprint_names_its_parent(resolved: Resolved, tmp_path: Path) -> None:
    first = complete(resolved)
    second = resolve_config(first.config, StateDir(tmp_path), parent=first)
    assert isinstance(second, Resolved)
    assert (second.blueprint.generation, second.blueprint.parent) == (2, first.blueprint.id)
    assert second.gateway.generation == 2
    assert second.blueprint.rounds == {"a": 3}
    assert second.blueprint.models["a"].weights == Path("/w/x.gguf")  # the file names the same weights
    assert second.blueprint.to_fetch == []


def test_the_id_is_of_the_content(resolved: Resolved) -> None:
    blueprint = resolved.blueprint
    assert blueprint.id == msgspec.structs.replace(blueprint, generation=9, parent="x").id
    assert blueprint.id != msgspec.structs.replace(blueprint, cores=blueprint.cores + 1).id
    assert blueprint.to_fetch == ["a", "a-lora"]


def test_gpus_are_given_again_with_what_runs(resolved: Resolved) -> None:
    given = with_gpus(resolved)
    assert isinstance(given, Resolved)
    assert given.blueprint == resolved.blueprint


def test_every_problem_of_a_file_is_returned(tmp_path: Path) -> None:
    path = tmp_path / "freehold.yaml"
    path.write_text("version: 1\nmodels: [{name: m, engine: llama-cpp}]\ngateway: {listen: nowhere}\n")
    problems = resolve(path, StateDir(tmp_path / "state"), overrides={})
    assert isinstance(problems, list)
    assert len(problems) >= 2


@pytest.mark.parametrize(
    ("change", "mistake"),
    [
        (lambda text: text[:-40], "damaged"),
        (lambda text: text.replace('"generation":1', '"generation":1,"shape":2'), "another version.*shape"),
        (lambda text: text.replace('"engine":"llama-cpp"', '"engine":"llama-cpp","turbo":1'), "another version.*turbo"),
        (lambda text: '{"generation": 1}', "another version.*parent"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_blueprint_is_named_with_its_fault(
    resolved: Resolved, tmp_path: Path, change: Callable[[str], str], mistake: str
) -> None:
    with pytest.raises(Permanent, match="cannot read"):
        read_blueprint(tmp_path)
    write_blueprint(resolved.blueprint, tmp_path)
    path = tmp_path / FILE_NAME
    path.write_text(change(path.read_text()))
    with pytest.raises(Permanent, match=f"(?s)cannot use {path}: .*{mistake}") as caught:
        read_blueprint(tmp_path)
    assert caught.value.hint == "freehold up"


def test_defaults_are_written_too(resolved: Resolved) -> None:
    """So that a version with other defaults runs what was decided."""
    spec = json.loads(encode(resolved.blueprint))["spec"]
    assert spec["gateway"]["timeouts"]["connect"] == "2s"


def test_an_empty_list_that_the_file_names_is_not_a_default(resolved: Resolved) -> None:
    """`when: []` keeps an outage's requests here; the default would send them to the provider."""
    text = TEXT.replace("budget_usd_per_day: 1.5", "budget_usd_per_day: 1.5\n    share: 0.1\n    when: []")
    loaded = load_text(text, engines=all_engines(), env={})
    assert loaded.spec is not None, loaded.problems
    blueprint = msgspec.structs.replace(resolved.blueprint, spec=loaded.spec)
    again = decode(encode(blueprint))
    assert again.spec.fallback[0].when == ()
    assert again == blueprint
    assert again.id == blueprint.id == decode(encode(again)).id
