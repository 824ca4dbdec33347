"""A stack from its blueprint to its end: the state folder claimed, the listener opened, then the controller runs.

Nothing is decided here, and nothing is printed: an observer is shown every status.
"""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from freehold.core.errors import Permanent
from freehold.fleet.control.state_dir import Running, StateDir
from freehold.gateway.process.listener import listen
from freehold.ledger.spool import make_folder
from freehold.stack.blueprint import write_blueprint
from freehold.stack.config import Config
from freehold.stack.controller import Controller, Opened
from freehold.stack.resolve import Resolved
from freehold.stack.status import StackStatus, listen_hint
from freehold.telemetry import logs

_LOOK_S = 1.0
"""Interval between two statuses when nothing changes. Source: our own choice, for a person who watches."""


class Observer(Protocol):
    """Receives the status of a stack from its start to its end."""

    @property
    def waiting(self) -> bool:
        """Return whether the outcome of the start is still open; until then a status is shown every second."""

    @property
    def hopeless(self) -> bool:
        """Return whether the stack can never serve; then it is stopped."""

    def see(self, status: StackStatus) -> object:
        """Take a newer status."""

    def hurry(self) -> None:
        """Note that the stack now ends without waiting."""


@contextlib.contextmanager
def claimed(state: StateDir, config_name: str) -> Iterator[Running | None]:
    """Hold the state folder and end what an earlier stack left behind; give the holder instead, or None if it is ours."""
    other = state.claim(config_path=config_name)
    if other is not None:
        yield other
        return
    try:
        # A fetch ends at SIGTERM as at Ctrl-C. A shell may have set SIGINT to be ignored for a background process.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        state.logs.mkdir(mode=0o700, exist_ok=True)
        state.end_leftovers()
        yield None
    finally:
        state.release()


def run(resolved: Resolved, state: StateDir, observer: Observer) -> None:
    """Run a stack until it is stopped and every part has ended. The state folder must be claimed.

    Raises Permanent if the gateway's address cannot be listened on.
    """
    spool = Path(resolved.blueprint.gateway.spool_path)
    opened = Opened.of(state, _listener(resolved.config), tls=resolved.blueprint.gateway.tls is not None)
    make_folder(spool)
    write_blueprint(resolved.blueprint, state.path)
    log = logs.configure(state.logs / "controller.log")
    warn_of_disk(spool, state.path)
    try:
        asyncio.run(_run(resolved, opened, observer))
    finally:
        log.close()


def _listener(config: Config) -> socket.socket:
    address = config.spec.gateway.address
    for variable in config.by_variable:
        # The key has been read: neither engines nor the gateway need it in their environment.
        os.environ.pop(variable, None)
    try:
        return listen(address.host, address.port)
    except OSError as exc:
        raise Permanent(
            f"cannot listen on {config.spec.gateway.listen}: {exc.strerror}",
            hint=listen_hint(exc, address.port, "another program has that port")
            + "; choose another with --listen 127.0.0.1:PORT",
        ) from exc


def warn_of_disk(spool: Path, state_path: Path) -> None:
    """Log a warning if the spool is on a disk: then requests wait for it."""
    if spool.is_relative_to(state_path):
        doing = "each request waits for the disk of the state folder; a writable /dev/shm is better"
        logs.get_logger("ledger").warning("spool_not_in_memory", spool=str(spool), doing=doing)


async def _run(resolved: Resolved, opened: Opened, observer: Observer) -> None:
    def show(status: StackStatus) -> None:
        with contextlib.suppress(OSError):  # the terminal is gone, the stack is not
            observer.see(status)
            if observer.hopeless and not status.gateway.draining:
                controller.stop()

    controller = Controller(resolved, opened, on_status=show, on_hurry=observer.hurry)
    looking = asyncio.create_task(_look(controller, observer))
    try:
        await controller.run()
    finally:
        looking.cancel()


async def _look(controller: Controller, observer: Observer) -> None:
    """Show a status every second until the outcome of the start is known."""
    while observer.waiting:
        await asyncio.sleep(_LOOK_S)
        controller.show()
