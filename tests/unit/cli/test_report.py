import json

import msgspec
import pytest

from freehold.cli.terminal.output import duration_text, show_problems, styled, wants_json
from freehold.cli.terminal.report import show_ready, show_status
from freehold.core.clock import wall_s
from freehold.core.events import ReplicaState, ReplicaStatus
from freehold.stack.status import GatewayStatus, StackStatus, with_ejected

GATEWAY = GatewayStatus(
    url="http://127.0.0.1:8000/v1",
    pid=7,
    restarts=0,
    in_flight=1,
    requests_total=12,
    errors_total=3,
    draining=False,
)


def replica(name: str = "m-0", state: ReplicaState = ReplicaState.READY, **more: object) -> ReplicaStatus:
    facts = {"id": name, "model": name.rpartition("-")[0], "engine": "llama-cpp", "state": state, "pid": 41}
    return msgspec.convert(facts | more, ReplicaStatus)


def stack(*replicas: ReplicaStatus, gateway: GatewayStatus = GATEWAY) -> StackStatus:
    return StackStatus(
        config="/etc/[red]free/hold.yaml",
        state_dir="/s",
        pid=5,
        started_wall_s=wall_s() - 125,
        gateway=gateway,
        replicas=replicas,
    )


@pytest.fixture
def columns(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    return monkeypatch


BROKEN = replica(
    "model-with-a-long-name-1",
    ReplicaState.CRASH_LOOP,
    pid=None,
    restarts=4,
    reason="it said [/bold] and " + "no more " * 20,
    hint="mend it",
)


def test_off_a_terminal_a_row_is_one_line_however_long(
    columns: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    show_status(stack(replica("m-0", tokens_per_s=41.25, ready_wall_s=wall_s() - 3), BROKEN))
    lines = capsys.readouterr().out.splitlines()
    assert (
        lines[0] == "gateway  http://127.0.0.1:8000/v1   serving, 1 requests under way, 12 so far, 3 failed"
    )
    assert lines[1].split() == ["replica", "engine", "state", "uptime", "tokens/s", "restarts", "pid"]
    assert lines[2].split() == ["m-0", "llama-cpp", "ready", "3.0", "s", "41.2", "0", "41"]
    assert lines[3].split() == ["model-with-a-long-name-1", "llama-cpp", "crash_loop", "4"]
    assert lines[4] == f"    {BROKEN.reason}; mend it"
    assert lines[5] == "/etc/[red]free/hold.yaml; up 2 min, pid 5"
    assert len(lines) == 6
    assert lines[1].index("state") == lines[2].index("ready") == lines[3].index("crash_loop")


def test_a_replica_that_is_ready_again_shows_why_it_was_restarted(
    columns: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    past = {"restarts": 2, "last_end": "it crashed\nwith SIGSEGV", "last_end_wall_s": wall_s() - 61}
    show_status(stack(replica(**past), replica("m-1", ReplicaState.BACKOFF, reason=past["last_end"], **past)))
    out = capsys.readouterr().out
    assert "    restarted 2 times, last: it crashed\\nwith SIGSEGV, 1 min ago\n" in out
    assert out.count("SIGSEGV") == 2


def test_a_narrow_terminal_gets_a_block_per_replica(
    columns: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    columns.setenv("COLUMNS", "40")
    show_status(stack(replica("m-0"), BROKEN))
    out = capsys.readouterr().out
    assert out.startswith(
        "gateway  http://127.0.0.1:8000/v1\n    serving, 1 requests under way, 12 so\n    far, 3 failed\n"
    )
    assert (
        "m-0\n  engine    llama-cpp\n  state     ready\n  tokens/s  unknown\n  restarts  0\n  pid       41\n"
        in out
    )
    assert "model-with-a-long-name-1\n  engine    llama-cpp\n  state     crash_loop\n  restarts  4\n" in out
    assert max(map(len, out.splitlines())) <= 40
    columns.setenv("COLUMNS", "100")
    show_status(stack(replica("m-0"), BROKEN))
    assert "replica " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"draining": True}, "draining, 1 requests"),
        ({"pid": None, "in_flight": None}, "not running, load unknown"),
    ],
)
def test_what_the_gateway_does(
    change: dict[str, object], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    show_status(stack(replica(), gateway=msgspec.structs.replace(GATEWAY, **change)))
    assert words in capsys.readouterr().out


def test_the_summary_of_a_start(capsys: pytest.CaptureFixture[str]) -> None:
    show_ready(stack(replica("a-0"), replica("a-1"), BROKEN, replica("b-0")), took_s=2.06)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        "freehold  gateway    http://127.0.0.1:8000/v1      (OpenAI API)",
        "          model      a   llama-cpp   2 replicas   ready in 2.1 s",
    ]
    assert lines[2] == "          model      model-with-a-long-name   llama-cpp   0 of 1 replica   not ready"
    assert lines[3].endswith(f"model-with-a-long-name-1 crash_loop: {BROKEN.reason}; mend it")
    assert lines[4] == "          model      b   llama-cpp   1 replica   ready in 2.1 s"


def test_settled_hopeless_unserved() -> None:
    loading, external = replica("m-1", ReplicaState.STARTING), replica("x-0", ReplicaState.STARTING)
    external = msgspec.structs.replace(external, engine="external")

    def settled(*replicas: ReplicaStatus, waited_s: float = 0, gateway: GatewayStatus = GATEWAY) -> bool:
        return stack(*replicas, gateway=gateway).settled(waited_s=waited_s, patience_s=3)

    silent = msgspec.structs.replace(GATEWAY, in_flight=None)
    assert settled(replica())
    assert settled(replica(), BROKEN)
    assert not settled(replica(), loading, waited_s=1000)
    assert not settled(replica(), external, waited_s=2.9)
    assert settled(replica(), external, waited_s=3)
    assert not settled(replica(), gateway=silent)
    asleep = replica("m-1", ReplicaState.ASLEEP)  # whoever put it to sleep is not waited for
    assert settled(replica(), asleep)
    assert stack(asleep).unserved == (asleep.model,)
    assert stack(replica(), BROKEN).unserved == ("model-with-a-long-name",)
    assert stack(replica(), BROKEN).hopeless == ()
    assert [f.name for f in stack(BROKEN).hopeless] == [BROKEN.id]
    gone = msgspec.structs.replace(silent, restarts=3)
    assert [f.name for f in stack(replica(), gateway=gone).hopeless] == ["gateway"]
    assert stack(replica(), gateway=msgspec.structs.replace(GATEWAY, restarts=9)).hopeless == ()


def test_no_color_takes_every_code_out(columns: pytest.MonkeyPatch) -> None:
    assert styled("x", colour="red", bold=True) == "\x1b[31m\x1b[1mx\x1b[0m"
    columns.setenv("NO_COLOR", "1")
    assert styled("x", colour="red", bold=True) == "x"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (0.44, "0.4 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (3570, "1 h 0 min"),
        (5 * 3600 + 12 * 60, "5 h 12 min"),
        (86400 * 2 + 3600 * 4, "2 d 4 h"),
    ],
)
def test_ages(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_problems_in_json_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    show_problems([("a:1:2", "is wrong", ""), ("b", "too", "mend it")], as_json=True)
    shown = capsys.readouterr()
    assert shown.err == ""
    assert json.loads(shown.out) == {
        "problems": [
            {"where": "a:1:2", "message": "is wrong", "hint": ""},
            {"where": "b", "message": "too", "hint": "mend it"},
        ]
    }
    assert wants_json(["up", "--json"])
    assert not wants_json(["up"])


def test_a_replica_that_the_gateway_ejected_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    starting = replica("m-2", ReplicaState.STARTING, reason="loading")
    replicas = with_ejected(
        [replica("m-0"), replica("m-1", reason="it ended before"), starting], {"m-1", "m-2"}
    )
    assert [("ejected" in each.reason) for each in replicas] == [False, True, False]
    show_status(stack(*replicas))
    assert "ejected: it failed" in capsys.readouterr().out
