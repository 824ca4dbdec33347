"""The agent's part of a gateway's page: never what nobody says any more as if it were so."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from freehold.core.events import AgentMetrics
from freehold.gateway.server.agent_page import STALE_S, AgentPage
from freehold.health.model.snapshot import PERIOD_S, STALE_PERIODS
from freehold.telemetry.metrics import Metrics
from freehold.telemetry.pooled import dump, pool

TEXT = '# HELP freehold_health_verdict V.\n# TYPE freehold_health_verdict gauge\nfreehold_health_verdict{probe="clock"} 3.0\n'


class At:
    """A clock that stands where it is put."""

    def __init__(self, now_s: float = 1000.0) -> None:
        self.now_s = now_s

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_s(self) -> float:
        return self.now_s


def shown(page: AgentPage, metrics: Metrics | None = None) -> dict[str, float]:
    metrics = metrics or Metrics()
    page.watch(metrics)
    text = (metrics.render()[0] + page.text()).decode()
    families = list(text_string_to_metric_families(text))
    assert len({family.name for family in families}) == len(families)
    samples = (sample for family in families for sample in family.samples)
    return {s.name: s.value for s in samples if s.name.startswith("freehold_health_")}


def test_a_fresh_word_is_shown_and_one_that_has_become_old_is_not() -> None:
    clock = At()
    page = AgentPage(clock)
    page.take(AgentMetrics(text=TEXT, told_monotonic_s=998.0))
    up = {
        "freehold_health_up": 1,
        "freehold_health_snapshot_age_seconds": 2,
        "freehold_health_verdict": 3,
    }
    assert shown(page) == up
    clock.now_s = 998.0 + STALE_S + 0.1
    gone = {
        "freehold_health_up": 0,
        "freehold_health_snapshot_age_seconds": pytest.approx(STALE_S + 0.1),
    }
    assert shown(page) == gone
    page.take(AgentMetrics(text=TEXT, told_monotonic_s=clock.now_s))
    assert shown(page)["freehold_health_up"] == 1


def test_what_is_taken_back_is_gone_at_once_and_its_age_goes_on() -> None:
    page = AgentPage(At())
    page.take(AgentMetrics(text=TEXT, told_monotonic_s=998.0))
    page.take(AgentMetrics(told_monotonic_s=998.0))
    assert shown(page) == {"freehold_health_up": 0, "freehold_health_snapshot_age_seconds": 2}


def test_an_agent_that_has_not_spoken_yet_has_no_age_and_where_none_is_to_be_nothing_is_said() -> None:
    page = AgentPage(At())
    assert shown(page) == {}
    page.take(AgentMetrics())
    assert shown(page) == {"freehold_health_up": 0}


def test_without_the_controller_nothing_is_believed() -> None:
    page = AgentPage(At())
    page.take(AgentMetrics(text=TEXT, told_monotonic_s=1000.0))
    page.lose()
    assert shown(page) == {"freehold_health_up": 0, "freehold_health_snapshot_age_seconds": 0}


def test_what_another_worker_still_believes_does_not_count() -> None:
    other = Metrics()
    believing = AgentPage(At())
    believing.take(AgentMetrics(text=TEXT, told_monotonic_s=1000.0))
    believing.watch(other)
    page = AgentPage(At())
    page.take(AgentMetrics(told_monotonic_s=900.0))
    found = shown(page, pool([(dump(other), True)], []))
    assert found == {"freehold_health_up": 0, "freehold_health_snapshot_age_seconds": 100}


def test_the_limit_is_that_of_the_agents_own_snapshot() -> None:
    assert STALE_S == PERIOD_S * STALE_PERIODS
