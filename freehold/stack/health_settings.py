"""The settings of the agent for a configuration, and the collectors for a check of some seconds. It starts no agent."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from freehold.health.agent.messages import HealthSettings
from freehold.health.agent.runner import Source
from freehold.health.agent.sources import sources_for
from freehold.health.collectors.disks import DiskOptions
from freehold.health.collectors.engines import EnginesReader
from freehold.health.model.probe import Expected
from freehold.health.model.targets import MeshNode, MeshOptions
from freehold.spec.model import HealthExpectSpec
from freehold.spec.shapes import parse_listen, parse_peer
from freehold.stack.config import Config
from freehold.weights.store import store_root

LOOK_FILE, LOOK_WRITE_FILE = ".freehold-disk-look", ".freehold-disk-look-write"
LOOK_BYTES = 4 << 20
"""4 MiB: quickly written, and more than one block. Source: our own choice."""
LOOK_READ_S = 0.05
"""Interval between two reads in a short check, for about forty reads. Source: our own choice."""
LOOK_WRITE_S = 0.2
"""Interval between two writes in it, for about nine writes. Source: our own choice: six are enough for a median."""


def health_settings(
    config: Config, *, state_path: Path | None = None, log_path: Path | None = None
) -> HealthSettings:
    """Return the agent's settings for a configuration; without a state folder the agent writes no snapshot."""
    spec = config.spec.health
    network = spec.network
    peers = tuple(found for text in network.peers if (found := parse_peer(text)) is not None)
    listen = parse_listen(network.listen)
    mesh = None
    if peers and listen is not None:
        mesh = MeshOptions(
            peers=tuple(MeshNode(name=peer.name, host=peer.host, port=peer.port) for peer in peers),
            key_path=str(config.base_dir / Path(network.key_file).expanduser()),
            host=listen.host,
            port=listen.port,
        )
    return HealthSettings(
        node=network.node,
        state_dir=str(state_path or ""),
        log_path=str(log_path or ""),
        volumes=watched_folders(spec.storage.path),
        write=spec.storage.write,
        gpu=spec.gpu,
        mesh=mesh,
        expected=expected_of(spec.expect),
    )


def expected_of(spec: HealthExpectSpec) -> Expected:
    """Return the hardware that `health.expect` describes."""
    return Expected(
        gpus=spec.gpus,
        gpu_model=spec.gpu_model or None,
        driver_version=spec.driver or None,
        rdma_ports=spec.rdma_ports or None,
        link_mbit_s=spec.link_mbit_s,
    )


def watched_folders(path: str) -> tuple[str, ...]:
    """Return the folders whose disks are checked, by `health.storage.path`."""
    if path == "off":
        return ()
    if path != "auto":
        return (path,)
    store = store_root(os.environ)
    return (str(store),) if store.is_dir() else ()  # without weights there is nothing to read from a disk


@contextlib.contextmanager
def looking_sources(
    settings: HealthSettings, engines: EnginesReader | None = None, *, write_interval_s: float = LOOK_WRITE_S
) -> Iterator[list[Source]]:
    """Give the sources for a check of some seconds: disks are used more often, with small files that are removed at the end."""
    options = DiskOptions(
        file=LOOK_FILE,
        size_bytes=LOOK_BYTES,
        interval_s=LOOK_READ_S,
        write_file=LOOK_WRITE_FILE,
        write_interval_s=write_interval_s,
    )
    try:
        yield sources_for(settings, engines, options)
    finally:
        for folder in settings.volumes:
            for name in (LOOK_FILE, f"{LOOK_WRITE_FILE}.new", LOOK_WRITE_FILE):
                with contextlib.suppress(OSError):
                    (Path(folder) / name).unlink()
