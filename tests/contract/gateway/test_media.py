"""Sound and pictures pass to engines that have them: forms with a file as they came, and answers that are not JSON."""

from collections.abc import Iterator

import pytest

from gateway_rig.client import Client, post
from gateway_rig.engines import STREAM_HEAD, Engine, chunk, says, whole
from gateway_rig.process import Gateway, model, running

WORDS, SPEECH, PICTURES = "/v1/audio/transcriptions", "/v1/audio/speech", "/v1/images/generations"
BOUNDARY = "----x7MA4YWxk"
SOUND = bytes(range(256)) * 40 + b"\r\n--" + BOUNDARY[:-1].encode() + b'"model": \r\n\r\n'


@pytest.fixture(scope="module")
def gateway(the_engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    models = [
        model("m", the_engine),
        model("cpp", the_engine, engine="llama-cpp", slots=4),
        model("sglang", the_engine, engine="sglang", slots=4),
    ]
    with running(tmp_path_factory.mktemp("media"), models) as gateway:
        yield gateway
        assert gateway.metric("freehold_bugs_total") == 0


def part(name: str, value: bytes | str, more: str = "") -> bytes:
    data = value if isinstance(value, bytes) else value.encode()
    return (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode()
        + data
        + b"\r\n"
    )


FILE = part("file", SOUND, '; filename="a.wav"\r\nContent-Type: audio/wav')
END = f"--{BOUNDARY}--\r\n".encode()


def form(*parts: bytes, kind: str = f"multipart/form-data; boundary={BOUNDARY}") -> bytes:
    return post(b"".join(parts), path=WORDS, extra=f"Content-Type: {kind}\r\n")


@pytest.mark.parametrize("name", ["m", "cpp"])
@pytest.mark.parametrize("quotes", ["", '"'])
def test_a_form_arrives_as_it_came(name: str, quotes: str, client: Client, engine: Engine) -> None:
    says(engine, whole({"text": "hello", "usage": {"type": "duration", "seconds": 3}}))
    kind = f"multipart/form-data; boundary={quotes}{BOUNDARY}{quotes}"
    parts = (FILE, part("model", name), part("language", "en"), part("timestamp_granularities[]", "word"),
             part("timestamp_granularities[]", "segment"), END)  # fmt: skip
    for _ in range(2):  # a head that came before is no other way
        answer = client.ask(form(*parts, kind=kind))
        assert (answer.status, answer.json["text"]) == (200, "hello")
    for call in engine.calls:
        assert (call.path, call.body) == (WORDS, b"".join(parts))
        assert call.header("content-type") == kind


def test_a_stream_of_words_passes(client: Client, engine: Engine) -> None:
    events = (b'data: {"type":"transcript.text.delta","delta":"a"}\n\n', b"data: [DONE]\n\n")
    says(engine, STREAM_HEAD + b"".join(map(chunk, events)) + b"0\r\n\r\n")
    answer = client.ask(form(FILE, part("model", "m"), part("stream", "true"), END))
    assert (answer.status, answer.body) == (200, b"".join(events))


NOT_ONE_WAY: dict[str, tuple[bytes, ...]] = {
    "two models": (part("model", "m"), part("model", "n"), FILE, END),
    "no end": (part("model", "m"), FILE),
    "more behind the end": (part("model", "m"), FILE, END, part("model", "n"), END),
    "a preamble": (b"hello\r\n", part("model", "m"), FILE, END),
    "a second name": (part("x", "n", '; name="model"'), FILE, END),
    "a second disposition": (part("x", "n", '\r\nContent-Disposition: form-data; name="model"'), FILE, END),
    "a part without a name": (f"--{BOUNDARY}\r\nContent-Type: x\r\n\r\nm\r\n".encode(), END),
    "too many parts": (*(part(f"x{each}", "") for each in range(70)), part("model", "m"), END),
    "nothing": (),
}  # fmt: skip


@pytest.mark.parametrize("case", NOT_ONE_WAY)
def test_a_form_that_two_parsers_could_read_differently_is_refused(
    case: str, client: Client, engine: Engine
) -> None:
    answer = client.ask(form(*NOT_ONE_WAY[case]))
    assert (answer.status, answer.error["code"]) == (400, "invalid_form")
    assert not engine.calls


@pytest.mark.parametrize(
    "kind",
    [
        "application/json",
        "multipart/form-data",
        "multipart/mixed; boundary=x",
        "multipart/form-data; boundary=x; boundary=y",
    ],
)
def test_another_content_type_is_refused(kind: str, client: Client, engine: Engine) -> None:
    answer = client.ask(form(part("model", "m"), FILE, END, kind=kind))
    assert (answer.status, answer.error["code"]) == (400, "invalid_form")
    assert not engine.calls


def test_a_form_has_a_model_that_is_served(client: Client, engine: Engine) -> None:
    answer = client.ask(form(FILE, END))
    assert (answer.status, answer.error["param"]) == (400, "model")
    assert client.ask(form(FILE, part("model", "x"), END)).error["code"] == "model_not_found"
    assert (
        client.ask(form(FILE, part("model", "m"), part("priority", "1"), END)).error["code"] == "private_key"
    )
    assert client.ask(form(FILE, part("model", "sglang"), END)).error["code"] == "not_supported_by_engine"
    assert not engine.calls


@pytest.mark.parametrize("chunked", [False, True])
def test_sound_comes_as_it_is_made(client: Client, engine: Engine, *, chunked: bool) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\n"
    if chunked:
        says(engine, head + b"transfer-encoding: chunked\r\n\r\n", chunk(SOUND), chunk(SOUND), b"0\r\n\r\n")
    else:
        says(engine, head + b"content-length: %d\r\n\r\n" % (2 * len(SOUND)) + SOUND, SOUND)
    body = {"model": "m", "input": "Hello.", "voice": "alloy", "stream_format": "audio"}
    answer = client.ask(post(body, path=SPEECH))
    assert (answer.status, answer.header("content-type"), answer.body) == (200, "audio/mpeg", SOUND * 2)
    assert engine.calls[0].json == body


def test_pictures_come_whole(client: Client, engine: Engine) -> None:
    picture = {"created": 1, "data": [{"b64_json": "iVBO" * 100_000}]}
    says(engine, whole(picture))
    answer = client.ask(post({"model": "m", "prompt": "a cat", "n": 1}, path=PICTURES))
    assert (answer.status, answer.json) == (200, picture)


@pytest.mark.parametrize("path", [SPEECH, PICTURES])
def test_an_engine_without_it_is_not_asked(path: str, client: Client, engine: Engine) -> None:
    answer = client.ask(post({"model": "cpp", "input": "x", "prompt": "x"}, path=path))
    assert (answer.status, answer.error["code"]) == (400, "not_supported_by_engine")
    assert not engine.calls
