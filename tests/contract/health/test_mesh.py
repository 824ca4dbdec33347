"""The mesh between real processes in network namespaces: loss by direction, and dead, stopped, unreachable, cut apart."""

import asyncio
import json
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from freehold.core.errors import Permanent
from freehold.health.collectors.mesh import PORT, Mesh, MeshSettings, settings_problems
from freehold.health.collectors.mesh_host import ask_host, interface_to, link_state, neighbour_state, path_mtu
from freehold.health.mesh.frame import MeshFrame, encode, node_id
from freehold.health.model.targets import MeshNode
from freehold.health.model.view import State
from mesh_rig.namespaces import Farm, Node, missing
from waiting import until, wait_until

KEY = b"k" * 32
in_namespaces = pytest.mark.skipif(bool(WHY := missing()), reason=WHY or "there")


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Farm]:
    made = Farm(tmp_path, look_s=0.25)
    try:
        made.open()
        made.start()
        wait_until(lambda: _all_healthy(made), timeout_s=30, what="three healthy nodes")
        yield made
    finally:
        made.close()


def _all_healthy(farm: Farm) -> bool:
    found = [finding for node in farm.nodes.values() for finding in node.last().get("findings", {}).values()]
    return len(found) == 9 and {finding["verdict"] for finding in found} == {"healthy"}


def says(node: Node, component: str, reason: str) -> Callable[[], bool]:
    return lambda: node.reason(component) == reason


def total(node: Node, peer: str, what: str) -> int:
    return sum(look["peers"][peer][what] for look in node.looks())


@in_namespaces
@pytest.mark.parametrize(
    ("match", "hook", "way"),
    [("udp dport 8742 ip saddr {a}", "input", "out"), ("udp dport 8742 ip daddr {a}", "output", "back")],
)
def test_one_way_loss_is_found_counted_and_has_the_right_direction(
    farm: Farm, match: str, hook: str, way: str
) -> None:
    a, c = farm.nodes["a"], farm.nodes["c"]
    c.lose(permille=200, match=match.format(a=a.host), hook=hook)
    wait_until(says(a, "peer:c", f"lossy_{way}"), timeout_s=20, what="loss with its direction")
    wait_until(says(c, "peer:a", "lossy_back" if way == "out" else "lossy_out"), timeout_s=10)
    wait_until(lambda: c.dropped() >= 15, timeout_s=20)
    dropped = c.dropped()
    c.heal()
    wait_until(
        lambda: total(a, "c", f"lost_{way}") >= dropped, timeout_s=10, what="all that the rule dropped"
    )
    time_of = a.last()["at_s"]
    wait_until(lambda: a.last()["at_s"] > time_of + 2)
    assert (
        dropped <= total(a, "c", f"lost_{way}") <= dropped + 3
    )  # what came between the count and the healing
    assert total(a, "c", "lost_back" if way == "out" else "lost_out") == 0
    assert total(a, "b", "lost_out") == total(a, "b", "lost_back") == 0
    assert a.finding("peer:c")["at_fault"] == "not known"  # b loses nothing to c: the path between
    assert a.reason("peer:b") == "ok"


@in_namespaces
def test_a_node_that_loses_in_front_of_everybody_is_named_by_all_and_by_itself(farm: Farm) -> None:
    farm.nodes["c"].lose(permille=200)
    for name in "ab":
        node = farm.nodes[name]
        wait_until(lambda n=node: n.finding("peer:c").get("at_fault") == "c", timeout_s=30, what="c named")
        assert node.reason("network") == "ok"
    wait_until(says(farm.nodes["c"], "network", "own_loss"), timeout_s=20)
    assert {farm.nodes["c"].reason("peer:a"), farm.nodes["c"].reason("peer:b")} == {"not_judged"}


@in_namespaces
def test_a_stopped_peer_is_told_from_a_lossy_one_in_under_5_s_and_lost_nothing_when_it_goes_on(
    farm: Farm,
) -> None:
    c = farm.nodes["c"]
    c.signal(signal.SIGSTOP)
    began_s = time.monotonic()
    for name in "ab":
        wait_until(says(farm.nodes[name], "peer:c", "peer_stopped"), timeout_s=10, what="stopped")
    assert time.monotonic() - began_s < 5
    assert farm.nodes["a"].last()["peers"]["c"]["control"] == "ok"
    assert farm.nodes["a"].reason("network") == "ok"
    c.signal(signal.SIGCONT)
    for name in "ab":
        wait_until(says(farm.nodes[name], "peer:c", "ok"), timeout_s=10, what="well again")
    wait_until(lambda: _all_healthy(farm), timeout_s=10)
    for node in farm.nodes.values():
        for peer in node.last()["peers"]:
            assert total(node, peer, "lost_out") == total(node, peer, "lost_back") == 0


@in_namespaces
def test_a_dead_peer_is_refused_and_its_new_start_is_no_loss(farm: Farm) -> None:
    a, c = farm.nodes["a"], farm.nodes["c"]
    c.signal(signal.SIGKILL)
    wait_until(says(a, "peer:c", "peer_down"), timeout_s=10, what="down")
    assert total(a, "c", "refused") > 0
    farm.start("c")
    wait_until(says(a, "peer:c", "ok"), timeout_s=20, what="back")
    wait_until(says(c, "peer:a", "ok"), timeout_s=20, what="back")
    assert total(a, "c", "lost_out") == total(a, "c", "lost_back") == 0
    assert total(c, "a", "lost_out") == total(c, "a", "lost_back") == 0


@in_namespaces
def test_a_host_whose_address_is_gone_is_unreachable_and_finds_itself_cut_off(farm: Farm) -> None:
    farm.nodes["c"].run("ip", "addr", "flush", "dev", "eth0")
    for name in "ab":
        wait_until(says(farm.nodes[name], "peer:c", "peer_unreachable"), timeout_s=15, what="unreachable")
    wait_until(lambda: farm.nodes["a"].finding("peer:c")["at_fault"] == "c", timeout_s=10)
    wait_until(says(farm.nodes["c"], "network", "own_loss"), timeout_s=15)


@in_namespaces
@pytest.mark.parametrize("side", ["own", "other end"])
def test_an_own_link_that_is_down_blames_no_peer(farm: Farm, side: str) -> None:
    a, b = farm.nodes["a"], farm.nodes["b"]
    if side == "own":
        a.run("ip", "link", "set", "eth0", "down")
    else:  # as a pulled cable: no carrier, the route stays
        farm.wire_down("a")
    wait_until(says(a, "network", "own_link"), timeout_s=10, what="own link")
    assert "eth0" in a.finding("network")["message"]
    assert {a.reason("peer:b"), a.reason("peer:c")} == {"not_judged"}
    wait_until(says(b, "peer:a", "peer_unreachable"), timeout_s=15)
    assert b.reason("network") == "ok"


@in_namespaces
def test_a_one_way_cut_is_no_loss_and_no_stop(farm: Farm) -> None:
    a, c = farm.nodes["a"], farm.nodes["c"]
    c.lose(permille=1000, match=f"ip saddr {a.host}")
    wait_until(says(a, "peer:c", "cut_out"), timeout_s=15, what="c does not hear a")
    wait_until(says(c, "peer:a", "cut_back"), timeout_s=15, what="a is silent for c alone")
    assert a.reason("network") == c.reason("network") == "ok"
    assert farm.nodes["b"].reason("peer:c") == "ok"


@in_namespaces
def test_a_path_that_swallows_only_large_ones_is_a_black_hole(farm: Farm) -> None:
    a, c = farm.nodes["a"], farm.nodes["c"]
    c.lose(permille=1000, match=f"ip saddr {a.host} meta length > 1400")
    wait_until(says(a, "peer:c", "mtu_black_hole"), timeout_s=30, what="black hole")
    assert farm.nodes["b"].reason("peer:c") == "ok"


@in_namespaces
def test_an_interface_whose_mtu_shrinks_loses_nothing_of_its_own(farm: Farm) -> None:
    a = farm.nodes["a"]
    a.run("ip", "link", "set", "eth0", "mtu", "1300")
    began_s = a.last()["at_s"]
    wait_until(lambda: a.last()["at_s"] > began_s + 6, what="some large ones sent")
    assert total(a, "b", "lost_out") == 0


# ---- without namespaces --------------------------------------------------------------------------------------------


def mesh(name: str, port: int, peers: dict[str, int], host: str = "127.0.0.1", *, key: bytes = KEY) -> Mesh:
    told = tuple(MeshNode(name=peer, host=host, port=at) for peer, at in peers.items())
    made = Mesh(
        MeshSettings(node=name, key=key, peers=told, listen_host=host, listen_port=port, rate_hz=50.0)
    )
    made.open()
    return made


def two_ports(host: str) -> tuple[int, int]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as one, socket.socket(family, socket.SOCK_DGRAM) as two:
        one.bind((host, 0))
        two.bind((host, 0))
        return one.getsockname()[1], two.getsockname()[1]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_two_meshes_of_one_machine_and_strangers(host: str) -> None:
    async def scene() -> None:
        ports = two_ports(host)
        a = mesh("a", ports[0], {"b": ports[1]}, host)
        b = mesh("b", ports[1], {"a": ports[0]}, host)
        tasks = [asyncio.create_task(each.run()) for each in (a, b)]
        await until(lambda: a.sample()[0].windows[0].settled_back > 20, timeout_s=10)
        _be_a_stranger(host, a.port)
        await until(lambda: a.ignored >= 4, timeout_s=5, what="four datagrams of strangers")
        peer = a.sample()[0]
        assert (peer.lost_out, peer.lost_back, peer.restarts) == (0, 0, 0)
        assert all(0 <= rtt_s < 1 for rtt_s in peer.rtt_s)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        a.close()
        b.close()

    asyncio.run(scene())


def test_a_peer_with_another_key_is_told_from_one_that_is_silent() -> None:
    async def scene() -> None:
        host, ports = "127.0.0.1", two_ports("127.0.0.1")
        a = mesh("a", ports[0], {"b": ports[1]}, host)
        b = mesh("b", ports[1], {"a": ports[0]}, host, key=b"z" * 32)
        tasks = [asyncio.create_task(each.run()) for each in (a, b)]
        foreign = 0

        def counted() -> bool:
            nonlocal foreign
            foreign += a.sample()[0].foreign
            return foreign >= 5

        await until(counted, timeout_s=10, what="datagrams with another key, counted for the peer")
        assert a.sample()[0].windows[0].settled_back == 0
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        a.close()
        b.close()

    asyncio.run(scene())


def _be_a_stranger(host: str, port: int) -> None:
    """Send noise, another mesh's frame, a frame for somebody else, one of an unknown node; and get no answer."""
    frame = MeshFrame(sender=node_id("b"), receiver=node_id("a"), boot=7, sequence=0, sent_ns=0)
    other = MeshFrame(sender=node_id("b"), receiver=node_id("x"), boot=7, sequence=0, sent_ns=0)
    unknown = MeshFrame(sender=node_id("x"), receiver=node_id("a"), boot=7, sequence=0, sent_ns=0)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as stranger:
        for data in (b"?" * 500, encode(frame, b"z" * 32), encode(other, KEY), encode(unknown, KEY)):
            stranger.sendto(data, (host, port))
        stranger.settimeout(0.3)
        with pytest.raises(TimeoutError):
            stranger.recv(100)


def test_an_address_that_is_taken_is_told(free_port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", free_port))
        made = Mesh(MeshSettings(node="a", key=KEY, peers=(), listen_host="127.0.0.1", listen_port=free_port))
        with pytest.raises(Permanent, match=re.escape(f"127.0.0.1:{free_port}")):
            made.open()


def test_a_name_that_does_not_resolve_is_unreachable_and_not_a_crash() -> None:
    async def scene() -> None:
        told = (MeshNode(name="b", host="nobody.invalid", port=PORT),)
        a = Mesh(MeshSettings(node="a", key=KEY, peers=told, listen_host="127.0.0.1", listen_port=0))
        a.open()
        task = asyncio.create_task(a.run())
        await until(lambda: a.sample()[0].control is State.ABSENT, timeout_s=10)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        a.close()

    asyncio.run(scene())


def test_all_mistakes_in_settings_are_told_at_once() -> None:
    peers = tuple(
        MeshNode(name=name, host=host, port=PORT) for name, host in (("a", "h"), ("b", "h"), ("b", "i"))
    )
    bad = MeshSettings(node="a", key=b"short", peers=peers, rate_hz=0.1)
    assert len(settings_problems(bad, "freehold.yaml:1:1")) == 4
    good = MeshSettings(node="n", key=KEY, peers=peers[:2])
    assert settings_problems(good, "x") == []


def test_a_host_is_asked_by_tcp(free_port: int) -> None:
    assert asyncio.run(ask_host(("127.0.0.1", free_port))) is State.OK  # refused: it answers
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        assert asyncio.run(ask_host(listener.getsockname())) is State.OK


def test_what_the_kernel_says_of_a_path() -> None:
    assert path_mtu(("127.0.0.1", 9)) >= 1500
    assert link_state("lo") is State.OK
    assert link_state("nosuch0") is State.LOST
    assert link_state("") is State.UNKNOWN
    assert interface_to("::1") == ""
    assert neighbour_state("203.0.113.9") is State.ABSENT
    assert json.dumps(interface_to("203.0.113.9"))
