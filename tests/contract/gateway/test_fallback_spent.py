"""What fallbacks have cost: who is told, whom it is charged to, and that it is saved at the end."""

import asyncio
import json
import time
from pathlib import Path

import pytest

from gateway_rig.client import ask, get
from gateway_rig.engines import STREAM_HEAD, Call, Engine, chunk, delta, healthy
from gateway_rig.fallbacks import asked, fallback, no_replica
from gateway_rig.keys import Keys
from gateway_rig.killing import USAGE_EVENT
from gateway_rig.process import running


@pytest.mark.parametrize("loopback", [True, False])
def test_what_was_spent_is_told_to_who_shows_a_key_and_on_this_machine(
    tmp_path: Path, cloud: Engine, *, loopback: bool
):
    keys = Keys(tmp_path)
    keys.add("anna")
    settings = {"fallbacks": [fallback(cloud)], "metrics_open": loopback, **keys.settings}
    with running(tmp_path, [no_replica()], **settings) as gateway:
        told = {"in_flight": 0, "spent_usd": "0", "budget_usd": "1"}
        shown = asked(gateway, get("/health", extra=keys.bearer("anna")))
        assert shown.json["fallback"]["cloud"] == told
        anybody = asked(gateway, get("/health"))
        assert anybody.json["fallback"]["cloud"] == (told if loopback else {"in_flight": 0})


def test_an_unknown_cost_is_charged_to_the_key_as_it_was_reserved(tmp_path: Path, cloud: Engine):
    cloud.answer = healthy  # without usage; 512 tokens at 0.6 millionths each may have been made
    keys = Keys(tmp_path)
    keys.add("thrifty", monthly_microusd=300)
    with running(tmp_path, [no_replica()], fallbacks=[fallback(cloud)], **keys.settings) as gateway:
        assert asked(gateway, ask(extra=keys.bearer("thrifty"))).status == 200
        refused = asked(gateway, ask(extra=keys.bearer("thrifty")))
        assert (refused.status, refused.error["code"]) == (429, "insufficient_quota")


SLOW_DISK = """
import time
import freehold.gateway.storage.budget_file as file
at_once = file.replace_file
def replace_file(*args):
    time.sleep(0.7)
    at_once(*args)
file.replace_file = replace_file
"""


def test_the_end_waits_for_no_disk_and_what_settles_meanwhile_is_saved(tmp_path: Path, cloud: Engine):
    """A stream that is finished during the drain never halts, and its real cost is what the next gateway begins with."""
    go_on = asyncio.Event()

    async def stream(call: Call) -> None:
        call.send(STREAM_HEAD)
        while not go_on.is_set():
            call.send(chunk(delta("a")))
            await asyncio.sleep(0.02)
        call.send(chunk(USAGE_EVENT) + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")

    cloud.answer = stream
    keys = Keys(tmp_path)
    keys.add("anna", monthly_microusd=10**6)
    spent = tmp_path / "spent.json"
    settings = {"fallbacks": [fallback(cloud)], "fallback_spent_path": str(spent), **keys.settings}
    with (
        running(tmp_path, [no_replica()], patch=SLOW_DISK, **settings) as gateway,
        gateway.client() as client,
    ):
        client.send(ask(stream=True, extra=keys.bearer("anna")))
        client.read_head()
        gateway.terminate()
        longest_s, last_s = 0.0, time.monotonic()
        for _ in range(100):
            client.read_chunk()
            now_s = time.monotonic()
            longest_s, last_s = max(longest_s, now_s - last_s), now_s
        cloud.do(go_on.set)
        gateway.process.wait(10)
    assert longest_s < 0.5
    for path in (spent, Path(keys.settings["budgets_path"])):
        (period,) = json.loads(path.read_text())["months"].values()
        assert list(period.values()) == [1_650_000], path.name
