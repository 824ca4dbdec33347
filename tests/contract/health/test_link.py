"""An agent's counts on their way to a page: a real agent's, a killed one's, and those of one that speaks nonsense."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from freehold.core.clock import monotonic_s
from freehold.core.events import AgentMetrics
from freehold.health.agent.link import AgentLink, AgentListeners
from freehold.health.agent.messages import AgentReport, HealthSettings
from freehold.health.model.probe import Expected
from freehold.health.model.snapshot import METRICS_NAME, HealthSnapshot
from freehold.telemetry import logs
from freehold.telemetry.appended import TEXT_BYTES_MOST
from freehold.telemetry.declared import AGENT
from waiting import until

FINE = "# HELP freehold_health_a A.\n# TYPE freehold_health_a gauge\nfreehold_health_a 1.0\n"


def linked(
    folder: Path, told: list[AgentMetrics], test: Callable[[AgentLink], Awaitable[None]], **settings: Any
) -> AgentLink:
    async def main() -> AgentLink:
        link = AgentLink(
            HealthSettings(**{"gpu": "off", "log_path": str(folder / "log"), **settings}),
            stderr_path=folder / "stderr",
            listeners=AgentListeners(on_metrics=told.append),
        )
        running = asyncio.create_task(link.run())
        try:
            await test(link)
        finally:
            link.stop()
            await running
        return link

    return asyncio.run(main())


def test_a_real_agents_metrics_arrive_and_are_taken_back_when_it_dies(tmp_path: Path) -> None:
    told: list[AgentMetrics] = []

    async def test(link: AgentLink) -> None:
        await until(lambda: bool(told) and bool(told[-1].text), timeout_s=30.0)
        pid = link.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await until(lambda: not told[-1].text, timeout_s=10.0)
        await until(lambda: bool(told[-1].text), timeout_s=30.0)  # the next one speaks

    linked(tmp_path, told, test, state_dir=str(tmp_path))
    assert told[0] == AgentMetrics()  # before it has spoken
    assert not told[-1].text  # ended in order: nobody speaks for the node
    said = next(metrics for metrics in told if metrics.text)
    assert said.told_monotonic_s is not None
    assert 0 < monotonic_s() - said.told_monotonic_s < 120
    families = {family.name for family in text_string_to_metric_families(said.text)}
    assert {row.name.removesuffix("_total") for row in AGENT} <= families
    assert "freehold_health_process_cpu_seconds" in families
    assert all(name.startswith("freehold_health_") for name in families)
    # The file for node_exporter holds the same names, and none that clashes with node_exporter's own.
    in_file = text_string_to_metric_families((tmp_path / METRICS_NAME).read_text())
    assert {family.name for family in in_file} == families


def test_what_a_node_should_have_reaches_the_agent(tmp_path: Path) -> None:
    expected = Expected(
        gpus=63,
        gpu_model="H100",
        driver_version="570.133.20",
        rdma_ports=("a/1",),
        link_mbit_s={"nobody0": 25000},
    )

    def missing(link: AgentLink, probe: str, component: str) -> bool:
        found = [each.finding for each in (link.snapshot.findings if link.snapshot else ())]
        return any(f.probe == probe and f.component == component and f.reason == "missing" for f in found)

    async def test(link: AgentLink) -> None:
        wanted = [("gpu_present", "gpus"), ("network_link", "link:nobody0"), ("rdma", "link:a/1")]
        await until(lambda: all(missing(link, *each) for each in wanted), timeout_s=40.0)

    linked(tmp_path, [], test, gpu="auto", expected=expected)


@pytest.mark.parametrize(
    ("metrics", "why"),
    [
        ("garbage\n", "not a line of a metric"),
        (FINE.replace("freehold_health_a", "freehold_bugs_total"), "does not begin with"),
        (FINE.replace("freehold_health_a", "freehold_health_up"), "there already"),
        (FINE + "# HELP freehold_health_b " + "b" * TEXT_BYTES_MOST + "\n", "longer than"),
    ],
)
def test_what_could_spoil_the_page_is_refused_and_the_snapshot_is_believed_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metrics: str, why: str
) -> None:
    lines = [AgentReport(snapshot=HealthSnapshot(at_s=1.0, node=text[:7]), metrics=text, monotonic_s=1.0)
             for text in (metrics, metrics, FINE)]  # fmt: skip
    words = tmp_path / "words"
    words.write_bytes(b"no line of ours\n" + b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
    agent = tmp_path / "agent"
    agent.write_text(f"#!/bin/sh\ncat {words}\nexec cat >/dev/null\n")
    agent.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(agent))
    told: list[AgentMetrics] = []

    async def test(link: AgentLink) -> None:
        await until(lambda: len(told) >= 4, timeout_s=10.0)
        assert link.snapshot is not None
        assert link.snapshot.node == FINE[:7]

    log = logs.configure(tmp_path / "link.log")
    linked(tmp_path, told, test)
    log.close()
    rows = [json.loads(row) for row in (tmp_path / "link.log").read_text().splitlines()]
    (refused,) = [
        row for row in rows if row["event"] == "agent_metrics_refused"
    ]  # twice the same is told once
    assert why in refused["why"]
    assert [each.text for each in told[:4]] == ["", "", "", FINE]
    assert [each.told_monotonic_s for each in told[:4]] == [None, 1.0, 1.0, 1.0]
