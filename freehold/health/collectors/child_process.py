"""A child that may never end: started, read without blocking, killed and given up, never waited for.

A process in a call that never returns (state D) does not die of SIGKILL; so nothing here waits for an exit, and whether it is gone is
asked without blocking. What its output means is for the callers.
"""

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

_Child = TypeVar("_Child", bound="ChildProcess")
READ_BYTES = 65_536
"""Per read of the child's output: a pipe's capacity on Linux (pipe(7))."""


class ChildProcess:
    """A running child with pipes to its input and from its output."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        kill: Callable[[int, int], None] = os.kill,
    ) -> None:
        """Start it. `kill` is os.kill, but for a test that needs a process which does not die."""
        self._kill = kill
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=env,
            pass_fds=tuple(pass_fds),
            start_new_session=True,  # a Ctrl-C for the agent must not end it in the middle of an answer
        )
        assert self._process.stdout is not None
        self.out = self._process.stdout.fileno()
        os.set_blocking(self.out, False)

    @property
    def pid(self) -> int:
        """Return its process id."""
        return self._process.pid

    @property
    def code(self) -> int | None:
        """Return the exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    def gone(self) -> bool:
        """Return whether it has ended; never waits."""
        return self.code is not None

    def write(self, data: bytes) -> None:
        """Write to its input; OSError where it is gone."""
        assert self._process.stdin is not None
        self._process.stdin.write(data)
        self._process.stdin.flush()

    def read(self) -> bytes | None:
        """Return what it has written, empty when it has closed its output; None: nothing is there now."""
        try:
            return os.read(self.out, READ_BYTES)
        except BlockingIOError:
            return None

    def kill(self) -> None:
        """Kill it where it still runs; do not wait: it may be in a call that nothing ends."""
        if not self.gone():
            with contextlib.suppress(ProcessLookupError):
                self._kill(self._process.pid, signal.SIGKILL)

    def abandon(self) -> None:
        """Kill it and close the pipes."""
        self.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()


class ChildSlot(Generic[_Child]):
    """The child that works now, and those before it that did not die."""

    def __init__(self) -> None:
        self.now: _Child | None = None
        self.stuck: list[_Child] = []

    @property
    def pids(self) -> tuple[int, ...]:
        """Return the processes that are alive, those abandoned included."""
        self.reap()
        return tuple(child.pid for child in (*self.stuck, *([self.now] if self.now else [])))

    def reap(self) -> None:
        """Forget those of the abandoned that have ended."""
        self.stuck = [child for child in self.stuck if not child.gone()]

    def abandon(self) -> None:
        """Kill the child and leave it behind."""
        if self.now is not None:
            self.now.abandon()
            self.stuck.append(self.now)
            self.now = None
