"""Messages between a controller and its agent, as JSON lines: first what to watch, then which engines there are at each change.

Up comes a `AgentReport` a line. Who closes the line is gone. It is light, since both ends import it, and does nothing.
"""

import contextlib
import socket

import msgspec

from freehold.health.model.probe import Expected
from freehold.health.model.snapshot import HealthSnapshot
from freehold.health.model.targets import EngineTarget, MeshOptions

LINE_BYTES_MOST = 4 * 1024 * 1024
"""Longest line either way. Source: our own bound; a snapshot of a node with eight GPUs has some 50 kB."""


class HealthSettings(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an agent watches on its node."""

    node: str = ""
    """Empty: the host's name."""
    state_dir: str = ""
    """Where the snapshot is written; empty: nowhere."""
    log_path: str = ""
    """Empty: standard error."""
    volumes: tuple[str, ...] = ()
    """Folders whose disks are watched."""
    write: bool = True
    """Whether a small file is written there now and then to see whether that works."""
    gpu: str = "auto"
    """`auto`, `nvml`, `off`, or the address of a DCGM exporter."""
    mesh: MeshOptions | None = None
    """None: no peers."""
    expected: Expected = Expected()
    """What the node should have."""

    @property
    def name(self) -> str:
        """Return the node's name."""
        return self.node or socket.gethostname()


class Watch(msgspec.Struct, frozen=True, tag="watch"):
    """The first line: what to watch."""

    settings: HealthSettings


class Engines(msgspec.Struct, frozen=True, tag="engines"):
    """Which engines there are now."""

    targets: tuple[EngineTarget, ...]


class AgentReport(msgspec.Struct, frozen=True, kw_only=True):
    """The agent's report: the state of the node, and the agent's metrics so far."""

    snapshot: HealthSnapshot
    metrics: str
    """In Prometheus' text format; unchecked."""
    monotonic_s: float
    """When, by the clock that all processes of a machine share."""


_WORDS = msgspec.json.Decoder(AgentReport)


def read_report(line: bytes) -> AgentReport | None:
    """Return what the agent says in a line; None: it is none of its lines."""
    with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
        return _WORDS.decode(line)
    return None


Order = Watch | Engines
ORDERS: msgspec.json.Decoder[Order] = msgspec.json.Decoder(Order)
