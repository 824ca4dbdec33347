"""The newest snapshot of a stack's health agent, for commands: from its controller, or from its file. It starts nothing."""

from pathlib import Path

import msgspec

from freehold.core.clock import wall_s
from freehold.core.errors import FreeholdError
from freehold.fleet.control.client import NotAllowed, NotRunning, ask
from freehold.health.agent.state_files import read_snapshot
from freehold.health.model.snapshot import HealthSnapshot


def asked(state_path: Path) -> HealthSnapshot | None:
    """Return the agent's snapshot: its controller's, else a fresh one from its file. None: there is no agent.

    Raises NotAllowed if this user may not see it.
    """
    try:
        for answer in ask(state_path, {"op": "health"}):
            if answer.get("snapshot") is not None:
                return msgspec.convert(answer["snapshot"], HealthSnapshot)
    except NotAllowed:
        raise
    except (NotRunning, FreeholdError, msgspec.ValidationError):
        pass
    found = read_snapshot(state_path)
    return found if found is not None and not found.is_stale(wall_s()) else None
