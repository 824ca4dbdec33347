"""Replicas that a person puts to sleep, as vLLM's `/sleep` does: they get no requests, are not called stalled, and come back when woken.

With the fake engine, which sleeps as vLLM does: it takes requests, works on none, and tells so among its counters.
"""

from typing import Any

import httpx2
import pytest

from e2e.box import Box, Stack, http, replica_http
from freehold.health.agent.state_files import read_snapshot
from waiting import wait_until

MODEL = {"model": "fake", "messages": [{"role": "user", "content": "a b c"}], "max_tokens": 2}
pytestmark = pytest.mark.timeout(120)


def ask(stack: Stack) -> httpx2.Response:
    with http() as client:
        return client.post(f"{stack.url}/v1/chat/completions", json=MODEL)


def order(replica: dict[str, Any], path: str) -> None:
    with replica_http(replica["url"]) as client:
        assert client.post(path).status_code == 200


def taken(replica: dict[str, Any]) -> int:
    """Return how many completions a replica was asked for, by anybody."""
    with replica_http(replica["url"]) as client:
        return int(client.get("/_fake").json()["counts"]["requests"])


def until_states(stack: Stack, *states: str) -> None:
    wait_until(
        lambda: tuple(each["state"] for each in stack.replicas()) == states, timeout_s=15, what=str(states)
    )


def findings(box: Box) -> dict[str, str]:
    told = read_snapshot(box.home / "state")
    found = [each.finding for each in told.findings] if told else []
    return {each.component: each.reason for each in found if each.probe == "engine_progress"}


def test_a_replica_that_sleeps_is_left_alone_until_it_is_woken(box: Box) -> None:
    box.fake_config(replicas=2, more="    stall: 1s\ngateway: {drain_grace: 1s}\n")
    with box.foreground() as stack:
        first, second = before = stack.replicas()
        order(first, "/sleep")
        # Before anybody knows, some are sent there: the other one answers them, by the model's stall limit.
        assert [ask(stack).status_code for _ in range(4)] == [200] * 4
        until_states(stack, "asleep", "ready")
        assert "/wake_up" in stack.replicas()[0]["hint"]
        asked = taken(first)
        assert [ask(stack).status_code for _ in range(6)] == [200] * 6
        assert taken(first) == asked
        wait_until(
            lambda: findings(box).get("engine:fake-0") == "not_serving", timeout_s=20, what="the agent"
        )

        order(second, "/sleep")
        until_states(stack, "asleep", "asleep")
        refused = ask(stack)
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) > 0
        assert "asleep" in box.run("status").out

        for each in before:
            order(each, "/wake_up")
        until_states(stack, "ready", "ready")
        assert [ask(stack).status_code for _ in range(4)] == [200] * 4
        assert [(each["pid"], each["restarts"]) for each in stack.replicas()] == [
            (each["pid"], 0) for each in before
        ]
        wait_until(lambda: findings(box).get("engine:fake-0") == "idle", timeout_s=20, what="the agent")
        order(stack.replicas()[0], "/sleep")
        until_states(stack, "asleep", "ready")
        assert stack.end() == 0  # one that sleeps is ended like any other
        box.assert_nothing_left()
