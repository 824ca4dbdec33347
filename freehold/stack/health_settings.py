"""What an agent of a configuration watches, and the readers of a look that lasts seconds. It starts no agent."""

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
"""4 MiB: written in a moment, and still more than one block. Source: our own choice."""
LOOK_READ_S = 0.05
"""Between two reads of a short look, so that some forty are made. Source: our own choice."""
LOOK_WRITE_S = 0.2
"""Between two writes of it, so that some nine are made. Source: our own choice: six make a median."""


def health_settings(
    config: Config, *, state_path: Path | None = None, log_path: Path | None = None
) -> HealthSettings:
    """Return what an agent of this configuration watches; without a state folder it writes no snapshot."""
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
    """Return what a node should have by `health.expect`."""
    return Expected(
        gpus=spec.gpus,
        gpu_model=spec.gpu_model or None,
        driver_version=spec.driver or None,
        rdma_ports=spec.rdma_ports or None,
        link_mbit_s=spec.link_mbit_s,
    )


def watched_folders(path: str) -> tuple[str, ...]:
    """Return the folders whose disks are watched, by `health.storage.path`."""
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
    """Give the sources of a look that lasts seconds: disks are read and written more often, in small files that are removed again."""
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
