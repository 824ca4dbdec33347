"""Events cut into incidents: silence, bursts, what only follows."""

from hypothesis import given
from hypothesis import strategies as st

from freehold.health.evidence.incident import IncidentEvent, group, occurrences
from freehold.health.evidence.quantity import ReadingChange

GPU = "gpu:0000:65:00"


def xid(number: int, at_s: float, component: str = GPU, **fields: str) -> IncidentEvent:
    return IncidentEvent(at_s=at_s, kind="xid", component=component, number=number, fields=fields)


def test_three_minutes_of_silence_end_an_incident() -> None:
    incidents = group([xid(13, 0), xid(13, 180), xid(13, 361)], node="a")
    assert [len(incident.events) for incident in incidents] == [2, 1]
    assert (incidents[0].start_s, incidents[0].end_s, incidents[0].node) == (0, 180, "a")


def test_45_follows_any_other_fault_and_stands_when_alone() -> None:
    (incident,) = group([xid(79, 1), xid(45, 2)])
    assert [event.number for event in incident.events] == [79]
    assert [event.number for event in incident.followers] == [45]
    (alone,) = group([xid(45, 2)])
    assert [event.number for event in alone.events] == [45]


def test_43_94_and_95_follow_48_of_the_same_gpu_only() -> None:
    (incident,) = group([xid(48, 1), xid(94, 1.5), xid(43, 2), xid(95, 2, component="gpu:0000:66:00")])
    assert sorted(event.number or 0 for event in incident.events) == [48, 95]
    (without,) = group([xid(94, 1), xid(43, 2)])
    assert sorted(event.number or 0 for event in without.events) == [43, 94]


def test_the_recovery_action_and_a_154_make_no_other_event_follow() -> None:
    (incident,) = group([IncidentEvent(at_s=1, kind="recovery_action", component=GPU, number=1), xid(45, 2)])
    assert not incident.followers


def test_changes_without_events_are_one_incident_and_nothing_is_none() -> None:
    change = ReadingChange(component="gpu:0", name="ecc", before=0, after=1)
    assert len(group([], changes=[change])) == 1
    assert group([]) == []


def test_lines_of_one_burst_are_one_occurrence() -> None:
    assert occurrences([xid(13, 0), xid(13, 10), xid(13, 20)]) == 1
    assert occurrences([xid(13, 0), xid(13, 15.5)]) == 2
    assert occurrences([]) == 0


EVENTS = st.lists(
    st.builds(
        xid,
        number=st.sampled_from([13, 31, 43, 45, 48, 79, 94, 95, 119]),
        at_s=st.sampled_from([0.0, 1.0, 1.0, 100.0, 400.0]),
        component=st.sampled_from([GPU, "gpu:0000:66:00"]),
    ),
    max_size=12,
)


@given(EVENTS, st.randoms(use_true_random=False))
def test_the_order_in_which_simultaneous_events_come_does_not_matter(
    events: list[IncidentEvent], dice: object
) -> None:
    shuffled = list(events)
    dice.shuffle(shuffled)  # type: ignore[attr-defined]
    assert group(events) == group(shuffled)


@given(EVENTS)
def test_no_event_is_lost(events: list[IncidentEvent]) -> None:
    incidents = group(events)
    told = [event for incident in incidents for event in (*incident.events, *incident.followers)]
    assert {event.order() for event in told} == {event.order() for event in events}
