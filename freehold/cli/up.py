"""`freehold up`: everything that can be wrong is checked first, then weights, engines, gateway; then it serves.

In the foreground Ctrl-C drains and ends it, a second Ctrl-C does not wait. With `-d` the same command runs in the
background (`cli.background`) and this one waits until it is ready, so that a script may go on when it returns.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path

import click

from freehold.cli.background import start_in_background
from freehold.cli.config import load_config
from freehold.cli.fetch_progress import showing
from freehold.cli.output import UserMistakes, duration_text
from freehold.cli.place import config_option, find_config, json_option, state_dir_option
from freehold.cli.start_progress import Outcome, Watcher
from freehold.core.clock import monotonic_s, wall_s
from freehold.core.errors import Permanent
from freehold.fleet.control.state_dir import StateDir
from freehold.fleet.gpus.pools import NodeGpus
from freehold.gateway.callers.keys import why_refused
from freehold.gateway.process.listener import listen
from freehold.ledger.spool import make_folder, spool_folder
from freehold.stack.config import Config
from freehold.stack.controller import Controller, Prepared, plans_for
from freehold.stack.fetch import fetch_weights
from freehold.stack.folders import state_dir_for
from freehold.stack.gpu_allocation import gpu_problems, gpus_for, unseen
from freehold.stack.key_file import read_keys_of
from freehold.stack.prebuilt_engines import engine_fits, local_folders
from freehold.stack.status import StackStatus
from freehold.telemetry import logs

_LOOK_S = 1.0  # How often the screen is brought up to date when nothing happens.


@click.command("up")
@config_option
@state_dir_option
@click.option(
    "--listen",
    metavar="ADDRESS:PORT",
    help="Where the gateway listens, instead of the file's gateway.listen.",
)
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
    if config.spec.gateway.auth == "keys":
        _look_at_keys(config)
    watcher = Watcher(started_s=started_s, as_json=as_json)
    gpus = gpus_for(config)
    for said in unseen(config, gpus):
        click.echo(said, err=True)
    refuse_too_few(config, local_folders(config), gpus=gpus, as_json=as_json)
    with _claimed(state, config):
        with showing(quiet=as_json) as show:
            weights = fetch_weights(config, show)
        mistakes = [problem for fit in engine_fits(config, weights) for problem in fit.problems]
        if mistakes:
            raise UserMistakes(mistakes, as_json=as_json)
        refuse_too_few(config, weights, gpus=gpus, as_json=as_json)
        if not detach:
            return _foreground(config, state, weights, gpus=gpus, watcher=watcher)
    return start_in_background(config, state, watcher)


def _look_at_keys(config: Config) -> None:
    """Say what a person should know of the keys before anything starts; a broken file ends the start here."""
    if not any(not why_refused(record, wall_s()) for record in read_keys_of(config)):
        click.echo("No API key is accepted yet. Next: freehold key create NAME", err=True)
    if not config.spec.gateway.address.loopback:
        said = "is plain HTTP, so keys and prompts can be read on the network: put TLS in front where that matters."
        click.echo(f"{config.spec.gateway.listen} {said}", err=True)


@contextlib.contextmanager
def _claimed(state: StateDir, config: Config) -> Iterator[None]:
    """Hold the state folder, or say who does."""
    other = state.claim(config_path=config.name)
    if other is not None:
        age = f" for {duration_text(wall_s() - other.since_wall_s)}" if other.since_wall_s else ""
        raise Permanent(
            f"{other.config_path or 'a stack'} is already up{age} (pid {other.pid or 'unknown'})",
            hint="freehold status shows it, freehold down ends it; --state-dir runs another beside it",
        )
    try:
        # What is fetched ends at SIGTERM as at Ctrl-C, which a shell may have had ignored for what it starts in the background.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        state.logs.mkdir(mode=0o700, exist_ok=True)
        state.end_leftovers()
        yield
    finally:
        state.release()


def refuse_too_few(config: Config, weights: Mapping[str, Path], *, gpus: NodeGpus, as_json: bool) -> None:
    """Raise UserMistakes where the node has too few GPUs for what is wanted, or others; unknown ones refuse nobody.

    What is built for a number of GPUs says so in its weights, so this is asked before and after these are here.
    """
    problems = gpu_problems(config, plans_for(config, weights), gpus)
    if problems:
        raise UserMistakes(problems, as_json=as_json)


def _foreground(
    config: Config, state: StateDir, weights: dict[str, Path], *, gpus: NodeGpus, watcher: Watcher
) -> int:
    address = config.spec.gateway.address
    for variable in config.by_variable:
        # The key is read: neither engines nor the gateway's own environment need to hold it.
        os.environ.pop(variable, None)
    try:
        listener = listen(address.host, address.port)
    except OSError as exc:
        raise Permanent(
            f"cannot listen on {config.spec.gateway.listen}: {exc.strerror}",
            hint="another program has that port: choose one with --listen 127.0.0.1:PORT",
        ) from exc
    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    spool = spool_folder(state.path)
    make_folder(spool)
    prepared = Prepared(
        config=config, state=state, listener=listener, url=url, weights=weights, spool=spool, gpus=gpus
    )
    log = logs.configure(state.logs / "controller.log")
    warn_of_disk(spool, state.path)
    try:
        asyncio.run(_run(prepared, watcher))
    finally:
        watcher.close()
        log.close()
    return 1 if watcher.outcome is Outcome.HOPELESS else 0


def warn_of_disk(spool: Path, state_path: Path) -> None:
    """Say in the log that requests will wait for a disk, where the spool is on one."""
    if spool.is_relative_to(state_path):
        doing = "each request waits for the disk of the state folder; a writable /dev/shm is better"
        logs.get_logger("ledger").warning("spool_not_in_memory", spool=str(spool), doing=doing)


async def _run(prepared: Prepared, watcher: Watcher) -> None:
    def show(status: StackStatus) -> None:
        with contextlib.suppress(OSError):  # the terminal is gone, the stack is not
            if watcher.see(status) is Outcome.HOPELESS and not status.gateway.draining:
                controller.stop()

    controller = Controller(prepared, on_status=show, on_hurry=watcher.hurry)
    looking = asyncio.create_task(_look(controller, watcher))
    try:
        await controller.run()
    finally:
        looking.cancel()


async def _look(controller: Controller, watcher: Watcher) -> None:
    """Bring the screen up to date also when nothing happens."""
    while watcher.outcome is Outcome.WAITING:
        await asyncio.sleep(_LOOK_S)
        controller.show()
