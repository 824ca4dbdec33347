"""The view's network: interfaces, RDMA ports and TCP's counters of this node, and the mesh to its peers where it has some.

The mesh runs in a task of its own from the first reading on; what cannot be bound is tried again, and reported as a reading.
It judges nothing.
"""

import asyncio
from collections.abc import Iterable
from pathlib import Path

import msgspec

from freehold.core.clock import SYSTEM_CLOCK, Clock
from freehold.core.errors import FreeholdError, Permanent
from freehold.health.collectors.links import RdmaReader, read_interfaces, read_tcp
from freehold.health.model.targets import MeshOptions
from freehold.health.model.view import Interface, Network, Peer, RdmaPort, Reading, State
from freehold.telemetry.logs import get_logger

LINKS_EVERY_S = 10.0
"""Between two looks at interfaces and TCP's counters. Source: our own choice; the checks on them look back minutes."""
_RETRY_S = 30.0
"""Between two tries to bind the mesh's port. Source: our own choice."""
_log = get_logger("health.network")


class NetworkReader:
    """Gives the view's `Network`."""

    def __init__(
        self,
        node: str,
        mesh: MeshOptions | None = None,
        *,
        named: Iterable[str] = (),
        root: Path = Path("/"),
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """`named` are interfaces that are read whatever they are, since something is expected of them."""
        self._node, self._options, self._named = node, mesh, tuple(named)
        self._root, self._clock = root, clock
        self._rdma: RdmaReader | None = None
        self._mesh: _Running | None = None
        self._links_s = self._mesh_s = float("-inf")
        self._mesh_error = ""
        self._interfaces: tuple[Interface, ...] = ()
        self._fastest: dict[str, int] = {}
        self._tcp = (Reading(state=State.UNKNOWN), Reading(state=State.UNKNOWN))

    async def read(self) -> Network:
        """Return what is so now; interfaces and counters are at most 10 s old."""
        now_s = self._clock.monotonic_s()
        if now_s - self._links_s >= LINKS_EVERY_S:
            self._links_s = now_s
            found = read_interfaces(self._root, named=self._named)
            self._interfaces, self._tcp = tuple(map(self._remembered, found)), read_tcp(self._root)
        retransmitted, sent = self._tcp
        return Network(
            peers=self._peers(now_s),
            mesh_error=self._mesh_error,
            interfaces=self._interfaces,
            rdma=self._ports(),
            tcp_retransmitted=retransmitted,
            tcp_sent=sent,
        )

    def _remembered(self, link: Interface) -> Interface:
        """Return it with the most that it ever ran at: a link that fell back is slow for longer than any window."""
        now = link.speed_mbit_s.value
        fastest = max(self._fastest.get(link.name, 0), now if isinstance(now, int) else 0)
        self._fastest[link.name] = fastest
        return msgspec.structs.replace(link, fastest_mbit_s=fastest)

    async def close(self) -> None:
        """End the mesh."""
        if self._mesh is not None:
            await self._mesh.end()
            self._mesh = None

    def _ports(self) -> tuple[RdmaPort, ...]:
        if not (self._root / "sys/class/infiniband").is_dir():
            return ()
        if self._rdma is None:
            # The table of counters is read where there is a port: it costs megabytes.
            from freehold.catalog.load_xids import rdma_counters  # noqa: PLC0415

            self._rdma = RdmaReader(self._root, counters=rdma_counters(), time=self._clock)
        return self._rdma.read()

    def _peers(self, now_s: float) -> tuple[Peer, ...]:
        options = self._options
        if options is None:
            return ()
        if self._mesh is not None and self._mesh.task.done():
            self._close_ended(self._mesh)
        if self._mesh is None and now_s - self._mesh_s >= _RETRY_S:
            self._mesh_s = now_s
            self._begin(options)
        if self._mesh is not None:
            return self._mesh.mesh.sample()
        return tuple(Peer(name=peer.name) for peer in options.peers)  # nothing was received or sent

    def _begin(self, options: MeshOptions) -> None:
        try:
            self._mesh = _Running(self._node, options, self._clock)
        except (FreeholdError, OSError, ValueError) as exc:
            self._mesh_error = str(exc)
            _log.error("mesh_not_started", why=str(exc), again_s=_RETRY_S)
        else:
            self._mesh_error = ""

    def _close_ended(self, ended: "_Running") -> None:
        """Close what a mesh that ended of our own mistake left open, or its port could not be had again."""
        self._mesh_error = f"it ended: {ended.task.exception()!r}"
        _log.error("mesh_ended", why=self._mesh_error, again_s=_RETRY_S)
        ended.mesh.close()
        self._mesh = None


class _Running:
    """A mesh and the task that runs it."""

    def __init__(self, node: str, options: MeshOptions, clock: Clock) -> None:
        # Sockets, key and clock of the mesh are only loaded on nodes that have peers.
        from freehold.health.collectors.mesh import Mesh, MeshSettings, settings_problems  # noqa: PLC0415

        settings = MeshSettings(
            node=node,
            key=Path(options.key_path).read_bytes().strip(),
            peers=options.peers,
            listen_host=options.host,
            listen_port=options.port,
        )
        if problems := settings_problems(settings, "health.network"):
            raise Permanent("; ".join(map(str, problems)))
        self.mesh = Mesh(settings, clock)
        self.mesh.open()
        self.task = asyncio.get_running_loop().create_task(self.mesh.run())

    async def end(self) -> None:
        self.task.cancel()
        await asyncio.wait({self.task})
        self.mesh.close()
