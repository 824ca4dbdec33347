"""The replicas of a configuration, and the environments that they run in."""

from pathlib import Path

import msgspec
import pytest

from freehold.engines import all_engines
from freehold.fleet.control.state_dir import StateDir
from freehold.fleet.decisions.plan import FleetSettings, ReplicaPlan
from freehold.fleet.environments.lookup import MANIFEST, Manifest, path_of
from freehold.fleet.processes.launch_process import ProcessLauncher
from freehold.spec.load import load_text
from freehold.stack.config import Config
from freehold.stack.decide.replicas import LocalModel, planned_replicas
from freehold.stack.resolve import Resolved, resolve_config


def replicas(config: Config, folder: Path) -> list[ReplicaPlan]:
    resolved = resolve_config(config, StateDir(folder / "state"))
    assert isinstance(resolved, Resolved)
    return resolved.replicas


def test_every_replica_of_a_configuration() -> None:
    text = f"""
version: 1
models:
  - {{name: a, engine: llama-cpp, source: file://x, sha256: "{"0" * 64}", replicas: 3}}
  - {{name: b, engine: external, endpoints: ["http://h:1/", "https://h/p"], upstream_model: other}}
"""
    spec = load_text(text, engines=all_engines(), env={}).spec
    assert spec is not None
    facts = {"a": LocalModel(weights=Path("/w"))}
    plans = planned_replicas(spec, facts, cores=8, api_keys={"b": "s3cret"})
    assert [plan.id for plan in plans] == ["a-0", "a-1", "a-2", "b-ext-0", "b-ext-1"]
    assert {(plan.threads, plan.weights, plan.api_key) for plan in plans[:3]} == {(2, Path("/w"), "")}
    assert [(plan.url, plan.name_upstream, plan.api_key) for plan in plans[3:]] == [
        ("http://h:1", "other", "s3cret"),
        ("https://h/p", "other", "s3cret"),
    ]
    assert "s3cret" not in repr(plans)


@pytest.mark.parametrize(
    ("gateway", "options", "cache_ram"),
    [
        ("auth: keys", "{}", 0),
        ("auth: keys", "{cache_ram: 64}", 64),
        ("auth: keys, share_cache: all", "{}", None),
        ("auth: none", "{}", None),
    ],
)
def test_where_keys_share_no_cache_llama_cpp_saves_no_prompts(
    gateway: str, options: str, cache_ram: int | None
) -> None:
    text = f"""
version: 1
models:
  - {{name: a, engine: llama-cpp, source: file://x, sha256: "{"0" * 64}", engine_options: {options}}}
gateway: {{{gateway}}}
"""
    spec = load_text(text, engines=all_engines(), env={}).spec
    assert spec is not None
    (plan,) = planned_replicas(spec, {}, cores=2, api_keys={})
    assert plan.options.get("cache_ram") == cache_ram


@pytest.mark.parametrize(
    ("gateway", "more", "on_ask"),
    [
        ("auth: keys", "", True),
        ("auth: none", "", False),
        ("auth: keys", "engine_options: {cache_prompt: true}", False),
        ("auth: keys", "engine_options: {lora_scaled: '/a.gguf:0'}", False),
        ("auth: keys", f"adapters: [{{name: b, source: file://y, sha256: '{'0' * 64}'}}]", False),
    ],
)
def test_llama_cpp_reuses_a_prompt_on_ask_unless_its_cache_was_chosen_or_cannot_be_used(
    gateway: str, more: str, *, on_ask: bool
) -> None:
    text = f"""
version: 1
models:
  - {{name: a, engine: llama-cpp, source: file://x, sha256: "{"0" * 64}"{", " * bool(more)}{more}}}
gateway: {{{gateway}}}
"""
    spec = load_text(text, engines=all_engines(), env={}).spec
    assert spec is not None
    (plan,) = planned_replicas(spec, {}, cores=2, api_keys={})
    assert plan.reuse_on_ask is on_ask


def test_a_replica_runs_in_the_environment_that_is_installed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FREEHOLD_DATA_DIR", str(tmp_path))
    text = f"""
version: 1
models:
  - {{name: a, engine: vllm, source: file://x/, sha256: "{"0" * 64}"}}
"""
    spec = load_text(text, engines=all_engines(), env={}).spec
    assert spec is not None
    config = Config(spec=spec, path=None, api_keys={})
    recipe = all_engines()["vllm"].recipes[-1]
    (bare,) = replicas(config, tmp_path)
    assert bare.environment is None
    folder = path_of(recipe, tmp_path / "engines")
    (folder / "bin").mkdir(parents=True)
    for name in ("python", "vllm"):
        (folder / "bin" / name).symlink_to("/bin/true")
    manifest = Manifest(
        recipe=recipe.name, version=recipe.version, python="3", requirements_sha256="", made_at=""
    )
    (folder / MANIFEST).write_bytes(msgspec.json.encode(manifest))
    (plan,) = replicas(config, tmp_path)
    assert plan.environment == folder
    assert plan.engine.command is not None
    launcher = ProcessLauncher(FleetSettings(log_dir=tmp_path))
    assert launcher._placement(plan, "0" * 32).environment == folder
