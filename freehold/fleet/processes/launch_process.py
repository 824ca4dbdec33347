"""Start one engine as a child process under a minder, and report what happens to it.

`Launcher` and `EngineLaunch` are the ports that any runtime implements; `ProcessLauncher` is the one for plain processes.
It decides nothing: it restarts nothing, and its only deadline ends the engine of a minder that died.
Ports are on 127.0.0.1 and each is handed out once, so that a late request can never meet another model's engine.
"""

import asyncio
import contextlib
import os
import random
import secrets
import socket
import sys
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import msgspec

import freehold
from freehold.core.errors import Temporary
from freehold.core.events import socket_url
from freehold.core.plain_text import one_line
from freehold.engines.base import Command, Placement
from freehold.fleet.decisions.plan import FleetSettings, ReplicaPlan, files_dir, log_path
from freehold.fleet.gpus.assign import visible_env, visible_names
from freehold.fleet.processes import proc_files
from freehold.fleet.processes.cage import remove_scratch
from freehold.fleet.processes.cage_rules import MARK, cage_of, engine_env, scratch_folder

HOST = "127.0.0.1"
_MINDER = "freehold.fleet.processes.minder"
_PORTS_FROM = 20000
"""Lowest port tried. Source: own choice; above the registered ports in common use (IANA: 1024 to 49151)."""
_PORTS_LEAST = 2000
"""If fewer ports than this lie below the ephemeral range, the kernel picks one."""
_PORT_TRIES = 200
"""Ports tried before the launch fails. Source: own choice; one try costs 10 µs."""
_USED_PORTS_MAX = 4096
"""Ports remembered as used. Source: own choice; a fleet restarts far less often while a late request is still under way."""
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LINE_BYTES = 1024 * 1024
"""Longest report accepted from a minder; its own bound is far below (minder_pipes.TAIL_LINES)."""
_NOISE_LINES = 20
"""Lines kept of a minder's output besides its reports: the end of a traceback."""
_GOODBYE_S = 2.0
"""Longest wait for a minder that has reported the end: its disk may hang, but its engine is gone."""
_HUNT_S = 0.02
"""Between the first two searches for processes of a dead minder's engine."""
_HUNT_MAX_S = 1.0
"""Between later ones: a process that survives SIGKILL takes its time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStarted:
    """The program runs and will answer at `url`."""

    pid: int
    url: str
    key: str = field(default="", repr=False)
    """Bearer key of this launch; empty: its Unix socket needs none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineEnding:
    """The program has ended, but processes that it started have not."""

    code: int
    tail: tuple[str, ...]
    asked: bool = False
    """It was asked to end before it did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineExited:
    """No process of the launch is left; always the last report."""

    code: int
    """Exit code; negative: minus the signal."""
    tail: tuple[str, ...] = ()
    """Last lines of its output."""
    asked: bool = False
    """It was asked to end before it did."""
    log_dropped_bytes: int = 0
    failure: str = ""
    """Why the engine is not the cause: it could not be launched, or its minder died; empty: it is."""


Report = EngineStarted | EngineEnding | EngineExited


class EngineLaunch(Protocol):
    """One start of one engine, from the order to its last report."""

    def stop(self, grace_s: float) -> None:
        """SIGTERM to the process group, SIGKILL after `grace_s`; a second call can only shorten it."""
        ...

    def kill(self) -> None:
        """SIGKILL to everything of the launch, without asking the minder."""
        ...

    async def why_closed(self) -> str:
        """Return why no request may go to its URL yet; empty: what listens there are processes of the launch."""
        ...


class Launcher(Protocol):
    """Starts engines in one kind of runtime."""

    def launch(self, plan: ReplicaPlan, report: Callable[[Report], None]) -> EngineLaunch:
        """Start an engine; returns at once. `report` is called in the event loop, with EngineExited last."""
        ...

    async def close(self) -> None:
        """End everything: minders end the engines that still run."""
        ...


class ProcessLauncher:
    """Launches engines as child processes of minders on this machine. One per fleet, used in one event loop."""

    def __init__(self, settings: FleetSettings) -> None:
        self._settings = settings
        self._ports = Ports()
        self._launches: set[ProcessLaunch] = set()

    def launch(self, plan: ReplicaPlan, report: Callable[[Report], None]) -> EngineLaunch:
        """Start an engine under a minder of its own, on a Unix socket of the launch or a fresh port.

        Raises Temporary when no port is free; a later failure is reported as EngineExited.
        """
        if plan.engine.command is None:
            raise AssertionError(f"{plan.engine.name} is not an engine that can be started")
        token, folder = secrets.token_hex(16), files_dir(self._settings.log_dir, plan.id)
        place = self._placement(plan, token)
        command = plan.engine.command(place).in_folder(str(folder))
        added = {**command.env, **visible_env(plan.gpus, uuids=plan.engine.gpu_uuids)}
        env = engine_env(os.environ, added, token=token, variables=plan.engine.variables)
        launch = ProcessLaunch(
            {**self._spec(plan, command), "folder": str(folder), "cage": cage_of(plan, env, folder=folder)},
            report,
            place=place,
            env={**env, "HOME": str(folder), "TMPDIR": scratch_folder(token)},
        )
        self._launches.add(launch)
        launch.task.add_done_callback(lambda _: self._launches.discard(launch))
        return launch

    def _placement(self, plan: ReplicaPlan, token: str) -> Placement:
        """Return where it is to run: on a Unix socket of the launch, else on a fresh port with a key of its own."""
        on_socket = plan.engine.unix_socket
        return Placement(
            model=plan.model,
            weights=plan.weights,
            host=HOST,
            port=0 if on_socket else self._ports.take(),
            socket=f"{scratch_folder(token)}/engine.sock" if on_socket else "",
            key="" if on_socket else secrets.token_urlsafe(),
            options=plan.options,
            threads=plan.threads,
            adapters=plan.adapters,
            environment=plan.environment,
            gpus=None if plan.gpus is None else visible_names(plan.gpus, uuids=plan.engine.gpu_uuids),
        )

    def _spec(self, plan: ReplicaPlan, command: Command) -> dict[str, object]:
        return {
            "argv": list(command.argv),
            "files": dict(command.files),
            "links": dict(command.links),
            "cwd": str(self._settings.cwd) if self._settings.cwd else None,
            "log": str(log_path(self._settings.log_dir, plan.id)),
            "log_max_bytes": self._settings.log_max_bytes,
            "grace_s": self._settings.stop_grace_s,
            "name": plan.id,
        }

    async def close(self) -> None:
        """Close the stdin of all minders, wait until each has ended its engine, and kill those that take too long."""
        await self._wait_for(
            self._settings.stop_grace_s + self._settings.kill_margin_s, ProcessLaunch.hang_up
        )
        await self._wait_for(self._settings.kill_margin_s, ProcessLaunch.kill)
        await self._wait_for(self._settings.kill_margin_s, lambda launch: launch.task.cancel())

    async def _wait_for(self, wait_s: float, urge: Callable[["ProcessLaunch"], object]) -> None:
        for launch in self._launches:
            urge(launch)
        if self._launches:
            await asyncio.wait([launch.task for launch in self._launches], timeout=wait_s)


class ProcessLaunch:
    """One minder and its engine. Orders given before the minder is up are kept for it."""

    def __init__(
        self,
        spec: dict[str, object],
        report: Callable[[Report], None],
        *,
        place: Placement,
        env: Mapping[str, str],
    ) -> None:
        self._spec = spec
        self._place = place
        self._token = env[MARK]
        self._env = env
        self._report = report
        self._minder: asyncio.subprocess.Process | None = None
        self._orders: list[dict[str, object]] = [spec]
        self._kill_wanted = False
        self._pid = 0
        self._start_ticks = 0
        self._noise: deque[str] = deque(maxlen=_NOISE_LINES)
        self.task = asyncio.create_task(self._mind(), name=f"launch {spec['name']}")

    def stop(self, grace_s: float) -> None:
        """See `EngineLaunch`."""
        self._orders.append({"op": "stop", "grace_s": grace_s})
        self._send_orders()

    def kill(self) -> None:
        """See `EngineLaunch`."""
        self._kill_wanted = True
        if self._minder is not None and self._minder.returncode is None:
            self._minder.kill()

    async def why_closed(self) -> str:
        """See `EngineLaunch`. Its program starts only if it has made the folder of its Unix socket; a port can be taken by any user."""
        return "" if self._place.socket else await asyncio.to_thread(self._why_port_closed)

    def _why_port_closed(self) -> str:
        listening = proc_files.listeners(self._place.port)
        own = proc_files.sockets(proc_files.family(self._minder.pid) if self._minder else ())
        if listening - own:
            return f"another process listens on port {self._place.port}"
        return "" if listening or sys.platform != "linux" else "loading"

    def hang_up(self) -> None:
        """End the minder's stdin: it ends the engine with its own grace, then itself."""
        if self._minder is not None and self._minder.stdin is not None:
            self._minder.stdin.close()

    def _send_orders(self) -> None:
        if self._minder is not None and self._minder.stdin is not None:
            lines = [msgspec.json.encode(order) + b"\n" for order in self._orders]
            self._orders.clear()
            # Not awaited: the caller must not wait for a minder that does not read.
            self._minder.stdin.write(b"".join(lines))

    async def _mind(self) -> None:
        try:
            minder = await asyncio.create_subprocess_exec(
                *minder_argv(str(self._spec["name"])),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env=self._env,
                start_new_session=True,  # Ctrl-C in the terminal is for the controller alone
                limit=_LINE_BYTES,
            )
        except OSError as exc:
            self._report(EngineExited(code=-1, failure=f"cannot start a process: {exc.strerror or exc}"))
            return
        self._minder = minder
        try:
            await self._follow(minder)
        finally:
            self.hang_up()

    async def _follow(self, minder: asyncio.subprocess.Process) -> None:
        if self._kill_wanted:
            minder.kill()
        self._send_orders()
        last = await self._read_reports(minder)
        if last is None:
            await self._hunt()
            await asyncio.to_thread(remove_scratch, self._env["TMPDIR"])
            said = "; ".join(self._noise)
            last = EngineExited(code=-9, failure="its minder process died" + (f": {said}" if said else ""))
        self._report(last)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GOODBYE_S):
                await minder.wait()

    async def _read_reports(self, minder: asyncio.subprocess.Process) -> EngineExited | None:
        """Pass reports on until the last one and return it; None: the minder ended without it."""
        assert minder.stdout is not None
        while line := await _read_line(minder.stdout):
            report = _decode(line)
            if report is None:
                self._noise.append(line.decode("utf-8", "replace").strip())
            elif report.event == "started":
                self._pid, self._start_ticks = report.pid, report.start_ticks
                self._report(EngineStarted(pid=report.pid, url=_url(self._place), key=self._place.key))
            elif report.event == "ending":
                self._report(
                    EngineEnding(code=report.code, tail=tuple(map(one_line, report.tail)), asked=report.asked)
                )
            elif report.event == "exited":
                return EngineExited(
                    code=report.code,
                    tail=tuple(map(one_line, report.tail)),
                    asked=report.asked,
                    log_dropped_bytes=report.log_dropped_bytes,
                )
        return None

    async def _hunt(self) -> None:
        """Kill the processes that a dead minder's engine left, and return when none is left."""
        pause_s = _HUNT_S
        while await asyncio.to_thread(self._kill_rest):
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _HUNT_MAX_S)

    def _kill_rest(self) -> bool:
        group = proc_files.kill_group(self._pid, self._start_ticks) if self._pid else False
        return proc_files.kill_carriers(MARK, self._token) or group


class _MinderReport(msgspec.Struct):
    event: str
    pid: int = 0
    start_ticks: int = 0
    code: int = 0
    tail: tuple[str, ...] = ()
    asked: bool = False
    log_dropped_bytes: int = 0


def _decode(line: bytes) -> _MinderReport | None:
    try:
        return msgspec.json.decode(line, type=_MinderReport)
    except msgspec.MsgspecError:
        return None


async def _read_line(stream: asyncio.StreamReader) -> bytes:
    """Return the next line; a line beyond the bound or a broken pipe counts as the end."""
    try:
        return await stream.readline()
    except (ValueError, OSError):
        return b""


def minder_argv(name: str) -> list[str]:
    """Return the command of a minder: a bare interpreter (no site, no user settings) that can import Freehold.

    `name` only shows in `ps` which replica the minder belongs to.
    """
    root = Path(freehold.__file__).parent.parent
    code = f"import sys; sys.path.append({str(root)!r}); from {_MINDER} import main; main()"
    return [sys.executable, "-I", "-S", "-c", code, name]


def replica_of(pid: int) -> str:
    """Return the replica that a process belongs to, by the minder above it; empty: none."""
    for above in proc_files.ancestors(pid):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{above}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
            if len(words) > 1 and f"from {_MINDER} import main".encode() in words[-2]:
                return words[-1].decode("utf-8", "replace")
    return ""


class Ports:
    """Free ports on 127.0.0.1, each handed out once.

    They are taken from below the kernel's ephemeral range: an engine may take minutes to listen, and no outgoing
    connection can take such a port meanwhile. If another program still takes it, the engine exits with PORT_IN_USE.
    """

    def __init__(self) -> None:
        self._used: deque[int] = deque(maxlen=_USED_PORTS_MAX)
        self._rng = random.Random()  # noqa: S311 (no secret)
        low = _ephemeral_low()
        self._range = range(_PORTS_FROM, low) if low - _PORTS_FROM >= _PORTS_LEAST else None

    def take(self) -> int:
        """Return a port that was free just now; raises Temporary when none is found."""
        for _ in range(_PORT_TRIES):
            wanted = self._rng.choice(self._range) if self._range else 0
            if wanted in self._used:
                continue
            port = _bind(wanted)
            if port and port not in self._used:
                self._used.append(port)
                return port
        raise Temporary(
            f"no free port on {HOST} after {_PORT_TRIES} tries",
            hint="see `ss -ltn` for the programs that use them",
        )


def _bind(port: int) -> int:
    """Return the port if it can be bound (0: one that the kernel picks), else 0."""
    with socket.socket() as probe, contextlib.suppress(OSError):
        probe.bind((HOST, port))
        return int(probe.getsockname()[1])
    return 0


def _ephemeral_low() -> int:
    with contextlib.suppress(OSError, ValueError):
        return int(_EPHEMERAL.read_text().split()[0])
    return 0


def _url(place: Placement) -> str:
    return socket_url(place.socket) if place.socket else f"http://{place.host}:{place.port}"
