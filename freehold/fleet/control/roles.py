"""Roles: which request on the control socket needs which, and which role a user has. Pure: it asks no kernel and reads no file.

API keys are callers: a key reaches the gateway's API only. What a user may do to files (keys, weights) is the file system's to decide.
"""

from collections.abc import Mapping
from enum import IntEnum


class Role(IntEnum):
    """What somebody may do; each role may do all that the ones before it may."""

    CALLER = 0
    """Send requests to the gateway. Nothing on the control socket."""
    VIEWER = 1
    OPERATOR = 2
    ADMIN = 3

    def __str__(self) -> str:
        """Return the name as freehold.yaml has it."""
        return self.name.lower()


LEAST: Mapping[str, Role] = {
    "status": Role.VIEWER,
    "health": Role.VIEWER,
    "reload": Role.OPERATOR,
    "restart": Role.OPERATOR,
    "set_healthy": Role.OPERATOR,
    "stop": Role.ADMIN,  # only the stack's own user can start it again
}
"""The least role of each request on the control socket. There are no other requests."""
_COMMANDS = {"set_healthy": "health set-healthy", "stop": "down"}
"""What people type for a request, where it has another name."""


def role_of(uid: int, given: Mapping[int, Role], *, own_uid: int) -> Role:
    """Return the role of a user: root and the stack's own user are admins, others have what they were given."""
    return Role.ADMIN if uid in {0, own_uid} else given.get(uid, Role.CALLER)


def why_not(operation: object, role: Role) -> str:
    """Return why a request is rejected, or an empty text; it names the command and not the request."""
    least = _least(operation)
    if role is Role.CALLER:
        return "this user has no role here"
    if least is None:
        return f"unknown operation {operation!r}"
    command = _COMMANDS.get(str(operation), operation)
    return "" if role >= least else f"{command} needs the role {least}, this user is {role}"


def how_to(operation: object) -> str:
    """Return what gives a user the role for a request; empty: no role allows it."""
    least = _least(operation)
    if least is None:
        return ""
    return (
        f"an admin of this stack gives it in freehold.yaml (roles: {{USER: {least}}}), then: freehold reload"
    )


def _least(operation: object) -> Role | None:
    return LEAST.get(operation) if isinstance(operation, str) else None
