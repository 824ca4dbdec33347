"""Where the state of a stack is kept: one folder per configuration file, under the XDG state directory.

Stacks that run elsewhere are found by the locks that they hold. No configuration is read here: `down`, `status` and
`logs` need none, and reading it takes its time to import.
"""

import shlex
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import platformdirs

from freehold.fleet.control.state_dir import StateDir, locked_directories

BUILT_IN = "built-in example"


def state_dir_for(flag: Path | None, config_path: Path | None) -> Path:
    """Return the state folder: the flag's, or one per configuration file under the XDG state directory.

    The folder is named after the file's folder and eight digits of its path's hash, so that two stacks never meet.
    """
    if flag is not None:
        return flag.absolute()
    return platformdirs.user_state_path("freehold", appauthor=False) / stack_name(config_path)


def stack_name(config_path: Path | None) -> str:
    """Return the folder name of one configuration file, or of the built-in example."""
    if config_path is None:
        return "example"
    digits = sha256(str(config_path.resolve()).encode()).hexdigest()[:8]
    return f"{config_path.resolve().parent.name or 'root'}-{digits}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Elsewhere:
    """A stack that runs with another state folder."""

    config: str
    pid: int
    flags: str
    """Flags that make a command find this stack."""


def running_elsewhere(state_path: Path) -> list[Elsewhere]:
    """Return the stacks of this user (for root: of all) that run with other state folders than `state_path`, by their configurations."""
    found = []
    for folder in locked_directories():
        holder = StateDir(folder).holder()
        if holder is not None and folder.resolve() != state_path.resolve():
            found.append(elsewhere(folder, config=holder.config_path, pid=holder.pid))
    return sorted(found, key=lambda stack: (stack.config, stack.flags))


def elsewhere(folder: Path, *, config: str, pid: int) -> Elsewhere:
    """Return the stack with this state folder, and the flag by which a command finds it."""
    by_config = state_dir_for(None, Path(config)) == folder
    named = f"--config {config}" if by_config else f"--state-dir {folder}"
    return Elsewhere(config=config, pid=pid, flags=_quoted(named))


def _quoted(flags: str) -> str:
    name, _, value = flags.partition(" ")
    return f"{name} {shlex.quote(value)}"
