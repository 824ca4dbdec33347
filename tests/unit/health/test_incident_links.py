"""What becomes of links and file servers: one change is nothing, flapping and staying away are something."""

from collections.abc import Sequence

import pytest

from freehold.health.evidence.incident import IncidentEvent
from freehold.health.evidence.link_events import settled


def told(*events: tuple[float, str]) -> list[IncidentEvent]:
    return [
        IncidentEvent(at_s=at_s, kind=kind, component="node" if kind == "shutdown" else "link:eth0")
        for at_s, kind in events
    ]


def kinds(events: Sequence[IncidentEvent]) -> list[str]:
    return [event.kind for event in settled(events)]


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([(0, "nic_link_up")], []),
        ([(0, "nic_link_up"), (1, "nic_link_down"), (2, "nic_link_up")], []),
        ([(0, "nic_link_down")], ["link_stays_down"]),
        ([(0, "nic_link_down"), (1, "nic_link_down"), (2, "nic_link_down")], ["link_stays_down"]),
        (
            [(0, "nic_link_down"), (9, "nic_link_up"), (60, "nic_link_down"), (90, "nic_link_up")],
            ["link_flaps"],
        ),
        ([(0, "nic_link_down"), (9, "nic_link_up"), (60, "nic_link_down")], ["link_flaps"]),
        ([(0, "nic_link_down"), (9, "nic_link_up"), (9000, "nic_link_down"), (9001, "nic_link_up")], []),
        ([(0, "nic_link_down"), (30, "shutdown")], []),
        ([(0, "nic_link_down"), (300, "shutdown")], ["link_stays_down"]),
    ],
)
def test_a_link(events: list[tuple[float, str]], expected: list[str]) -> None:
    assert kinds(told(*events)) == expected


def test_flapping_says_how_often() -> None:
    (event,) = settled(
        told((0, "nic_link_down"), (9, "nic_link_up"), (60, "nic_link_down"), (90, "nic_link_up"))
    )
    assert event.fields["value"] == "2 times down, 4 changes"
    assert event.at_s == 60


def test_a_bond_that_gives_a_member_up_makes_it_lost() -> None:
    card, bond = (
        IncidentEvent(at_s=at_s, kind="nic_link_down", component="link:eth0") for at_s in (0.0, 0.1)
    )
    bond = IncidentEvent(at_s=0.1, kind="nic_link_down", component="link:eth0", fields={"bond": "bond0"})
    assert kinds([card, bond]) == ["link_lost"]


@pytest.mark.parametrize(
    ("times", "back_s", "expected"),
    [
        ((0.0,), None, ["file_server_silent"]),
        ((0.0, 90.0), None, ["file_server_gone"]),
        ((0.0, 90.0), 100.0, []),
        ((0.0, 200.0), 100.0, ["file_server_silent"]),
    ],
)
def test_a_file_server(times: tuple[float, ...], back_s: float | None, expected: list[str]) -> None:
    events = [IncidentEvent(at_s=at_s, kind="server_silent", component="server:nas") for at_s in times]
    back = [] if back_s is None else [IncidentEvent(at_s=back_s, kind="server_back", component="server:nas")]
    assert kinds([*events, *back]) == expected


def test_other_events_stay_and_an_empty_list_stays_empty() -> None:
    xid = IncidentEvent(at_s=5.0, kind="xid", component="gpu:0", number=79)
    assert settled([xid]) == [xid]
    assert settled([]) == []
