"""`freehold health`: what is known of this node, worst first, and what to do; record it, replay a record, diagnose an incident.

A running stack's agent is asked; without one this command looks once by itself. Exit codes: 0 no problem, 3 a problem,
1 nothing could be read or what is known is too old.
"""

import asyncio
import contextlib
from pathlib import Path
from threading import Event

import click
import msgspec

from freehold.cli.node.health_diagnose import diagnose
from freehold.cli.node.health_incidents import goes_on, incident_lines
from freehold.cli.node.health_set_healthy import set_healthy
from freehold.cli.node.health_table import BAD, lines_of, one_line, serving_on
from freehold.cli.terminal.agent_snapshot import asked
from freehold.cli.terminal.config import load_keyless
from freehold.cli.terminal.output import (
    UserMistakes,
    answer,
    duration_text,
    mistake,
    say_json,
    show_lines,
    styled,
)
from freehold.cli.terminal.place import StackPlace, find_config, json_option, stack_options
from freehold.cli.terminal.table import paragraph, terminal_columns
from freehold.core.clock import wall_s
from freehold.core.errors import FreeholdError, Permanent
from freehold.core.findings import Verdict
from freehold.core.problems import Problem
from freehold.core.units import Unreadable, parse_duration_s
from freehold.health.agent.one_shot import Replay, look_once
from freehold.health.agent.recording import RecordingHead, ViewRecorder, load_recording
from freehold.health.agent.runner import Runner, RunnerSetup
from freehold.health.collectors.disks import DiskOptions
from freehold.health.collectors.engines import EnginesReader
from freehold.health.model.snapshot import HealthSnapshot
from freehold.health.registry import all_probes
from freehold.stack.health_bridge import targets_from_status
from freehold.stack.health_settings import expected_of, health_settings, looking_sources
from freehold.stack.status import running_status

_WATCH_S = 2.0
"""Between two pictures of --watch. Source: the agent's own fastest pace."""
_LONGEST_S = 24 * 3600.0
"""Longest recording. Source: our own choice: a day of a node with eight GPUs is some 2 GB."""


@click.group("health", invoke_without_command=True)
@click.option("--watch", is_flag=True, help="Show it again every 2 s until Ctrl-C.")
@stack_options
@json_option
@click.pass_context
def command(ctx: click.Context, *, watch: bool, stack: StackPlace, as_json: bool) -> int:
    """Show what is known of this node: disks, GPUs, network, engines; worst first, with what to do."""
    if ctx.invoked_subcommand is not None:
        return 0
    state_path = stack.state_path
    snapshot = asked(state_path)
    if snapshot is None:
        snapshot = _looked(stack.config_path, as_json=as_json)
        watch = False  # one look takes seconds; there is no agent to watch
    code = _show(snapshot, _serving(state_path), as_json=as_json)
    while watch:
        Event().wait(_WATCH_S)
        newer = asked(state_path)
        if newer is None:
            raise Permanent("the stack has ended", hint="freehold up starts it again")
        if not as_json:
            click.clear()
        code = _show(newer, _serving(state_path), as_json=as_json)
    return code


def _serving(state_path: Path) -> dict[str, list[str]]:
    """Return which replicas are on which GPU; empty: no stack runs, or it does not answer."""
    with contextlib.suppress(FreeholdError):
        status = running_status(state_path)
        return serving_on(status.replicas) if status is not None else {}
    return {}


def _looked(config_path: Path | None, *, as_json: bool) -> HealthSnapshot:
    settings = health_settings(load_keyless(config_path))
    if not as_json:
        click.echo("No agent runs here: looking once, which takes some seconds.", err=True)
    with looking_sources(settings) as sources:
        looking = look_once(sources, all_probes(), node=settings.name, expected=settings.expected)
        return asyncio.run(looking)


def _show(snapshot: HealthSnapshot, serving: dict[str, list[str]], *, as_json: bool) -> int:
    age_s = max(0.0, wall_s() - snapshot.at_s)
    stale = snapshot.is_stale(wall_s())
    if as_json:
        more = {"verdict": snapshot.verdict, "stale": stale, "age_s": age_s, "replicas_on": serving}
        say_json({**msgspec.to_builtins(snapshot), **more})
    else:
        columns = terminal_columns()
        show_lines([*incident_lines(snapshot, columns), *lines_of(snapshot, serving, columns)])
        show_lines(styled(line, dim=True) for line in paragraph(_foot(snapshot, age_s), columns))
        if stale:
            click.echo(f"{styled('too old', colour='red')}: the agent has said nothing since", err=True)
    return exit_code(snapshot, stale=stale)


def _foot(snapshot: HealthSnapshot, age_s: float) -> str:
    who = f"agent pid {snapshot.pid}" if snapshot.pid else "looked once"
    late = [f"{reader.name} {reader.state}" for reader in snapshot.readers if reader.state != "ok"]
    readers = f"; readers: {', '.join(late)}" if late else ""
    return f"{snapshot.node}: {snapshot.verdict}; {who}, {duration_text(age_s)} ago{readers}"


def exit_code(snapshot: HealthSnapshot, *, stale: bool) -> int:
    """Return 3 for a problem, 1 where nothing is known, else 0."""
    verdicts = {each.finding.verdict for each in snapshot.findings}
    if stale:
        return 1
    if verdicts & BAD or goes_on(snapshot):
        return 3
    return 0 if Verdict.HEALTHY in verdicts else 1


diagnose.short_help = "Say what caused an incident, with evidence for and against."
command.add_command(diagnose)
command.add_command(set_healthy)


@command.command("record", short_help="Write down every reading of this node, to be replayed.")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--for", "for_", metavar="TIME", default="60s", show_default=True, help="How long.")
@click.option("--about", metavar="TEXT", default="", help="A title of what happens.")
@stack_options
@json_option
def record(file: Path, *, for_: str, about: str, stack: StackPlace, as_json: bool) -> int:
    """Write every reading of this node into FILE, a view a line, for as long as --for says or until Ctrl-C.

    It holds what was read (kernel lines, serial numbers and names of this node among them) and no prompt or answer.
    """
    seconds = parse_duration_s(for_)
    if isinstance(seconds, Unreadable) or not 0 < seconds <= _LONGEST_S:
        raise mistake("--for", f"must be above 0 and at most 24h, not {for_!r}", "for example 60s or 5m")
    settings = health_settings(load_keyless(stack.config_path))
    engines = EnginesReader()
    with contextlib.suppress(FreeholdError):
        engines.targets = targets_from_status(running_status(stack.state_path))
    try:
        pace_s = DiskOptions().write_interval_s  # hours of a look's pace would be many writes
        with (
            file.open("xb") as out,
            looking_sources(settings, engines, write_interval_s=pace_s) as sources,
        ):
            head = RecordingHead(node=settings.name, about=about, expected=settings.expected)
            recorder = ViewRecorder(out, head)
            views = asyncio.run(
                _record(
                    Runner(sources, all_probes(), RunnerSetup(node=settings.name, on_view=recorder.add)),
                    seconds,
                )
            )
    except FileExistsError as exc:
        raise Permanent(
            f"{file} is there already", hint="choose another name: a record is not overwritten"
        ) from exc
    except OSError as exc:
        raise Permanent(f"cannot write {file}: {exc.strerror or exc}") from exc
    text = f"{views} views in {file}; freehold health replay {file} judges them again"
    answer({"file": str(file), "views": views, "seconds": seconds}, text, as_json=as_json)
    return 0


async def _record(runner: Runner, seconds: float) -> int:
    running = asyncio.create_task(runner.run())
    try:
        await asyncio.wait({running}, timeout=seconds)
    finally:
        running.cancel()
        await asyncio.wait({running})
    return runner.views_total


@command.command("replay", short_help="Judge a record again, as if it were now.")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--config",
    "-c",
    "config_flag",
    type=click.Path(path_type=Path),
    help="Judge by what this configuration expects of the node, instead of what stands in FILE.",
)
@json_option
def replay(file: Path, *, config_flag: Path | None, as_json: bool) -> int:
    """Judge what FILE recorded as the agent would have: each change of a verdict, then what was believed at the end.

    What the node should have had (health.expect) stands in FILE.
    Exit code: 0 nothing wrong at any time, 3 a problem was seen, 2 the file is no record.
    """
    recording = load_recording(file)
    if not recording.views:
        raise UserMistakes(recording.problems or [Problem(where=str(file), message="it has no view")])
    expected = recording.head.expected
    if config_flag is not None:
        expected = expected_of(load_keyless(find_config(config_flag)).spec.health.expect)
    replaying = Replay(all_probes(), expected)
    first_s = recording.views[0].at_s
    seen = False
    for view in recording.views:
        for finding in replaying.add(view):
            seen |= finding.verdict in BAD
            if not as_json and finding.verdict in BAD:
                click.echo(f"{view.at_s - first_s:8.1f} s  {one_line(finding)}")
    last = recording.views[-1]
    snapshot = replaying.snapshot(last.node or recording.head.node, last.at_s)
    if as_json:
        say_json({**msgspec.to_builtins(snapshot), "verdict": snapshot.verdict, "problem_seen": seen})
    else:
        columns = terminal_columns()
        show_lines([*incident_lines(snapshot, columns), *lines_of(snapshot, columns=columns)])
        for problem in recording.problems:
            click.echo(str(problem), err=True)
    return 3 if seen else 0
