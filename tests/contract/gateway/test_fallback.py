"""Requests that others answer: when they are asked, what the caller sees, what it cost, and that nothing is masked."""

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from freehold.ledger.drainer import waiting_records
from freehold.ledger.records.record import Basis, LedgerRecord, Outcome
from freehold.ledger.spool import make_folder
from gateway_rig.client import Client, ask, get, post
from gateway_rig.engines import Call, Engine, Engines, healthy, whole
from gateway_rig.fallbacks import COST, HEADER, PRICE, asked, fallback, no_replica
from gateway_rig.keys import Keys
from gateway_rig.killing import answer as with_usage
from gateway_rig.process import Gateway, model, running
from waiting import wait_until

NEVER = f"{HEADER}: never\r\n"


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    make_folder(tmp_path / "spool")
    return tmp_path / "spool"


@pytest.fixture
def gateway(tmp_path: Path, cloud: Engine, spool: Path) -> Iterator[Gateway]:
    """Give a gateway whose model has no replica."""
    with running(tmp_path, [no_replica()], fallbacks=[fallback(cloud)], spool_path=str(spool)) as gateway:
        yield gateway


def one(spool: Path) -> LedgerRecord:
    (record,) = waiting_records(spool)
    return record


def counted(gateway: Gateway, **labels: str) -> float:
    return gateway.metric("freehold_gateway_fallback_total", **labels)


def test_without_a_replica_it_answers_openly_and_at_a_price(gateway: Gateway, cloud: Engine, spool: Path):
    answer = asked(gateway, ask(extra="Authorization: Bearer mine\r\n"))
    assert (answer.status, answer.header(HEADER)) == (200, "cloud")
    (call,) = cloud.calls
    assert (call.path, call.json["model"], call.header("authorization")) == (
        "/v1/chat/completions", "big", "Bearer sk-there",
    )  # fmt: skip
    record = one(spool)
    assert (record.endpoint, record.model, record.cost_usd, record.basis) == (
        "fallback/cloud", "m", COST, Basis.MEASURED,
    )  # fmt: skip
    assert counted(gateway, model="m", fallback="cloud", reason="no_replica", outcome="complete") == 1
    spent = gateway.metric("freehold_gateway_fallback_cost_usd_total", fallback="cloud")
    assert spent == gateway.metric("freehold_gateway_fallback_spent_usd") == float(Decimal(COST))
    assert asked(gateway, get("/readyz")).json == {"status": "degraded"}
    health = asked(gateway, get("/health"))
    assert health.json["fallback"]["cloud"] == {"in_flight": 0, "spent_usd": "0.00000165", "budget_usd": "1"}
    assert b"sk-there" not in health.body
    assert cloud.url.encode() not in health.body


def test_a_stream_is_metered_although_its_caller_asked_for_no_usage(
    gateway: Gateway, cloud: Engine, spool: Path
):
    answer = asked(gateway, ask(stream=True))
    assert (answer.status, answer.header(HEADER)) == (200, "cloud")
    assert b"usage" not in answer.body
    assert answer.body.endswith(b"data: [DONE]\n\n")
    assert cloud.calls[0].json["stream_options"] == {"include_usage": True}
    assert one(spool).cost_usd == COST


def test_without_usage_a_cost_is_unknown_and_stays_charged_to_the_budget(
    gateway: Gateway, cloud: Engine, spool: Path
):
    cloud.answer = healthy
    assert asked(gateway, ask()).status == 200
    assert one(spool).cost_usd == ""
    assert gateway.metric("freehold_gateway_fallback_unknown_cost_total", fallback="cloud") == 1
    assert gateway.metric("freehold_gateway_fallback_cost_usd_total") == 0
    assert gateway.metric("freehold_gateway_fallback_spent_usd") > 0


@pytest.mark.parametrize("value", ["never", "Never", "no", "0", ""])
def test_a_caller_may_keep_its_request_at_home(gateway: Gateway, cloud: Engine, value: str):
    answer = asked(gateway, ask(extra=f"{HEADER}: {value}\r\n"))
    assert (answer.status, answer.error["code"], answer.header(HEADER)) == (503, "model_not_ready", None)
    assert not cloud.calls


def test_a_caller_may_say_that_it_allows_it(gateway: Gateway):
    assert asked(gateway, ask(extra=f"{HEADER}: allow\r\n")).status == 200


def test_a_key_may_keep_its_requests_at_home(tmp_path: Path, cloud: Engine):
    keys = Keys(tmp_path)
    keys.add("free")
    keys.add("bound", fallback=False)
    with running(tmp_path, [no_replica()], fallbacks=[fallback(cloud)], **keys.settings) as gateway:
        assert asked(gateway, ask(extra=keys.bearer("free"))).status == 200
        assert asked(gateway, ask(extra=keys.bearer("bound"))).status == 503
    assert len(cloud.calls) == 1
    assert cloud.calls[0].header("authorization") == "Bearer sk-there"


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
def test_an_error_there_changes_nothing_here(gateway: Gateway, cloud: Engine, spool: Path, status: int):
    async def refuse(call: Call) -> None:
        call.send(whole({"error": {"message": "secret there"}}, status=status, extra="retry-after: 33\r\n"))

    cloud.answer = refuse
    answer = asked(gateway, ask())
    assert (answer.status, answer.error["code"], answer.header("retry-after")) == (
        503,
        "model_not_ready",
        "2",
    )
    assert answer.header(HEADER) is None
    assert b"there" not in answer.body
    record = one(spool)
    assert (record.endpoint, record.status, record.outcome) == ("fallback/cloud", 503, Outcome.FAILED)
    assert record.cost_usd == "0.000000000000"
    assert counted(gateway, reason="no_replica", outcome="failed") == 1
    assert gateway.metric("freehold_gateway_fallback_spent_usd") == 0


def test_a_fallback_that_fails_is_left_alone_for_a_while(gateway: Gateway, cloud: Engine):
    async def refuse(call: Call) -> None:
        call.send(whole({}, status=429, extra="retry-after: 33\r\n"))

    cloud.answer = refuse
    assert [asked(gateway, ask()).status for _ in range(3)] == [503] * 3
    assert len(cloud.calls) == 1
    assert gateway.metric("freehold_gateway_fallback_skipped_total", fallback="cloud", reason="shut") == 2


def test_a_fallback_that_is_gone_costs_nothing(tmp_path: Path, engines: Engines, spool: Path):
    gone = engines.new()
    gone.close()
    with running(tmp_path, [no_replica()], fallbacks=[fallback(gone)], spool_path=str(spool)) as gateway:
        answer = asked(gateway, ask())
    assert (answer.status, answer.header("retry-after")) == (503, "2")
    assert one(spool).cost_usd == "0.000000000000"


def test_a_request_that_was_lost_there_may_have_cost_something(gateway: Gateway, cloud: Engine, spool: Path):
    async def die(call: Call) -> None:
        call.reset()

    cloud.answer = die
    assert asked(gateway, ask()).status == 503
    assert one(spool).cost_usd == ""
    assert gateway.metric("freehold_gateway_fallback_spent_usd") > 0


def test_the_next_fallback_is_asked_when_one_fails(
    tmp_path: Path, cloud: Engine, engines: Engines, spool: Path
):
    gone = engines.new()
    gone.close()
    both = [fallback(gone, "first"), fallback(cloud, "second")]
    with running(tmp_path, [no_replica()], fallbacks=both, spool_path=str(spool)) as gateway:
        answer = asked(gateway, ask())
        assert (answer.status, answer.header(HEADER)) == (200, "second")
        assert counted(gateway, fallback="first", outcome="failed") == 1
    assert one(spool).endpoint == "fallback/second"


def test_a_dead_replica_sends_its_requests_away(tmp_path: Path, cloud: Engine, engines: Engines, spool: Path):
    dead = engines.new()
    dead.close()
    models = [model("m", dead), model("other", dead)]
    only = [fallback(cloud, models=["m"])]
    with running(tmp_path, models, fallbacks=only, spool_path=str(spool)) as gateway:
        answer = asked(gateway, ask(stream=True))
        assert (answer.status, answer.header(HEADER)) == (200, "cloud")
        assert asked(gateway, ask("other")).status == 503
        assert gateway.metric("freehold_gateway_in_flight") == 0
    (record,) = [each for each in waiting_records(spool) if each.model == "m"]
    assert (record.retries, record.cost_usd) == (1, COST)


def test_a_full_queue_overflows_and_only_then(tmp_path: Path, engine: Engine, cloud: Engine):
    go_on = asyncio.Event()

    async def held(call: Call) -> None:
        await go_on.wait()
        await healthy(call)

    engine.answer = held
    only_full = [fallback(cloud, when=["queue_full"])]
    models = [model("m", engine, slots=1), no_replica("none")]
    with (
        running(tmp_path, models, fallbacks=only_full, queue_max_requests=1) as gateway,
        gateway.client() as first,
        gateway.client() as second,
    ):
        first.send(ask())
        second.send(ask())
        wait_until(
            lambda: gateway.metric("freehold_gateway_queue_requests", model="m") == 1,
            timeout_s=5,
            what="a full queue",
        )
        assert asked(gateway, ask()).header(HEADER) == "cloud"
        refused = asked(gateway, ask(extra=NEVER))
        assert (refused.status, refused.error["code"]) == (503, "engine_overloaded")
        assert asked(gateway, ask("none")).error["code"] == "model_not_ready"
        engine.do(go_on.set)
        for client in (first, second):
            answer = client.read_answer()
            assert (answer.status, answer.header(HEADER)) == (200, None)
        assert counted(gateway, reason="queue_full", outcome="complete") == 1
        assert gateway.metric("freehold_gateway_in_flight") == 0
    assert len(cloud.calls) == 1


def test_no_more_go_there_at_once_than_may(tmp_path: Path, cloud: Engine):
    go_on = asyncio.Event()

    async def held(call: Call) -> None:
        await go_on.wait()
        await with_usage(call)

    cloud.answer = held
    with (
        running(tmp_path, [no_replica()], fallbacks=[fallback(cloud, max_concurrency=1)]) as gateway,
        gateway.client() as first,
    ):
        first.send(ask())
        wait_until(lambda: len(cloud.calls) == 1, timeout_s=5, what="a request there")
        assert asked(gateway, ask()).status == 503
        cloud.do(go_on.set)
        assert first.read_answer().status == 200
        assert asked(gateway, ask()).status == 200
        assert gateway.metric("freehold_gateway_fallback_skipped_total", reason="concurrency") == 1


def test_a_budget_is_a_bound_and_a_restart_makes_no_new_one(tmp_path: Path, cloud: Engine, spool: Path):
    most = 1_000_000_000  # two answers of up to 512 tokens fit, a third does not while the second's cost is unknown
    cloud.answer = healthy
    budget = {"fallbacks": [fallback(cloud, budget_picousd_per_day=most)]}
    kept = {"fallback_spent_path": str(tmp_path / "spent.json")}
    with running(tmp_path, [no_replica()], **budget, **kept) as gateway:
        statuses = [asked(gateway, ask()).status for _ in range(5)]
        assert statuses == [200] * 3 + [503] * 2
        assert gateway.metric("freehold_gateway_fallback_spent_usd") <= most / 1e12
        assert gateway.metric("freehold_gateway_fallback_skipped_total", reason="budget") == 2
        assert len(gateway.logged("fallback_budget_spent")) == 1
    with running(tmp_path, [no_replica()], **budget, **kept) as gateway:
        assert asked(gateway, ask()).status == 503
    assert len(cloud.calls) == 3


def test_a_share_goes_there_and_comes_home_where_that_fails(tmp_path: Path, engine: Engine, cloud: Engine):
    canary = [fallback(cloud, when=[], share=0.25)]
    with running(tmp_path, [model("m", engine, slots=4)], fallbacks=canary) as gateway:
        where = [asked(gateway, ask()).header(HEADER) for _ in range(12)]
        assert where == [None, None, None, "cloud"] * 3

        async def refuse(call: Call) -> None:
            call.send(whole({}, status=500))

        cloud.answer = refuse
        with gateway.client() as client:
            answers = [client.ask(ask(stream=True)) for _ in range(4)]
        assert [(a.status, a.header(HEADER)) for a in answers] == [(200, None)] * 4
        assert counted(gateway, reason="share", outcome="failed") == 1
        assert gateway.metric("freehold_gateway_in_flight") == 0
        assert gateway.metric("freehold_gateway_fallback_in_flight") == 0


def test_a_copy_is_paid_for_and_its_answer_thrown_away(
    tmp_path: Path, engine: Engine, cloud: Engine, spool: Path
):
    shadow = [fallback(cloud, when=[], shadow=1)]
    with running(tmp_path, [model("m", engine, slots=4)], fallbacks=shadow, spool_path=str(spool)) as gateway:
        for stream in (False, True):
            answer = asked(gateway, ask(stream=stream))
            assert (answer.status, answer.header(HEADER)) == (200, None)
        asked(gateway, ask(extra=NEVER))
        wait_until(
            lambda: counted(gateway, reason="shadow", outcome="complete") == 2, timeout_s=5, what="copies"
        )
        assert gateway.metric("freehold_gateway_requests_total") == 3
    costs = [(record.endpoint, record.cost_usd) for record in waiting_records(spool)]
    assert sorted(costs, key=str) == [("m-0", None)] * 3 + [("shadow/cloud", COST)] * 2
    assert len(cloud.calls) == 2


def test_a_copy_that_hangs_holds_up_nobody(tmp_path: Path, engine: Engine, cloud: Engine):
    async def hang(call: Call) -> None:
        await call.gone.wait()

    cloud.answer = hang
    shadow = [fallback(cloud, when=[], shadow=1, max_concurrency=2)]
    with running(tmp_path, [model("m", engine, slots=4)], fallbacks=shadow) as gateway:
        assert [asked(gateway, ask()).status for _ in range(5)] == [200] * 5
        assert gateway.metric("freehold_gateway_fallback_skipped_total", reason="concurrency") == 4
    wait_until(lambda: all(call.gone.is_set() for call in cloud.calls), timeout_s=5, what="the copies' end")


def test_a_caller_that_leaves_ends_the_request_there(gateway: Gateway, cloud: Engine, spool: Path):
    async def hang(call: Call) -> None:
        await call.gone.wait()

    cloud.answer = hang
    with gateway.client() as client:
        client.send(ask(stream=True))
        wait_until(lambda: len(cloud.calls) == 1, timeout_s=5, what="a request there")
        client.leave()
    wait_until(cloud.calls[0].gone.is_set, timeout_s=5, what="its end")
    wait_until(lambda: bool(waiting_records(spool)), timeout_s=5, what="a record")
    record = one(spool)
    assert (record.outcome, record.cost_usd) == (Outcome.ABANDONED, "")
    assert counted(gateway, outcome="abandoned") == 1


def test_a_request_keeps_its_deadline_there(gateway: Gateway, cloud: Engine):
    async def hang(call: Call) -> None:
        await call.gone.wait()

    cloud.answer = hang
    answer = asked(gateway, ask(extra="x-freehold-timeout: 0.5\r\n"))
    assert (answer.status, answer.header(HEADER)) == (504, "cloud")


def test_a_cut_there_ends_the_stream_in_band(gateway: Gateway, cloud: Engine, spool: Path):
    async def cut(call: Call) -> None:
        call.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        call.send(b"b\r\ndata: {}\n\n\n\r\n")
        call.reset()

    cloud.answer = cut
    with gateway.client() as client:
        client.send(ask(stream=True))
        answer = client.read_answer()
        assert answer.header(HEADER) == "cloud"
        assert b'"error"' in answer.body
        assert b"[DONE]" not in answer.body
    assert (one(spool).outcome, one(spool).cost_usd) == (Outcome.CUT, "")


def test_a_model_of_this_stack_can_have_a_price(tmp_path: Path, engine: Engine, spool: Path):
    engine.answer = with_usage
    models = [model("m", engine), model("free", engine)]
    with running(tmp_path, models, prices={"m": PRICE}, spool_path=str(spool)) as gateway:
        for name in ("m", "free"):
            assert asked(gateway, ask(name)).status == 200
        engine.answer = healthy
        assert asked(gateway, ask("m")).status == 200
    assert [record.cost_usd for record in waiting_records(spool)] == [COST, None, ""]


def test_other_requests_are_refused_as_always(gateway: Gateway, cloud: Engine):
    assert asked(gateway, post(b"{", extra="")).status == 400
    assert asked(gateway, ask("nope")).status == 404
    with Client(gateway.port) as client:
        assert client.ask(ask(extra="x-freehold-timeout: never\r\n")).status == 400
    assert not cloud.calls


def test_a_key_has_a_monthly_budget_in_dollars(tmp_path: Path, engine: Engine, cloud: Engine):
    engine.answer = with_usage
    keys = Keys(tmp_path)
    keys.add(
        "thrifty", monthly_microusd=5
    )  # one request costs 1.65, three stay below, the fourth goes over it
    keys.add("unpriced", monthly_microusd=1)
    models = [model("m", engine), no_replica("away"), model("free", engine)]
    settings = {"prices": {"m": PRICE | {"output_picousd": 600_000}}, "fallbacks": [fallback(cloud)]}

    def status(name: str, key: str = "thrifty") -> int:
        body = {"model": name, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
        return asked(gateway, post(body, extra=keys.bearer(key))).status

    with running(tmp_path, models, **settings, **keys.settings) as gateway:
        assert [status("m"), status("away"), status("m"), status("away"), status("m")] == [200] * 4 + [429]
        refused = asked(gateway, ask(extra=keys.bearer("thrifty")))
        assert (refused.error["code"], refused.header("x-should-retry")) == ("insufficient_quota", "false")
        assert [status("free", "unpriced") for _ in range(3)] == [200] * 3
    with running(tmp_path, models, **settings, **keys.settings) as gateway:
        assert status("away") == 429


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_a_fallback_is_spoken_to_in_tls_and_only_if_it_is_who_it_says(
    tmp_path: Path, cloud: Engine, engines: Engines, monkeypatch: pytest.MonkeyPatch
):
    certificate, key = certificate_for_localhost(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    async def serve() -> tuple[asyncio.Server, str]:
        server = await asyncio.get_running_loop().create_server(cloud.line, "127.0.0.1", 0, ssl=context)
        return server, f"https://localhost:{server.sockets[0].getsockname()[1]}/v1"

    server, url = asyncio.run_coroutine_threadsafe(serve(), engines.loop).result(10)
    there = [fallback(cloud) | {"url": url}]
    with running(tmp_path, [no_replica()], fallbacks=there) as gateway:
        assert asked(gateway, ask()).status == 503
    assert not cloud.calls
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with running(tmp_path, [no_replica()], fallbacks=there) as gateway:
        assert asked(gateway, ask(stream=True)).header(HEADER) == "cloud"
    engines.loop.call_soon_threadsafe(server.close)


def certificate_for_localhost(folder: Path) -> tuple[Path, Path]:
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "1",
         "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key
