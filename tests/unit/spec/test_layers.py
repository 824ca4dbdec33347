"""Flag > FREEHOLD_* environment > file > default, and who is named when a value is wrong."""

import pytest

from freehold.spec.load import Loaded, load_text

SHA = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
GOOD = f"version: 1\nmodels: [{{name: a, engine: llama-cpp, source: file:///w.gguf, sha256: {SHA}}}]\n"
FILE = GOOD + "gateway: {listen: '127.0.0.1:1', queue: {max_requests: 1}}\n"


def load(text: str, env: dict[str, str] | None = None, **overrides: object) -> Loaded:
    flags = {key.replace("__", "."): value for key, value in overrides.items()}
    return load_text(text, name="f", engines=("llama-cpp", "external"), env=env or {}, overrides=flags)


def listen(loaded: Loaded) -> str:
    assert loaded.spec is not None, loaded.problems
    return loaded.spec.gateway.listen


def test_each_layer_covers_the_one_below():
    env = {"FREEHOLD_GATEWAY__LISTEN": "127.0.0.1:2"}
    assert listen(load(GOOD)) == "127.0.0.1:8000"
    assert listen(load(FILE)) == "127.0.0.1:1"
    assert listen(load(FILE, env)) == "127.0.0.1:2"
    assert listen(load(FILE, env, gateway__listen="127.0.0.1:3")) == "127.0.0.1:3"
    assert listen(load(FILE, env, gateway__listen=None)) == "127.0.0.1:2"


def test_listen_has_a_short_variable():
    assert listen(load(FILE, {"FREEHOLD_LISTEN": "127.0.0.1:2"})) == "127.0.0.1:2"


def test_an_empty_variable_is_not_set():
    assert listen(load(FILE, {"FREEHOLD_LISTEN": "", "FREEHOLD_GATEWAY__NONSENSE": ""})) == "127.0.0.1:1"


def test_sections_that_the_file_has_not_are_made():
    env = {"FREEHOLD_GATEWAY__QUEUE__MAX_REQUESTS": "7", "FREEHOLD_FLEET__STOP_GRACE": "3s"}
    spec = load(GOOD, env, gateway__timeouts__connect="1s").spec
    assert spec is not None
    assert spec.gateway.queue.max_requests == 7
    assert spec.fleet.stop_grace == 3.0
    assert spec.gateway.timeouts.connect == 1.0


def test_whole_numbers_are_read_from_text_and_texts_stay_text():
    env = {"FREEHOLD_GATEWAY__WORKERS": "1", "FREEHOLD_FLEET__SPARES": "0"}
    assert load(GOOD, env, gateway__queue__max_requests="9").problems == ()
    (problem,) = load(GOOD, {"FREEHOLD_GATEWAY__LISTEN": "8000"}).problems
    assert (
        problem.message == "gateway.listen must be ADDRESS:PORT with an IP address or localhost, not '8000'"
    )


def test_a_good_layer_hides_a_bad_value_below():
    bad = GOOD + "gateway: {listen: nonsense}\n"
    assert listen(load(bad, {"FREEHOLD_LISTEN": "127.0.0.1:2"})) == "127.0.0.1:2"


@pytest.mark.parametrize(
    ("env", "wanted"),
    [
        (
            {"FREEHOLD_LISTEN": "0.0.0.0:80"},
            "FREEHOLD_LISTEN: gateway.listen: 0.0.0.0 is not a loopback address",
        ),
        ({"FREEHOLD_GATEWAY__LISTEN": "x"}, "FREEHOLD_GATEWAY__LISTEN: gateway.listen must be ADDRESS:PORT"),
        (
            {"FREEHOLD_GATEWAY__MAX_BODY": "16"},
            "FREEHOLD_GATEWAY__MAX_BODY: gateway.max_body must be a size in bytes",
        ),
        (
            {"FREEHOLD_GATEWAY__QUEUE__MAX_REQUESTS": "many"},
            "FREEHOLD_GATEWAY__QUEUE__MAX_REQUESTS: gateway.queue.max_requests must be a whole number, not 'many'",
        ),
        (
            {"FREEHOLD_FLEET__SPARES": "4"},
            "FREEHOLD_FLEET__SPARES: fleet.spares: 4 is not in this release",
        ),
        (
            {"FREEHOLD_GATEWAY__LISTN": "x"},
            "FREEHOLD_GATEWAY__LISTN: unknown variable (did you mean 'FREEHOLD_GATEWAY__LISTEN'?)",
        ),
        (
            {"FREEHOLD_OBSERVABILITY__PROMETHEUS": "true"},
            "FREEHOLD_OBSERVABILITY__PROMETHEUS: observability.prometheus is not in this release (unset the variable)",
        ),
        ({"FREEHOLD_HEALTH__GPU": "rocm"}, "FREEHOLD_HEALTH__GPU: health.gpu must be auto, nvml, off"),
        (
            {"FREEHOLD_MODELS__0__NAME": "x"},
            "FREEHOLD_MODELS__0__NAME: models cannot be set from the environment (write them in freehold.yaml)",
        ),
        ({"FREEHOLD_GATEWAY__QUEUE": "x"}, "FREEHOLD_GATEWAY__QUEUE: unknown variable"),
        (
            {"FREEHOLD_LISTEN": "127.0.0.1:1", "FREEHOLD_GATEWAY__LISTEN": "127.0.0.1:2"},
            "FREEHOLD_LISTEN: differs from FREEHOLD_GATEWAY__LISTEN, which sets the same (set one of them)",
        ),
    ],
)
def test_a_problem_from_the_environment_names_the_variable(env: dict[str, str], wanted: str):
    loaded = load(GOOD, env)
    assert loaded.spec is None
    assert len(loaded.problems) == 1
    assert str(loaded.problems[0]).startswith(wanted)


@pytest.mark.parametrize(
    ("path", "value", "wanted"),
    [
        ("gateway.listen", "0.0.0.0:1", "--listen: gateway.listen: 0.0.0.0 is not a loopback address"),
        (
            "gateway.queue.max_requests",
            0,
            "--max-requests: gateway.queue.max_requests must be at least 1, not 0",
        ),
        ("gateway.nonsense", 1, "--nonsense: unknown key 'nonsense' in gateway"),
    ],
)
def test_a_problem_from_a_flag_names_the_flag(path: str, value: object, wanted: str):
    loaded = load(FILE, {"FREEHOLD_LISTEN": "127.0.0.1:5"}, **{path.replace(".", "__"): value})
    assert loaded.spec is None
    assert len(loaded.problems) == 1
    assert str(loaded.problems[0]).startswith(wanted)


def test_other_variables_are_left_alone():
    env = {
        "FREEHOLD_STATE_DIR": "/x",
        "FREEHOLD_CACHE_DIR": "/x",
        "FREEHOLD_CONFIG": "x",
        "FREEHOLD_LOG_LEVEL": "x",
    }
    assert load(GOOD, {**env, "FREEHOLD_ANYTHING": "x", "OTHER__THING": "x"}).problems == ()


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("FREEHOLD_LISTN", "FREEHOLD_LISTEN"),
        ("FREEHOLD_STATEDIR", "FREEHOLD_STATE_DIR"),
        ("FREEHOLD_CACHE_DRI", "FREEHOLD_CACHE_DIR"),
        ("FREEHOLD_CONFG", "FREEHOLD_CONFIG"),
        ("FREEHOLD_LOGLEVEL", "FREEHOLD_LOG_LEVEL"),
        ("FREEHOLD_GATEWAY_LISTEN", "FREEHOLD_GATEWAY__LISTEN"),
    ],
)
def test_a_misspelt_variable_is_told(name: str, meant: str):
    loaded = load(GOOD, {name: "127.0.0.1:2"})
    assert [str(p) for p in loaded.problems] == [f"{name}: unknown variable (did you mean '{meant}'?)"]


def test_what_kubernetes_sets_for_a_service_called_freehold_is_left_alone():
    names = (
        "PORT",
        "SERVICE_HOST",
        "SERVICE_PORT",
        "SERVICE_PORT_HTTP",
        "PORT_8000_TCP",
        "PORT_8000_TCP_ADDR",
    )
    assert load(GOOD, {f"FREEHOLD_{name}": "tcp://10.0.0.1:8000" for name in names}).problems == ()


def test_the_same_value_by_both_names_is_fine():
    env = {"FREEHOLD_LISTEN": "127.0.0.1:2", "FREEHOLD_GATEWAY__LISTEN": "127.0.0.1:2"}
    assert listen(load(GOOD, env)) == "127.0.0.1:2"


def test_where_names_the_variable_and_the_flag():
    loaded = load(FILE, {"FREEHOLD_FLEET__STOP_GRACE": "1s"}, gateway__listen="127.0.0.1:3")
    assert loaded.where(("fleet", "stop_grace")) == "FREEHOLD_FLEET__STOP_GRACE"
    assert loaded.where(("gateway", "listen")) == "--listen"
    assert loaded.where(("gateway", "queue")) == "f:3:34"


def test_a_section_of_the_wrong_type_keeps_its_own_problem():
    loaded = load(GOOD + "gateway: 5\n", {"FREEHOLD_LISTEN": "127.0.0.1:2"})
    assert [str(problem) for problem in loaded.problems] == [
        "f:3:10: gateway must be a map of keys and values, not 5"
    ]


def test_a_number_without_a_default_has_a_variable_as_well():
    env = {"FREEHOLD_HEALTH__EXPECT__GPUS": "8", "FREEHOLD_HEALTH__EXPECT__DRIVER": "570.133.20"}
    spec = load(GOOD, env).spec
    assert spec is not None
    assert (spec.health.expect.gpus, spec.health.expect.driver) == (8, "570.133.20")
    (problem,) = load(GOOD, {"FREEHOLD_HEALTH__EXPECT__GPUS": "eight"}).problems
    assert str(problem).startswith("FREEHOLD_HEALTH__EXPECT__GPUS: health.expect.gpus must be a whole number")
