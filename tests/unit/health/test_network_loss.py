"""network_loss on hand-made views: kinds of silence, direction, who is at fault, and never HEALTHY without data."""

from typing import Any

import pytest

from freehold.core.findings import Action, Finding, Verdict
from freehold.health.checks.network_loss import AT_FAULT, NOBODY, PROBE
from freehold.health.model.probe import Expected
from freehold.health.model.view import LossWindow, Network, Peer, State, View


def windows(**counts: int) -> tuple[LossWindow, ...]:
    full = {"settled_out": 600, "settled_back": 600, "large_out": 60, "large_back": 60}
    return tuple(LossWindow(seconds=seconds, **(full | counts)) for seconds in (60, 120, 300, 600))


def peer(name: str, *, lost: dict[str, int] | None = None, **more: Any) -> Peer:
    others = {other: 0 for other in "abc" if other != name}
    given: dict[str, Any] = {"sent": 10, "windows": windows(**(lost or {})), "reported": others}
    return Peer(name=name, **(given | more))


def view(*peers: Peer, at_s: float = 1000.0) -> View:
    return View(at_s=at_s, monotonic_s=at_s, node="a", network=Network(peers=peers))


def found(*views: View) -> dict[str, Finding]:
    findings = PROBE.check(views, Expected())
    assert {finding.reason for finding in findings} <= set(PROBE.reasons)
    return {finding.component: finding for finding in findings}


def fault(finding: Finding) -> str:
    return next((evidence.value for evidence in finding.evidence if evidence.what == AT_FAULT), "")


SILENT: dict[str, Any] = {"silent_s": 3.0, "sent": 10}
LOSSY = {"lost_out": 12}


def test_nothing_lost_is_healthy() -> None:
    findings = found(view(peer("b"), peer("c")))
    assert {finding.verdict for finding in findings.values()} == {Verdict.HEALTHY}
    assert "0 of 600 lost out" in findings["peer:c"].message


def test_no_data_is_unknown_and_no_peers_not_applicable() -> None:
    nothing = View(at_s=1.0, monotonic_s=1.0, node="a")
    assert found(nothing)["network"].verdict is Verdict.UNKNOWN
    assert found(view())["network"].verdict is Verdict.NOT_APPLICABLE
    young = found(view(Peer(name="b", silent_s=0.1), Peer(name="c", silent_s=0.1)))
    assert {finding.verdict for finding in young.values()} == {Verdict.UNKNOWN}


@pytest.mark.parametrize(
    ("lost", "reason"),
    [
        ({"lost_out": 3}, "lossy_out"),
        ({"lost_back": 3}, "lossy_back"),
        ({"lost_out": 30, "lost_back": 3}, "lossy"),
        ({"lost_out": 2, "lost_back": 2}, "ok"),
    ],
)
def test_loss_by_direction_from_the_bound_on(lost: dict[str, int], reason: str) -> None:
    finding = found(view(peer("b"), peer("c", lost=lost)))["peer:c"]
    assert finding.reason == reason
    assert finding.verdict is (Verdict.HEALTHY if reason == "ok" else Verdict.DEGRADED)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"control": State.OK}, "peer_stopped"),
        ({"control": State.OK, "refused": 1}, "peer_down"),
        ({"control": State.LOST}, "peer_unreachable"),
        ({"control": State.HUNG}, "peer_unreachable"),
        ({"control": State.ABSENT}, "peer_unreachable"),
        ({"control": State.UNKNOWN, "unreachable": 2}, "peer_unreachable"),
        ({"control": State.UNKNOWN}, "no_data"),
    ],
)
def test_silence_has_kinds(more: dict[str, Any], reason: str) -> None:
    lost_by_b = peer("b", reported={"a": 0, "c": 30})
    findings = found(view(lost_by_b, peer("c", **(SILENT | more))))
    assert findings["peer:c"].reason == reason
    assert findings["peer:c"].verdict is (Verdict.UNKNOWN if reason == "no_data" else Verdict.UNHEALTHY)
    assert findings["network"].verdict is Verdict.HEALTHY
    assert findings["peer:b"].verdict is Verdict.HEALTHY


def test_a_refusal_of_some_seconds_ago_still_counts_and_an_older_one_does_not() -> None:
    b = peer("b", reported={"a": 0, "c": 30})
    refused = view(b, peer("c", **SILENT, refused=1), at_s=996.0)
    now = view(b, peer("c", **SILENT, control=State.OK))
    assert found(refused, now)["peer:c"].reason == "peer_down"
    long_ago = view(b, peer("c", **SILENT, refused=1), at_s=990.0)
    assert found(long_ago, now)["peer:c"].reason == "peer_stopped"


def test_a_peer_whose_datagrams_are_none_of_this_mesh_is_not_called_stopped() -> None:
    b = peer("b", reported={"a": 0, "c": 30})
    finding = found(view(b, peer("c", **SILENT, control=State.OK, foreign=9)))["peer:c"]
    assert finding.reason == "peer_differs"
    assert finding.action is Action.FIX_CONFIGURATION
    assert found(view(b, peer("c", foreign=9)))["peer:c"].reason == "ok"


def test_with_more_peers_a_single_way_must_lose_more() -> None:
    many = [peer(name) for name in "defghi"]
    assert found(view(peer("b"), peer("c", lost={"lost_out": 3}), *many))["peer:c"].reason == "ok"
    assert found(view(peer("b"), peer("c", lost={"lost_out": 4}), *many))["peer:c"].reason == "lossy_out"


def test_a_peer_that_is_silent_only_here_is_cut_off_and_not_stopped() -> None:
    findings = found(view(peer("b"), peer("c", **SILENT, control=State.OK)))
    assert findings["peer:c"].reason == "cut_back"
    assert fault(findings["peer:c"]) == NOBODY


def test_a_peer_that_hears_nothing_of_us_is_cut_one_way() -> None:
    assert found(view(peer("b"), peer("c", unconfirmed=25)))["peer:c"].reason == "cut_out"
    assert found(view(peer("b"), peer("c", unconfirmed=19)))["peer:c"].reason == "ok"


def test_a_node_that_others_lose_too_is_named_and_one_that_they_do_not_is_not() -> None:
    both = found(view(peer("b", reported={"a": 0, "c": 9}), peer("c", lost=LOSSY)))["peer:c"]
    assert fault(both) == "c"
    assert "it is c" in both.message
    by_itself = found(view(peer("b"), peer("c", lost=LOSSY, reported={"a": 12, "b": 7})))["peer:c"]
    assert fault(by_itself) == "c"
    alone = found(view(peer("b"), peer("c", lost=LOSSY)))["peer:c"]
    assert fault(alone) == NOBODY
    assert "path between" in alone.message
    few = found(view(peer("b"), peer("c", lost={"lost_out": 4})))["peer:c"]
    assert fault(few) == NOBODY
    assert "not known yet" in few.message
    two = found(view(peer("c", lost=LOSSY)))
    assert fault(two["peer:c"]) == NOBODY
    assert two["network"].verdict is Verdict.HEALTHY


def test_who_loses_all_while_they_do_not_lose_each_other_is_at_fault_itself() -> None:
    findings = found(view(peer("b", lost=LOSSY), peer("c", lost={"lost_back": 4})))
    assert findings["network"].reason == "own_loss"
    assert fault(findings["network"]) == "a"
    assert {findings["peer:b"].reason, findings["peer:c"].reason} == {"not_judged"}


def test_where_everybody_loses_everybody_nobody_is_named_as_the_one() -> None:
    everybody = found(
        view(
            peer("b", lost=LOSSY, reported={"a": 6, "c": 6}),
            peer("c", lost=LOSSY, reported={"a": 6, "b": 6}),
        )
    )
    assert everybody["network"].verdict is Verdict.HEALTHY
    assert everybody["peer:b"].verdict is Verdict.DEGRADED


def test_all_peers_stopped_is_not_our_own_fault() -> None:
    findings = found(view(*(peer(name, **SILENT, control=State.OK, reported={}) for name in "bc")))
    assert findings["network"].verdict is Verdict.HEALTHY
    assert findings["peer:b"].reason == "peer_stopped"


def test_own_link_without_carrier() -> None:
    down = {**SILENT, "link": State.LOST, "interface": "eth0", "control": State.LOST}
    findings = found(view(peer("b", **down), peer("c", **down)))
    assert findings["network"].reason == "own_link"
    assert "eth0" in findings["network"].message
    assert findings["peer:b"].verdict is Verdict.UNKNOWN


def test_only_large_ones_lost_is_a_black_hole_and_not_loss() -> None:
    hole = {"lost_out": 12, "large_lost_out": 12}
    finding = found(view(peer("b"), peer("c", lost=hole, large_run_out=12)))["peer:c"]
    assert (finding.reason, finding.verdict) == ("mtu_black_hole", Verdict.UNHEALTHY)
    back = {"lost_back": 12, "large_lost_back": 12}
    assert (
        found(view(peer("b"), peer("c", lost=back, large_run_back=12)))["peer:c"].reason == "mtu_black_hole"
    )
    noisy = {"lost_out": 190, "large_lost_out": 20}
    assert found(view(peer("b"), peer("c", lost=noisy, large_run_out=5)))["peer:c"].reason == "lossy_out"


def test_readings_without_windows_are_added_up() -> None:
    plain = [view(Peer(name="b", sent=100, lost_out=1), at_s=998.0 + second) for second in range(3)]
    assert found(*plain)["peer:b"].reason == "lossy_out"
