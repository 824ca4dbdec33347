"""On which way to which node packets are lost, and whether a silent peer is stopped, down, unreachable or cut off.

Lossy, stopped, down and unreachable differ in kind: some answers, a silent process on a host that answers, a
refusal, no host. Loss is judged by counts (`health.mesh.loss_bounds`), by direction, on windows of 1, 5 and 10 minutes; a run of 20
is an outage. Then the majority names the node: a node that others lose too is at fault itself, one that loses all peers while the
others lose none is this one. With only two nodes neither can be named. The check measures nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from freehold.core.findings import Action, Evidence, Verdict
from freehold.health.judge import rule_result as result
from freehold.health.judge.declaration import declared
from freehold.health.judge.rule_result import RuleResult
from freehold.health.mesh.loss_bounds import (
    BACKGROUND,
    CORROBORATION,
    FALSE_ALARM,
    NODE_ODDS,
    UNDECIDED,
    alarm_chance,
    counts,
    limit,
    lossy_window,
    odds_of_node,
    small_counts,
)
from freehold.health.model.probe import Expected
from freehold.health.model.view import LossWindow, Peer, State, View

DECLARED = declared(__name__)
SILENT_S = DECLARED.limit("silent_s")
CUT = DECLARED.count("cut_datagrams")
LARGE_RUN = DECLARED.count("large_run_datagrams")
SETTLED_MIN = DECLARED.count("settled_min_datagrams")

OWN = "network"
"""Component of what is this node's own fault."""
RECENT_S = 5.0
"""How long a refusal counts: the kernel sends one a second per host at most (our own measurement: 6 of 20)."""
GONE = {State.LOST, State.HUNG, State.ABSENT}
AT_FAULT = "node at fault"
NOBODY = "not known"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """One view's peers, what they looked like, and who else loses them."""

    view: View
    peers: Mapping[str, Peer]
    kinds: Mapping[str, RuleResult] = field(default_factory=dict)
    """How each peer looks from here; without evidence: it is silent, or was hardly heard."""


_LOSING = {
    "lossy_out",
    "lossy_back",
    "lossy",
    "cut_out",
    "cut_back",
    "peer_unreachable",
    "mtu_black_hole",
    "own_link",
}
"""Kinds that this node's own network could be the cause of; a peer that refuses or is stopped it cannot."""


def _judge(views: Sequence[View], _expected: Expected) -> Iterable[tuple[str, RuleResult]]:
    """Return the result of this node's own network, and of each peer."""
    view = views[-1]
    if view.network is None:
        return [(OWN, result.unknown("no_data", "The mesh gave no readings."))]
    if view.network.mesh_error:
        words = f"The mesh does not run: {view.network.mesh_error}."
        return [(OWN, result.unknown("not_running", words, Action.FIX_CONFIGURATION))]
    if not view.network.peers:
        return [(OWN, result.not_applicable("no_peers", "No peers are configured."))]
    look = _Look(view=view, peers={peer.name: peer for peer in view.network.peers})
    look = replace(look, kinds={name: _kind_of(_history(views, name), look) for name in look.peers})
    own = _judge_own(look)
    peers = ((f"peer:{name}", _with_witnesses(name, look, own_fault=own.is_bad)) for name in look.peers)
    return [(OWN, own), *peers]


def _history(views: Sequence[View], name: str) -> list[Peer]:
    """Return a peer in recent views, newest last."""
    since_s = views[-1].monotonic_s - RECENT_S
    recent = [view for view in views if view.monotonic_s > since_s and view.network]
    return [peer for view in recent if view.network for peer in view.network.peers if peer.name == name]


# ---- one peer, as it looks from here -----------------------------------------------------------------------------


def _kind_of(history: Sequence[Peer], look: _Look) -> RuleResult:
    peer = history[-1]
    if peer.silent_s >= SILENT_S:
        return _silent(history, look)
    if peer.unconfirmed >= CUT:
        words = (
            f"{peer.name} sends, but it has received none of the last {peer.unconfirmed} datagrams from here"
        )
        return result.unhealthy("cut_out", words, Action.CHECK_CABLE)
    return _speaking(peer, _windows(history), look)


def _silent(history: Sequence[Peer], look: _Look) -> RuleResult:
    peer = history[-1]
    name, silence = peer.name, f"silent for {peer.silent_s:.1f} s"
    if peer.link is State.LOST:
        words = f"{name} is {silence}, and {peer.interface or 'the interface'} here has no carrier"
        return result.unhealthy("own_link", words, Action.CHECK_CABLE)
    if any(past.refused for past in history):
        words = f"{name} is {silence} and its host refuses: its agent does not run"
        return result.unhealthy("peer_down", words, Action.WATCH)
    if any(past.foreign for past in history):
        words = f"{name} sends, but not to this mesh: it has another key, other names for the nodes, or another version"
        return result.degraded("peer_differs", words, Action.FIX_CONFIGURATION)
    if peer.control in GONE or (peer.control is State.UNKNOWN and peer.unreachable):
        words = f"{name} is {silence} and its host does not answer ({peer.control})"
        return result.unhealthy("peer_unreachable", words, Action.CORDON)
    if reached := _reached_by(name, look):
        words = f"{name} is {silence} here, but not for {', '.join(reached)}"
        return result.unhealthy("cut_back", words, Action.CHECK_CABLE)
    if peer.control is State.OK:
        words = (
            f"{name} is {silence}, though its host answers: its agent is stopped, or does not know this node"
        )
        return result.unhealthy("peer_stopped", words, Action.WATCH)
    return result.unknown("no_data", f"{name} is {silence}; whether its host answers is not known yet")


def _reached_by(name: str, look: _Look) -> list[str]:
    """Return the peers that send to this node and report (nearly) no loss to `name`."""
    return [
        other.name
        for other in look.peers.values()
        if other.silent_s < SILENT_S and 0 <= other.reported.get(name, -1) < _second_limit(other)
    ]


def _speaking(peer: Peer, windows: Sequence[LossWindow], look: _Look) -> RuleResult:
    minute, chance = windows[0], alarm_chance(len(look.peers))
    if hole := _black_hole(peer, minute):
        return hole
    out, back = (lossy_window(windows, back=back, chance=chance) for back in (False, True))
    if window := out or back:
        reason = "lossy" if out and back else "lossy_out" if out else "lossy_back"
        words = _loss_words(peer.name, reason, window)
        return result.degraded(reason, words, Action.CHECK_CABLE, _lost(look, window))
    if min(minute.settled_out, minute.settled_back) < SETTLED_MIN:
        words = f"{peer.name}: too few datagrams yet to say anything ({minute.settled_out} out, {minute.settled_back} back)"
        return result.unknown("no_data", words)
    return result.healthy("ok", _loss_words(peer.name, "ok", minute), evidence=_lost(look, minute))


def _black_hole(peer: Peer, minute: LossWindow) -> RuleResult | None:
    for back, run in ((False, peer.large_run_out), (True, peer.large_run_back)):
        sent, lost = small_counts(minute, back=back)
        by_chance = (lost / sent) ** run if sent else 1.0
        if run >= LARGE_RUN and by_chance <= FALSE_ALARM:
            way = f"from {peer.name}" if back else f"to {peer.name}"
            words = (
                f"the last {run} datagrams of full MTU size {way} were lost, of small ones {lost} of {sent}"
            )
            return result.unhealthy("mtu_black_hole", words, Action.FIX_CONFIGURATION)
    return None


def _loss_words(name: str, reason: str, window: LossWindow) -> str:
    way = {
        "lossy_out": f"on the way to {name}",
        "lossy_back": f"on the way from {name}",
        "lossy": f"both ways, {name}",
    }
    return (
        f"{way.get(reason, name)}: within {window.seconds:g} s {window.lost_out} of {window.settled_out} lost out, "
        f"{window.lost_back} of {window.settled_back} back"
    )


def _windows(history: Sequence[Peer]) -> Sequence[LossWindow]:
    """Return the newest windows; of readings without any, what the views at hand add up to."""
    if history[-1].windows:
        return history[-1].windows
    sent = sum(peer.sent for peer in history)
    out, back = sum(peer.lost_out for peer in history), sum(peer.lost_back for peer in history)
    return (LossWindow(seconds=RECENT_S, settled_out=sent, lost_out=out, settled_back=sent, lost_back=back),)


# ---- the majority -----------------------------------------------------------------------------------------------


def _judge_own(look: _Look) -> RuleResult:
    """Judge this node itself: it is at fault where it loses all its peers and they do not lose each other."""
    cut = sorted(
        {peer.interface for peer in look.peers.values() if look.kinds[peer.name].reason == "own_link"}
    )
    silent = all(peer.silent_s >= SILENT_S for peer in look.peers.values())
    if cut and silent:
        words = f"No peer sends, and {', '.join(filter(None, cut)) or 'the interface'} has no carrier."
        return result.unhealthy("own_link", words, Action.CHECK_CABLE, _fault_of(look.view.node, look))
    losing = [name for name in look.peers if _loses(name, look)]
    alarmed = [name for name in losing if look.kinds[name].reason in _LOSING]
    if len(look.peers) > 1 and len(losing) == len(look.peers) and alarmed and not _others_lose(look):
        worst = any(look.kinds[name].verdict is Verdict.UNHEALTHY for name in alarmed)
        words = f"This node loses all of its {len(losing)} peers, and they do not lose each other: {look.kinds[alarmed[0]].message}."
        verdict = Verdict.UNHEALTHY if worst else Verdict.DEGRADED
        return RuleResult(verdict, "own_loss", words, Action.CHECK_CABLE, _fault_of(look.view.node, look))
    if all(kind.verdict is Verdict.UNKNOWN for kind in look.kinds.values()):
        return result.unknown("no_data", "No peer can be judged yet.")
    return result.healthy("ok", "Not all peers are lost from here.")


def _loses(name: str, look: _Look) -> bool:
    kind, peer = look.kinds[name], look.peers[name]
    if kind.reason in _LOSING:
        return True
    lost = [_lost_in_a_minute(other) for other in look.peers.values()]
    here = _lost_in_a_minute(peer)
    odds = odds_of_node(max(lost), here, _settled_in_a_minute(peer))
    return kind.verdict is not Verdict.UNHEALTHY and here > 0 and odds >= 1


def _lost_in_a_minute(peer: Peer) -> int:
    return peer.windows[0].lost_out + peer.windows[0].lost_back if peer.windows else 0


def _second_limit(peer: Peer) -> int:
    """Return how many lost within a minute make a second witness: reports say the number, our own rate what it is of."""
    return limit(_settled_in_a_minute(peer), CORROBORATION)


def _settled_in_a_minute(peer: Peer) -> int:
    return peer.windows[0].settled_out + peer.windows[0].settled_back if peer.windows else 2 * peer.sent


def _others_lose(look: _Look) -> bool:
    """Return whether peers that send to this node lose others than it."""
    return any(
        lost >= _second_limit(peer)
        for peer in look.peers.values()
        if peer.silent_s < SILENT_S
        for name, lost in peer.reported.items()
        if name in look.peers
    )


def _witnesses(name: str, look: _Look) -> tuple[list[str], list[str]]:
    """Return the peers that lose this one (or that it loses), and those that do not; a peer in neither list is undecided."""
    losing: list[str] = []
    fine: list[str] = []
    for other in look.peers.values():
        if other.name == name or other.silent_s >= SILENT_S or name not in other.reported:
            continue
        seen = max(other.reported[name], look.peers[name].reported.get(other.name, 0))
        odds = _odds(name, seen, look)
        if seen and odds >= 1:
            losing.append(other.name)
        elif odds < UNDECIDED:
            fine.append(other.name)
    return losing, fine


def _odds(name: str, seen: int, look: _Look) -> float:
    """Return the odds that it is that node, given what another says that it lost to it within a minute."""
    peer, sent = look.peers[name], _settled_in_a_minute(look.peers[name])
    if look.kinds[name].verdict is Verdict.DEGRADED:
        return odds_of_node(_lost_in_a_minute(peer), seen, sent)
    if peer.silent_s < SILENT_S:
        return 1.0 if seen >= limit(sent, alarm_chance(len(look.peers))) else 0.0
    # An outage: the other has one as well or has none, but its report may be some seconds old.
    return 1.0 if seen >= CUT else 0.0 if peer.silent_s > RECENT_S else 0.5


# ---- findings ----------------------------------------------------------------------------------------------------


def _with_witnesses(name: str, look: _Look, *, own_fault: bool) -> RuleResult:
    kind = found = look.kinds[name]
    losing: list[str] = []
    if own_fault and kind.reason in {*_LOSING, "ok", "no_data"}:
        words = f"{name} cannot be judged from here: this node's own network is at fault"
        found = result.unknown("not_judged", words)
    elif kind.reason in _LOSING:
        losing, fine = _witnesses(name, look)
        if losing:
            more, action = f"lost by {', '.join(losing)} as well: it is {name}", kind.action
        elif fine:
            more, action = f"not lost by {', '.join(fine)}: the path between, not the node", Action.WATCH
        elif len(look.peers) > 1:
            more, action = "whether it is the node or the path is not known yet", Action.WATCH
        else:
            more, action = "there is no third node that could tell", kind.action
        found = replace(kind, message=f"{kind.message}; {more}", action=action)
    evidence = found.evidence or _silence(look.peers[name], look)
    if found.reason in _LOSING:
        evidence = (*evidence, *_fault_of(name if losing else NOBODY, look))
    return replace(found, message=f"{found.message}.", evidence=evidence)


def _silence(peer: Peer, look: _Look) -> tuple[Evidence, ...]:
    at_s, silent = look.view.at_s, f"{peer.silent_s:.1f} s"
    silence = Evidence(what="silence", value=silent, source="UDP mesh", at_s=at_s, baseline="0.1 s")
    host = Evidence(what="host answers TCP", value=peer.control, source="connect", at_s=at_s)
    return (silence, host) if peer.silent_s >= SILENT_S else (silence,)


def _lost(look: _Look, window: LossWindow) -> tuple[Evidence, ...]:
    chance = alarm_chance(len(look.peers))
    return tuple(
        Evidence(
            what=f"lost {way} in {window.seconds:g} s",
            value=f"{lost} of {sent}",
            source="UDP mesh",
            at_s=look.view.at_s,
            baseline=f"fewer than {limit(sent, chance)}",
        )
        for way in ("out", "back")
        for sent, lost in (counts(window, back=way == "back"),)
    )


def _fault_of(node: str, look: _Look) -> tuple[Evidence, ...]:
    return (Evidence(what=AT_FAULT, value=node, source="reports of the mesh", at_s=look.view.at_s),)


PROBE = DECLARED.probe_of(
    _judge,
    first={
        "background_loss": (BACKGROUND, "Pingmesh: 1e-5 to 1e-4"),
        "false_alarm_chance": (FALSE_ALARM, "our own choice; with more than two peers they share it"),
        "corroboration_chance": (
            CORROBORATION,
            "our own choice: what others lose besides, next to an alarm that met the first bound",
        ),
        "node_odds": (NODE_ODDS, "our own choice: cable, port and NIC serve all paths of a node"),
    },
)
