"""What a shell is offered after Tab, asked for as a shell asks."""

from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete

from freehold.cli.main import cli, main
from freehold.gateway.callers.keys import KeyRecord
from freehold.gateway.storage.key_store import KeyStore


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    (tmp_path / "freehold.yaml").write_text(
        "version: 1\ngateway: {auth: keys, keys_file: keys.json}\n"
        'models: [{name: chat, engine: external, endpoints: ["http://h:1"]},'
        ' {name: code, engine: external, endpoints: ["http://h:2"]}]\n'
    )
    keys = (
        KeyRecord(id="key-0a", name="search", hash="0" * 64, created_s=1),
        KeyRecord(id="key-0b", name="gone", hash="1" * 64, created_s=1, revoked_s=2),
    )
    KeyStore(tmp_path / "keys.json").change(lambda _: keys)
    return tmp_path


def offered(*words: str) -> list[str]:
    *before, start = words
    shell = ShellComplete(cli, {}, "freehold", "_FREEHOLD_COMPLETE")
    return [item.value for item in shell.get_completions(before, start)]


def test_commands_and_flags() -> None:
    assert offered("st") == ["status"]
    assert offered("key", "") == ["create", "list", "revoke"]
    assert offered("--ver") == ["--version"]
    assert "--follow" in offered("logs", "--f")


def test_names_of_models_keys_and_logs(folder: Path) -> None:
    assert offered("model", "pull", "") == ["chat", "code"]
    assert offered("model", "pull", "co") == ["code"]
    assert offered("key", "revoke", "") == ["key-0a", "search"]
    state = folder / "state"
    (state / "logs").mkdir(parents=True)
    (state / "logs" / "chat-0.log").touch()
    (state / "logs" / "gateway.log").touch()
    assert offered("logs", "--state-dir", str(state), "") == ["chat-0", "gateway"]
    assert offered("restart", "") == [], "no stack runs"


def test_what_cannot_be_read_offers_nothing(folder: Path) -> None:
    (folder / "keys.json").write_text("{")
    assert offered("key", "revoke", "") == []
    (folder / "freehold.yaml").write_text("version: [")
    assert offered("model", "pull", "") == offered("key", "revoke", "") == []
    assert offered("logs", "") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_lines_for_each_shell(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    assert f"_FREEHOLD_COMPLETE={shell}_complete" in capsys.readouterr().out


def test_completion_imports_no_command() -> None:
    assert isinstance(cli, click.Group)
    assert [item.help for item in cli.shell_complete(click.Context(cli), "down")] == [
        "End a running stack: streams finish, then engines stop."
    ]
