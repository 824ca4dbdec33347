"""The process at the other end of the control socket, as the kernel names it (SO_PEERCRED, unix(7)), not as it names itself.

It decides nothing: roles are in `roles`.
"""

import contextlib
import os
import pwd
import socket
import struct
import sys
from dataclasses import dataclass
from pathlib import Path

from freehold.fleet.processes import proc_files
from freehold.fleet.processes.launch_process import replica_of

_NO_LOGIN = (1 << 32) - 1  # What /proc/PID/loginuid holds without a login. Source: audit(8), (uid_t)-1.


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A process and its user."""

    pid: int
    """0: it is in no namespace that this process sees, such as an operator beside the container."""
    uid: int
    signal: str = ""
    """The name of the signal that it sent instead of a request: then the kernel names neither process nor user."""

    @classmethod
    def of(cls, peer: socket.socket) -> "Peer":
        """Return the process that connected. Only Linux reports it; elsewhere it is this user, since no other can open the socket."""
        if sys.platform != "linux":
            return cls(pid=0, uid=os.geteuid())
        pid, uid, _gid = struct.unpack("iII", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return cls(pid=pid, uid=uid)

    @classmethod
    def myself(cls) -> "Peer":
        """Return this process, for an act that needs no controller."""
        return cls(pid=os.getpid(), uid=os.geteuid())

    @property
    def is_engine(self) -> bool:
        """Return whether it is a process of an engine, or has ended already.

        Landlock does not limit connections to the socket's path, so an engine can connect as the stack's own user.
        """
        return self.pid != 0 and (proc_files.mark(self.pid) is None or bool(replica_of(self.pid)))

    def who(self) -> str:
        """Return the user's name, and before it the user that logged in, where a login stands behind it (sudo, su)."""
        name, login = user_name(self.uid), self._login()
        return f"{login} as {name}" if login not in {"", name} else name

    def origin(self) -> str:
        """Return the process, its program and its terminal."""
        if self.signal:
            return f"{self.signal}, from this user or root"
        with contextlib.suppress(OSError):
            name = Path(f"/proc/{self.pid}/comm").read_text("utf-8", errors="replace").strip()
            return f"pid {self.pid} ({name}), {proc_files.terminal(self.pid) or 'no terminal'}"
        return f"pid {self.pid}" if self.pid else "outside of this container"

    def _login(self) -> str:
        with contextlib.suppress(OSError, ValueError):
            uid = int(Path(f"/proc/{self.pid}/loginuid").read_text("ascii"))
            if uid != _NO_LOGIN:
                return user_name(uid)
        return os.environ.get("SUDO_USER", "") if self.pid == os.getpid() else ""


def user_name(uid: int) -> str:
    """Return a user's name, or `uid N` where it has none. May ask a directory service."""
    with contextlib.suppress(KeyError):
        return pwd.getpwuid(uid).pw_name
    return f"uid {uid}"
