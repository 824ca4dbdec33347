"""`freehold key` as a person and a script meet it: a real process, its two streams, its exit codes, its file."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from freehold.cli.terminal.config import load_keyless
from freehold.gateway.callers.keys import hash_of
from freehold.gateway.storage.key_store import KeyStore
from freehold.stack.checks.check import Check, CheckResult
from freehold.stack.checks.machine import stack_checks

CONFIG = """\
version: 1
models:
  - {name: one, engine: external, endpoints: [http://127.0.0.1:9], api_key_env: NOT_SET_HERE}
  - {name: two, engine: external, endpoints: [http://127.0.0.1:9]}
gateway: {auth: keys, keys_file: secret/keys.json}
"""
KEY = "fh-[a-z2-7]{40}"

Freehold = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., "subprocess.Popen[str]"]:
    (tmp_path / "freehold.yaml").write_text(CONFIG)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FREEHOLD_")}

    def start(*arguments: str, **env: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "freehold", "key", *arguments],
            cwd=tmp_path,
            env=clean
            | {"XDG_CONFIG_HOME": str(tmp_path / "xdg"), "XDG_STATE_HOME": str(tmp_path / "state")}
            | env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture
def freehold(start: Callable[..., "subprocess.Popen[str]"]) -> Freehold:
    def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        process = start(*arguments, **env)
        out, err = process.communicate(timeout=30)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    return run


def test_a_key_is_shown_once_and_kept_as_its_hash(freehold: Freehold, tmp_path: Path):
    made = freehold("create", "ci", "--rpm", "60", "--models", "two")
    assert made.returncode == 0, made.stderr
    key = made.stdout.rstrip("\n")
    assert re.fullmatch(KEY, key)
    assert "This is the only time" in made.stderr
    assert key not in made.stderr
    path = tmp_path / "secret" / "keys.json"
    (record,) = KeyStore(path).read().keys
    assert record.hash == hash_of(key.encode()).hex()
    assert record.limits.models == ("two",)
    assert key[3:] not in path.read_text()
    for more in ((), ("--json",)):
        listed = freehold("list", *more)
        assert listed.returncode == 0
        assert "ci" in listed.stdout
        assert key not in listed.stdout + listed.stderr
        assert record.hash not in listed.stdout


def test_a_script_gets_json(freehold: Freehold, tmp_path: Path):
    made = json.loads(freehold("create", "ci", "--expires", "1d", "--json").stdout)
    assert re.fullmatch(KEY, made["key"])
    assert made["path"] == str(tmp_path / "secret" / "keys.json")
    assert made["expires_s"] - made["created_s"] in {86_400, 86_399, 86_401}
    (listed,) = json.loads(freehold("list", "--json").stdout)["keys"]
    assert listed == {name: value for name, value in made.items() if name not in {"key", "path"}}
    assert (listed["state"], listed["limits"]["requests_per_minute"], listed["limits"]["weight"]) == (
        "active",
        None,
        1,
    )
    (revoked,) = json.loads(freehold("revoke", "ci", "--json").stdout)["revoked"]
    assert (revoked["id"], revoked["state"]) == (made["id"], "revoked")


def test_every_mistake_is_told_at_once_and_nothing_is_written(freehold: Freehold, tmp_path: Path):
    told = freehold("create", " ", "--rpm", "lots", "--models", "tow", "--json")
    assert told.returncode == 2
    problems = json.loads(told.stdout)["problems"]
    assert [problem["where"] for problem in problems] == ["NAME", "--rpm", "--models"]
    assert problems[2]["hint"] == "did you mean 'two'?"
    assert not (tmp_path / "secret" / "keys.json").exists()
    assert not re.search(KEY, told.stdout + told.stderr)


def test_ending_a_key(freehold: Freehold):
    first = json.loads(freehold("create", "ci", "--json").stdout)
    assert freehold("create", "ci").returncode == 2
    unknown = freehold("revoke", "cii", first["id"])
    assert unknown.returncode == 2
    assert "there is no key 'cii'" in unknown.stderr
    assert "did you mean 'ci'?" in unknown.stderr
    assert json.loads(freehold("list", "--json").stdout)["keys"][0]["state"] == "active"  # all or none
    assert freehold("revoke", "ci").returncode == 0
    again = json.loads(freehold("create", "ci", "--json").stdout)  # the name is free again
    assert freehold("revoke", first["id"], "ci").returncode == 0  # the first one stays as it was
    states = json.loads(freehold("list", "--json").stdout)["keys"]
    assert [(row["id"], row["state"]) for row in states] == [
        (first["id"], "revoked"),
        (again["id"], "revoked"),
    ]


def test_a_revoked_key_is_found_by_its_name_to_end_its_requests(freehold: Freehold, tmp_path: Path):
    freehold("create", "alice")
    freehold("create", "bob")
    assert freehold("revoke", "alice").returncode == 0
    assert freehold("revoke", "alice").returncode == 2
    told = freehold("revoke", "alice", "--now")
    assert told.returncode == 0, told.stderr
    alice, bob = KeyStore(tmp_path / "secret" / "keys.json").read().keys
    assert alice.ends_requests
    assert not bob.revoked_s


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder in which nobody can make a file")
def test_a_file_that_cannot_be_made_says_why(freehold: Freehold):
    told = freehold("create", "ci", FREEHOLD_GATEWAY__KEYS_FILE="/proc/keys.json")
    assert told.returncode == 1
    assert "the keys file /proc/keys.json cannot be written: No such file or directory" in told.stderr
    assert "another process" not in told.stderr


def test_doctor_tells_a_lost_file_from_one_without_keys(freehold: Freehold, tmp_path: Path):
    freehold("create", "ci")
    path = tmp_path / "secret" / "keys.json"
    config = load_keyless(tmp_path / "freehold.yaml")

    def found() -> Check:
        return next(check for check in stack_checks(config, tmp_path / "state") if check.name == "keys")

    assert (found().said, found().found) == ("1 API keys are accepted", CheckResult.GOOD)
    path.unlink()
    assert found().found is CheckResult.WARNING
    assert f"there is no keys file {path}; a stack that runs keeps the keys that it has read" in found().said
    assert "restore one that was lost" in found().fix


def test_keys_made_at_the_same_time_are_all_there(
    start: Callable[..., "subprocess.Popen[str]"], freehold: Freehold
):
    names = [f"n{number}" for number in range(6)]
    processes = [start("create", name) for name in names]
    keys = {process.communicate(timeout=30)[0].strip() for process in processes}
    assert [process.returncode for process in processes] == [0] * 6
    assert len(keys) == 6
    assert sorted(row["name"] for row in json.loads(freehold("list", "--json").stdout)["keys"]) == names


def test_a_file_that_is_broken_is_the_worlds_fault(freehold: Freehold, tmp_path: Path):
    freehold("create", "ci")
    path = tmp_path / "secret" / "keys.json"
    path.write_bytes(b"{")
    for command in (("create", "other"), ("list",), ("revoke", "ci")):
        told = freehold(*command)
        assert told.returncode == 1
        assert f"the keys file {path} is broken" in told.stderr
        assert not re.search(KEY, told.stdout)
    assert path.read_bytes() == b"{"


def test_each_configuration_has_a_file_of_its_own(freehold: Freehold, tmp_path: Path):
    (tmp_path / "freehold.yaml").write_text(CONFIG.replace(", keys_file: secret/keys.json", ""))
    made = freehold("create", "ci", "--json")
    path = Path(json.loads(made.stdout)["path"])
    assert path.is_relative_to(tmp_path / "xdg" / "freehold")
    assert path.parent.name.startswith(tmp_path.name)
    other = tmp_path / "other.yaml"
    other.write_text((tmp_path / "freehold.yaml").read_text().replace("auth: keys", "auth: none"))
    listed = freehold("list", "--config", str(other))
    assert "No keys in" in listed.stdout
    assert str(path) not in listed.stdout
    assert "the gateway does not ask for keys yet" in freehold("create", "ci", "--config", str(other)).stderr


def test_the_environment_names_the_file(freehold: Freehold, tmp_path: Path):
    made = freehold("create", "ci", "--json", FREEHOLD_GATEWAY__KEYS_FILE=str(tmp_path / "elsewhere.json"))
    assert json.loads(made.stdout)["path"] == str(tmp_path / "elsewhere.json")
