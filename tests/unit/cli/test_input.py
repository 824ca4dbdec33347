"""What a person can type wrong, through the command line's own entry: all of it said, in words and JSON, exit code 2."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from freehold.cli.main import main
from freehold.fleet.control.state_dir import StateDir, locked_directories
from freehold.stack import folders
from freehold.stack.folders import state_dir_for

BROKEN = """\
version: 1
models:
  - name: "bad name"
    engine: lama-cpp
    source: file://x
    sha256: abc
    replicas: 0
gatway: {}
gateway: {listen: 0.0.0.0:8000, queue: {max_requests: many}}
"""
OPTION = """\
version: 1
models:
  - name: tiny
    engine: llama-cpp
    source: file://x
    sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    engine_options: {n_ctxx: 4096, n_parallel: "4"}
"""
EXTERNAL = """\
version: 1
models:
  - {name: other, engine: external, endpoints: ["http://127.0.0.1:9"], api_key_env: NO_SUCH_KEY}
"""
GOOD = EXTERNAL.replace(", api_key_env: NO_SUCH_KEY", "")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("FREEHOLD_CACHE_DIR", str(tmp_path / "cache"))
    for name in ("FREEHOLD_STATE_DIR", "FREEHOLD_CONFIG", "FREEHOLD_LISTEN", "NO_SUCH_KEY"):
        monkeypatch.delenv(name, raising=False)

    def of_this_test() -> dict[Path, int]:
        """Return no stack that runs here besides."""
        return {path: pid for path, pid in locked_directories().items() if path.is_relative_to(tmp_path)}

    monkeypatch.setattr(folders, "locked_directories", of_this_test)
    return tmp_path


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, Any]]:
    """Give `said(*arguments)`: the exit code, and the JSON that the command answers; nothing else is on stdout."""

    def run(*arguments: str) -> tuple[int, Any]:
        code = main([*arguments, "--json"])
        shown = capsys.readouterr()
        assert shown.err == ""
        assert shown.out.count("\n") == 1
        return code, json.loads(shown.out)

    return run


@pytest.fixture
def problems(
    home: Path, said: Callable[..., tuple[int, Any]], capsys: pytest.CaptureFixture[str]
) -> Callable[..., list[tuple[str, str, str]]]:
    """Give `problems(*arguments)`: where (without the folder), what, what to do; the same in words on stderr."""

    def run(*arguments: str) -> list[tuple[str, str, str]]:
        code, answer = said(*arguments)
        assert code == 2, answer
        found = [(p["where"].removeprefix(f"{home}/"), p["message"], p["hint"]) for p in answer["problems"]]
        assert main(list(arguments)) == 2
        shown = capsys.readouterr()
        assert shown.out == ""
        assert all(text in shown.err for problem in found for text in problem)
        return found

    return run


def test_every_problem_at_once_with_its_place(
    home: Path, problems: Callable[..., list[tuple[str, str, str]]]
) -> None:
    (home / "freehold.yaml").write_text(BROKEN)
    found = problems("up")
    assert [where for where, _, _ in found] == [
        f"freehold.yaml:{place}" for place in ("3:11", "4:13", "6:13", "7:15", "8:1", "9:19", "9:55")
    ]
    assert [hint for _, _, hint in found if "did you mean" in hint] == [
        "did you mean 'llama-cpp'?",
        "did you mean 'gateway'?",
    ]
    assert "0.0.0.0 is not a loopback address" in found[5][1]
    assert problems("up", "-d") == problems("model", "pull") == found


def test_an_engine_option_is_named_with_its_place(
    home: Path, problems: Callable[..., list[tuple[str, str, str]]]
) -> None:
    (home / "freehold.yaml").write_text(OPTION)
    unknown, wrong = problems("up")
    assert unknown == (
        "freehold.yaml:7:22",
        "engine llama-cpp has no option 'n_ctxx'",
        "did you mean 'n_ctx'?",
    )
    assert wrong[:2] == ("freehold.yaml:7:36", "n_parallel must be of type int, not '4'")


def test_options_are_checked_also_where_the_rest_has_mistakes(
    home: Path, problems: Callable[..., list[tuple[str, str, str]]]
) -> None:
    (home / "freehold.yaml").write_text(OPTION.replace("source: file://x", "sorce: file://x"))
    assert [message for _, message, _ in problems("up")] == [
        "models[0].source is missing",
        "unknown key 'sorce' in models[0]",
        "engine llama-cpp has no option 'n_ctxx'",
        "n_parallel must be of type int, not '4'",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "the file is empty"), ("a: [1,\n", "this is not YAML"), ("version: 1\n", "models is missing")],
)
def test_files_that_are_no_configuration(
    home: Path, problems: Callable[..., list[tuple[str, str, str]]], content: str, message: str
) -> None:
    (home / "freehold.yaml").write_text(content)
    ((where, said, _),) = problems("up")
    assert where.startswith("freehold.yaml:")
    assert message in said


def test_files_that_are_not_there(
    home: Path, problems: Callable[..., list[tuple[str, str, str]]], said: Callable[..., tuple[int, Any]]
) -> None:
    assert problems("up", "--config", "nope.yaml") == [
        ("nope.yaml", "there is no such file", "`freehold init` writes one")
    ]
    (home / "folder").mkdir()
    assert problems("up", "--config", "folder")[0][1] == "is a directory, not a file"
    for command in ("status", "logs"):
        code, answer = said(command, "--config", "nope.yaml")
        assert (code, answer["error"]["hint"]) == (1, f"there is no file {home}/nope.yaml")


def test_flags_and_variables_are_named_as_the_place(
    home: Path, problems: Callable[..., list[tuple[str, str, str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "freehold.yaml").write_text(GOOD)
    for listen in ("0.0.0.0:80", "127.0.0.1:99999", "somewhere"):
        assert [where for where, _, _ in problems("up", "--listen", listen)] == ["--listen"]
    monkeypatch.setenv("FREEHOLD_LISTEN", "8000")
    monkeypatch.setenv("FREEHOLD_GATEWAY__QUEUE__MAX_REQUEST", "4")
    monkeypatch.setenv("FREEHOLD_FLEET__STOP_GRACE", "10")
    found = problems("up")
    assert [where for where, _, _ in found] == [
        "FREEHOLD_FLEET__STOP_GRACE",
        "FREEHOLD_GATEWAY__QUEUE__MAX_REQUEST",
        "FREEHOLD_LISTEN",
    ]
    assert found[1][2] == "did you mean 'FREEHOLD_GATEWAY__QUEUE__MAX_REQUESTS'?"


def test_a_key_that_is_not_there(home: Path, problems: Callable[..., list[tuple[str, str, str]]]) -> None:
    config = home / "freehold.yaml"
    config.write_text(EXTERNAL)
    assert problems("up") == [
        ("freehold.yaml:3:72", "gives no usable key", "export NO_SUCH_KEY=… before starting")
    ]
    config.write_text(EXTERNAL.replace("api_key_env: NO_SUCH_KEY", "api_key_file: key"))
    assert problems("up")[0][1] == f"cannot read {home}/key: No such file or directory"
    (home / "key").write_text("two words")
    assert problems("up")[0][1:] == ("gives no usable key", f"{home}/key should hold the key on one line")
    (home / "key").unlink()
    (home / "key").mkdir()
    assert problems("up")[0][1].startswith("cannot read ")
    (home / "key").rmdir()
    os.mkfifo(home / "key")
    assert problems("up")[0][1] == f"cannot read {home}/key: not a regular file", "a pipe is not waited for"


def test_a_server_binary_that_is_not_there(
    home: Path, problems: Callable[..., list[tuple[str, str, str]]]
) -> None:
    config = home / "freehold.yaml"
    there = home / "llama-server"
    hint = "a relative path starts at the folder where freehold up is called; the file must be executable"
    for name in ("no-such-server", "./llama-server", str(there)):
        config.write_text(OPTION.replace('{n_ctxx: 4096, n_parallel: "4"}', f"{{server_binary: {name}}}"))
        place = ("freehold.yaml:7:22", f"server_binary: there is no program {name!r}", hint)
        assert problems("up") == [place]
        there.touch(mode=0o644)
    there.chmod(0o755)
    config.write_text(OPTION.replace('{n_ctxx: 4096, n_parallel: "4"}', f"{{server_binary: {there}, x: 1}}"))
    assert [message for _, message, _ in problems("up")] == ["engine llama-cpp has no option 'x'"]


def test_a_state_folder_that_cannot_be(home: Path, said: Callable[..., tuple[int, Any]]) -> None:
    (home / "freehold.yaml").write_text(GOOD)
    (home / "taken").write_text("a file")
    code, answer = said("up", "--state-dir", "taken/below")
    assert code == 1
    assert answer["error"]["message"] == f"cannot use the state directory {home}/taken/below: Not a directory"
    code, answer = said("up", "--state-dir", "taken")
    assert code == 2
    assert "'taken' is a file" in answer["problems"][0]["message"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("upp",), "no command 'upp': did you mean 'up'?"),
        (("up", "--detatch"), "Did you mean '--detach'?"),
        (("down", "--timeout", "soon"), "'soon' is not a valid float"),
        (("down", "--timeout", "-1"), "-1.0 is not in the range"),
        (("logs", "-n", "-3"), "-3 is not in the range"),
        (("status", "extra"), "unexpected extra argument (extra)"),
        (("model", "verify", "zz"), "'zz' is not a SHA-256"),
        (("model", "pull", "nobody"), "has no weights for 'nobody'"),
    ],
)
def test_command_lines_that_are_wrong(
    problems: Callable[..., list[tuple[str, str, str]]], arguments: tuple[str, ...], message: str
) -> None:
    assert message in problems(*arguments)[0][1]


def test_without_a_command_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    shown = capsys.readouterr()
    assert (shown.out, shown.err.partition("\n")[0]) == ("", "Usage: freehold [OPTIONS] COMMAND [ARGS]...")


def test_where_nothing_runs(said: Callable[..., tuple[int, Any]], home: Path) -> None:
    code, answer = said("status")
    assert (code, answer["error"]["hint"]) == (1, "freehold up starts one")
    assert answer["error"]["message"] == f"no stack runs here ({home}/state/freehold/example)"
    assert said("down") == (0, {"was_running": False, "leftovers_ended": [], "elsewhere": []})
    assert said("logs")[0] == 1
    assert not (home / "state").exists(), "looking leaves nothing"


def test_stacks_that_run_elsewhere_are_named_with_what_to_type(
    said: Callable[..., tuple[int, Any]], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pid, other, own = os.getpid(), home / "an other.yaml", home / "state" / "freehold" / "own"
    stacks = [StateDir(state_dir_for(None, other)), StateDir(own)]
    assert [stack.claim(config_path=str(other)) for stack in stacks] == [None, None]
    try:
        hint = said("status")[1]["error"]["hint"].splitlines()
        assert hint[0] == f"{other} is up (pid {pid}): freehold status --config '{other}'"
        assert hint[1].endswith(f"freehold status --state-dir {own}")
        assert f"freehold logs --config '{other}'" in said("logs")[1]["error"]["hint"]
        code, answer = said("down")
        assert (code, answer["was_running"]) == (0, False)
        assert {"config": str(other), "pid": pid, "flags": f"--config '{other}'"} in answer["elsewhere"]
        assert main(["down"]) == 0
        assert f"freehold down --config '{other}'" in capsys.readouterr().out
        hint = said("status", "--config", str(home / "none.yaml"))[1]["error"]["hint"]
        assert hint.startswith(f"there is no file {home}/none.yaml\n")
        assert str(own) in hint
    finally:
        for stack in stacks:
            stack.release()
    assert said("status")[1]["error"]["hint"] == "freehold up starts one"


def test_init_overwrites_nothing(home: Path, said: Callable[..., tuple[int, Any]]) -> None:
    assert said("init") == (0, {"config": "freehold.yaml", "schema": "freehold.schema.json"})
    written = (home / "freehold.yaml").read_text()
    assert json.loads((home / "freehold.schema.json").read_text())["title"]
    (home / "freehold.yaml").write_text("mine")
    code, answer = said("init")
    assert (code, answer["problems"][0]["message"]) == (2, "exists already")
    assert (home / "freehold.yaml").read_text() == "mine"
    assert said("init", "--force")[0] == 0
    assert (home / "freehold.yaml").read_text() == written
    (home / "folder").mkdir()
    assert said("init", "folder")[1]["config"] == "folder/freehold.yaml"
    code, answer = said("init", "no/such/x.yaml")
    assert (code, answer["error"]["message"]) == (
        1,
        "cannot write no/such/x.yaml: No such file or directory",
    )


@pytest.mark.parametrize(
    ("path", "command"),
    [
        ("freehold.yaml", "freehold up"),
        ("../{home}", "freehold up"),
        ("other.yaml", "freehold up --config other.yaml"),
        ("a b.yaml", "freehold up --config 'a b.yaml'"),
        ("folder", "freehold up --config folder/freehold.yaml"),
    ],
)
def test_init_names_the_command_that_finds_the_file(
    path: str, command: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "folder").mkdir()
    assert main(["init", path.format(home=home.name)]) == 0
    assert capsys.readouterr().out.endswith(f"Next: {command}\n")


def test_init_to_stdout_writes_no_file(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "--stdout"]) == 0
    assert capsys.readouterr().out.startswith("# yaml-language-server: ")
    assert list(home.iterdir()) == []
