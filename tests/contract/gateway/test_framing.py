"""Framing at the front: requests.yaml against a real gateway process, before an engine that keeps every byte it gets.

Behind each row comes a well-formed request that a careless parser would find too early, too late or twice. An engine gets
it only where the row is a whole request whose end is beyond doubt, and never two requests for one.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway_rig.battery import Case, read_cases
from gateway_rig.client import Answer, Client, CutError
from gateway_rig.engines import ANSWER, Engine
from gateway_rig.keys import Keys
from gateway_rig.malformed import BODY, HIDDEN, MAX_BODY_BYTES
from gateway_rig.process import Gateway, model, running
from waiting import wait_until

CASES = read_cases(Path(__file__).with_name("requests.yaml"), H=HIDDEN, **{"H#": b"%d" % len(HIDDEN)})
PIECES_MAX = 3000
"""Longer requests are cut into so many pieces, and not at every byte."""
BODIES = {BODY, HIDDEN.partition(b"\r\n\r\n")[2]}
FIRST_LINE = re.compile(rb" (HTTP|RTSP|ICE)/1\.[01]\r\n")


@pytest.fixture(scope="module", params=["open", "keys"])
def gateway(
    request: pytest.FixtureRequest, the_engine: Engine, keys: Keys, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    if not keys.key_of:
        keys.add("caller")
    settings = keys.settings if request.param == "keys" else {}
    folder = tmp_path_factory.mktemp(request.param)
    with running(folder, [model("m", the_engine)], max_body_bytes=MAX_BODY_BYTES, **settings) as gateway:
        yield gateway
        assert gateway.metric("freehold_bugs_total") == 0
        wait_until(lambda: gateway.metric("freehold_gateway_connections") == 1, what="connections to close")
        assert gateway.metric("freehold_gateway_in_flight") == 0


def keyed(requests: bytes, bearer: bytes) -> bytes:
    """Return requests with a key behind each request line that is one beyond doubt."""
    return FIRST_LINE.sub(lambda line: line[0] + bearer, requests)


def outcome(client: Client, case: Case) -> tuple[list[str], list[Answer]]:
    """Read answers until the hidden request has its own, or the connection closes."""
    found: list[str] = []
    answers: list[Answer] = []
    while not answers or answers[-1].header("x-request-id") != "hidden":
        try:
            answer = client.read_answer(head_only=case.sent.startswith(b"HEAD ") and not answers)
        except CutError as cut:
            if cut.raw:
                raise
            return [*found, "close"], answers
        found += [str(status) for status in (*answer.interim, answer.status)]
        answers.append(answer)
    return found, answers


@pytest.mark.parametrize("bytewise", [False, True], ids=["whole", "bytewise"])
@pytest.mark.parametrize("name", CASES)
def test_each_request_is_read_in_one_way_or_refused(
    name: str, client: Client, engine: Engine, keys: Keys, *, bytewise: bool
) -> None:
    case = CASES[name]
    bearer = keys.bearer("caller").encode()
    data = HIDDEN.join(keyed(part, bearer) for part in case.sent.split(HIDDEN)) + keyed(HIDDEN, bearer)
    client.send_slowly(data, step=max(1, len(data) // PIECES_MAX) if bytewise else len(data))
    found, answers = outcome(client, case)
    assert found in case.outcomes, case.clause
    for answer in answers:
        assert answer.header("x-request-id")
        assert (
            answer.status < 400
            or not answer.body
            or set(answer.error) == {"message", "type", "param", "code"}
        )
    if found[-1] == "close":
        assert answers[-1].header("connection") == "close"
    asked = [answer for answer in answers if answer.body and answer.json == ANSWER]
    assert len(engine.calls) == len(asked)
    assert [call.header("x-request-id") for call in engine.calls] == [a.header("x-request-id") for a in asked]
    for call in engine.calls:
        assert call.body.strip() in BODIES
        assert re.fullmatch(
            rb"POST /v1/chat/completions HTTP/1\.1\r\nhost: 127\.0\.0\.1:\d+\r\n"
            rb"content-type: application/json\r\ncontent-length: \d+\r\nx-request-id: [!-~]+",
            call.head,
        )
    assert not any(line.unread for line in engine.lines)
