"""Several gateway processes on one port: what holds over all of them, and what the death of one does to the others."""

import asyncio
import contextlib
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from freehold.core.events import AgentMetrics, Endpoint, ModelEntry, ReplicaState, Snapshot
from freehold.gateway.answers.price import Price
from freehold.gateway.callers.spend import Spending
from freehold.gateway.counters import shared_counters
from freehold.gateway.process.listener import listen
from freehold.gateway.process.worker_set import WorkerSet
from freehold.gateway.settings import FallbackSettings
from freehold.ledger.records.money import PICOUSD_PER_USD
from freehold.ledger.records.record import read_frames
from freehold.ledger.spool import segments
from gateway_rig.client import Client, CutError, ask, get, post
from gateway_rig.engines import ANSWER, STREAM_HEAD, Call, Engine, chunk, delta, healthy
from gateway_rig.fallbacks import fallback
from gateway_rig.keys import Keys
from gateway_rig.killing import answer as with_usage
from gateway_rig.workers import Workers, working
from waiting import wait_until

SLOTS = 4
COLUMN = shared_counters._COLUMN


class Counting:
    """An engine that takes some time and knows how many requests it had at once, and whose."""

    def __init__(self, engine: Engine, *, takes_s: float = 0.02) -> None:
        self.here = 0
        self.most = 0
        self.by_key: Counter[str] = Counter()
        self.takes_s = takes_s
        engine.answer = self.answer

    async def answer(self, call: Call) -> None:
        self.here += 1
        self.most = max(self.most, self.here)
        self.by_key[call.header("x-who") or ""] += 1
        await asyncio.sleep(self.takes_s)
        self.here -= 1
        await healthy(call)


class Held:
    """Streams whose second half comes when it is let go."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.go_on = asyncio.Event()
        engine.answer = self.answer

    async def answer(self, call: Call) -> None:
        call.send(STREAM_HEAD + chunk(delta("a")))
        await self.go_on.wait()
        call.send(chunk(delta("b", "stop")) + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")

    def release(self) -> None:
        self.engine.do(self.go_on.set)


@pytest.fixture
def two(engine: Engine, tmp_path: Path) -> Iterator[Workers]:
    with working(tmp_path, engine, slots=SLOTS) as workers:
        yield workers


@contextlib.contextmanager
def clients(workers: Workers, count: int) -> Iterator[list[Client]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(workers.client()) for _ in range(count)]


def ask_often(port: int, count: int) -> list[int]:
    with Client(port) as client:
        return [client.ask(ask("m")).status for _ in range(count)]


def test_together_they_give_an_engine_its_slots_and_one_more_at_most(two: Workers, engine: Engine) -> None:
    counting = Counting(engine)
    with ThreadPoolExecutor(16) as threads:
        statuses = list(threads.map(lambda _: ask_often(two.port, 30), range(16)))
    assert {status for row in statuses for status in row} == {200}
    assert SLOTS <= counting.most <= SLOTS + two.count - 1
    wait_until(lambda: sum(two.served()) == 480)
    assert min(two.served()) > 480 / 4
    # Whoever is asked tells of all: half a second old at most where it is another's.
    wait_until(lambda: two.metric("freehold_gateway_requests_total") == 480)
    wait_until(lambda: two.metric("freehold_gateway_request_seconds_count") == 480)
    wait_until(lambda: two.metric("freehold_gateway_in_flight") == 0)
    assert two.metric("freehold_build_info") == 1
    assert two.metric("freehold_gateway_endpoint_limit") == SLOTS
    assert two.health()["models"]["m"]["in_flight"] == 0


def test_connections_that_stay_are_spread_evenly(two: Workers) -> None:
    with clients(two, 12) as asking:
        for client in asking:
            assert client.ask(get("/livez")).status == 200
        pids = Counter(link.pid for link in two.links._links)
        assert len(pids) == 2
        wait_until(lambda: two.metric("freehold_gateway_connections") == 13)
        held = [two.links._counters.cells[index * COLUMN + 1] for index in range(2)]
        assert all(5 <= count <= 8 for count in held), held


def test_the_others_go_on_when_one_is_killed_and_it_comes_back(two: Workers, engine: Engine) -> None:
    before = two.metric("freehold_gateway_requests_total")
    held = Held(engine)
    with clients(two, 8) as asking:
        for client in asking[:SLOTS]:
            client.send(ask("m", stream=True))
            client.read_head()
            client.read_chunk()
        two.signal(0, signal.SIGKILL)
        with two.client() as newcomer:
            started_s = time.monotonic()
            assert newcomer.ask(get("/livez")).status == 200
            assert time.monotonic() - started_s < 1
        held.release()
        ends = [end_of(client) for client in asking[:SLOTS]]
        # Which worker has which connection is a matter of a few: only its own went with the one that was killed.
        assert set(ends) == {"whole", "cut"}, ends
        wait_until(lambda: two.links.restarts == 1)
        two.wait_living()
        assert [link.restarts for link in two.links._links] == [1, 0]
    # Its requests are over, so its places are free again: all of them can be had at once.
    counting = Counting(engine, takes_s=0.2)
    with clients(two, SLOTS) as asking:
        for client in asking:
            client.send(ask("m"))
        assert [client.read_answer().status for client in asking] == [200] * SLOTS
    assert counting.most == SLOTS
    assert two.metric("freehold_gateway_requests_total") >= before
    assert two.health()["models"]["m"]["in_flight"] == 0


def end_of(client: Client) -> str:
    try:
        while client.read_chunk():
            pass
    except CutError:
        return "cut"
    return "whole"


def test_counters_do_not_fall_when_one_is_killed(two: Workers) -> None:
    assert ask_often(two.port, 20) == [200] * 20
    wait_until(lambda: two.metric("freehold_gateway_requests_total") == 20)
    for index in range(2):
        two.kill(index)
    assert two.metric("freehold_gateway_requests_total") == 20
    assert two.metric("freehold_gateway_request_seconds_count") == 20


def test_one_that_stands_still_keeps_nobody_waiting(two: Workers, engine: Engine) -> None:
    counting = Counting(engine, takes_s=0.01)
    two.signal(1, signal.SIGSTOP)
    try:
        with clients(two, 6) as asking:
            for client in asking:
                started_s = time.monotonic()
                assert client.ask(ask("m")).status == 200
                assert time.monotonic() - started_s < 1
    finally:
        two.signal(1, signal.SIGCONT)
    assert counting.most >= 1


def test_all_drain(two: Workers, engine: Engine) -> None:
    held = Held(engine)
    with clients(two, SLOTS) as asking:
        for client in asking:
            client.send(ask("m", stream=True))
            client.read_head()
            client.read_chunk()
        ended: list[bool] = []
        stopping = threading.Thread(target=lambda: ended.append(two.stop()))
        stopping.start()
        wait_until(lambda: len(two.logged("draining")) == 2)
        with pytest.raises(ConnectionRefusedError):
            two.client().ask(get("/livez"))
        held.release()
        assert [end_of(client) for client in asking] == ["whole"] * SLOTS
        stopping.join(10)
        assert ended == [True]


def test_all_end_also_while_one_is_dead(two: Workers) -> None:
    two.signal(0, signal.SIGKILL)
    started_s = time.monotonic()
    two.stop()
    assert time.monotonic() - started_s < 5


def test_who_waits_at_one_worker_waits_no_longer_than_at_the_other(two: Workers, engine: Engine) -> None:
    # One slot's worth of work for many connections: whoever frees a place must not always take it again.
    Counting(engine, takes_s=0.01)
    took: list[float] = []

    def run(_: int) -> None:
        with two.client() as client:
            for _ in range(10):
                started_s = time.monotonic()
                assert client.ask(ask("m")).status == 200
                took.append(time.monotonic() - started_s)

    with ThreadPoolExecutor(24) as threads:
        list(threads.map(run, range(24)))
    took.sort()
    assert took[-1] < 12 * took[len(took) // 2]


def test_a_greedy_caller_leaves_a_modest_one_its_share(engine: Engine, tmp_path: Path) -> None:
    keys = Keys(tmp_path)
    for name in ("greedy", "modest"):
        keys.add(name)
    # Slow beside what a loaded machine takes between two requests: the modest one has to have some waiting all the time.
    counting = Counting(engine, takes_s=0.1)
    ends_s = time.monotonic() + 20
    started = threading.Event()

    def run(name: str) -> None:
        with workers.client() as client:
            started.wait()
            while time.monotonic() < ends_s:
                extra = keys.bearer(name) + f"x-who: {name}\r\n"
                assert client.ask(ask("m", extra=extra)).status == 200
                # What still waited at the end is the greedy one's for the most part, and is served to nobody's cost.
                done[name] += time.monotonic() < ends_s

    done: Counter[str] = Counter()
    # Eighteen wait for a second: with the usual bound some would be refused, and this is about shares.
    patient = {**keys.settings, "queue_overload_wait_s": 20.0}
    with working(tmp_path, engine, slots=2, **patient) as workers, ThreadPoolExecutor(24) as threads:
        # Eight: with four, now and then all of the modest one's connections end at one worker, and it has nothing waiting there.
        asked = [threads.submit(run, name) for name in ["greedy"] * 16 + ["modest"] * 8]
        started.set()
        ends_s = time.monotonic() + 6
        for each in asked:
            each.result(20)
    assert counting.most <= 3
    share = done["modest"] / sum(done.values())
    assert 0.4 < share < 0.6, done


@pytest.mark.parametrize("limit", ["requests", "concurrency"])
def test_a_keys_limit_holds_over_all_workers(limit: str, engine: Engine, tmp_path: Path) -> None:
    keys = Keys(tmp_path)
    keys.add("few", **({"requests_per_minute": 20} if limit == "requests" else {"concurrency": 2}))
    counting = Counting(engine, takes_s=0.05)
    with working(tmp_path, engine, slots=16, **keys.settings) as workers, clients(workers, 12) as asking:
        statuses: Counter[int] = Counter()
        for _ in range(4):
            for client in asking:
                client.send(ask("m", extra=keys.bearer("few")))
            statuses.update(client.read_answer().status for client in asking)
    assert set(statuses) == {200, 429}
    if limit == "requests":
        assert 20 <= statuses[200] <= 20 + 1 + 2  # a request more a worker, and what has filled up meanwhile
    else:
        assert counting.most <= 3
        assert statuses[200] >= 8


def test_a_budget_holds_over_all_workers_and_is_kept_as_one(engine: Engine, tmp_path: Path) -> None:
    keys = Keys(tmp_path)
    keys.add("poor", monthly_tokens=100)
    with working(tmp_path, engine, **keys.settings) as workers, clients(workers, 6) as asking:
        answers = [client.ask(ask("m", extra=keys.bearer("poor"))).status for client in asking * 10]
    assert answers[-1] == 429
    spent = answers.count(200)
    with working(tmp_path, engine, **keys.settings) as workers, clients(workers, 4) as asking:
        again = [client.ask(ask("m", extra=keys.bearer("poor"))).status for client in asking]
    assert 200 not in again, (spent, again)
    assert list(tmp_path.glob("budgets*.json"))


def test_a_worker_knows_at_once_what_another_has_let_in(engine: Engine, tmp_path: Path) -> None:
    held = Held(engine)
    keys = Keys(tmp_path)
    for name in "abcdef":
        keys.add(name, monthly_tokens=100)
    with (
        working(tmp_path, engine, slots=16, **keys.settings) as workers,
        clients(workers, 6) as streaming,
        clients(workers, 6) as asking,
    ):
        for name, first, second in zip("abcdef", streaming, asking, strict=True):
            first.send(ask("m", stream=True, extra=keys.bearer(name)))
            first.read_head()
            second.send(ask("m", stream=True, extra=keys.bearer(name)))
        assert [client.read_head().status for client in asking] == [429] * 6
        held.release()
        assert [end_of(client) for client in streaming] == ["whole"] * 6


def test_a_budget_in_dollars_is_one_budget_also_after_a_restart(engine: Engine, tmp_path: Path) -> None:
    engine.answer = with_usage  # two tokens of answer, so a dollar a request
    dollar = Price(input_picousd=0, cached_picousd=0, output_picousd=PICOUSD_PER_USD // 2)
    keys = Keys(tmp_path)
    keys.add("saver", monthly_microusd=100 * 10**6)
    spent = Spending()
    spent.enter(time.time())
    spent.month["usd:id-saver"] = 80 * PICOUSD_PER_USD
    (tmp_path / "budgets.json").write_bytes(spent.saved())
    request = huge(extra=keys.bearer("saver"), max_tokens=2)
    settings = {**keys.settings, "prices": {"m": dollar}}
    answers = []
    for _ in range(2):
        with working(tmp_path, engine, workers=3, **settings) as workers, clients(workers, 6) as asking:
            answers += [client.ask(request).status for client in asking * 2]
    assert answers == [200] * 20 + [429] * 4


def test_what_fallbacks_have_cost_is_kept_however_many_workers_follow(engine: Engine, tmp_path: Path) -> None:
    engine.answer = with_usage  # two tokens of answer, so a dollar a request
    dollar = {"input_picousd": 0, "cached_picousd": 0, "output_picousd": PICOUSD_PER_USD // 2}
    cloud = fallback(engine, share=1.0, price=dollar, budget_picousd_per_day=10**15)
    settings = {
        "fallbacks": (msgspec.convert(cloud, FallbackSettings),),
        "fallback_spent_path": str(tmp_path / "fallback.json"),
    }
    for workers_now, spent in ((3, 6), (1, 12), (2, 18)):
        with working(tmp_path, engine, workers=workers_now, **settings) as workers:
            with clients(workers, 6) as asking:
                assert [client.ask(huge(max_tokens=2)).status for client in asking] == [200] * 6
                wait_until(lambda spent=spent: workers.metric("freehold_gateway_fallback_spent_usd") == spent)
            workers.stop()


def test_each_writes_its_own_spool(engine: Engine, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.mkdir(mode=0o700)
    with working(tmp_path, engine, spool_path=str(spool)) as workers, clients(workers, 4) as asking:
        for client in asking * 3:
            assert client.ask(ask("m")).json == ANSWER
    found = segments(spool)
    assert len({segment.run for segment in found}) == 2
    assert sum(len(read_frames(segment.read(0, 1 << 20)).records) for segment in found) == 12


def test_a_port_that_is_taken_is_refused_also_to_another_gateway_of_ours(two: Workers) -> None:
    with pytest.raises(OSError, match="in use"):
        listen("127.0.0.1", two.port)


class Describing(Workers):
    """Workers that know the model's context, so that a request's cost is bounded by it."""

    def tell(self, links: WorkerSet, engine: Engine, slots: int) -> None:
        entry = ModelEntry(name="m", engine="external", created_s=7, max_context_tokens=4096)
        endpoint = Endpoint(id="m-0", model="m", url=engine.url, engine="external", state=ReplicaState.READY,
                            slots=slots)  # fmt: skip
        links.send(Snapshot(generation=1, models=(entry,), endpoints=(endpoint,)))


def huge(extra: str = "", **counts: int) -> bytes:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 10**12, **counts}
    return post(body, extra=extra)


def test_a_request_of_any_size_takes_a_place_and_gives_it_back(engine: Engine, tmp_path: Path) -> None:
    with working(tmp_path, engine, slots=2) as workers, clients(workers, 6) as asking:
        for client in asking:
            assert client.ask(huge(n=10**12)).status == 200
        wait_until(lambda: workers.health()["models"]["m"]["in_flight"] == 0)
        assert [client.ask(ask("m")).status for client in asking] == [200] * 6


def test_a_request_of_any_size_keeps_nobody_elses_time_limits_waiting(engine: Engine, tmp_path: Path) -> None:
    go_on = asyncio.Event()

    async def silent(call: Call) -> None:
        await go_on.wait()
        await healthy(call)

    engine.answer = silent
    keys = Keys(tmp_path)
    keys.add("budgeted", monthly_tokens=10**15)
    keys.add("other")
    workers = Describing(tmp_path, engine, slots=8, workers=2, **keys.settings)
    try:
        with clients(workers, 8) as asking:
            # More than there are workers: at one of them a key comes for the second time.
            for client in asking[:4]:
                client.send(huge(best_of=10**12, extra=keys.bearer("budgeted")))
            wait_until(lambda: len(engine.calls) >= 2)
            started_s = time.monotonic()
            for client in asking[4:]:
                client.send(ask("m", extra=keys.bearer("other") + "x-freehold-timeout: 1\r\n"))
            assert [client.read_answer().status for client in asking[4:]] == [504] * 4
            assert time.monotonic() - started_s < 3
            engine.do(go_on.set)
            assert [client.read_answer().status for client in asking[:4]] == [200] * 4
        assert not workers.logged("bug")
    finally:
        workers.close()


AGENT_TEXT = (
    "# HELP freehold_health_verdict V.\n# TYPE freehold_health_verdict gauge\nfreehold_health_verdict 3.0\n"
)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_agents_metrics_are_on_the_page_once_and_go_with_the_agent(
    engine: Engine, tmp_path: Path, workers: int
) -> None:
    def page() -> dict[str, float]:
        with crew.client() as client:
            text = client.ask(get("/metrics")).body.decode()
        families = list(text_string_to_metric_families(text))
        names = [family.name for family in families]
        assert len(names) == len(set(names)), Counter(names).most_common(3)
        samples = [sample for family in families for sample in family.samples]
        assert len({(s.name, *sorted(s.labels.items())) for s in samples}) == len(samples)
        return {s.name: s.value for s in samples if s.name.startswith("freehold_health_")}

    def pages(verdict: float | None, up: float | None) -> bool:
        found = [page() for _ in range(4)]  # whichever worker is asked
        return all(
            (each.get("freehold_health_verdict"), each.get("freehold_health_up")) == (verdict, up)
            for each in found
        )

    def show(metrics: AgentMetrics) -> None:
        crew._loop.call_soon_threadsafe(crew.links.send, metrics)

    with working(tmp_path, engine, workers=workers) as crew:
        assert pages(None, None)
        show(AgentMetrics(text=AGENT_TEXT, told_monotonic_s=time.monotonic() - 20))
        wait_until(lambda: pages(3, 1))
        assert 20 <= page()["freehold_health_snapshot_age_seconds"] < 30
        crew.kill(0)
        show(AgentMetrics(text=AGENT_TEXT, told_monotonic_s=time.monotonic()))
        wait_until(lambda: pages(3, 1))
        show(AgentMetrics(told_monotonic_s=time.monotonic() - 5))  # it has ended
        wait_until(lambda: pages(None, 0))
        assert page()["freehold_health_snapshot_age_seconds"] >= 5
        show(AgentMetrics(text=AGENT_TEXT, told_monotonic_s=time.monotonic() - 3600))  # it hangs
        wait_until(lambda: page()["freehold_health_snapshot_age_seconds"] >= 3600)
        assert pages(None, 0)
