"""Hung engines are found and busy ones are left alone: on a whole stack, with the fake engine's faults and the real model."""

import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from e2e.box import EXAMPLE, Box, Stack, http
from freehold.core.findings import Finding
from freehold.health.agent.history_file import HistoryFile
from freehold.health.agent.state_files import read_snapshot
from freehold.health.incidents.history import FILE_NAME as HISTORY
from freehold.health.model.snapshot import FILE_NAME, HealthSnapshot, IncidentReport, IncidentState
from freehold.testing.fake_engine import start_fake_engine
from waiting import wait_until

FOUND_S = 15.0
"""The bar on a hung engine."""
SHORT = "gateway: {drain_grace: 1s}\n"
"""Requests that hang are not waited for at the end."""
pytestmark = pytest.mark.timeout(240)


def snapshot(box: Box) -> HealthSnapshot | None:
    return read_snapshot(Path(box.env["FREEHOLD_STATE_DIR"]))


def engine(box: Box, replica: str) -> Finding | None:
    told = snapshot(box)
    found = (each.finding for each in (told.findings if told else ()))
    return next(
        (f for f in found if f.probe == "engine_progress" and f.component == f"engine:{replica}"), None
    )


def reason(box: Box, replica: str) -> str:
    finding = engine(box, replica)
    return finding.reason if finding else ""


def until_reason(box: Box, replica: str, *wanted: str, timeout_s: float = 30.0) -> float:
    """Wait for one of the reasons; return how long it took."""
    began_s = time.monotonic()
    what = f"{replica} to be {' or '.join(wanted)}"
    wait_until(lambda: reason(box, replica) in wanted, timeout_s=timeout_s, what=what)
    return time.monotonic() - began_s


@contextmanager
def asking(stack: Stack, model: str, **body: Any) -> Iterator[None]:
    """Keep one request under way, whatever becomes of it, and the next as soon as it has ended."""
    over = threading.Event()
    whole = {"model": model, "prompt": "Once upon a time", "max_tokens": 400, "stream": True, **body}

    def ask() -> None:
        while not over.is_set():
            with (
                suppress(httpx2.HTTPError),
                http(200) as client,
                client.stream("POST", f"{stack.url}/v1/completions", json=whole) as answer,
            ):
                for _ in answer.iter_bytes():
                    if over.is_set():
                        return

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()


def agent_of(stack: Stack) -> psutil.Process:
    children = psutil.Process(stack.process.pid).children()
    return next(child for child in children if "freehold.health.agent.process" in " ".join(child.cmdline()))


def test_a_stopped_engine_is_found_within_15_s_and_the_fleet_replaces_it(box: Box) -> None:
    box.fake_config(replicas=2, answer_tokens=100000, tokens_per_s=20, more=SHORT)
    with box.foreground() as stack, asking(stack, "fake", max_tokens=100000):
        wait_until(
            lambda: "progressing" in {reason(box, f"fake-{n}") for n in range(2)}, timeout_s=30, what="work"
        )
        replica = next(f"fake-{n}" for n in range(2) if reason(box, f"fake-{n}") == "progressing")
        pid = {each["id"]: each["pid"] for each in stack.replicas()}[replica]
        os.kill(pid, signal.SIGSTOP)
        assert until_reason(box, replica, "stalled") < FOUND_S
        finding = engine(box, replica)
        assert finding is not None
        assert "state T" in finding.message
        wait_until(
            lambda: {each["id"]: each["pid"] for each in stack.replicas()}[replica] not in (pid, None),
            timeout_s=60,
            what="another process",
        )
        until_reason(box, replica, "idle", "progressing")
        assert stack.end() == 0


@pytest.mark.real_model
def test_a_real_engine_that_is_stopped_is_diagnosed_and_an_operator_can_set_it_healthy(
    box: Box, weights_path: Path
) -> None:
    assert weights_path.exists()
    example = box.write(EXAMPLE.read_text().replace("replicas: 2", "replicas: 1"))
    with box.foreground("--config", str(example)) as stack:
        name, pid = stack.replicas()[0]["id"], stack.replicas()[0]["pid"]
        until_reason(box, name, "idle")
        os.kill(pid, signal.SIGSTOP)
        try:
            wait_until(lambda: incidents_of(box, f"engine:{name}"), timeout_s=60, what="a diagnosis")
            shown = box.run("health", "--json")
            assert shown.code == 3
            mine = [one for one in shown.said["incidents"] if one["component"] == f"engine:{name}"]
            assert [(one["hypothesis"], one["action"], one["state"]) for one in mine] == [
                ("software", "restart_engine", "open")
            ]
            assert any(entry["value"] == "T" for entry in mine[0]["evidence"]), mine[0]["evidence"]
            assert re.search(r"incident  software +engine:", box.run("health").out)
            healthy = box.run("health", "set-healthy", f"engine:{name}", "--reason", "a test", "--json")
            assert healthy.code == 0, healthy.err
            assert healthy.said["taken_over"] is True
            assert not incidents_of(box, f"engine:{name}")
        finally:
            with suppress(ProcessLookupError):  # it took so long that the fleet has replaced it
                os.kill(pid, signal.SIGCONT)
        assert stack.end() == 0
    kept = HistoryFile(Path(box.env["FREEHOLD_STATE_DIR"]) / HISTORY).load()
    assert [(mark.component, mark.reason) for mark in kept.marks] == [(f"engine:{name}", "a test")]


def incidents_of(box: Box, component: str) -> list[IncidentReport]:
    """Return the incidents on a component that go on and have a cause."""
    told = snapshot(box)
    return [
        one
        for one in (told.incidents if told else ())
        if one.problem and one.component == component and one.state is not IncidentState.OVER
    ]


def test_a_request_that_hangs_inside_the_engine_is_found_within_15_s(box: Box) -> None:
    box.fake_config(fault="hang_stream", fault_after_tokens=3, answer_tokens=50, more=SHORT)
    with box.foreground() as stack, asking(stack, "fake"):
        assert (
            until_reason(box, "fake-0", "stalled") < FOUND_S + 2.0
        )  # of which the request takes its way there
        assert stack.end() == 0


@pytest.mark.real_model
def test_a_real_engine_that_works_for_no_client_is_restarted(box: Box, weights_path: Path) -> None:
    """Its client leaves it with a grammar within the limits, and still it stops all slots for minutes."""
    assert weights_path.exists()
    example = EXAMPLE.read_text().replace("replicas: 2", "replicas: 1")
    example = example.replace("engine: llama-cpp", "engine: llama-cpp\n    stall: 20s", 1)
    with box.foreground("--config", str(box.write(example))) as stack:
        replica = stack.replicas()[0]
        name, pid = replica["id"], replica["pid"]
        grammar = "root ::= " + "part " * 8 + "\npart ::= " + '"a"? ' * 90
        with suppress(httpx2.TimeoutException), http(3.0) as client:
            body = {"model": replica["model"], "prompt": "Hi", "max_tokens": 4, "grammar": grammar}
            client.post(f"{stack.url}/v1/completions", json=body)
        until_reason(box, name, "no_client", timeout_s=60)
        wait_until(
            lambda: stack.replicas()[0]["pid"] not in (pid, None), timeout_s=60, what="another process"
        )
        until_reason(box, name, "idle", timeout_s=60)
        assert stack.end() == 0


def test_the_agent_comes_back_and_its_end_and_hang_touch_nobody(box: Box) -> None:
    box.fake_config()
    with box.foreground() as stack:
        until_reason(box, "fake-0", "idle")
        agent = agent_of(stack)
        agent.kill()
        with http() as client:
            assert client.post(
                f"{stack.url}/v1/completions", json={"model": "fake", "prompt": "x"}
            ).is_success
        wait_until(
            lambda: (told := snapshot(box)) is not None and told.pid not in (0, agent.pid),
            timeout_s=30,
            what="another agent",
        )
        agent_of(stack).suspend()  # it hangs: the way down does not wait for it
        began_s = time.monotonic()
        assert stack.end() == 0
        assert time.monotonic() - began_s < 25
    assert (Path(box.env["FREEHOLD_STATE_DIR"]) / FILE_NAME).exists()


def scraped(stack: Stack) -> dict[str, float]:
    """Return what `curl /metrics` says of this node; fails where a scraper would refuse the page."""
    with http() as client:
        families = list(text_string_to_metric_families(client.get(f"{stack.url}/metrics").text))
    assert len({family.name for family in families}) == len(families)
    samples = [sample for family in families for sample in family.samples]
    assert len({(s.name, *sorted(s.labels.items())) for s in samples}) == len(samples)
    return {
        f"{s.name} {' '.join(s.labels.values())}".strip(): s.value
        for s in samples
        if s.name.startswith("freehold_health_")
    }


def test_the_stacks_one_metrics_page_has_the_agents_and_no_word_of_a_dead_one(box: Box) -> None:
    verdict = "freehold_health_verdict engine engine_progress"
    with start_fake_engine(model="other") as engine:
        more = f"  - name: other\n    engine: external\n    endpoints: ['{engine.url}']\n"
        box.fake_config(more=more + "gateway: {workers: 2, drain_grace: 1s}\n")
        with box.foreground() as stack:
            wait_until(lambda: scraped(stack).get(verdict) == 1, timeout_s=40, what="the agent's metrics")
            page = scraped(stack)
            assert page["freehold_health_up"] == 1
            assert page["freehold_health_snapshot_age_seconds"] < 30
            assert page["freehold_health_process_resident_memory_bytes"] > 1e6
            agent_of(stack).kill()
            wait_until(lambda: scraped(stack)["freehold_health_up"] == 0, timeout_s=5, what="its end to show")
            assert not [name for name in scraped(stack) if "verdict" in name]
            wait_until(
                lambda: scraped(stack).get(verdict) == 1, timeout_s=40, what="the next agent's metrics"
            )
            stack.process.kill()  # the gateway serves on for the external endpoint; nobody watches this node
            wait_until(
                lambda: scraped(stack)["freehold_health_up"] == 0,
                timeout_s=10,
                what="the controller's end to show",
            )
            assert not [name for name in scraped(stack) if "verdict" in name]
        assert box.run("down").code == 0
    box.assert_nothing_left()


def test_an_agent_whose_controller_is_killed_ends_with_its_readers(box: Box) -> None:
    box.fake_config()
    box.env["FREEHOLD_HEALTH__STORAGE__PATH"] = str(box.home)
    with box.foreground() as stack:
        until_reason(box, "fake-0", "idle")
        agent = agent_of(stack)
        readers = wait_until(agent.children, what="the disk's reader")
        stack.process.kill()
        for process in (agent, *readers):
            wait_until(
                lambda process=process: not process.is_running(), timeout_s=15, what=f"the end of {process}"
            )
        box.assert_nothing_left()


@pytest.mark.real_model
@pytest.mark.skipif(
    not os.environ.get("FAULTS"),
    reason="times that want a quiet machine, see docs/flakes.md: make faults",
)
def test_the_real_model_with_a_long_prompt_is_busy_and_stopped_it_is_stalled(
    box: Box, weights_path: Path
) -> None:
    assert weights_path.exists()
    example = EXAMPLE.read_text().replace("replicas: 2", "replicas: 1")
    with box.foreground("--config", str(box.write(example))) as stack:
        name = stack.replicas()[0]["id"]
        model = stack.replicas()[0]["model"]
        until_reason(box, name, "idle")
        seen: set[str] = set()
        prompt = " ".join(f"word{number}" for number in range(450))  # 1,700 tokens: a slot has 2,048
        with asking(stack, model, prompt=prompt, max_tokens=64):
            until_reason(box, name, "busy", "progressing")
            ends_s = time.monotonic() + 20
            wait_until(
                lambda: seen.add(reason(box, name)) or time.monotonic() > ends_s, timeout_s=30, what="20 s"
            )
            assert seen <= {"busy", "progressing", "idle"}, seen
            os.kill(stack.replicas()[0]["pid"], signal.SIGSTOP)
            assert until_reason(box, name, "stalled") < FOUND_S
            os.kill(stack.replicas()[0]["pid"], signal.SIGCONT)
            until_reason(box, name, "busy", "progressing", "idle")
        assert stack.end() == 0
