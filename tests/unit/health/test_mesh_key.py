"""A mesh whose secret is too short is not started: docs/health.md asks for 16 bytes, since peers are told from strangers by it."""

import asyncio
from pathlib import Path

import pytest

from freehold.core.clock import SYSTEM_CLOCK
from freehold.core.errors import Permanent
from freehold.core.findings import Action, Verdict
from freehold.health.checks import network_loss
from freehold.health.collectors.network import MeshOptions, NetworkReader, _Running
from freehold.health.model.probe import Expected
from freehold.health.model.targets import MeshNode
from freehold.health.model.view import Network, View


class Hands:
    """A clock that a test sets."""

    now_s = 100.0

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_s(self) -> float:
        return 1_000_000.0 + self.now_s


def test_a_short_secret_starts_no_mesh(tmp_path: Path):
    key = tmp_path / "mesh.key"
    key.write_bytes(b"fifteen bytes..\n")
    options = MeshOptions(peers=(), key_path=str(key), host="127.0.0.1", port=0)
    with pytest.raises(Permanent, match="shorter than 16 bytes"):
        _Running("one", options, SYSTEM_CLOCK)


def test_a_mesh_that_is_not_started_is_told_and_not_called_young(tmp_path: Path):
    options = MeshOptions(
        peers=(MeshNode(name="b", host="127.0.0.1", port=9),),
        key_path=str(tmp_path / "gone.key"),
        host="127.0.0.1",
        port=0,
    )

    async def scene() -> Network:
        reader = NetworkReader("a", options, root=tmp_path)
        network = await reader.read()
        await reader.close()
        return network

    network = asyncio.run(scene())
    assert "gone.key" in network.mesh_error
    (finding,) = network_loss.PROBE.check([View(at_s=1.0, monotonic_s=1.0, network=network)], Expected())
    assert (finding.verdict, finding.reason) == (Verdict.UNKNOWN, "not_running")
    assert "gone.key" in finding.message
    assert finding.action is Action.FIX_CONFIGURATION


def test_a_mesh_that_ended_is_closed_and_begun_again(tmp_path: Path, free_port: int):
    (tmp_path / "key").write_bytes(b"k" * 16)
    options = MeshOptions(peers=(), key_path=str(tmp_path / "key"), host="127.0.0.1", port=free_port)
    hands = Hands()

    async def scene() -> None:
        reader = NetworkReader("a", options, root=tmp_path, clock=hands)
        await reader.read()
        first = reader._mesh
        assert first is not None
        assert first.mesh._ended is None
        await asyncio.sleep(0)
        assert first.mesh._ended is not None
        first.mesh._ended.set_exception(ZeroDivisionError("a mistake of ours"))
        await asyncio.wait({first.task})
        assert "a mistake of ours" in (await reader.read()).mesh_error
        hands.now_s += 31.0
        assert (await reader.read()).mesh_error == ""
        assert reader._mesh is not first
        await reader.close()

    asyncio.run(scene())
