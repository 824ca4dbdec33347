"""Findings and engines out of an incident file.

Each may be written in more than one form; docs/health-diagnosis.md shows the plain one. Mistakes go to the `Reader`; nothing is judged
here.
"""

from collections.abc import Iterator

from freehold.core.findings import Finding, Verdict
from freehold.health.evidence.incident import Change
from freehold.health.evidence.surroundings import EngineEnd
from freehold.health.incident_file.counters import component_of
from freehold.health.incident_file.values import Data, Reader, as_map

_ENGINE_KEYS = (
    "replica", "name", "id", "engine", "type", "kind", "gateway_running", "started", "pid_state", "exit_code", "exit", "code", "exit_status", "returncode", "signal", "log_tail", "log",
    "stderr", "logs", "tail", "last_lines", "stderr_tail", "state", "status", "at", "pid", "model", "tokens_before", "tokens_after",
    "running", "exit_text", "health", "progress", "requests_running", "process_state", "restarts", "gpu", "uptime_s", "started_at",
)  # fmt: skip
_SIGNALS = {
    "SIGHUP": 1,
    "SIGINT": 2,
    "SIGILL": 4,
    "SIGABRT": 6,
    "SIGBUS": 7,
    "SIGFPE": 8,
    "SIGKILL": 9,
    "SIGSEGV": 11,
    "SIGTERM": 15,
}
"""Source: signal(7)."""
_FINDING_KEYS = ("probe", "name", "check", "component", "gpu", "verdict", "status", "state", "health", "reason", "message", "at", "at_s",
                 "evidence", "action", "node", "severity", "value")  # fmt: skip
_VERDICTS = {
    "ok": Verdict.HEALTHY, "pass": Verdict.HEALTHY, "passed": Verdict.HEALTHY, "good": Verdict.HEALTHY, "info": Verdict.HEALTHY,
    "warn": Verdict.DEGRADED, "warning": Verdict.DEGRADED, "degraded": Verdict.DEGRADED, "": Verdict.UNHEALTHY,
    "critical": Verdict.UNHEALTHY, "fail": Verdict.UNHEALTHY, "failed": Verdict.UNHEALTHY, "bad": Verdict.UNHEALTHY,
    "error": Verdict.UNHEALTHY, "fatal": Verdict.UNHEALTHY,
}  # fmt: skip


def findings(reader: Reader, value: object, path: str) -> list[Finding]:
    """Return findings; a verdict that is not given is a bad one, since nobody writes down what is well."""
    found: list[Finding] = []
    told = [_spoken(one) if isinstance(one, str) else one for _, one in reader.items(value, path)]
    for where, entry in reader.maps(told, path):
        reader.unknown(entry, where, _FINDING_KEYS)
        word = reader.text(entry, where, "verdict", "status", "state", "health", "severity").lower()
        verdict = _VERDICTS.get(word) or (Verdict(word) if word in set(Verdict) else None)
        if verdict is None:
            reader.problem(
                f"{where}.verdict",
                f"{word!r} is no verdict",
                "healthy, degraded, unhealthy, unknown or not_applicable",
            )
            continue
        gpu = reader.text(entry, where, "gpu")
        found.append(
            Finding(
                probe=reader.text(entry, where, "probe", "name", "check"),
                component=component_of(
                    reader.text(entry, where, "component") or (f"gpu:{gpu}" if gpu else "")
                ),
                verdict=verdict,
                reason=reader.text(entry, where, "reason"),
                message=reader.text(entry, where, "message"),
                at_s=reader.time(entry, where, "at", "at_s") or 0.0,
            )
        )
    return found


def _spoken(text: str) -> dict[str, str]:
    """Return a finding that stands as a sentence: what comes before a colon is its probe."""
    probe, _, message = text.partition(":")
    return {"probe": probe.strip() if message else text, "message": message.strip() or text}


def engines(reader: Reader, value: object, path: str) -> tuple[list[EngineEnd], list[Change]]:
    """Return engines' ends and their counters of progress, from a list or a map by replica."""
    data = as_map(value)
    if data is not None and not set(data) & set(_ENGINE_KEYS):
        value = [{"replica": key, **(as_map(entry) or {"state": entry})} for key, entry in data.items()]
    ends: list[EngineEnd] = []
    moved: list[Change] = []
    for index, (where, entry) in enumerate(reader.maps(value, path)):
        reader.unknown(entry, where, _ENGINE_KEYS)
        ends.append(_engine(reader, entry, where, index))
        moved.extend(_progress(reader, entry, where, ends[-1].replica))
    return ends, moved


def _engine(reader: Reader, entry: Data, path: str, index: int) -> EngineEnd:
    log = reader.pick(
        entry, path, ("log_tail", "log", "stderr", "logs", "tail", "last_lines", "stderr_tail", "exit_text")
    )
    return EngineEnd(
        replica=reader.text(entry, path, "replica", "name", "id") or str(index),
        engine=reader.text(entry, path, "engine", "type", "kind"),
        exit_code=_exit_code(reader, entry, path),
        log_tail=tuple(reader.lines(log[1], log[0])) if log else (),
        state=reader.text(entry, path, "process_state", "state", "status", "health", "progress"),
        at_s=reader.time(entry, path, "at") or 0.0,
    )


def _exit_code(reader: Reader, entry: Data, path: str) -> int | None:
    if (ended := as_map(entry.get("exit"))) is not None:
        return _exit_code(reader, ended, f"{path}.exit")
    signal = entry.get("signal")
    if isinstance(signal, str) and signal.upper() in _SIGNALS:
        return -_SIGNALS[signal.upper()]
    number = reader.number(entry, path, "signal")
    if number:
        return -abs(int(number))
    code = reader.number(entry, path, "exit_code", "exit", "code", "exit_status", "returncode")
    return None if code is None else int(code)


def _progress(reader: Reader, entry: Data, path: str, replica: str) -> Iterator[Change]:
    component = f"engine:{replica}"
    before, after = reader.number(entry, path, "tokens_before"), reader.number(entry, path, "tokens_after")
    running = reader.number(entry, path, "running", "requests_running", "gateway_running")
    if after is not None:
        yield Change(
            component=component, name="tokens_total", before=before, after=after, source="engine metrics"
        )
    if running is not None:
        yield Change(component=component, name="running", before=None, after=running, source="engine metrics")
