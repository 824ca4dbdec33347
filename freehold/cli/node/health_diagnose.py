"""`freehold health diagnose`: a verdict on an incident file, a recording or a kernel log, with evidence for and against.

Exit codes: 0 nothing points to a fault, 3 a problem is diagnosed, 2 the file is not as it must be. Nothing is changed on any machine,
and nothing is read but the files that were named.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from freehold.cli.node.health_incidents import evidence_lines, goes_on, incident_json, whole_lines
from freehold.cli.terminal.agent_snapshot import asked
from freehold.cli.terminal.output import UserMistakes, answer, mistake, styled
from freehold.cli.terminal.place import StackPlace, stack_options
from freehold.core.clock import wall_s
from freehold.core.places import read_tree
from freehold.core.problems import Problem
from freehold.health.agent.history_file import HistoryFile
from freehold.health.evidence.diagnose import Diagnosis
from freehold.health.incident_file.read import (
    IncidentCases,
    read_incident,
    read_kernel_log,
    with_history,
)
from freehold.health.incident_file.schema import schema_text
from freehold.health.incidents.conclusions import diagnose_all, foremost

BYTES_MOST = 64_000_000
"""Largest file that is read. Source: our own choice: a day of kernel log, or an hour of views."""


@click.command("diagnose")
@click.argument("file", required=False, type=click.Path(path_type=Path, allow_dash=True))
@click.option(
    "--kernel-log",
    metavar="FILE",
    type=click.Path(path_type=Path, allow_dash=True),
    help="Read kernel lines alone: what dmesg or journalctl -k prints; - is standard input.",
)
@click.option(
    "--history",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="What was diagnosed before (JSON lines), so that repetitions are found.",
)
@click.option("--schema", is_flag=True, help="Print the JSON schema of an incident file, and read nothing.")
@stack_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def diagnose(
    file: Path | None,
    kernel_log: Path | None,
    history: Path | None,
    *,
    schema: bool,
    stack: StackPlace,
    as_json: bool,
) -> int:
    """Say what caused an incident: hypothesis, confidence, action, evidence for and against.

    FILE is an incident file (docs/health-diagnosis.md describes it) or what `freehold health record` wrote; - is standard input.
    Without a file: what the running agent makes of this node's own incidents.
    Exit code: 0 nothing points to a fault, 3 a problem is diagnosed, 2 the file is wrong.
    """
    if schema:
        click.echo(schema_text(), nl=False)
        return 0
    if file is None and kernel_log is None and history is None:
        return _live(stack.state_path, as_json=as_json)
    if (file is None) == (kernel_log is None):
        raise click.UsageError("name one file: an incident file, or a kernel log with --kernel-log")
    read = _kernel(kernel_log) if kernel_log else _incident(file or Path())
    if read.problems:
        raise UserMistakes(read.problems)
    diagnoses = diagnose_all(with_history(read, HistoryFile(history).load()) if history else read.cases)
    main = foremost(diagnoses)
    text = verdict_text(main, diagnoses, read.ignored)
    answer(verdict_json(main, diagnoses, read.ignored), text, as_json=as_json)
    return 3 if main is not None and main.problem else 0


def _live(state_path: Path, *, as_json: bool) -> int:
    snapshot = asked(state_path)
    if snapshot is None:
        raise click.UsageError("no agent runs here: name an incident file, or a kernel log with --kernel-log")
    answer(incident_json(snapshot), "\n".join(whole_lines(snapshot)), as_json=as_json)
    return 3 if goes_on(snapshot) else 0


def _read(path: Path) -> str:
    """Return the text of a file or of standard input; raises UserMistakes."""
    try:
        data = sys.stdin.buffer.read(BYTES_MOST + 1) if str(path) == "-" else _bytes(path)
    except OSError as exc:
        raise mistake(str(path), f"cannot be read: {exc.strerror or exc}") from exc
    if len(data) > BYTES_MOST:
        message = f"is larger than {BYTES_MOST // 1_000_000} MB"
        raise mistake(str(path), message, "cut it to the time of the incident")
    return data.decode("utf-8-sig", "replace")  # Windows puts a mark in front


def _bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(BYTES_MOST + 1)


def _kernel(path: Path) -> IncidentCases:
    text = _read(path)
    read = read_kernel_log(text, str(path), now_s=wall_s())
    if (
        text.strip()
        and not read.cases
        and len(read.ignored) >= len([line for line in text.splitlines() if line.strip()])
    ):
        hint = "lines of dmesg, journalctl -k, kern.log or /dev/kmsg"
        raise mistake(f"{path}:1:1", "there is no kernel line in it", hint)
    return read


def _incident(path: Path) -> IncidentCases:
    text = _read(path)
    if path.suffix in {".yaml", ".yml"}:
        tree = read_tree(text, str(path))
        if tree.mistakes:
            raise UserMistakes(
                Problem(where=str(m.place), message=m.message, hint=m.hint) for m in sorted(tree.mistakes)
            )
        return read_incident(tree.data, str(path))
    return _json(text, str(path))


def _json(text: str, name: str) -> IncidentCases:
    """Read JSON, or JSON lines as a recording has them."""
    try:
        return read_incident(json.loads(text), name)
    except RecursionError as exc:
        raise mistake(f"{name}:1:1", "it nests too deep") from exc
    except json.JSONDecodeError as exc:
        first = exc
    try:
        lines = [json.loads(line) for line in text.splitlines() if line.strip()]
    except (json.JSONDecodeError, RecursionError):
        lines = []
    if len(lines) > 1:
        return read_incident(lines, name)
    where = f"{name}:{first.lineno}:{first.colno}"
    raise mistake(where, f"this is not JSON: {first.msg}", "see docs/health-diagnosis.md")


def verdict_json(
    main: Diagnosis | None, diagnoses: Sequence[Diagnosis], ignored: Sequence[str]
) -> dict[str, object]:
    """Return what `--json` prints: the foremost diagnosis at the top, every incident below it."""
    top = _one(main) if main else _EMPTY
    return {**top, "incidents": [_one(diagnosis) for diagnosis in diagnoses], "ignored": list(ignored)}


_EMPTY: dict[str, object] = {
    "hypothesis": "undetermined",
    "component": "",
    "confidence": 0.0,
    "action": "none",
    "evidence": [],
    "evidence_against": [],
    "what_would_change_it": "any kernel event, finding or counter that a rule knows",
    "problem": False,
    "summary": "nothing here points to a fault",
    "caution": "",
    "incident": None,
}


def _one(diagnosis: Diagnosis) -> dict[str, object]:
    incident = diagnosis.incident
    return {
        "hypothesis": str(diagnosis.hypothesis),
        "component": diagnosis.component,
        "confidence": diagnosis.confidence,
        "action": str(diagnosis.action),
        "evidence": [asdict(entry) for entry in diagnosis.evidence],
        "evidence_against": [asdict(entry) for entry in diagnosis.evidence_against],
        "what_would_change_it": diagnosis.what_would_change_it,
        "problem": diagnosis.problem,
        "summary": diagnosis.summary,
        "caution": diagnosis.caution,
        "incident": {
            "node": incident.node,
            "start_s": incident.start_s,
            "end_s": incident.end_s,
            "events": len(incident.events),
            "followers": [f"XID {event.number} {event.component}" for event in incident.followers],
        },
    }


def verdict_text(main: Diagnosis | None, diagnoses: Sequence[Diagnosis], ignored: Sequence[str]) -> str:
    """Return what a person reads."""
    lines = _lines(main) if main is not None and main.problem else ["nothing here points to a fault"]
    others = [diagnosis for diagnosis in diagnoses if diagnosis is not main and diagnosis.problem]
    lines += [f"also: {diagnosis.summary}" for diagnosis in others]
    lines += [f"left out, not understood: {path}" for path in ignored]
    return "\n".join(lines)


def _lines(main: Diagnosis) -> list[str]:
    head = f"{main.hypothesis}  {main.component}".rstrip()
    lines = [styled(f"{head}  {main.confidence:.0%}", bold=True), f"  {main.summary}", f"  do: {main.action}"]
    if main.caution:
        lines.append(f"      {main.caution}")
    for title, entries in (("for", main.evidence), ("against", main.evidence_against)):
        lines += evidence_lines(title, entries)
    return [*lines, f"  what would change it: {main.what_would_change_it}"]


command = diagnose
