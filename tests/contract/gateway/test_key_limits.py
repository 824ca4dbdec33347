"""A key's own limits at the real gateway, as bytes and as the official client meets them."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import AuthenticationError, NotFoundError, OpenAI, RateLimitError

from gateway_rig.client import Answer, Client, ask, post
from gateway_rig.engines import STREAM_HEAD, Call, Engine, Engines, chunk, delta, whole
from gateway_rig.keys import Keys
from gateway_rig.killing import answer as with_usage
from gateway_rig.process import Gateway, model, running
from waiting import wait_until

HI: Any = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def gateway(
    the_engine: Engine, engines: Engines, keys: Keys, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    models = [model("m", the_engine), model("full", the_engine, slots=2), model("other", engines.new())]
    for name, limits in LIMITS.items():
        keys.add(name, **limits)
    folder = tmp_path_factory.mktemp("gateway")
    with running(folder, models, queue_max_requests=1, **keys.settings) as gateway:
        yield gateway
        assert gateway.metric("freehold_bugs_total") == 0
        assert gateway.metric("freehold_gateway_in_flight") == 0


LIMITS: dict[str, dict[str, Any]] = {
    # One key per test, since what a test uses is used; `free` has no limits.
    "free": {},
    "three": {"requests_per_minute": 3},
    "neighbour": {"requests_per_minute": 3},
    "sixty": {"requests_per_minute": 60},
    "tokens": {"tokens_per_minute": 1000},
    "small": {"tokens_per_minute": 100},
    "pair": {"concurrency": 2},
    "leaver": {"concurrency": 1},
    "streamer": {"concurrency": 1},
    "failing": {"tokens_per_minute": 1000, "requests_per_minute": 50},
    "crowd": {"requests_per_minute": 50},
    "broken": {"requests_per_minute": 2},
    "budget": {"monthly_tokens": 100},
    "holder": {"monthly_tokens": 100},
    "sdk": {"requests_per_minute": 60, "models": ("m",)},
    "sdk-budget": {"monthly_tokens": 10},
}


def limited(answer: Answer, code: str = "rate_limit_exceeded") -> str:
    assert answer.status == 429
    assert (answer.error["type"], answer.error["code"]) == ("rate_limit_error", code)
    return str(answer.error["message"])


def small(keys: Keys, name: str, *, tokens: int = 10) -> bytes:
    body = {"model": "m", "messages": [1], "max_tokens": tokens}
    return post(body, extra=keys.bearer(name))


async def never(call: Call) -> None:
    await call.gone.wait()


# Requests and tokens


def test_requests_a_minute(client: Client, keys: Keys, engine: Engine):
    answers = [client.ask(ask(extra=keys.bearer("three"))) for _ in range(6)]
    assert [answer.status for answer in answers] == [200, 200, 200, 429, 429, 429]
    assert [answer.header("x-ratelimit-limit-requests") for answer in answers] == ["3"] * 6
    assert [a.header("x-ratelimit-remaining-requests") for a in answers] == ["2", "1", "0", "0", "0", "0"]
    assert answers[0].header("x-ratelimit-reset-requests") == "20s"
    assert answers[2].header("x-ratelimit-reset-requests") == "1m0s"
    assert answers[0].header("x-ratelimit-limit-tokens") is None
    assert limited(answers[3]) == "This API key may send 3 requests a minute."
    wait_ms = int(answers[3].header("retry-after-ms") or 0)
    assert 15_000 < wait_ms <= 20_000
    assert answers[3].header("retry-after") == str(-(-wait_ms // 1000))
    assert answers[3].header("x-should-retry") is None
    assert len(engine.calls) == 3
    assert client.ask(ask(extra=keys.bearer("neighbour"))).header("x-ratelimit-remaining-requests") == "2"


def test_a_stream_tells_its_limits_too(client: Client, keys: Keys, engine: Engine):
    answer = client.ask(ask(extra=keys.bearer("free"), stream=True))
    assert not any(name.startswith("x-ratelimit") for name, _ in answer.headers)
    answer = client.ask(ask(extra=keys.bearer("neighbour"), stream=True))
    assert answer.status == 200
    assert answer.header("x-ratelimit-limit-requests") == "3"


def test_room_comes_back_when_it_was_told_to(client: Client, keys: Keys, engine: Engine):
    answer = client.ask(ask(extra=keys.bearer("sixty")))
    while answer.status == 200:
        answer = client.ask(ask(extra=keys.bearer("sixty")))
    told_s = int(answer.header("retry-after-ms") or 0) / 1000
    refused_s = time.monotonic()
    wait_until(lambda: client.ask(ask(extra=keys.bearer("sixty"))).status == 200, timeout_s=told_s + 2)
    assert 0 < told_s <= 1
    assert time.monotonic() - refused_s >= told_s - 0.05


def test_tokens_a_minute(client: Client, keys: Keys, engine: Engine):
    first = client.ask(small(keys, "tokens", tokens=900))
    assert (first.status, first.header("x-ratelimit-limit-tokens")) == (200, "1000")
    left = int(first.header("x-ratelimit-remaining-tokens") or 0)
    assert 50 < left < 100
    said = limited(refusal := client.ask(small(keys, "tokens", tokens=200)))
    assert "1000 tokens a minute" in said
    assert 6_000 < int(refusal.header("retry-after-ms") or 0) < 12_000
    assert client.ask(small(keys, "tokens", tokens=1)).status == 200
    assert len(engine.calls) == 2


def test_a_request_that_can_never_fit_is_not_to_be_tried_again(client: Client, keys: Keys, engine: Engine):
    answer = client.ask(small(keys, "small", tokens=500))
    assert "Lower its max_tokens" in limited(answer)
    assert answer.header("x-should-retry") == "false"
    assert answer.header("retry-after") is None
    assert answer.header("x-ratelimit-remaining-tokens") == "100"
    assert not engine.received


# At once


def test_requests_at_once(gateway: Gateway, client: Client, keys: Keys, engine: Engine):
    engine.answer = never
    with gateway.client() as one, gateway.client() as two:
        one.send(ask(extra=keys.bearer("pair")))
        two.send(ask(extra=keys.bearer("pair")))
        wait_until(lambda: len(engine.calls) == 2)
        refusal = client.ask(ask(extra=keys.bearer("pair")))
        assert "2 requests under way" in limited(refusal)
        assert (refusal.header("retry-after"), refusal.header("retry-after-ms")) == ("1", "1000")
        assert len(engine.calls) == 2
        one.leave()
        two.leave()
    engine.reset()
    wait_until(lambda: client.ask(ask(extra=keys.bearer("pair"))).status == 200)


def test_a_client_that_leaves_frees_its_place(gateway: Gateway, client: Client, keys: Keys, engine: Engine):
    engine.answer = never
    for times in (1, 2, 3):
        with gateway.client() as one:
            one.send(ask(extra=keys.bearer("leaver"), stream=True))
            wait_until(lambda times=times: len(engine.calls) == times)  # type: ignore[misc]
            one.leave()
        wait_until(lambda: gateway.metric("freehold_gateway_in_flight") == 0)
    engine.reset()
    assert client.ask(ask(extra=keys.bearer("leaver"))).status == 200


# What costs nothing


def test_a_request_refused_for_another_reason_costs_nothing(client: Client, keys: Keys, engine: Engine):
    line = keys.bearer("broken")
    for _ in range(5):
        assert client.ask(post(b"{", extra=line)).status == 400
        assert client.ask(ask("none such", extra=line)).status == 404
        assert client.ask(ask("m", path="/v1/nothing", extra=line)).status == 404
    assert client.ask(ask(extra=line)).header("x-ratelimit-remaining-requests") == "1"


@pytest.mark.parametrize("options", [b'{"x":1e999}', b"1e999", b'{"include_usage":1e999}', b"[[]]"])
def test_odd_options_of_a_stream_take_no_place_for_good(
    client: Client, keys: Keys, engine: Engine, options: bytes
):
    body = b'{"model":"m","messages":[1],"stream":true,"stream_options":%b}' % options
    for _ in range(3):
        assert client.ask(post(body, extra=keys.bearer("streamer"))).status == 200
    assert [call.body.count(options[:-1]) for call in engine.calls] == [1] * 3


def test_an_answer_that_fails_gives_its_tokens_back(client: Client, keys: Keys, engine: Engine):
    async def fail(call: Call) -> None:
        call.send(whole({"error": {"message": "no"}}, status=400))

    engine.answer = fail
    for asked in range(1, 6):
        answer = client.ask(small(keys, "failing", tokens=900))
        assert answer.status == 400
        assert answer.header("x-ratelimit-remaining-requests") == str(50 - asked)
    engine.reset()
    assert client.ask(small(keys, "failing", tokens=900)).status == 200


def test_full_capacity_is_nobodys_own_limit(gateway: Gateway, client: Client, keys: Keys, engine: Engine):
    go_on = asyncio.Event()

    async def wait(call: Call) -> None:
        await go_on.wait()
        call.send(whole({}))

    engine.answer = wait
    others = [gateway.client() for _ in range(3)]
    for other in others:
        other.send(ask("full", extra=keys.bearer("crowd")))
    wait_until(lambda: gateway.metric("freehold_gateway_queue_requests", model="full") == 1)
    for _ in range(5):
        assert client.ask(ask("full", extra=keys.bearer("crowd"))).status == 503
    engine.do(go_on.set)
    assert [other.read_answer().status for other in others] == [200] * 3
    for other in others:
        other.close()
    engine.reset()
    assert client.ask(ask(extra=keys.bearer("crowd"))).header("x-ratelimit-remaining-requests") == "46"


# Budgets


def test_a_spent_budget_is_not_to_be_tried_again(client: Client, keys: Keys, engine: Engine):
    assert client.ask(small(keys, "budget", tokens=50)).status == 200
    assert (
        client.ask(small(keys, "budget", tokens=50)).status == 200
    )  # begun below the budget: it may end above
    answer = client.ask(small(keys, "budget"))
    assert limited(answer, "insufficient_quota") == "This API key has used its 100 tokens of this month."
    assert answer.header("x-should-retry") == "false"
    assert answer.header("retry-after") is None
    assert len(engine.calls) == 2


def test_a_budget_held_by_requests_under_way_may_come_back(
    gateway: Gateway, client: Client, keys: Keys, engine: Engine
):
    go_on = asyncio.Event()

    async def fail_later(call: Call) -> None:
        await go_on.wait()
        call.send(whole({"error": {"message": "no"}}, status=400))

    engine.answer = fail_later
    with gateway.client() as other:
        other.send(small(keys, "holder", tokens=200))
        wait_until(lambda: engine.calls)
        answer = client.ask(small(keys, "holder"))
        assert "reserved by requests under way" in limited(answer)
        assert (answer.header("retry-after"), answer.header("x-should-retry")) == ("1", None)
        engine.do(go_on.set)
        assert other.read_answer().status == 400
    engine.reset()
    assert client.ask(small(keys, "holder")).status == 200


def test_dollars_held_by_requests_under_way_may_come_back(engine: Engine, tmp_path: Path):
    keys = Keys(tmp_path)
    keys.add("anna", monthly_microusd=5)
    go_on = asyncio.Event()

    async def answer_later(call: Call) -> None:
        await go_on.wait()
        await with_usage(call)

    engine.answer = answer_later
    prices = {"m": {"input_picousd": 0, "cached_picousd": 0, "output_picousd": 1_000_000}}
    with (
        running(tmp_path, [model("m", engine)], prices=prices, **keys.settings) as gateway,
        gateway.client() as client,
        gateway.client() as other,
    ):
        other.send(small(keys, "anna", tokens=200))  # it reserves 200 millionths, and costs 2
        wait_until(lambda: engine.calls, timeout_s=5, what="a request there")
        refused = client.ask(small(keys, "anna"))
        assert limited(refused).endswith("0.00 USD a month is reserved by requests under way.")
        assert (refused.header("retry-after"), refused.header("x-should-retry")) == ("1", None)
        engine.do(go_on.set)
        assert other.read_answer().status == 200
        assert [client.ask(small(keys, "anna", tokens=2)).status for _ in range(2)] == [200] * 2
        spent = client.ask(small(keys, "anna"))
        assert limited(spent, "insufficient_quota").startswith("This API key has used its")
        assert spent.header("x-should-retry") == "false"


@pytest.mark.parametrize("how", ["terminated", "killed"])
def test_a_budget_outlives_the_gateway(how: str, engine: Engine, tmp_path: Path):
    keys = Keys(tmp_path)
    keys.add("anna", monthly_tokens=100)
    budgets = Path(keys.settings["budgets_path"])
    first = Gateway(tmp_path, [model("m", engine)], **keys.settings)
    with first.client() as client:
        assert client.ask(small(keys, "anna", tokens=200)).status == 200
    if how == "killed":
        wait_until(lambda: budgets.exists() and b"id-anna" in budgets.read_bytes())
        first.process.kill()
        first.process.wait()
    else:
        first.stop()
    with running(tmp_path, [model("m", engine)], **keys.settings) as gateway, gateway.client() as client:
        limited(client.ask(small(keys, "anna")), "insufficient_quota")
    assert budgets.stat().st_mode & 0o777 == 0o600


def test_a_budget_that_cannot_be_saved_is_told_and_slows_nobody(engine: Engine, tmp_path: Path):
    keys = Keys(tmp_path)
    keys.add("anna", monthly_tokens=10**6)
    (tmp_path / "full").write_bytes(b"")
    settings = keys.settings | {"budgets_path": str(tmp_path / "full" / "budgets.json")}
    with running(tmp_path, [model("m", engine)], **settings) as gateway, gateway.client() as client:
        assert client.ask(small(keys, "anna")).status == 200
        wait_until(lambda: gateway.metric("freehold_gateway_keys_trouble") == 1)
        assert client.ask(small(keys, "anna")).status == 200
        assert gateway.logged("budgets_not_saved")


# The official client


@pytest.fixture
def sdk(gateway: Gateway, keys: Keys) -> OpenAI:
    return OpenAI(base_url=f"{gateway.url}/v1", api_key=keys.key_of["sdk"], max_retries=0, timeout=10)


def test_the_official_client_knows_each_refusal(sdk: OpenAI, keys: Keys, engine: Engine):
    assert sdk.chat.completions.create(model="m", messages=HI).choices[0].message.content == "ab"
    assert [row.id for row in sdk.models.list()] == ["m"]
    with pytest.raises(AuthenticationError) as no_key:
        sdk.with_options(api_key="fh-wrong").chat.completions.create(model="m", messages=HI)
    assert no_key.value.code == "invalid_api_key"
    with pytest.raises(NotFoundError) as not_mine:
        sdk.chat.completions.create(model="other", messages=HI)
    assert not_mine.value.code == "model_not_found"
    spender = sdk.with_options(api_key=keys.key_of["sdk-budget"], max_retries=5)
    assert spender.chat.completions.create(model="m", messages=HI, max_tokens=20).choices
    with pytest.raises(RateLimitError) as spent:
        spender.chat.completions.create(model="m", messages=HI, max_tokens=20)
    assert spent.value.code == "insufficient_quota"
    assert (
        len(engine.calls) == 2
    )  # the first of each key; `x-should-retry: false` kept the client from trying again


def test_the_official_client_waits_as_long_as_it_is_told(sdk: OpenAI, engine: Engine):
    def use_up() -> None:
        while True:
            sdk.chat.completions.create(model="m", messages=HI)

    with pytest.raises(RateLimitError) as limit:
        use_up()
    assert limit.value.code == "rate_limit_exceeded"
    served = len(engine.calls)
    started_s = time.monotonic()
    answer = sdk.with_options(max_retries=1).chat.completions.with_raw_response.create(model="m", messages=HI)
    assert answer.status_code == 200
    assert answer.headers["x-ratelimit-limit-requests"] == "60"
    assert time.monotonic() - started_s < 5
    assert len(engine.calls) == served + 1


def test_a_stream_holds_its_place_until_its_end(sdk: OpenAI, gateway: Gateway, keys: Keys, engine: Engine):
    go_on = asyncio.Event()

    async def slowly(call: Call) -> None:
        call.send(STREAM_HEAD + chunk(delta("a")))
        await go_on.wait()
        call.send(chunk(delta("b", "stop")) + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")

    engine.answer = slowly
    streamer = sdk.with_options(api_key=keys.key_of["streamer"])
    stream = streamer.chat.completions.create(model="m", messages=HI, stream=True)
    assert next(iter(stream)).choices[0].delta.content == "a"
    with pytest.raises(RateLimitError):
        streamer.chat.completions.create(model="m", messages=HI)
    engine.do(go_on.set)
    assert [part.choices[0].delta.content for part in stream] == ["b"]
    engine.reset()
    assert streamer.chat.completions.create(model="m", messages=HI).choices
