"""The users of this machine that freehold.yaml gives a role. Their names are looked up once, when a configuration comes into force.

What a role may do is not decided here: `fleet/control/roles.py` is the table.
"""

import contextlib
import pwd
from collections.abc import Iterator, Mapping

from freehold.core.problems import Problem
from freehold.fleet.control.roles import Role
from freehold.spec.load import Loaded
from freehold.spec.model import Spec


def user_problems(loaded: Loaded) -> Iterator[Problem]:
    """Yield a problem for each user with a role that this machine does not have."""
    for name in loaded.spec.roles if loaded.spec is not None else ():
        if _uid_of(name) is None:
            message = f"roles: there is no user {name!r} on this machine"
            yield Problem(
                where=loaded.where(("roles", name)), message=message, hint="`getent passwd` lists them"
            )


def roles_of(spec: Spec) -> Mapping[int, Role]:
    """Return the roles by user id; a user that was deleted since has none."""
    found = ((_uid_of(name), Role[role.upper()]) for name, role in spec.roles.items())
    return {uid: role for uid, role in found if uid is not None}


def _uid_of(name: str) -> int | None:
    with contextlib.suppress(KeyError):
        return pwd.getpwnam(name).pw_uid
    return None
