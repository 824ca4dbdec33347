"""Gateways killed with SIGKILL under load, and what the ledger then knows of the requests that their clients saw end."""

import asyncio
import contextlib
import json
import random
import sqlite3
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from freehold.ledger.drainer import Drainer
from freehold.ledger.journal import JOURNAL_NAME
from freehold.ledger.spool import make_folder, segments
from gateway_rig.client import Client, CutError, ask
from gateway_rig.engines import ANSWER, STREAM_HEAD, Call, Engines, chunk, delta, event, whole
from gateway_rig.keys import Keys
from gateway_rig.process import Gateway, model

CLIENTS = 8
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
USAGE_EVENT = event(
    {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [], "usage": USAGE}
)
DONE = b"data: [DONE]\n\n"


async def answer(call: Call) -> None:
    """Answer as vLLM does, in as many writes as there are events."""
    if not call.json.get("stream"):
        call.send(whole(ANSWER | {"usage": USAGE}))
        return
    call.send(STREAM_HEAD)
    asked = (call.json.get("stream_options") or {}).get("include_usage")
    for part in (delta("a"), delta("b"), delta("", "stop"), *[USAGE_EVENT] * bool(asked), DONE):
        call.send(chunk(part))
        await asyncio.sleep(0)
    call.send(b"0\r\n\r\n")


@dataclass
class Seen:
    """What clients saw."""

    ended: list[str] = field(default_factory=list)
    """Ids of requests whose whole answer came."""
    begun: int = 0


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where gateways run that are killed: their folder, the spool that they share, their engines and keys."""

    folder: Path
    spool: Path
    engines: Engines
    keys: Keys


@dataclass(frozen=True)
class Verdict:
    """What came of some runs."""

    runs: int
    begun: int
    ended: int
    recorded: int
    missing: int
    """Answers that a client had whole and that the ledger has not as complete."""
    doubled: int
    torn_bytes: int


def _load(gateway: Gateway, seen: Seen, stop: threading.Event, *, name: str, bearer: str) -> None:
    """Send one request after another until the gateway is gone."""
    number = 0
    with contextlib.suppress(OSError), gateway.client() as client:
        while not stop.is_set():
            number += 1
            seen.begun += 1
            client.send(ask("m", stream=bool(number % 2), extra=f"{bearer}X-Request-Id: {name}-{number}\r\n"))
            try:
                _read(client, seen, f"{name}-{number}", stream=bool(number % 2))
            except CutError:
                return


def _read(client: Client, seen: Seen, name: str, *, stream: bool) -> None:
    if stream:
        # From here on a client takes the answer for whole, whatever happens to the end of the framing.
        client.read_until(b"data: [DONE]")
        seen.ended.append(name)
        client.read_until(b"0\r\n\r\n")
    else:
        assert client.read_answer().status == 200
        seen.ended.append(name)


def _run(place: Place, *, number: int, seen: Seen, alive_s: float) -> None:
    engine = place.engines.new()
    engine.answer = answer
    home = place.folder / str(number)
    home.mkdir()
    gateway = Gateway(home, [model("m", engine)], spool_path=str(place.spool), **place.keys.settings)
    stop = threading.Event()
    threads = [
        threading.Thread(
            target=_load,
            args=(gateway, seen, stop),
            kwargs={"name": f"{number}-{index}", "bearer": place.keys.bearer("caller")},
        )
        for index in range(CLIENTS)
    ]
    for thread in threads:
        thread.start()
    stop.wait(alive_s)
    gateway.process.kill()
    gateway.process.wait()
    stop.set()
    for thread in threads:
        thread.join()
    engine.close()


def kill_many(folder: Path, *, runs: int, seed: int = 1) -> Verdict:
    """Kill a gateway `runs` times, each at another moment, while one drainer goes on; keys have limits."""
    spool = folder / "spool"
    make_folder(spool)
    dice, seen, engines, keys = random.Random(seed), Seen(), Engines(), Keys(folder)
    keys.add("caller", requests_per_minute=10**9, tokens_per_minute=10**9, concurrency=10**6)
    place = Place(folder=folder, spool=spool, engines=engines, keys=keys)
    drainer = Drainer(spool, folder / JOURNAL_NAME, every_s=0.05)
    drainer.start()
    try:
        for number in range(runs):
            _run(place, number=number, seen=seen, alive_s=dice.uniform(0.02, 0.25))
    finally:
        engines.stop()
        drained = drainer.stop(20)
    assert drained
    assert not segments(spool)
    return _judge(folder, seen, runs)


def _judge(folder: Path, seen: Seen, runs: int) -> Verdict:
    with contextlib.closing(sqlite3.connect(folder / JOURNAL_NAME)) as db:
        rows = db.execute("SELECT request_id, outcome, completion_tokens, basis FROM requests").fetchall()
    times = Counter(row[0] for row in rows)
    complete = {row[0] for row in rows if row[1:] == ("complete", 2, "measured")}
    torn = json.loads((folder / "spool" / "drain.json").read_text())["torn_bytes_total"]
    return Verdict(
        runs=runs,
        begun=seen.begun,
        ended=len(seen.ended),
        recorded=len(rows),
        missing=len(set(seen.ended) - complete),
        doubled=sum(count > 1 for count in times.values()),
        torn_bytes=torn,
    )
