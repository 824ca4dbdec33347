"""One incident's bounds and its words: what is cut, what is kept from the agent before, when it is over."""

from freehold.catalog.load_evidence import Hypothesis
from freehold.core.findings import Action, Evidence, Finding, Verdict
from freehold.health.evidence.diagnose import Diagnosis
from freehold.health.evidence.incident import SILENCE_S, IncidentEvent, NodeIncident
from freehold.health.incidents.open_incident import EVENTS_MOST, EVIDENCE_MOST, TEXT_MOST, begin, resume
from freehold.health.model.snapshot import IncidentState, SettledFinding

KEY = ("storage_latency", "disk:/models")


def finding(verdict: Verdict = Verdict.DEGRADED, reason: str = "slow_disk") -> Finding:
    return Finding(probe=KEY[0], component=KEY[1], verdict=verdict, reason=reason, message="m")


def diagnosis(*, problem: bool = True, entries: int = 30) -> Diagnosis:
    seen = tuple(
        Evidence(what=f"w{n}", value="v" * 1000, source="s", at_s=1.0, baseline="") for n in range(entries)
    )
    return Diagnosis(
        hypothesis=Hypothesis.STORAGE, component=KEY[1], confidence=0.8, action=Action.DRAIN, evidence=seen,
        evidence_against=seen[:3], what_would_change_it="c", summary="s" * 1000, signature="storage_slow",
        incident=NodeIncident(node="n", start_s=1.0, end_s=1.0, events=()), problem=problem,
    )  # fmt: skip


def test_what_is_told_is_bounded_and_says_what_is_left_out() -> None:
    one = begin("1", 100.0)
    one.conclude(diagnosis(), 5.0)
    told = one.to_report(100.0)
    assert (len(told.evidence), len(told.evidence_against), told.left_out) == (EVIDENCE_MOST, 3, 22)
    assert max(len(entry.value) for entry in told.evidence) == TEXT_MOST
    assert len(told.summary) == TEXT_MOST
    assert one.conclusion_s == 5.0


def test_of_many_events_the_first_and_the_newest_are_kept() -> None:
    one = begin("1", 0.0)
    for n in range(EVENTS_MOST * 3):
        one.add(IncidentEvent(at_s=float(n), kind="xid", number=13))
    times = [event.at_s for event in one.events]
    assert len(times) == EVENTS_MOST
    assert times[:100] == [float(n) for n in range(100)]
    assert times[-1] == EVENTS_MOST * 3 - 1


def test_it_is_over_when_nothing_new_came_and_nothing_is_wrong_any_more() -> None:
    one = begin("1", 100.0)
    one.hold(KEY, finding())
    one.age(100.0 + SILENCE_S + 1)
    assert one.state(100.0 + SILENCE_S + 1) is IncidentState.STANDING
    one.update({}, {KEY: Verdict.HEALTHY}, 700.0)
    one.age(700.0)
    assert (one.state(700.0), one.over_s) == (IncidentState.OVER, 700.0)
    assert one.is_long_over(4300.0, 3600.0)


def test_what_nobody_speaks_of_stays_wrong_for_the_silence_and_what_cannot_be_read_for_ever() -> None:
    one = begin("1", 100.0)
    one.hold(KEY, finding())
    one.update({}, {}, 200.0)
    one.update({}, {KEY: Verdict.UNKNOWN}, 200.0 + SILENCE_S)
    one.update({}, {}, 201.0 + SILENCE_S)
    one.update({}, {KEY: Verdict.UNKNOWN}, 900.0 + SILENCE_S)
    assert KEY in one.ill
    one.update({}, {}, 1000.0)
    one.update({}, {}, 1001.0 + SILENCE_S)
    assert KEY not in one.ill


def test_an_incident_that_is_taken_up_again_keeps_its_word_until_something_new_comes() -> None:
    one = begin("1", 100.0)
    one.hold(KEY, finding())
    one.conclude(diagnosis(), 5.0)
    again = resume(one.to_report(110.0))
    assert not again.is_new
    assert again.conclusion == one.conclusion
    again.update({KEY: SettledFinding(finding=finding(), since_s=1.0)}, {KEY: Verdict.DEGRADED}, 120.0)
    assert not again.is_new
    again.update(
        {KEY: SettledFinding(finding=finding(reason="slow_neighbour"), since_s=1.0)},
        {KEY: Verdict.DEGRADED},
        130.0,
    )
    assert again.is_new


def test_that_nothing_points_to_a_fault_any_more_is_no_word_against_what_was_seen() -> None:
    one = begin("1", 100.0)
    one.conclude(diagnosis(), 5.0)
    one.conclude(diagnosis(problem=False, entries=0), 15.0)
    assert one.report.problem
    assert one.diagnosis is not None
    assert one.diagnosis.problem
