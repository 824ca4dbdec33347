"""Who may ask: keys as clients send them, what is answered to those without, and that no key goes anywhere."""

import contextlib
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from freehold.gateway.server import builtin_routes
from freehold.gateway.wire.request import ENGINE_PATHS
from gateway_rig.client import Answer, Client, ask, get, post
from gateway_rig.engines import Engine, Engines
from gateway_rig.keys import Keys
from gateway_rig.process import Gateway, model, running

MESSAGES = "/v1/messages"
HOUR_S = 3600


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    keys = Keys(tmp_path_factory.mktemp("keys"))
    keys.add("anna")
    keys.add("ben", models=("m",))
    keys.add("late", expires_s=int(time.time()) - HOUR_S)
    keys.add("early", expires_s=int(time.time()) + HOUR_S)
    keys.add("gone")
    keys.change("gone", revoked_s=1)
    return keys


@pytest.fixture(scope="module")
def gateway(
    the_engine: Engine, engines: Engines, keys: Keys, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    models = [model("m", the_engine), model("other", engines.new())]
    with running(tmp_path_factory.mktemp("gateway"), models, **keys.settings) as gateway:
        yield gateway


def refused(answer: Answer) -> str:
    """Return what a 401 says, checked for its form."""
    assert answer.status == 401
    assert answer.header("www-authenticate") == "Bearer"
    assert (answer.error["type"], answer.error["code"], answer.error["param"]) == (
        "authentication_error", "invalid_api_key", None,
    )  # fmt: skip
    return str(answer.error["message"])


# What is a key


ACCEPTED = {
    "as OpenAI's clients": "Authorization: Bearer {}\r\n",
    "scheme in lower case": "authorization: bearer {}\r\n",
    "scheme in capitals": "AUTHORIZATION: BEARER {}\r\n",
    "more blanks": "Authorization: Bearer   {}\r\n",
    "as Anthropic's clients": "x-api-key: {}\r\n",
    "in capitals": "X-API-KEY: {}\r\n",
    "both the same": "x-api-key: {0}\r\nAuthorization: Bearer {0}\r\n",
}


@pytest.mark.parametrize("lines", ACCEPTED.values(), ids=ACCEPTED)
def test_a_key_opens(lines: str, client: Client, keys: Keys, engine: Engine):
    for name in ("anna", "early"):
        assert client.ask(ask(extra=lines.format(keys.key_of[name]))).status == 200
    assert len(engine.calls) == 2


UNUSABLE = {
    "bare": "Authorization: {}\r\n",
    "another scheme": "Authorization: Basic {}\r\n",
    "no blank": "Authorization: Bearer{}\r\n",
    "a tab": "Authorization: Bearer\t{}\r\n",
    "empty": "Authorization: Bearer \r\n",
    "nothing at all": "Authorization:\r\n",
    "empty x-api-key": "x-api-key: \r\n",
    "two that differ": "Authorization: Bearer {}\r\nx-api-key: fh-other\r\n",
    "two headers that differ": "Authorization: Bearer fh-other\r\nAuthorization: Bearer {}\r\n",
}


@pytest.mark.parametrize("lines", UNUSABLE.values(), ids=UNUSABLE)
def test_what_is_no_key_does_not_open(lines: str, client: Client, keys: Keys, engine: Engine):
    said = refused(client.ask(ask(extra=lines.format(keys.key_of["anna"]))))
    assert said.startswith("Send one API key")
    assert not engine.received


WRONG = {
    "unknown": "fh-" + "a" * 40,
    "cut": "{anna:.42}",
    "longer": "{anna}a",
    "far too long": "{anna}" * 300,
    "in capitals": "FH-{anna}",
    "two words": "{anna} {anna}",
    "another product's": "sk-proj-0123456789",
}


@pytest.mark.parametrize("key", WRONG.values(), ids=WRONG)
def test_a_wrong_key_does_not_open(key: str, client: Client, keys: Keys, engine: Engine):
    answer = client.ask(ask(extra=f"Authorization: Bearer {key.format(**keys.key_of)}\r\n"))
    assert refused(answer) == "Incorrect API key provided."
    assert not engine.received


def test_missing_revoked_and_expired_are_told_apart(client: Client, keys: Keys, engine: Engine):
    assert refused(client.ask(ask())).startswith("You did not provide an API key")
    assert refused(client.ask(ask(extra=keys.bearer("gone")))) == "This API key was revoked."
    assert refused(client.ask(ask(extra=keys.bearer("late")))) == "This API key has expired."
    assert not engine.received


def test_anthropic_clients_get_their_own_shape(client: Client, keys: Keys):
    answer = client.ask(ask(path=MESSAGES))
    assert answer.status == 401
    assert answer.json["type"] == "error"
    assert answer.json["error"]["type"] == "authentication_error"
    answer = client.ask(ask("other", path=MESSAGES, extra=f"x-api-key: {keys.key_of['ben']}\r\n"))
    assert (answer.status, answer.json["error"]["type"]) == (404, "not_found_error")


def test_a_refused_request_leaves_the_connection_open(client: Client, keys: Keys):
    assert client.ask(ask()).status == 401
    assert client.ask(ask(extra=keys.bearer("anna"))).status == 200


def test_each_pipelined_request_has_its_own_key(client: Client, keys: Keys):
    client.send(ask(extra=keys.bearer("anna")) + ask() + ask(extra=keys.bearer("ben")) + get("/livez"))
    assert [client.read_answer().status for _ in range(4)] == [200, 401, 200, 200]


def test_a_trailer_is_no_credential(client: Client, keys: Keys, engine: Engine):
    body = json.dumps({"model": "m", "messages": [1]}).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    client.send(head + b"%x\r\n%b\r\n0\r\n%b\r\n" % (len(body), body, keys.bearer("anna").encode()))
    assert client.read_answer().status == 401
    assert not engine.received


def test_nobody_uploads_without_a_key(client: Client, engine: Engine):
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nContent-Length: 10000000\r\n"
    client.send(head.encode() + b"Expect: 100-continue\r\n\r\n")
    answer = client.read_answer()
    assert (answer.status, answer.interim, answer.header("connection")) == (401, [], "close")
    assert client.ended()
    assert not engine.received


def test_a_body_that_is_offered_as_an_upgrade_needs_a_key(client: Client, keys: Keys):
    upgrade = "Connection: upgrade\r\nUpgrade: h2c\r\n"
    assert client.ask(ask(extra=upgrade + keys.bearer("anna"))).status == 200
    assert client.ask(ask(extra=upgrade)).status == 401


# Paths


def test_a_foreign_host_reads_metrics_with_a_key_only(client: Client, keys: Keys) -> None:
    """Behind a proxy on the same machine everybody comes from the loopback, with the name that the proxy has."""
    head = "GET /metrics HTTP/1.1\r\nHost: api.example\r\n"
    assert client.ask(f"{head}\r\n".encode()).status == 401
    assert client.ask(f"{head}{keys.bearer('anna')}\r\n".encode()).status == 200
    part = client.ask(f"{head}{keys.bearer('ben')}\r\n".encode())
    assert (part.status, part.error["code"]) == (403, "forbidden")  # they show the models that are not his


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/health", "/metrics", "/health?verbose"])
def test_probes_need_no_key_and_mind_no_wrong_one(path: str, client: Client):
    assert client.ask(get(path)).status == 200
    assert client.ask(get(path, extra="Authorization: Bearer nonsense\r\n")).status == 200


@pytest.mark.parametrize(
    "path", ["/v1/models", "/v1/models/m", "/nothing", "/health/x", "/%68ealth", "/metrics/"]
)
def test_everything_else_does(path: str, client: Client, keys: Keys):
    assert client.ask(get(path)).status == 401
    assert client.ask(get(path, method="HEAD")).status == 401
    assert client.ask(get(path, extra=keys.bearer("anna"))).status in {200, 404}


def test_each_path_but_the_probes_needs_a_key(client: Client) -> None:
    """Read from the code, so that a new path is here without a second edit."""
    own = builtin_routes._ROUTES.keys()
    assert len(ENGINE_PATHS) + len(own) > 10
    for path in sorted(ENGINE_PATHS | own):
        for method in ("GET", "POST", "DELETE"):
            said = client.ask(get(path, method=method))
            assert (said.status != 401) == (path in {"/livez", "/readyz", "/health", "/metrics"}), path


def test_metrics_want_a_key_where_others_can_reach_them(engine: Engine, keys: Keys, tmp_path: Path):
    closed = running(tmp_path, [model("m", engine)], metrics_open=False, **keys.settings)
    with closed as gateway, gateway.client() as client:
        assert client.ask(get("/metrics")).status == 401
        assert b"freehold_gateway_keys 3" in client.ask(get("/metrics", extra=keys.bearer("ben"))).body
        assert client.ask(get("/health")).status == 200


# Models


def test_a_key_sees_only_its_models(client: Client, keys: Keys):
    def models(name: str) -> list[str]:
        return [row["id"] for row in client.ask(get("/v1/models", extra=keys.bearer(name))).json["data"]]

    assert models("anna") == ["m", "other"]
    assert models("ben") == ["m"]
    assert client.ask(get("/v1/models/m", extra=keys.bearer("ben"))).status == 200
    assert health(client, keys.bearer("anna")) == {"m", "other"}
    assert health(client, keys.bearer("ben")) == {"m"}


def health(client: Client, extra: str = "") -> set[str]:
    """Return the models that `/health` shows."""
    return set(client.ask(get("/health", extra=extra)).json["models"])


def test_without_a_key_health_shows_the_models_on_the_loopback_only(
    client: Client, engine: Engine, keys: Keys, tmp_path: Path
):
    assert health(client) == {"m", "other"}
    foreign = client.ask(b"GET /health HTTP/1.1\r\nHost: api.example\r\n\r\n").json
    assert (foreign["status"], foreign["models"]) == ("ok", {})
    closed = running(tmp_path, [model("m", engine)], metrics_open=False, **keys.settings)
    with closed as gateway, gateway.client() as other:
        assert health(other) == set()
        assert health(other, keys.bearer("ben")) == {"m"}


# Secrets


def test_a_key_goes_nowhere(gateway: Gateway, client: Client, keys: Keys, engine: Engine):
    wrong = "fh-" + "b" * 40
    for key in (keys.key_of["anna"], keys.key_of["gone"], wrong):
        answer = client.ask(ask(extra=f"Authorization: Bearer {key}\r\n"))
        assert key not in str(answer.headers) + answer.body.decode()
        client.ask(post(b"{", extra=f"x-api-key: {key}\r\n"))
        client.ask(get("/health", extra=f"Authorization: Bearer {key}\r\n"))
    seen = [gateway.log_path.read_text(), bytes(engine.received).decode()]
    seen += [client.ask(get(path)).body.decode() for path in ("/metrics", "/health")]
    for text in seen:
        assert wrong not in text
        assert not any(key in text for key in keys.key_of.values())
        assert "id-anna" not in text
    assert engine.received
    assert b"authorization" not in bytes(engine.received).lower()


def test_refusals_are_counted_by_reason(gateway: Gateway, client: Client, keys: Keys):
    before = gateway.metric("freehold_gateway_refused_total", reason="invalid_api_key")
    client.ask(ask())
    client.ask(ask(extra=keys.bearer("gone")))
    assert gateway.metric("freehold_gateway_refused_total", reason="invalid_api_key") == before + 2
    assert gateway.metric("freehold_gateway_keys") == 3
    assert gateway.metric("freehold_gateway_keys_trouble") == 0


def test_without_keys_nothing_is_said_of_them(engine: Engine, tmp_path: Path):
    with running(tmp_path, [model("m", engine)]) as gateway, gateway.client() as client:
        answer = client.ask(ask(extra="Authorization: Bearer whatever\r\n"))
        assert answer.status == 200
        assert not any(name.startswith("x-ratelimit") for name, _ in answer.headers)
        assert "keys" not in client.ask(get("/health")).json
        assert not [f for f in gateway.metrics() if f.name.startswith("freehold_gateway_keys") and f.samples]


@pytest.fixture(scope="module")
def apart(
    the_engine: Engine, engines: Engines, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Gateway, Keys]]:
    """A gateway with models that are not ben's: one with a replica, one without."""
    keys = Keys(tmp_path_factory.mktemp("keys"))
    keys.add("ben", models=("m",))
    models = [model("m", the_engine), model("served", engines.new()), model("no-one")]
    with running(tmp_path_factory.mktemp("gateway"), models, **keys.settings) as gateway:
        yield gateway, keys


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/embeddings", "/v1/rerank", MESSAGES, "/v1/models"]
)
def test_a_forbidden_model_is_answered_as_one_that_is_missing(path: str, apart: tuple[Gateway, Keys]):
    """Whether it has replicas or not: status, headers and body are the same but for name, time and request id."""
    gateway, keys = apart
    with gateway.client() as client:
        answers = []
        for name in ("served", "no-one", "absent"):
            request = (
                get(f"{path}/{name}", extra=keys.bearer("ben"))
                if path == "/v1/models"
                else ask(name, path=path, extra=keys.bearer("ben"))
            )
            answer = client.ask(request)
            headers = [(key, value) for key, value in answer.headers if key not in {"x-request-id", "date"}]
            body = re.sub(r"req-[0-9a-f]{24}", "ID", answer.body.decode().replace(name, "absent"))
            answers.append((answer.status, headers, body))
        assert answers[0] == answers[1] == answers[2]
        assert answers[0][0] == 404


def test_nor_does_its_time_show_a_forbidden_model(apart: tuple[Gateway, Keys]):
    """The odds that a forbidden one is answered later than a missing one are even, over 400 pairs of each."""
    gateway, keys = apart
    took: dict[str, list[float]] = {name: [] for name in ("served", "no-one", "absent")}
    with gateway.client() as client:
        for turn in range(400):
            names = list(took)[turn % 3 :] + list(took)[: turn % 3]
            for name in names:
                began = time.perf_counter()
                assert client.ask(ask(name, extra=keys.bearer("ben"))).status == 404
                took[name].append(time.perf_counter() - began)
    for name in ("served", "no-one"):
        later = sum(mine > other for mine in took[name] for other in took["absent"])
        assert 0.4 < later / 400**2 < 0.6, name  # by chance alone: 0.5 +- 0.02


def test_a_key_stays_in_no_memory(engine: Engine, tmp_path: Path):
    """Its digest does. What is left of the key itself is in buffers that are free, and goes with the next requests of others."""
    keys = Keys(tmp_path)
    key, _ = keys.add("anna").encode(), keys.add("ben")
    with running(tmp_path, [model("m", engine)], **keys.settings) as gateway, contextlib.ExitStack() as stack:

        def use(name: str, number: int) -> None:
            client = stack.enter_context(gateway.client())
            extra = f"User-Agent: agent-{number}\r\n" + keys.bearer(name)
            assert client.ask(ask(extra=extra)).status == 200
            assert client.ask(ask(extra=extra + "X-Request-Id: one\r\n")).status == 200

        for number in range(200, 400):
            use("anna", number)
        assert copies_in_memory(gateway.process.pid, key) < 10
        turns = 0
        while copies_in_memory(gateway.process.pid, key):
            turns += 1
            assert turns < 50, "a copy stays"
            use("ben", 400 + turns)


def copies_in_memory(pid: int, text: bytes) -> int:
    """Return how often a text stands in the memory that a process can write to."""
    found = 0
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            place, rights = line.split()[:2]
            if not rights.startswith("rw"):
                continue
            start, end = (int(part, 16) for part in place.split("-"))
            memory.seek(start)
            with contextlib.suppress(OSError):  # not every mapping can be read
                found += memory.read(end - start).count(text)
    return found
