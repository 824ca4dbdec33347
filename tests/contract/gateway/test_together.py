"""Keys, queue and ledger in one gateway: what one of them learns of a request, the others know as well."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from freehold.ledger.drainer import waiting_records
from freehold.ledger.records.record import LedgerRecord, Outcome
from gateway_rig.client import Client, post
from gateway_rig.engines import Call, Engine, Held, healthy
from gateway_rig.keys import Keys
from gateway_rig.process import Gateway, model, running
from waiting import wait_until

LIMIT = 1000
QUEUE = 5


@pytest.fixture(scope="module")
def gateway(
    the_engine: Engine, keys: Keys, spool: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    for name in ("measured", "turned", "leaver", "cut"):
        keys.add(name, tokens_per_minute=LIMIT, requests_per_minute=60)
    keys.add("plain")
    keys.add("hurried", timeout_s=1.0)
    keys.add("light", weight=1)
    keys.add("heavy", weight=3)
    keys.add("first", priority=-10)
    with running(
        tmp_path_factory.mktemp("gateway"),
        [model("m", the_engine, slots=1)],
        spool_path=str(spool),
        queue_max_requests=QUEUE,
        queue_max_wait_s=30,
        **keys.settings,
    ) as gateway:
        yield gateway
        assert gateway.metric("freehold_bugs_total") == 0
        assert gateway.metric("freehold_gateway_in_flight") == 0


def asking(keys: Keys, name: str, *, tokens: int = 10) -> bytes:
    return post({"model": "m", "messages": [1], "max_tokens": tokens}, extra=keys.bearer(name))


def waiting(gateway: Gateway, count: int) -> bool:
    return gateway.metric("freehold_gateway_queue_requests", model="m") == count


def of(spool: Path, key_id: str) -> list[LedgerRecord]:
    return [record for record in waiting_records(spool) if record.key_id == key_id]


def left(client: Client, keys: Keys, name: str) -> int:
    """Return how many tokens a key had left after a request of 10 prompt and 10 answer tokens was let in."""
    answer = client.ask(asking(keys, name))
    assert answer.status == 200
    remaining = answer.header("x-ratelimit-remaining-tokens")
    assert remaining is not None
    return int(remaining)


def with_usage(prompt: int, completion: int) -> bytes:
    usage = {"prompt_tokens": prompt, "completion_tokens": completion}
    body = json.dumps({"object": "chat.completion", "choices": [], "usage": usage}).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % len(body) + body


def test_the_ledger_knows_whose_request_it_was_and_the_key_pays_what_the_engine_counted(
    client: Client, engine: Engine, keys: Keys, spool: Path
) -> None:
    async def counted(call: Call) -> None:
        call.send(with_usage(11, 289))

    engine.answer = counted
    assert client.ask(asking(keys, "measured", tokens=500)).status == 200
    (record,) = of(spool, "id-measured")
    assert (record.prompt_tokens, record.completion_tokens, record.outcome) == (11, 289, Outcome.COMPLETE)
    engine.answer = healthy
    # 300 were counted, not the 500 and more that were reserved; a minute's allowance fills by some tokens meanwhile.
    assert LIMIT - 300 - 60 < left(client, keys, "measured") <= LIMIT - 300


def test_who_is_turned_away_from_a_full_queue_has_used_nothing(
    gateway: Gateway, client: Client, engine: Engine, keys: Keys, spool: Path
) -> None:
    held = Held(engine)
    with gateway.client() as busy:
        busy.send(asking(keys, "plain"))
        wait_until(lambda: len(engine.calls) == 1)
        crowd = [gateway.client() for _ in range(QUEUE)]
        for number, each in enumerate(crowd):
            each.send(asking(keys, "turned", tokens=100))
            wait_until(partial(waiting, gateway, number + 1))
        refused = client.ask(asking(keys, "turned", tokens=100))
        assert (refused.status, refused.error["code"]) == (503, "engine_overloaded")
        assert refused.header("retry-after") is not None
        for each in crowd:
            each.close()
        wait_until(partial(waiting, gateway, 0))
        held.release()
        assert busy.read_answer().status == 200
    engine.answer = healthy
    assert left(client, keys, "turned") > LIMIT - 100
    # Neither who was refused nor who left the queue was ever an engine's: one record, of the request above.
    assert len(of(spool, "id-turned")) == 1


def test_who_leaves_an_answer_half_way_pays_for_what_came(
    gateway: Gateway, client: Client, engine: Engine, keys: Keys, spool: Path
) -> None:
    engine.answer = _two_words_then_nothing
    with gateway.client() as leaver:
        body = {"model": "m", "messages": [1], "max_tokens": 900, "stream": True}
        leaver.send(post(body, extra=keys.bearer("leaver")))
        leaver.read_head()
        leaver.read_chunk()
        leaver.read_chunk()
    wait_until(lambda: len(of(spool, "id-leaver")) == 1)
    assert of(spool, "id-leaver")[0].outcome is Outcome.ABANDONED
    engine.answer = healthy
    assert left(client, keys, "leaver") > LIMIT - 200


async def _two_words_then_nothing(call: Call) -> None:
    call.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    for word in (b"one", b"two"):
        said = b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % word
        call.send(b"%x\r\n%b\r\n" % (len(said), said))
    await call.gone.wait()


def test_waiting_requests_start_by_priority_and_weight_of_their_keys(
    gateway: Gateway, engine: Engine, keys: Keys
) -> None:
    held = Held(engine)
    busy = gateway.client()
    busy.send(asking(keys, "plain"))
    wait_until(lambda: len(engine.calls) == 1)
    names = ["light", "light", "heavy", "heavy", "first"]
    crowd = [gateway.client() for _ in names]
    for number, (each, name) in enumerate(zip(crowd, names, strict=True)):
        each.send(
            post(
                {"model": "m", "messages": [1], "max_tokens": 100},
                extra=keys.bearer(name) + f"x-request-id: {name}\r\n",
            )
        )
        wait_until(partial(waiting, gateway, number + 1))
    held.release()
    for each in (busy, *crowd):
        assert each.read_answer().status == 200
        each.close()
    assert [call.header("x-request-id") for call in engine.calls[1:]] == [
        "first",
        "light",
        "heavy",
        "heavy",
        "light",
    ]


def test_a_key_has_a_timeout_for_requests_that_say_none(
    gateway: Gateway, client: Client, engine: Engine, keys: Keys
) -> None:
    held = Held(engine)
    with gateway.client() as busy:
        busy.send(asking(keys, "plain"))
        wait_until(lambda: len(engine.calls) == 1)
        with gateway.client() as other:
            patient = keys.bearer("hurried") + "x-freehold-timeout: 60\r\n"
            other.send(post({"model": "m", "messages": [1]}, extra=patient))
            wait_until(partial(waiting, gateway, 1))
            refused = client.ask(asking(keys, "hurried"))
            assert refused.status in {503, 504}
            assert "timeout" in refused.error["message"]
            held.release()
            assert (busy.read_answer().status, other.read_answer().status) == (200, 200)
