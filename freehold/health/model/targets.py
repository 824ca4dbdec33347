"""What an agent watches besides its own node: the engines that run here and the mesh's peers. Data only; nothing here reads."""

import msgspec

from freehold.core.events import ReplicaState
from freehold.engines.base import HttpCheck


class MeshNode(msgspec.Struct, frozen=True, kw_only=True):
    """Another node's agent."""

    name: str
    host: str
    """Address or name."""
    port: int
    """UDP, of its datagrams; when it is silent, TCP to the same number is tried, where no process need listen."""


class MeshOptions(msgspec.Struct, frozen=True, kw_only=True):
    """This node's part of the mesh."""

    peers: tuple[MeshNode, ...]
    key_path: str
    """A file with the mesh's secret, at least 16 bytes, the same on all nodes."""
    host: str
    """Where it listens."""
    port: int


class EngineTarget(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One replica, as the fleet knows it."""

    replica: str
    engine: str
    model: str = ""
    """The name that the engine knows its model by."""
    url: str = ""
    """Empty: it has no address now."""
    pid: int = 0
    """Of the engine's process, which leads its group; 0: there is none, or not on this machine."""
    state: str = ReplicaState.READY
    key: str = ""
    """What the engine wants as Bearer key. Never logged or shown."""
    running: int | None = None
    """Requests that the gateway has under way there; None: not known."""
    progress: int | None = None
    """A number that moves when the gateway gets anything from it."""
    exit_text: str = ""
    """Why its last process ended; empty while it runs."""
    stall_s: float = 0.0
    """How long it may make no progress, by the model's configuration; 0: by its engine file."""
    proof: HttpCheck | None = None
    """The tiny request that shows it alive under its options; None: its engine file's completion."""
