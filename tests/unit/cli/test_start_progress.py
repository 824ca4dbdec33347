import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from freehold.cli import start_progress as progress_module
from freehold.cli.background import _explain
from freehold.cli.start_progress import EXTERNAL_PATIENCE_S, StartOutcome, StartProgress
from freehold.core.errors import Permanent
from freehold.core.events import ReplicaState, ReplicaStatus
from freehold.stack.status import GatewayStatus, StackStatus

GATEWAY = GatewayStatus(
    url="http://127.0.0.1:8000/v1",
    pid=7,
    restarts=0,
    in_flight=0,
    requests_total=0,
    errors_total=0,
    draining=False,
)
DRAINING = msgspec.structs.replace(GATEWAY, draining=True, in_flight=1)


def stack(*states: str, engine: str = "llama-cpp", gateway: GatewayStatus = GATEWAY) -> StackStatus:
    """Return a stack of one model per state; `crash_loop` has words of its engine's."""
    replicas = [
        ReplicaStatus(
            id=f"m{index}-0",
            model=f"m{index}",
            engine=engine,
            state=ReplicaState(state),
            reason="it said [/bold]" if state in {"crash_loop", "backoff"} else "",
            hint="mend it" if state == "crash_loop" else "",
        )
        for index, state in enumerate(states)
    ]
    return StackStatus(
        config="c", state_dir="s", pid=1, started_wall_s=0, gateway=gateway, replicas=tuple(replicas)
    )


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Give `clock(seconds)`, which sets the clock of a start."""

    def at(now_s: float) -> None:
        monkeypatch.setattr(progress_module, "monotonic_s", lambda: now_s)

    at(0.0)
    return at


def test_a_start_off_a_terminal_tells_its_phases_once(
    clock: Callable[[float], None], capsys: pytest.CaptureFixture[str]
) -> None:
    progress = StartProgress(started_s=0, as_json=False)
    for reason in (
        "loading",
        "loading weights",
        "loading weights, 3%",
        "loading weights, 66% (last log line 8 s ago, its processes are busy)",
        "loading weights, 66%; no activity for 60 s: no log line, no processor time, nothing read",
        "loading weights, 66%; no activity for 62 s: no log line, no processor time, nothing read",
        "making its KV cache",
    ):
        status = stack("starting")
        (replica,) = status.replicas
        told = msgspec.structs.replace(replica, reason=reason)
        progress.see(msgspec.structs.replace(status, replicas=(told,)))
    assert capsys.readouterr().err.splitlines() == [
        "m0-0 starting: loading",
        "m0-0 starting: loading weights",
        "m0-0 starting: loading weights, 66%; no activity for 60 s: no log line, no processor time, nothing read",
        "m0-0 starting: making its KV cache",
    ]


def test_a_start_in_words(clock: Callable[[float], None], capsys: pytest.CaptureFixture[str]) -> None:
    progress = StartProgress(started_s=0, as_json=False)
    assert progress.see(stack("pending")) is StartOutcome.WAITING
    assert progress.see(stack("starting")) is StartOutcome.WAITING
    assert progress.see(stack("starting")) is StartOutcome.WAITING
    clock(2.0)
    assert progress.see(stack("ready")) is StartOutcome.READY
    shown = capsys.readouterr()
    assert shown.err.splitlines() == ["m0-0 starting", "m0-0 ready"]
    assert shown.out.splitlines()[1] == "          model      m0   llama-cpp   1 replica   ready in 2.0 s"
    assert progress.see(stack("backoff")) is StartOutcome.READY
    assert progress.see(stack("ready")) is StartOutcome.READY
    assert progress.see(stack("ready", gateway=DRAINING)) is StartOutcome.READY
    progress.see(stack("stopping", gateway=DRAINING))
    progress.see(stack("stopped"))
    progress.hurry()
    progress.close()
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines() == [
        "m0-0 backoff: it said [/bold]",
        "m0-0 ready",
        "Stopping: 1 request may finish first; once more (Ctrl-C, or freehold down --now) ends at once",
        "Ending at once.",
        "Down.",
    ]


def test_a_start_that_never_comes(capsys: pytest.CaptureFixture[str]) -> None:
    progress = StartProgress(started_s=0, as_json=False)
    assert progress.see(stack("crash_loop", "starting")) is StartOutcome.WAITING
    capsys.readouterr()
    # The stack is on its way down already, as the other half of `up -d` may see it first.
    assert progress.see(stack("crash_loop", "crash_loop", gateway=DRAINING)) is StartOutcome.HOPELESS
    assert progress.see(stack("stopped", "stopped", gateway=DRAINING)) is StartOutcome.HOPELESS
    progress.close()
    assert capsys.readouterr().err.splitlines() == [
        "m0-0 cannot be started: it said [/bold]",
        "    mend it",
        "m1-0 cannot be started: it said [/bold]",
        "    mend it",
        "    freehold logs shows what the engine wrote",
    ]


def test_a_model_that_cannot_be_served_is_an_error_and_the_others_serve(
    clock: Callable[[float], None], capsys: pytest.CaptureFixture[str]
) -> None:
    progress = StartProgress(started_s=0, as_json=True)
    assert progress.see(stack("ready", "crash_loop")) is StartOutcome.PARTLY
    said = json.loads(capsys.readouterr().out)
    assert said["error"]["message"] == "no replica of m1 is ready; the stack serves what is"
    assert said["status"]["replicas"][0]["state"] == "ready"


def test_endpoints_of_others_are_waited_for_a_while(clock: Callable[[float], None]) -> None:
    progress = StartProgress(started_s=0, as_json=True)
    clock(EXTERNAL_PATIENCE_S - 0.1)
    assert progress.see(stack("starting", engine="external")) is StartOutcome.WAITING
    clock(EXTERNAL_PATIENCE_S)
    assert progress.see(stack("starting", engine="external")) is StartOutcome.PARTLY


def test_in_json_there_is_one_line_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    progress = StartProgress(started_s=0, as_json=True)
    for state in ("pending", "starting", "backoff", "starting", "ready"):
        progress.see(stack(state))
    progress.see(stack("stopping", gateway=DRAINING))
    progress.close()
    shown = capsys.readouterr()
    assert shown.err == ""
    (line,) = shown.out.splitlines()
    assert set(json.loads(line)) == {"ready_s", "status"}


# What a background start says of a child that has ended


def explain(*answers: Any) -> StartOutcome:
    lines = [answer if isinstance(answer, bytes) else msgspec.json.encode(answer) for answer in answers]
    return _explain(lines, StartProgress(started_s=0, as_json=True))


def test_a_child_that_gave_up_is_quoted(capsys: pytest.CaptureFixture[str]) -> None:
    status = msgspec.to_builtins(stack("crash_loop"))
    assert explain({"error": {"message": "cannot", "hint": ""}, "status": status}) is StartOutcome.HOPELESS
    assert (
        json.loads(capsys.readouterr().out)["error"]["message"] == "cannot be started: m0-0: it said [/bold]"
    )


def test_a_child_that_failed_is_quoted() -> None:
    with pytest.raises(Permanent) as failed:
        explain(b"some words", {"error": {"message": "cannot listen", "hint": "choose"}})
    assert (failed.value.message, failed.value.hint) == ("cannot listen", "choose")


def test_a_child_that_died_after_it_was_ready_was_not_ready() -> None:
    with pytest.raises(Permanent, match="ended before it was ready"):
        explain({"ready_s": 1.0, "status": msgspec.to_builtins(stack("ready"))})


def test_without_a_json_error_of_the_child_its_last_lines_are_shown() -> None:
    with pytest.raises(Permanent) as failed:
        explain(*[f"line {n}".encode() for n in range(30)], b"\xff[1, 2]")
    assert failed.value.hint.splitlines()[0] == "line 11"
    assert failed.value.hint.endswith("\N{REPLACEMENT CHARACTER}[1, 2]")
