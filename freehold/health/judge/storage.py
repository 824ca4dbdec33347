"""What a watched volume is called: a disk, storage of another machine, or storage behind a program of this one.

A file system over the network, or in user space, has no disk of this node: naming one would send somebody to the wrong machine.
Nothing here reads or judges.
"""

from freehold.health.model.view import Volume


def component_of(volume: Volume) -> str:
    """Return `disk:PATH`, or `storage:PATH` where another machine or a program answers."""
    return f"{'storage' if is_elsewhere(volume) else 'disk'}:{volume.path}"


def is_elsewhere(volume: Volume) -> bool:
    """Return whether no disk of this node is behind it."""
    return volume.user_space or volume.network


def named(volume: Volume) -> str:
    """Return what it is, for a message: `/srv/models (network storage: nfs4 of 10.0.0.1:/export)`, of a disk the path alone."""
    if not is_elsewhere(volume):
        return volume.path
    what = "network storage" if volume.network else "storage behind a program"
    of = f" of {volume.source}" if volume.source else ""
    return f"{volume.path} ({what}: {volume.file_system}{of})"
