"""The published schema and the published example: what they are, that they agree, and that they refuse alike."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

from freehold.engines import all_engines
from freehold.spec.example import EXAMPLE_NAME, SCHEMA_NAME, example_text
from freehold.spec.load import load_file, load_text
from freehold.spec.schema import schema, schema_text

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT / "docs" / SCHEMA_NAME
EXAMPLES = sorted(ROOT.glob(f"examples/*/{EXAMPLE_NAME}"))
SHA = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
ENGINES = ("external", "llama-cpp")
MODEL = f"name: a, engine: llama-cpp, source: file:///w.gguf, sha256: {SHA}"
GOOD = f"version: 1\nmodels: [{{{MODEL}}}]\n"


def plain(text: str) -> object:
    return YAML(typ="safe", pure=True).load(text)


def accepts(text: str) -> bool:
    return Draft202012Validator(schema(ENGINES)).is_valid(plain(text))


def test_the_published_schema_is_the_schema_of_this_release(golden: Callable[[str, str], None]):
    golden(f"../../docs/{SCHEMA_NAME}", schema_text(all_engines()))


def test_the_schema_is_a_schema():
    Draft202012Validator.check_schema(schema(ENGINES))


def test_every_key_is_described():
    found = schema(ENGINES)
    sections = [found, *found["$defs"].values()]
    bare = [
        key
        for section in sections
        for key, value in section["properties"].items()
        if not value.get("description")
        and not found["$defs"][value["$ref"].split("/")[-1]].get("description")
    ]
    assert bare == []


def test_every_single_value_says_its_default():
    found = schema(ENGINES)
    silent = [
        key
        for section in found["$defs"].values()
        for key, value in section["properties"].items()
        if "$ref" not in value and "default" not in value["description"].lower()
    ]
    assert silent == []


def test_the_first_example_is_what_init_writes(golden: Callable[[str, str], None]):
    golden(f"../../examples/01-one-box/{EXAMPLE_NAME}", example_text(schema=f"../../docs/{SCHEMA_NAME}"))


def test_init_points_editors_to_the_schema_beside_the_file():
    assert example_text().splitlines()[0] == f"# yaml-language-server: $schema=./{SCHEMA_NAME}"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.parent.name)
def test_every_example_is_right(path: Path):
    modeline = path.read_text(encoding="utf-8").splitlines()[0]
    assert (path.parent / modeline.partition("$schema=")[2]).resolve() == PUBLISHED
    document = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    assert list(Draft202012Validator(document).iter_errors(plain(path.read_text(encoding="utf-8")))) == []
    assert load_file(path, engines=all_engines(), env={}).problems == ()


def test_the_keys_that_the_example_comments_out_are_the_defaults():
    lines = example_text().splitlines()
    start = lines.index("gateway:")
    shown = [line.replace("# ", "", 1) if line.lstrip().startswith("# ") else line for line in lines[start:]]
    text = "\n".join(lines[:start] + shown)
    loaded = load_text(text, engines=ENGINES, env={})
    assert "ready_timeout: 900s" in shown[-2]
    assert loaded.problems == ()
    assert loaded.spec == load_text(example_text(), engines=ENGINES, env={}).spec


RIGHT = {
    "the smallest": GOOD,
    "today's values of later keys": GOOD
    + "gateway: {workers: 1, auth: none}\nfallback: []\nfleet: {spares: 0, runtime: process}\n",
    "external": "version: 1\nmodels: [{name: a, engine: external, endpoints: ['http://h:1/v1'], api_key_env: A}]\n",
    "all interfaces of loopback": GOOD + "gateway: {listen: '[::1]:0'}\n",
    "keys for all the world": GOOD + "gateway: {auth: keys, listen: '0.0.0.0:0', keys_file: k.json}\n",
    "what a node should have": GOOD
    + 'health: {expect: {gpus: 8, gpu_model: H100, driver: "570.133.20", rdma_ports: [mlx5_0/1], link_mbit_s: {e: 1}}}\n',
    "quantities": GOOD + "gateway: {max_body: 1.5MiB, drain_grace: 1h30m}\n",
}


@pytest.mark.parametrize("text", RIGHT.values(), ids=RIGHT)
def test_the_schema_and_the_loader_accept(text: str):
    assert accepts(text)
    assert load_text(text, engines=ENGINES, env={}).problems == ()


BROKEN = {
    "no version": GOOD.replace("version: 1\n", ""),
    "version 2": GOOD.replace("version: 1", "version: 2"),
    "version in quotes": GOOD.replace("version: 1", "version: '1'"),
    "version true": GOOD.replace("version: 1", "version: true"),
    "no models": "version: 1\n",
    "empty models": "version: 1\nmodels: []\n",
    "models is a map": "version: 1\nmodels: {}\n",
    "unknown key": GOOD + "gatway: {}\n",
    "unknown key in a section": GOOD + "gateway: {lisen: '127.0.0.1:1'}\n",
    "later key": GOOD + "observability: {prometheus: true}\n",
    "another gpu": GOOD + "health: {gpu: rocm}\n",
    "peer without a name": GOOD + "health: {network: {key_file: k, peers: ['10.0.0.1']}}\n",
    "relative folder": GOOD + "health: {storage: {path: models}}\n",
    "a driver in words": GOOD + "health: {expect: {driver: latest}}\n",
    "half a GPU": GOOD + "health: {expect: {gpus: 0.5}}\n",
    "no number of GPUs": GOOD + "health: {expect: {gpus: }}\n",
    "a link without speed": GOOD + "health: {expect: {link_mbit_s: {e: 0}}}\n",
    "later value": GOOD + "fleet: {runtime: ray}\n",
    "auth in another word": GOOD + "gateway: {auth: basic}\n",
    "later number": GOOD + "fleet: {spares: 2}\n",
    "no workers": GOOD + "gateway: {workers: 0}\n",
    "too many workers": GOOD + "gateway: {workers: 65}\n",
    "fallback": GOOD + "fallback: [x]\n",
    "unknown engine": GOOD.replace("llama-cpp", "lama"),
    "name with a space": GOOD.replace("name: a", "name: a b"),
    "no source": GOOD.replace("source: file:///w.gguf, ", ""),
    "source without scheme": GOOD.replace("file:///w.gguf", "/w.gguf"),
    "pypi without version": GOOD.replace("file:///w.gguf", "pypi://x/w.gguf"),
    "short sha256": GOOD.replace(SHA, SHA[:-1]),
    "no replicas": GOOD.replace("name: a", "name: a, replicas: 0"),
    "too many replicas": GOOD.replace("name: a", "name: a, replicas: 65"),
    "replicas in words": GOOD.replace("name: a", "name: a, replicas: two"),
    "managed with endpoints": GOOD.replace("name: a", "name: a, endpoints: ['http://h:1']"),
    "an option is nothing": GOOD.replace("name: a", "name: a, engine_options: {x: null}"),
    "external without endpoints": "version: 1\nmodels: [{name: a, engine: external}]\n",
    "external with empty endpoints": "version: 1\nmodels: [{name: a, engine: external, endpoints: []}]\n",
    "external with weights": "version: 1\nmodels: [{name: a, engine: external, endpoints: ['http://h:1'], source: file:///w}]\n",
    "endpoint with a password": "version: 1\nmodels: [{name: a, engine: external, endpoints: ['http://u:p@h:1']}]\n",
    "endpoint without port": "version: 1\nmodels: [{name: a, engine: external, endpoints: ['http://h']}]\n",
    "two keys": "version: 1\nmodels: [{name: a, engine: external, endpoints: ['http://h:1'], api_key_env: A, api_key_file: b}]\n",
    "listen on a name": GOOD + "gateway: {listen: 'myhost:80'}\n",
    "duration without unit": GOOD + "gateway: {drain_grace: 30}\n",
    "duration in words": GOOD + "fleet: {stop_grace: ten seconds}\n",
    "size in M": GOOD + "gateway: {max_body: 16M}\n",
    "queue of none": GOOD + "gateway: {queue: {max_requests: 0}}\n",
    "empty section": GOOD + "gateway:\n",
    "a list": "- 1\n",
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_the_schema_and_the_loader_refuse(text: str):
    assert not accepts(text)
    assert load_text(text, engines=ENGINES, env={}).spec is None
