"""`freehold up`: everything that can be wrong is checked first, then weights, engines, gateway; then it serves.

In the foreground Ctrl-C drains and ends it, a second Ctrl-C does not wait. With `-d` the same command runs in the
background and this one waits until it is ready, so that a script may go on when it returns.
"""

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
from rich.console import Console

from freehold.cli.config import (
    Config,
    config_option,
    find_config,
    json_option,
    load_config,
    state_dir_for,
    state_dir_option,
)
from freehold.cli.controller import Controller, Prepared
from freehold.cli.fetching import Wanted, pull_all
from freehold.cli.report import StackStatus, show_ready
from freehold.cli.say import duration_text, say_json
from freehold.cli.status import running_status
from freehold.core.clock import monotonic_s, wall_s
from freehold.core.errors import Permanent, Temporary
from freehold.core.events import ReplicaState
from freehold.fleet.control import StateDir
from freehold.gateway.listener import listen
from freehold.telemetry import logs
from freehold.weights.store import Store, store_root

_LOOK_AGAIN_S = 0.1  # How often a waiting `up -d` asks; readiness takes seconds.
_OUTPUT_LINES_SHOWN = 20  # Of a background start that failed: its own words, not its whole log.


@click.command("up")
@config_option
@state_dir_option
@click.option("--listen", help="ADDRESS:PORT of the gateway, instead of the file's gateway.listen.")
@click.option(
    "--detach", "-d", is_flag=True, help="Return when everything is ready and go on in the background."
)
@json_option
def command(
    config_flag: Path | None, state_dir: Path | None, *, listen: str | None, detach: bool, as_json: bool
) -> int:
    """Fetch the weights, start the engines and the gateway, and serve."""
    started_s = monotonic_s()
    path = find_config(config_flag)
    config = load_config(path, overrides={"gateway.listen": listen}, as_json=as_json)
    state = StateDir(state_dir_for(state_dir, path))
    if path is None and not as_json:
        click.echo("No freehold.yaml here: running the built-in example (freehold init writes it).", err=True)
    with _claimed(state, config):
        weights = _fetch(config, quiet=as_json)
        if not detach:
            return _foreground(config, state, weights, started_s=started_s, as_json=as_json)
    return _background(config, state, started_s=started_s, as_json=as_json)


@contextlib.contextmanager
def _claimed(state: StateDir, config: Config) -> Iterator[None]:
    """Hold the state folder, or say who does."""
    other = state.claim(config_path=config.name)
    if other is not None:
        since = f" since {duration_text(wall_s() - other.since_wall_s)}" if other.since_wall_s else ""
        raise Permanent(
            f"{other.config_path or 'a stack'} is already up{since} (pid {other.pid or 'unknown'})",
            hint="freehold status shows it, freehold down ends it; --state-dir runs another beside it",
        )
    try:
        state.logs.mkdir(mode=0o700, exist_ok=True)
        state.end_leftovers()
        yield
    finally:
        state.release()


def _fetch(config: Config, *, quiet: bool) -> dict[str, Path]:
    """Return the verified weights by model name; a failure names each model that has none."""
    wanted = [
        Wanted(name=model.name, source=model.source, sha256=model.sha256, base_dir=config.base_dir)
        for model in config.spec.models
        if model.managed
    ]
    pulled = pull_all(Store(store_root(os.environ)), wanted, quiet=quiet)
    failed = [each for each in pulled if each.error is not None]
    if failed:
        said = "; ".join(f"{each.wanted.name}: {each.error}" for each in failed)
        raise Permanent(f"no weights for {said}", hint=next((e.error.hint for e in failed if e.error), ""))
    return {each.wanted.name: each.path for each in pulled if each.path is not None}


# In the foreground


def _foreground(
    config: Config, state: StateDir, weights: dict[str, Path], *, started_s: float, as_json: bool
) -> int:
    log = logs.configure(state.logs / "controller.log")
    address = config.spec.gateway.address
    try:
        listener = listen(address.host, address.port)
    except OSError as exc:
        raise Permanent(
            f"cannot listen on {config.spec.gateway.listen}: {exc.strerror}",
            hint="another program has that port: choose one with --listen 127.0.0.1:PORT",
        ) from exc
    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    prepared = Prepared(config=config, state=state, listener=listener, url=url, weights=weights)
    watcher = Watcher(started_s=started_s, as_json=as_json)
    try:
        asyncio.run(_run(prepared, watcher))
    finally:
        watcher.close()
        log.close()
    return watcher.exit_code


async def _run(prepared: Prepared, watcher: "Watcher") -> None:
    controller = Controller(prepared, on_status=lambda status: watcher.see(status, controller))
    await controller.run()


class Watcher:
    """Shows a person, or a script, how a stack gets ready; ends one that never will."""

    def __init__(self, *, started_s: float, as_json: bool) -> None:
        self.exit_code = 0
        self._started_s = started_s
        self._as_json = as_json
        self._ready = False
        self._states: dict[str, ReplicaState] = {}
        self._console = Console(stderr=True, highlight=False)
        self._spinner = self._console.status("") if self._console.is_terminal and not as_json else None

    def see(self, status: StackStatus, controller: Controller | None = None) -> bool:
        """Take a newer status and return whether waiting is over."""
        self._show_changes(status)
        if self._ready or self.exit_code:
            return True
        if status.all_ready:
            self._ready = True
            self._stop_spinner()
            self._show_ready(status)
        elif status.hopeless:
            self._give_up(status)
            if controller is not None:
                controller.stop()
        return self._ready or bool(self.exit_code)

    def close(self) -> None:
        """Take the spinner off the screen."""
        self._stop_spinner()

    def _show_ready(self, status: StackStatus) -> None:
        took_s = monotonic_s() - self._started_s
        if self._as_json:
            say_json({"ready_s": round(took_s, 3), "status": status})
        else:
            show_ready(status, took_s=took_s)

    def _give_up(self, status: StackStatus) -> None:
        self.exit_code = 1
        self._stop_spinner()
        if self._as_json:
            say_json({"error": {"message": "no replica can be started", "hint": ""}, "status": status})
            return
        for replica in status.hopeless:
            self._console.print(f"[red]{replica.id}[/] cannot be started: {replica.reason}", soft_wrap=True)
            if replica.hint:
                self._console.print(f"    {replica.hint}", soft_wrap=True)
        self._console.print("    freehold logs shows what the engine wrote")

    def _show_changes(self, status: StackStatus) -> None:
        changed = [r for r in status.replicas if self._states.get(r.id) is not r.state]
        self._states = {replica.id: replica.state for replica in status.replicas}
        if self._as_json:
            return
        if self._spinner is not None and not self._ready:
            waiting = [r for r in status.replicas if r.state is not ReplicaState.READY]
            self._spinner.update("   ".join(f"{r.id} {r.state.value} {r.reason}".rstrip() for r in waiting))
            self._spinner.start()
            return
        for replica in changed:
            note = "; ".join(filter(None, (replica.reason, replica.hint)))
            self._console.print(
                f"{replica.id} {replica.state.value}{f': {note}' if note else ''}", soft_wrap=True
            )

    def _stop_spinner(self) -> None:
        if self._spinner is not None:
            self._spinner.stop()


# In the background


def _background(config: Config, state: StateDir, *, started_s: float, as_json: bool) -> int:
    output_path = state.logs / "up.log"
    arguments = ["--state-dir", str(state.path), "--listen", config.spec.gateway.listen]
    if config.path is not None:
        arguments += ["--config", str(config.path)]
    with output_path.open("wb") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "freehold", "up", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    watcher = Watcher(started_s=started_s, as_json=as_json)
    try:
        return _wait_ready(child, state, watcher, output_path)
    finally:
        watcher.close()


def _wait_ready(
    child: "subprocess.Popen[bytes]", state: StateDir, watcher: Watcher, output_path: Path
) -> int:
    while True:
        with contextlib.suppress(Temporary):  # it is busy starting: ask again
            status = running_status(state.path)
            if status is not None and watcher.see(status):
                return watcher.exit_code
        try:
            child.wait(_LOOK_AGAIN_S)
        except subprocess.TimeoutExpired:
            continue
        said = output_path.read_text("utf-8", "replace").splitlines()[-_OUTPUT_LINES_SHOWN:]
        raise Permanent("the stack ended before it was ready", hint="\n    ".join(said))
