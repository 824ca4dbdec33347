"""Well-framed requests that ask for what is not there, say what is wrong, or are too large; and what is answered here."""

import pytest

from freehold.core.events import PRIVATE_KEYS
from gateway_rig.client import CHAT, Client, ask, get, post
from gateway_rig.engines import ANSWER, Call, Engine, whole
from gateway_rig.malformed import CHUNKED, MAX_BODY_BYTES, TOP
from gateway_rig.process import Gateway, model, running
from waiting import wait_until


@pytest.mark.parametrize("path", ["/health", "/livez", "/readyz", "/v1/models", "/metrics"])
def test_head_is_get_without_its_body(path: str, client: Client) -> None:
    assert client.ask(get(path)).status == 200
    head = client.ask(get(path, method="HEAD"))
    assert head.status == 200
    assert int(head.header("content-length") or 0) > 10
    assert client.ask(get("/livez")).json == {"status": "ok"}


@pytest.mark.parametrize(("path", "status"), [("/nothing", 404), ("/v1/models/none", 404), (CHAT, 405)])
def test_refusals_of_head_have_no_body_either(path: str, status: int, client: Client) -> None:
    assert client.ask(get(path, method="HEAD")).status == status
    assert client.ask(get("/livez")).json == {"status": "ok"}


NOWHERE = [
    "/", "/v1", "/v1/", "/v1/chat/completions/", "/v1/%2e%2e/metrics", "/v1/../metrics", "/v1/chat/../../metrics", "//metrics",
    "/v1/chat%2fcompletions", "/V1/chat/completions", "/v1/chat/completions;x=1", "/v1/chat/completions%00", "/slots", "/props",
    "/v1/load_lora_adapter", "/tokenize", "/livez/", "/v1//chat/completions",
]  # fmt: skip


@pytest.mark.parametrize("path", NOWHERE)
def test_only_known_paths_exist_exactly_as_known(path: str, client: Client, engine: Engine) -> None:
    for request in (post({"model": "m"}, path=path), get(path)):
        answer = client.ask(request)
        assert answer.status == 404
        assert answer.error["code"] in {"unknown_url", "model_not_found"}
    assert not engine.received


@pytest.mark.parametrize("name", ["%2e%2e/metrics", "..", "../../metrics", "%00", "%ff", "m/", "m%2f"])
def test_model_ids_are_names_not_paths(name: str, client: Client) -> None:
    answer = client.ask(get(f"/v1/models/{name}"))
    assert (answer.status, answer.error["code"]) == (404, "model_not_found")


def test_query_strings_are_taken_off(client: Client, engine: Engine) -> None:
    assert client.ask(ask("m", path=CHAT + "?api-version=1&x=/v1/models")).json == ANSWER
    assert client.ask(get("/livez?x=y")).status == 200
    assert [call.path for call in engine.calls] == [CHAT]


def test_a_body_past_its_bound_is_413_by_its_length_before_it_comes(client: Client, engine: Engine) -> None:
    client.send(TOP + b"Content-Length: %d\r\n\r\n" % (MAX_BODY_BYTES + 1))
    answer = client.read_answer()
    assert (answer.status, answer.error["code"]) == (413, "request_too_large")
    assert client.ended()
    assert not engine.received


def test_a_body_at_its_bound_is_taken(client: Client, engine: Engine) -> None:
    body = b'{"model":"m","x":"'.ljust(MAX_BODY_BYTES - 2, b"y") + b'"}'
    assert client.ask(post(body)).status == 200
    assert engine.calls[0].body == body


def test_a_body_past_its_bound_is_413_by_its_growth(client: Client, engine: Engine) -> None:
    client.send(CHUNKED)
    client.send_slowly((b"400\r\n" + b"x" * 1024 + b"\r\n") * 1000, step=10_000)
    assert client.read_answer().status == 413
    assert client.ended()
    assert not engine.received


SIZES = [b"ffffffffffffffff", b"7fffffffffffffff", b"4e21", b"0" * 70 + b"5", b"FFFFFFFF;a=b;c"]


@pytest.mark.parametrize("before", [b"", b'2\r\n{"\r\n'])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("step", [1, 3, 1000])
def test_a_chunk_past_the_bound_is_413_before_it_comes(
    size: bytes, before: bytes, step: int, client: Client, engine: Engine
) -> None:
    """RFC 9112 7.1: large sizes must be expected; a connection that waits for 2^64 bytes would be held for nothing."""
    client.socket.settimeout(2)
    client.send_slowly(CHUNKED + before + size + b"\r\n", step=step)
    answer = client.read_answer()
    assert (answer.status, answer.error["code"]) == (413, "request_too_large")
    assert client.ended()
    assert not engine.received


@pytest.mark.parametrize("step", [1, 2, 5, 1000])
def test_chunks_within_the_bound_pass_wherever_they_are_cut(
    step: int, client: Client, engine: Engine
) -> None:
    body = b'{"model":"m",\r\n"x":"' + b"f" * 40 + b'\\r\\n"}\r\n'
    chunks = b"".join(
        b"%x;x=ffffffffffff\r\n%b\r\n" % (len(body[at : at + 7]), body[at : at + 7])
        for at in range(0, len(body), 7)
    )
    client.send_slowly(
        CHUNKED + chunks + b"0\r\nX: ffffffffffff\r\nffffffff: x\r\n\r\n" + ask("m"), step=step
    )
    assert [client.read_answer().status for _ in range(2)] == [200, 200]
    assert engine.calls[0].body == body


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "10.0.0.1", "localhost.evil.example"])
def test_metrics_are_read_under_a_name_of_the_loopback_only(host: str, client: Client) -> None:
    """A page whose name was rebound to 127.0.0.1 sends its own name as Host."""
    answer = client.ask(f"GET /metrics HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert (answer.status, answer.error["code"]) == (403, "forbidden")
    absolute = client.ask(f"GET http://{host}/metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    assert absolute.status == 403
    for own in ("localhost:1", "LOCALHOST", "127.0.0.1:8000", "[::1]:1", "x.localhost"):
        assert client.ask(f"GET /metrics HTTP/1.1\r\nHost: {own}\r\n\r\n".encode()).status == 200


def test_413_is_said_in_the_clients_own_shape_and_with_its_id(client: Client) -> None:
    client.send(
        b"POST /v1/messages HTTP/1.1\r\nHost: h\r\nx-request-id: mine\r\nContent-Length: %d\r\n\r\n" % 10**6
    )
    answer = client.read_answer()
    assert (answer.status, answer.error["type"]) == (413, "request_too_large")
    assert answer.json["type"] == "error"
    assert answer.header("x-request-id") == "mine"


ENDLESS = {
    "trailers": (b"0\r\n", b"x-sum: " + b"a" * 1000 + b"\r\n"),
    "a trailer": (b"0\r\nx-sum: ", b"a" * 1000),
    "a chunk extension": (b"1;", b"a" * 1000),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_framing_without_end_is_refused(name: str, client: Client, gateway: Gateway) -> None:
    start, more = ENDLESS[name]
    before = gateway.rss_bytes()
    client.send_slowly(CHUNKED + start + more * 20_000, step=100_000)
    assert client.read_answer().status == 431
    assert gateway.rss_bytes() - before < 3_000_000


def test_a_compressed_body_is_415(client: Client, engine: Engine) -> None:
    answer = client.ask(ask("m", extra="Content-Encoding: gzip\r\n"))
    assert (answer.status, answer.error["code"]) == (415, "unsupported_encoding")
    assert not engine.received


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [("GET", CHAT, "POST"), ("DELETE", CHAT, "POST"), ("OPTIONS", CHAT, "POST"), ("POST", "/v1/models", "GET, HEAD"),
     ("PUT", "/metrics", "GET, HEAD"), ("DELETE", "/v1/models/m", "GET, HEAD"), ("POST", "/livez", "GET, HEAD")],
)  # fmt: skip
def test_a_wrong_method_is_405_with_allow(
    method: str, path: str, allow: str, client: Client, engine: Engine
) -> None:
    answer = client.ask(get(path, method=method, extra="Content-Length: 0\r\n"))
    assert (answer.status, answer.header("allow")) == (405, allow)
    assert client.ask(get("/livez")).status == 200
    assert not engine.received


BODIES: dict[str, tuple[bytes, int, str | None, str | None]] = {
    "empty": (b"", 400, "invalid_json", None),
    "no JSON": (b"model=m", 400, "invalid_json", None),
    "cut short": (b'{"model":"m"', 400, "invalid_json", None),
    "not an object": (b"[1]", 400, "invalid_type", None),
    "null": (b"null", 400, "invalid_type", None),
    "no model": (b"{}", 400, "missing_required_parameter", "model"),
    "model of the wrong type": (b'{"model":7}', 400, "invalid_type", "model"),
    "stream of the wrong type": (b'{"model":"m","stream":"yes"}', 400, "invalid_type", "stream"),
    "unknown model": (b'{"model":"other"}', 404, "model_not_found", "model"),
    "nested beyond reason": (
        b'{"model":"m","x":' + b"[" * 9000 + b"]" * 9000 + b"}",
        400,
        "body_too_complex",
        None,
    ),
    # Python takes the last, other parsers the first, Go's own takes any spelling
    "two models": (b'{"model":"m","model":"m"}', 400, "ambiguous_body", "model"),
    "two models, one forbidden": (
        b'{"model":"other","x":"model","model":"m"}',
        400,
        "ambiguous_body",
        "model",
    ),
    "a model in other letters": (b'{"model":"m","Model":"other"}', 400, "ambiguous_body", "model"),
    "a model in capitals": (b'{"MODEL":"other", "model":"m"}', 400, "ambiguous_body", "model"),
    "a model as escapes": (b'{"model":"other","\\u006dodel":"m"}', 400, "ambiguous_body", "model"),
    "a model as escapes, alone": (b'{"m\\u006Fdel":"m"}', 400, "ambiguous_body", "model"),
    "a capital as an escape": (b'{"model":"m","\\u004Dodel":"other"}', 400, "ambiguous_body", "model"),
    **{
        f"the engine's own {name}, {value.decode()}": (
            b'{"model":"m","%b":%b}' % (name.encode(), value),
            400,
            "private_key",
            name,
        )
        for name in PRIVATE_KEYS
        for value in (b"1", b'{"a":1}')
    },
    "an engine's own key, then null": (
        b'{"model":"m","chat_template":"x","chat_template":null}',
        400,
        "ambiguous_body",
        "chat_template",
    ),
    "an engine's own key as escapes, then null": (
        b'{"model":"m","\\u0070riority":1,"priority":null}',
        400,
        "ambiguous_body",
        "priority",
    ),
    "an engine's own key as escapes": (b'{"model":"m","\\u0070riority":1}', 400, "private_key", "priority"),
    "broken UTF-8 behind much text": (
        b'{"model":"m","x":"' + "\u00e9".encode() * 9000 + b'\xc3"}',
        400,
        "invalid_json",
        None,
    ),
    "broken UTF-8": (b'{"model":"m","x":"\xff"}', 400, "invalid_json", None),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_wrong_body_is_refused_and_the_connection_stays(name: str, client: Client, engine: Engine) -> None:
    body, status, code, param = BODIES[name]
    answer = client.ask(post(body))
    assert (answer.status, answer.error["code"], answer.error["param"]) == (status, code, param)
    assert answer.error["type"] == "invalid_request_error"
    assert not engine.received
    assert code != "ambiguous_body" or answer.error["message"].startswith("Name each key of the body once, ")
    assert client.ask(get("/livez")).status == 200


@pytest.mark.parametrize("name", BODIES)
def test_errors_under_messages_have_anthropics_shape(name: str, client: Client) -> None:
    body, status, _, _ = BODIES[name]
    answer = client.ask(post(body, path="/v1/messages"))
    assert answer.status == status
    kind = {400: "invalid_request_error", 404: "not_found_error"}[status]
    assert answer.json == {"type": "error", "error": {"type": kind, "message": answer.error["message"]}}


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m","tools":[{"properties":{"model":{"type":"string"}}}],"x":"\\"model\\""}',
        b' { "x" : {"model": 1 , "model" : 2}, "model" : "m" , "y":"\\u006d\\u004d" } ',
        b'{"model":"m","priority":null,"chat_template":null,"metadata":{"priority":1,"rid":2}}',
    ],
)
def test_the_same_words_elsewhere_pass_as_they_came(body: bytes, client: Client, engine: Engine) -> None:
    assert client.ask(post(body)).json == ANSWER
    assert engine.calls[0].body == body


def test_nesting_just_below_the_bound_never_breaks_a_connection(engine: Engine, gateway: Gateway) -> None:
    async def answer(call: Call) -> None:
        call.send(whole(ANSWER))

    engine.answer = answer
    for depth in range(930, 1010, 2):
        body = b'{"model":"m","x":' + b"[" * depth + b"]" * depth + b"}"
        with gateway.client() as client:
            assert client.ask(post(body)).status in {200, 400}


def test_nothing_above_was_a_bug(gateway: Gateway) -> None:
    assert gateway.metric("freehold_bugs_total") == 0
    wait_until(
        lambda: gateway.metric("freehold_gateway_connections") == 1, what="every connection to be closed"
    )
    assert gateway.metric("freehold_gateway_in_flight") == 0


def test_an_engine_is_not_sent_to_fetch_what_a_caller_names(
    the_engine: Engine, tmp_path_factory: pytest.TempPathFactory
) -> None:
    the_engine.reset()
    picture = {"type": "image_url", "image_url": {"url": "http://169.254.169.254/"}}
    inline = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    models = [
        model("m", the_engine) | {"media_urls": False},
        model("open", the_engine) | {"allow_keys": ["priority"]},
    ]

    def body(name: str, part: object) -> dict[str, object]:
        return {"model": name, "messages": [{"role": "user", "content": [part]}]}

    with running(tmp_path_factory.mktemp("media"), models) as gateway, gateway.client() as client:
        refused = client.ask(post(body("m", picture)))
        assert (refused.status, refused.error["code"]) == (400, "media_url_refused")
        assert not the_engine.calls
        assert client.ask(post(body("m", inline))).status == 200
        assert client.ask(post(body("open", picture))).status == 200
        assert client.ask(post({"model": "open", "priority": 1})).status == 200
        assert client.ask(post({"model": "open", "priority": 1, "rid": "x"})).error["param"] == "rid"
