"""The keys file changes while the gateway serves: new keys, ended keys, other limits, and files that cannot be used."""

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway_rig.client import Answer, Client, ask, get
from gateway_rig.engines import STREAM_HEAD, Call, Engine, chunk, delta
from gateway_rig.keys import APPLIED_S, Keys
from gateway_rig.process import Gateway, model, running
from waiting import wait_until

SLACK_S = 1.0
"""For a loaded machine, on top of what is promised."""


@pytest.fixture(scope="module")
def the_keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    keys = Keys(tmp_path_factory.mktemp("keys"))
    keys.add("anna")
    return keys


@pytest.fixture(scope="module")
def gateway(
    the_engine: Engine, the_keys: Keys, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("gateway")
    with running(folder, [model("m", the_engine)], **the_keys.settings) as gateway:
        yield gateway
        assert gateway.metric("freehold_bugs_total") == 0


@pytest.fixture
def keys(the_keys: Keys, gateway: Gateway, engine: Engine) -> Iterator[Keys]:
    """Give the keys file with anna's key alone, and put it back to that."""
    alone = the_keys.path.read_bytes()
    yield the_keys
    if the_keys.path.is_dir():
        the_keys.path.rmdir()
    the_keys.put(alone)
    wait_until(lambda: gateway.metric("freehold_gateway_keys") == 1)
    wait_until(lambda: gateway.metric("freehold_gateway_keys_trouble") == 0)


def soon(status: int, client: Client, line: str) -> float:
    """Wait until a key is answered so; return the seconds that took, which are at most what is promised."""
    started_s = time.monotonic()
    models = get("/v1/models", extra=line)  # which no engine has to answer
    wait_until(lambda: client.ask(models).status == status, timeout_s=APPLIED_S + SLACK_S)
    return time.monotonic() - started_s


def trouble(client: Client) -> str | None:
    found = client.ask(get("/health")).json["keys"]["trouble"]
    assert found is None or isinstance(found, str)
    return found


def test_a_new_key_opens_and_an_ended_one_does_not(client: Client, keys: Keys):
    keys.add("ben")
    soon(200, client, keys.bearer("ben"))
    keys.change("ben", revoked_s=1)
    soon(401, client, keys.bearer("ben"))
    assert client.ask(ask(extra=keys.bearer("ben"))).error["message"] == "This API key was revoked."
    keys.change("ben", revoked_s=None)
    soon(200, client, keys.bearer("ben"))
    keys.store.change(lambda before: tuple(record for record in before if record.name != "ben"))
    soon(401, client, keys.bearer("ben"))
    assert client.ask(ask(extra=keys.bearer("anna"))).status == 200


def test_a_change_holds_within_a_second(client: Client, keys: Keys):
    times_s = []
    for name in ("one", "two", "three", "four"):
        keys.add(name)
        times_s.append(soon(200, client, keys.bearer(name)))
    assert min(times_s) < APPLIED_S  # the others may have met a loaded machine


def test_a_key_expires_by_itself(client: Client, keys: Keys):
    keys.add("brief", expires_s=int(time.time()) + 3)
    soon(200, client, keys.bearer("brief"))
    wait_until(lambda: client.ask(ask(extra=keys.bearer("brief"))).status == 401, timeout_s=5)
    assert client.ask(ask(extra=keys.bearer("brief"))).error["message"] == "This API key has expired."


def test_an_ended_key_cuts_no_stream(client: Client, gateway: Gateway, keys: Keys, engine: Engine):
    go_on = asyncio.Event()

    async def slowly(call: Call) -> None:
        call.send(STREAM_HEAD + chunk(delta("a")))
        await go_on.wait()
        call.send(chunk(delta("b", "stop")) + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")

    engine.answer = slowly
    with gateway.client() as other:
        other.send(ask(stream=True, extra=keys.bearer("anna")))
        assert other.read_head().status == 200
        keys.change("anna", revoked_s=1)
        soon(401, client, keys.bearer("anna"))
        engine.do(go_on.set)
        assert b"[DONE]" in b"".join(iter(other.read_chunk, b""))
        assert other.ask(ask(extra=keys.bearer("anna"))).status == 401


def test_a_key_revoked_at_once_ends_its_streams_in_band(gateway: Gateway, keys: Keys, engine: Engine):
    async def without_end(call: Call) -> None:
        call.send(STREAM_HEAD + chunk(delta("a")))
        await call.gone.wait()

    engine.answer = without_end
    keys.add("ben")
    with gateway.client() as anna, gateway.client() as ben:
        soon(200, ben, keys.bearer("ben"))
        for name, client in (("anna", anna), ("ben", ben)):
            client.send(ask(stream=True, extra=keys.bearer(name)))
            assert client.read_head().status == 200
            client.read_chunk()
        keys.change("ben", revoked_s=1, ends_requests=True)
        started_s = time.monotonic()
        error = ben.read_chunk()
        assert time.monotonic() - started_s < APPLIED_S
        assert b'"code":"invalid_api_key"' in error
        assert b"This API key was revoked. This answer is not complete." in error
        assert ben.read_chunk() == b""
        assert ben.ask(ask(extra=keys.bearer("ben"))).status == 401  # the connection is as good as before
        wait_until(lambda: sum(call.gone.is_set() for call in engine.calls) == 1)
        assert not anna.everything_now()  # no other caller's stream ends


def test_a_key_revoked_at_once_ends_what_waits_and_what_is_still_coming_in(
    gateway: Gateway, keys: Keys, engine: Engine
):
    async def never(call: Call) -> None:
        await call.gone.wait()

    engine.answer = never
    keys.add("ben")
    with gateway.client() as waiting, gateway.client() as sending:
        soon(200, sending, keys.bearer("ben"))
        waiting.send(ask(extra=keys.bearer("ben")))
        wait_until(lambda: engine.calls)
        whole = ask(extra=keys.bearer("ben"))
        sending.send(whole[:-5])
        keys.change("ben", revoked_s=1, ends_requests=True)
        answer = waiting.read_answer()
        assert (answer.status, answer.error["message"]) == (401, "This API key was revoked.")
        sending.send(whole[-5:])
        assert sending.read_answer().status == 401
        assert len(engine.calls) == 1


def test_other_limits_hold_and_what_was_used_stays_used(client: Client, keys: Keys):
    keys.add("ben", requests_per_minute=10)
    soon(200, client, keys.bearer("ben"))
    client.ask(ask(extra=keys.bearer("ben")))
    record = keys.store.read().keys[-1]
    keys.change("ben", limits=type(record.limits)(requests_per_minute=5))

    def answer() -> Answer:
        return client.ask(ask(extra=keys.bearer("ben")))

    limit = "x-ratelimit-limit-requests"
    asked = wait_until(
        lambda: (found := answer()).header(limit) == "5" and found, timeout_s=APPLIED_S + SLACK_S
    )
    assert isinstance(asked, Answer)
    # Some were taken under the old limit, so that less than the new brim is left.
    assert int(asked.header("x-ratelimit-remaining-requests") or 0) < 4
    while (last := answer()).status == 200:
        pass
    assert int(last.header("retry-after") or 0) > 0


UNUSABLE: dict[str, tuple[Callable[[Keys], object], str]] = {
    "broken": (lambda keys: keys.put(b'{"version":1,"keys":['), "is broken: "),
    "empty": (lambda keys: keys.put(b""), "is broken: "),
    "of a later release": (lambda keys: keys.put(b'{"version":2,"keys":[]}'), "is broken: "),
    "gone": (lambda keys: keys.path.unlink(), "is not there"),
    "a folder": (lambda keys: (keys.path.unlink(), keys.path.mkdir()), "cannot be read"),
    "a pipe": (lambda keys: (keys.path.unlink(), os.mkfifo(keys.path)), "not a regular file"),
    "open to others": (lambda keys: keys.put(keys.path.read_bytes(), mode=0o622), "can be written by others"),
    "far too large": (lambda keys: keys.put(b" " * (17 * 1024 * 1024)), "is larger than"),
}


@pytest.mark.parametrize(("spoil", "words"), UNUSABLE.values(), ids=UNUSABLE)
def test_a_file_that_cannot_be_used_changes_nothing(
    spoil: Callable[[Keys], object], words: str, client: Client, gateway: Gateway, keys: Keys
):
    told = len(gateway.logged("keys_file_unusable"))
    good = keys.path.read_bytes()
    spoil(keys)
    said = wait_until(lambda: trouble(client), timeout_s=APPLIED_S + SLACK_S)
    assert words in said
    assert "last good keys hold" in said
    assert str(keys.path) not in said
    assert client.ask(get("/health")).json["status"] == "degraded"
    assert client.ask(get("/readyz")).status == 200
    assert gateway.metric("freehold_gateway_keys_trouble") == 1
    assert gateway.metric("freehold_gateway_keys") == 1
    assert client.ask(ask(extra=keys.bearer("anna"))).status == 200
    assert client.ask(ask()).status == 401
    logged = gateway.logged("keys_file_unusable")[told:]
    assert [words in row["reason"] for row in logged] == [True]
    if keys.path.is_dir():
        keys.path.rmdir()
    keys.put(good)
    wait_until(lambda: trouble(client) is None, timeout_s=APPLIED_S + SLACK_S)
    assert client.ask(get("/health")).json["status"] == "ok"


def test_a_gateway_that_starts_without_a_file_lets_nobody_in_until_there_is_one(
    engine: Engine, tmp_path: Path
):
    keys = Keys(tmp_path)
    key = keys.add("anna")
    good = keys.path.read_bytes()
    keys.path.unlink()
    with running(tmp_path, [model("m", engine)], **keys.settings) as gateway, gateway.client() as client:
        assert client.ask(ask(extra=f"Authorization: Bearer {key}\r\n")).status == 401
        assert trouble(client)
        keys.put(good)
        soon(200, client, keys.bearer("anna"))
        assert trouble(client) is None


def test_a_file_written_in_place_is_followed_to_its_last_byte(client: Client, keys: Keys):
    keys.add("ben")
    whole = keys.path.read_bytes()
    keys.change("ben", revoked_s=1)
    with keys.path.open("r+b") as file:  # as an editor that keeps the inode; readers may see half of it
        file.truncate()
        for at in range(0, len(whole), 50):
            file.write(whole[at : at + 50])
            file.flush()
            threading.Event().wait(0.02)
    soon(200, client, keys.bearer("ben"))
    assert trouble(client) is None


def test_no_request_fails_while_keys_come_and_go(gateway: Gateway, keys: Keys):
    answers: list[int] = []
    stop = threading.Event()

    def ask_on() -> None:
        with gateway.client() as client:
            while not stop.is_set():
                answers.append(client.ask(ask(extra=keys.bearer("anna"))).status)

    threads = [threading.Thread(target=ask_on) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(20):
        keys.add(f"n{number}", requests_per_minute=5)
        keys.change(f"n{number}", revoked_s=1)
    with gateway.client() as client:
        keys.add("last")
        soon(200, client, keys.bearer("last"))
    stop.set()
    for thread in threads:
        thread.join()
    assert len(answers) > 50
    assert set(answers) == {200}


HANGING_DISK = """
import threading, freehold.gateway.server.authenticate as callers, freehold.gateway.storage.key_store as key_store
callers._STUCK_S, mark = 0.5, key_store.KeyStore.mark
def hang(self):
    return mark(self) if threading.current_thread() is threading.main_thread() else threading.Event().wait()
key_store.KeyStore.mark = hang
"""


def test_a_disk_that_hangs_is_told_and_holds_up_nobody(engine: Engine, tmp_path: Path):
    keys = Keys(tmp_path)
    keys.add("anna")
    hanging = running(tmp_path, [model("m", engine)], patch=HANGING_DISK, **keys.settings)
    with hanging as gateway, gateway.client() as client:
        said = wait_until(lambda: trouble(client))
        assert said == "the disk of the keys file does not answer"
        assert client.ask(ask(extra=keys.bearer("anna"))).status == 200
