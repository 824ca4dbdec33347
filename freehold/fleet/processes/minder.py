"""The minder: one small process per engine, so that no engine outlives its controller and no engine waits for a disk.

It reads a JSON line on stdin with the program to start, starts it in a session of its own, pumps its output through a
bounded queue to a size-bounded log, and reports `started`, `ending` and `exited` as JSON lines on stdout. Later
lines on stdin are orders: `{"op": "stop", "grace_s": 10}` and `{"op": "kill"}`. End of file on stdin means that the
controller has ended, for whatever reason: the engine's process group gets SIGTERM, the grace, SIGKILL.

It is run by a bare interpreter (`-I -S`, see `launch_process.minder_argv`) and imports a few modules of the standard
library and its own second file, so that it starts in tens of milliseconds and stays near the interpreter's own size.
It restarts nothing, decides nothing and knows no engine.
It is made for Linux; elsewhere the two prctl calls are left out and escaped processes are not found.
"""
# ruff: noqa: PTH103, PTH108, PTH114, PTH123, PTH208, PTH211, SIM105, S606
# Why: pathlib, contextlib, typing and subprocess would add half to its start-up.

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import time

from freehold.fleet.processes import cage
from freehold.fleet.processes.minder_pipes import READ_BYTES, REMARK, Log, Orders, OutputTail, Reports

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

SWEEP_S = 0.02
"""Between two searches for processes that the engine left behind."""
ENDING_S = 0.25
"""If processes that the engine left behind take longer than this to end, they get a report of their own."""
ORPHAN_SWEEP_S = 10.0
"""Without a controller, the minder waits at most this long for processes that survive SIGKILL."""
REPORT_S = 2.0
"""Longest wait for a controller that does not read its reports."""
LOG_CLOSE_S = 0.5
"""Longest wait for the disk at the end."""
EXEC_FAILED = 127
"""Exit code when the program cannot be started. Source: POSIX shell, command not found."""
_PR_SET_PDEATHSIG = 1
"""Source: linux/prctl.h."""
_PR_SET_CHILD_SUBREAPER = 36
"""Source: linux/prctl.h."""
_CHANGED_SIGNALS = (
    signal.SIGPIPE,  # these two Python ignores at its start, and exec would hand that on
    signal.SIGXFSZ,
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGCHLD,
)


def spawn(spec: dict[str, Any], libc: ctypes.CDLL | None) -> tuple[int, int, int]:
    """Start the engine; return its pid, the pipe of its output, and a pipe that reports why exec failed.

    The second pipe closes when exec succeeded, and carries one line of text when it did not.
    """
    out_read, out_write = os.pipe()
    why_read, why_write = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            _become_engine(spec, out_write, libc, parent)
        except (OSError, ValueError) as exc:
            os.write(why_write, str(getattr(exc, "strerror", None) or exc).encode())
        finally:
            os._exit(EXEC_FAILED)
    os.close(out_write)
    os.close(why_write)
    os.set_blocking(out_read, False)
    return pid, out_read, why_read


def _become_engine(spec: dict[str, Any], out_fd: int, libc: ctypes.CDLL | None, parent: int) -> None:
    os.setsid()
    if libc is not None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        return
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(out_fd, 1)
    os.dup2(out_fd, 2)
    signal.set_wakeup_fd(-1)
    for number in _CHANGED_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if spec.get("files") or spec.get("links"):
        _fill_folder(spec["folder"], spec.get("files", {}), spec.get("links", {}))
    if spec.get("cwd"):
        os.chdir(spec["cwd"])
    if spec.get("cage"):
        cage.make_folders(spec["cage"])
        if libc is not None:
            cage.confine(spec["cage"], spec["argv"], libc)
    os.execvp(spec["argv"][0], spec["argv"])


def _fill_folder(folder: str, files: dict[str, str], links: dict[str, str]) -> None:
    """Write the files that the engine reads at its start, for this user alone; in the engine's process, where a disk may hang."""
    os.makedirs(folder, mode=0o700, exist_ok=True)
    for name, text in files.items():
        path = f"{folder}/{name}"
        if os.path.islink(path):  # never through a link of an earlier start, into the weights
            os.unlink(path)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
    for name, target in links.items():
        if os.path.lexists(f"{folder}/{name}"):
            os.unlink(f"{folder}/{name}")
        os.symlink(target, f"{folder}/{name}")


def start_ticks(pid: int) -> int:
    """Return when a process started, in clock ticks since boot (field 22 of proc(5) stat); 0: not known."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return 0


def children() -> list[int]:
    """Return the pids of this process's children, zombies left out: as the reaper of the subtree, all that is left."""
    me = str(os.getpid()).encode()
    found = []
    for name in os.listdir("/proc") if sys.platform == "linux" else []:
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:  # no process, or no longer one
            continue
        if name.isdigit() and fields[1] == me and fields[0] != b"Z":
            found.append(int(name))
    return found


def signal_quietly(send: Callable[[int, int], None], target: int, number: int) -> None:
    """Send a signal to a process or group that may have ended already."""
    try:
        send(target, number)
    except OSError:
        pass


def signal_group(pid: int, number: int) -> None:
    """Send a signal to the group that `pid` leads, or to `pid` alone in the moment before it leads one."""
    try:
        os.killpg(pid, number)
    except OSError:
        signal_quietly(os.kill, pid, number)


class Minder:
    """One engine's life, from spawn to the last of its descendants, in one poll loop."""

    def __init__(self, spec: dict[str, Any], orders: Orders, reports: Reports) -> None:
        self._spec = spec
        self._orders = orders
        self._reports = reports
        self._log = Log(spec["log"], spec["log_max_bytes"])
        self._tail = OutputTail()
        self._poll = select.poll()
        self._code: int | None = None
        self._kill_at_s: float | None = None
        self._asked_to_end = False
        self._ended_s = 0.0
        self._ending_reported = False
        self._all_reaped = False
        self._why = b""

    def run(self, waiting: list[dict[str, Any]]) -> None:
        """Start the engine, carry out the orders read with it, watch it to its end, report."""
        libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
        if libc is not None:
            libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        wake_fd = _catch_signals()
        self._pid, self._out_fd, self._why_fd = spawn(self._spec, libc)
        self._log.open()
        self._note(f"process {self._pid} started")
        for fd in (0, wake_fd, self._out_fd, self._why_fd):
            self._poll.register(fd, select.POLLIN)
        self._wake_fd = wake_fd
        self._obey(waiting)
        while not self._is_over():
            self._turn()
        self._finish()

    def _note(self, text: str) -> None:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._log.offer(REMARK + f"[freehold: {stamp} {text}]\n".encode())

    def _is_over(self) -> bool:
        if self._orders.closed and self._code is not None:
            return self._all_reaped or time.monotonic() > self._ended_s + ORPHAN_SWEEP_S
        return self._all_reaped

    def _turn(self) -> None:
        for fd, _ in self._poll.poll(self._wait_ms()):
            self._serve(fd)
        self._reports.flush()
        if self._kill_at_s is not None and time.monotonic() >= self._kill_at_s and self._code is None:
            signal_group(self._pid, signal.SIGKILL)
            self._kill_at_s = None
        self._reap()

    def _wait_ms(self) -> float | None:
        if self._code is not None:
            return SWEEP_S * 1000
        waits_s = [] if self._kill_at_s is None else [max(0.0, self._kill_at_s - time.monotonic())]
        if self._reports.pending:
            waits_s.append(0.1)
        return min(waits_s) * 1000 + 1 if waits_s else None

    def _serve(self, fd: int) -> None:
        if fd == self._out_fd:
            self._pump()
        elif fd == self._why_fd:
            self._exec_done()
        elif fd == self._wake_fd:
            if signal.SIGTERM in os.read(fd, 512):
                self._stop(self._spec["grace_s"])
        else:
            self._obey(self._orders.read())

    def _pump(self) -> None:
        try:
            chunk = os.read(self._out_fd, READ_BYTES)
        except BlockingIOError:
            return
        if chunk:
            self._log.offer(chunk.replace(REMARK, b"?"))
            self._tail.add(chunk)
        else:
            self._poll.unregister(self._out_fd)
            os.close(self._out_fd)
            self._out_fd = -1

    def _exec_done(self) -> None:
        self._why = os.read(self._why_fd, READ_BYTES)
        self._poll.unregister(self._why_fd)
        os.close(self._why_fd)
        self._why_fd = -1
        if self._why:
            self._tail.add(b"cannot start %s: %s\n" % (os.fsencode(self._spec["argv"][0]), self._why))
        else:
            self._reports.send("started", pid=self._pid, start_ticks=start_ticks(self._pid))
            if self._asked_to_end:
                signal_group(self._pid, signal.SIGTERM)

    def _obey(self, orders: list[dict[str, Any]]) -> None:
        for order in orders:
            if order.get("op") == "stop":
                self._stop(float(order.get("grace_s", self._spec["grace_s"])))
            elif order.get("op") == "kill":
                self._stop(0.0)
        if self._orders.closed:
            self._poll.unregister(0)
            self._stop(self._spec["grace_s"])

    def _stop(self, grace_s: float) -> None:
        """SIGTERM the first time, SIGKILL at the earliest of all deadlines given."""
        if self._code is not None:
            return
        kill_at_s = time.monotonic() + grace_s
        if not self._asked_to_end:  # some engines take a second SIGTERM as "at once"
            self._asked_to_end = True
            if (
                self._why_fd < 0
            ):  # else it is still our own fork, which would swallow the signal: see _exec_done
                signal_group(self._pid, signal.SIGTERM)
        if self._kill_at_s is None or kill_at_s < self._kill_at_s:
            self._kill_at_s = kill_at_s

    def _reap(self) -> None:
        """Collect ended processes; once the engine has ended, end everything that it started.

        The engine stays a zombie until its group is killed, so that no other group can have its number.
        """
        if self._code is None:
            if os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                _reap_others(self._pid)
                return
            signal_group(self._pid, signal.SIGKILL)
            self._code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
            self._ended_s = time.monotonic()
        self._sweep()

    def _sweep(self) -> None:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            self._all_reaped = True
            return
        for pid in children():
            signal_quietly(os.kill, pid, signal.SIGKILL)
        if not self._ending_reported and time.monotonic() > self._ended_s + ENDING_S:
            self._ending_reported = True
            self._reports.send("ending", code=self._code, asked=self._asked_to_end, tail=self._tail.lines())

    def _finish(self) -> None:
        while self._out_fd >= 0 and _readable(self._out_fd):
            self._pump()
        if self._why_fd >= 0:
            self._exec_done()
        self._note(f"process {self._pid} ended, exit code {self._code}")
        self._reports.send(
            "exited",
            code=self._code,
            asked=self._asked_to_end,
            tail=self._tail.lines(),
            log_dropped_bytes=self._log.dropped_bytes,
        )
        self._flush_reports()
        self._log.close(LOG_CLOSE_S)
        if self._spec.get("cage"):
            cage.remove_scratch(self._spec["cage"]["scratch"])

    def _flush_reports(self) -> None:
        deadline_s = time.monotonic() + REPORT_S
        while self._reports.pending and time.monotonic() < deadline_s:
            time.sleep(SWEEP_S)
            self._reports.flush()


def _reap_others(engine_pid: int) -> None:
    """Collect orphans of the running engine; the engine's own end is not collected here."""
    while True:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if found is None or found.si_pid == engine_pid:
            return
        os.waitpid(found.si_pid, 0)


def _readable(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


def _catch_signals() -> int:
    """Turn SIGCHLD and SIGTERM into bytes on a pipe and return its read end; ignore Ctrl-C and a hangup."""
    read_fd, write_fd = os.pipe()
    os.set_blocking(write_fd, False)
    signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    return read_fd


def main() -> None:
    """Read the program to start from stdin, watch it to its end, and exit without waiting for a disk."""
    orders, reports = Orders(0), Reports(1)
    first: list[dict[str, Any]] = []
    while not first and not orders.closed:
        first = orders.read()
    if first:
        Minder(first[0], orders, reports).run(first[1:])
    os._exit(0)
