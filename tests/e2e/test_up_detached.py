"""`freehold up -d`: it returns when the stack is ready, or says why it never will be; nothing is left when it fails."""

import json
import signal
import socket
from contextlib import closing
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

import pytest

from conftest import MODEL_SHA256, MODEL_SOURCE
from e2e.box import Box, http, listening
from freehold.testing.fake_engine import start_fake_engine
from waiting import wait_until

ANY_PORT = ("--listen", "127.0.0.1:0")


def up(box: Box, *arguments: str) -> tuple[int, Any]:
    """Return the exit code and the JSON of `up -d --json`."""
    ran = box.run("up", "-d", "--json", *arguments)
    assert ran.out.count("\n") == 1, f"one line of JSON and nothing else: {ran}"
    return ran.code, ran.said


def test_it_returns_when_ready_and_down_ends_everything(box: Box) -> None:
    box.fake_config(replicas=2)
    code, said = up(box, *ANY_PORT)
    assert code == 0, said
    assert [replica["state"] for replica in said["status"]["replicas"]] == ["ready", "ready"]
    assert 0 < said["ready_s"] < 40
    body = {"model": "fake", "messages": [{"role": "user", "content": "hi"}]}
    url = said["status"]["gateway"]["url"]
    with http() as client:
        assert client.post(f"{url}/chat/completions", json=body).status_code == 200
    status = box.run("status", "--json").said
    assert status["gateway"]["url"] == url
    assert [replica["id"] for replica in status["replicas"]] == ["fake-0", "fake-1"]
    down = box.run("down", "--json")
    assert (down.code, down.said["was_running"], down.said["pid"]) == (0, True, status["pid"])
    box.assert_nothing_left()
    assert box.run("status").code == 1
    assert box.run("down", "--json").said == {"was_running": False, "leftovers_ended": [], "elsewhere": []}


def test_in_words_the_summary_is_on_stdout_and_progress_on_stderr(box: Box) -> None:
    box.fake_config()
    ran = box.run("up", "-d", *ANY_PORT)
    assert ran.code == 0, ran
    first, second = ran.out.splitlines()
    assert first.startswith("freehold  gateway    http://127.0.0.1:")
    assert first.endswith("/v1      (OpenAI API)")
    assert second.startswith("          model      fake   fake   1 replica   ready in ")
    assert "fake-0 ready" in ran.err
    assert "\x1b" not in ran.out + ran.err
    assert box.run("down").out == "Down.\n"


def test_a_second_up_says_who_runs(box: Box) -> None:
    config = box.fake_config()
    assert up(box, *ANY_PORT)[0] == 0
    pid = box.status()["pid"]
    for arguments in (("-d",), ()):
        again = box.run("up", "--json", *ANY_PORT, *arguments)
        assert again.code == 1
        assert f"{config} is already up for " in again.said["error"]["message"]
        assert f"(pid {pid})" in again.said["error"]["message"]
        assert "freehold down" in again.said["error"]["hint"]
    assert box.status()["pid"] == pid
    assert box.run("down").code == 0


def test_two_stacks_beside_each_other_do_not_meet(box: Box) -> None:
    box.fake_config()
    assert up(box, *ANY_PORT)[0] == 0
    other = ("--state-dir", str(box.home / "other"))
    assert up(box, *ANY_PORT, *other)[0] == 0
    assert box.run("down", *other).code == 0
    assert box.status()["replicas"][0]["state"] == "ready"
    assert box.run("down").code == 0


def test_a_taken_port(box: Box) -> None:
    box.fake_config()
    with closing(listening()) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        code, said = up(box, "--listen", address)
        assert (code, said["error"]["message"]) == (1, f"cannot listen on {address}: Address already in use")
        assert "--listen 127.0.0.1:PORT" in said["error"]["hint"]
        words = box.run("up", "-d", "--listen", address)
        assert (words.code, words.out) == (1, "")
        assert words.err.splitlines()[-2:] == [
            f"freehold: {said['error']['message']}",
            f"    {said['error']['hint']}",
        ]
    box.assert_nothing_left()


def test_weights_with_another_hash(box: Box) -> None:
    box.fake_config()
    (box.home / "weights.bin").write_bytes(b"somebody changed them")
    code, said = up(box, *ANY_PORT)
    assert code == 1
    got = sha256(b"somebody changed them").hexdigest()
    assert f"no weights for fake: file://weights.bin has SHA-256 {got}, expected" in said["error"]["message"]
    assert "publisher" in said["error"]["hint"]
    box.assert_nothing_left()


def test_weights_that_are_not_there(box: Box) -> None:
    box.fake_config()
    (box.home / "weights.bin").unlink()
    code, said = up(box, *ANY_PORT)
    assert code == 1
    assert "no weights for fake" in said["error"]["message"]
    assert "weights.bin" in said["error"]["message"]
    box.assert_nothing_left()


def test_an_engine_that_never_starts_is_given_up_and_explained(box: Box) -> None:
    box.fake_config(exit_at_start=3, exit_words="'[/bold] no such thing'")
    code, said = up(box, *ANY_PORT)
    assert code == 1
    assert said["error"]["message"].startswith("cannot be started: fake-0: failed 5 times in a row before")
    assert "[/bold] no such thing" in said["error"]["message"]
    assert said["error"]["hint"]
    assert said["status"]["replicas"][0]["state"] == "crash_loop"
    box.assert_nothing_left()
    logged = box.run("logs", "fake-0")
    assert logged.code == 0
    assert "[/bold] no such thing" in logged.out


def llama(sha: str, source: str = "file://x.gguf", options: str = "{}") -> str:
    return (
        f"version: 1\nmodels:\n  - name: tiny\n    engine: llama-cpp\n    source: {source}\n"
        f"    sha256: '{sha}'\n    engine_options: {options}\n"
    )


def test_a_file_that_is_no_gguf(box: Box) -> None:
    content = b"this is not a model" * 1000
    (box.home / "x.gguf").write_bytes(content)
    box.write(llama(sha256(content).hexdigest()))
    box.env["FREEHOLD_CACHE_DIR"] = str(box.home / "cache")
    words = box.run("up", "-d", *ANY_PORT)
    assert (words.code, words.out) == (1, "")
    assert "tiny-0 cannot be started: the weights file cannot be loaded" in words.err
    assert "expected 'GGUF'" in words.err
    assert "freehold model verify" in words.err
    box.assert_nothing_left()


@pytest.mark.real_model
@pytest.mark.usefixtures("weights_path")
def test_an_option_that_the_engine_refuses(box: Box) -> None:
    box.write(llama(MODEL_SHA256, MODEL_SOURCE, "{override_tensor: 'ffn=NOWHERE'}"))
    code, said = up(box, *ANY_PORT)
    assert code == 1
    assert "tiny-0: it refused an option" in said["error"]["message"]
    assert "unknown buffer type" in said["error"]["message"]
    assert "engine_options" in said["error"]["hint"]
    box.assert_nothing_left()


def test_what_works_serves_on_beside_what_does_not(box: Box) -> None:
    content = b"no model either"
    (box.home / "x.gguf").write_bytes(content)
    bad = llama(sha256(content).hexdigest()).partition("models:\n")[2]
    box.fake_config(more=bad)
    code, said = up(box, *ANY_PORT)
    assert (code, said["error"]["message"]) == (1, "no replica of tiny is ready; the stack serves what is")
    url = said["status"]["gateway"]["url"]
    with http() as client:
        bodies = [{"model": model, "prompt": "x"} for model in ("fake", "tiny")]
        codes = [client.post(f"{url}/completions", json=body).status_code for body in bodies]
    assert codes == [200, 503]
    status = box.run("status")
    assert "    the weights file cannot be loaded" in status.out
    assert box.run("down").code == 0
    box.assert_nothing_left()


def test_an_endpoint_of_others_is_not_waited_for_but_served_as_soon_as_it_comes(box: Box) -> None:
    with closing(listening()) as nobody:
        port = nobody.getsockname()[1]
    box.fake_config(
        more=f"  - name: other\n    engine: external\n    endpoints: ['http://127.0.0.1:{port}']\n"
    )
    ran = box.run("up", "-d", *ANY_PORT)
    assert ran.code == 1, ran
    assert "model      fake   fake   1 replica   ready in " in ran.out
    assert "model      other   external   0 of 1 replica   not ready" in ran.out
    assert "no connection" in ran.out
    with start_fake_engine(port=port, model="other"):
        wait_until(
            lambda: [replica["state"] for replica in box.status()["replicas"]] == ["ready", "ready"],
            timeout_s=15,
            what="the endpoint to be seen",
        )
    assert box.run("down").code == 0
    box.assert_nothing_left()


def test_down_ends_a_start_that_takes_its_time(box: Box) -> None:
    box.fake_config(start_s=600)
    with box.starting() as process:
        wait_until(box.status, what="the control socket")
        assert box.status()["replicas"][0]["state"] == "starting"
        assert box.run("down", "--json").said["was_running"] is True
        assert process.wait(5) == 0
    box.assert_nothing_left()


@pytest.mark.parametrize("ctrl_c", [signal.default_int_handler, signal.SIG_IGN], ids=["heard", "ignored"])
def test_down_ends_a_start_that_still_fetches(box: Box, ctrl_c: Any) -> None:
    before = signal.signal(
        signal.SIGINT, ctrl_c
    )  # as a shell has it ignored by what it starts in the background
    try:
        _down_while_it_fetches(box)
    finally:
        signal.signal(signal.SIGINT, before)
    box.assert_nothing_left()


def _down_while_it_fetches(box: Box) -> None:
    with closing(listening()) as silent:  # it accepts nobody: the fetch waits
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/x.gguf"
        box.write(llama("0" * 64, url.replace("http:", "https:")))
        with box.starting() as process:
            holder = box.home / "state" / "controller.json"
            wait_until(lambda: holder.exists() and json.loads(holder.read_text()), what="the claim")
            silent.settimeout(20)
            connection, _ = silent.accept()
            with closing(connection):
                assert box.run("down", "--json").said["was_running"] is True
                assert process.wait(5) == 130


def test_a_gateway_that_never_starts_is_explained(box: Box) -> None:
    box.fake_config()
    box.write("raise SystemExit('no gateway today')\n", "site/uvloop.py")
    code, said = up(box, *ANY_PORT)
    assert code == 1
    assert said["error"]["message"].startswith("cannot be started: gateway: it ended 3 times")
    assert "no gateway today" in box.run("logs", "gateway.stderr").out
    box.assert_nothing_left()


def test_a_free_port_is_what_status_tells(box: Box) -> None:
    box.fake_config()
    code, said = up(box, "--listen", "[::1]:0")
    assert code == 0, said
    host, _, port = (
        said["status"]["gateway"]["url"].removeprefix("http://").removesuffix("/v1").rpartition(":")
    )
    assert host == "[::1]"
    with socket.create_connection(("::1", int(port)), timeout=5):
        pass
    assert box.run("down").code == 0


def test_a_port_that_another_stack_of_ones_own_has_names_it_and_how_to_end_it(
    box: Box, tmp_path_factory: pytest.TempPathFactory
) -> None:
    box.fake_config()
    code, said = up(box, *ANY_PORT)
    assert code == 0, said
    first, port = said["status"], urlsplit(said["status"]["gateway"]["url"]).port
    other = Box(home=tmp_path_factory.mktemp("other"), mark=box.mark)
    other.fake_config(more=f'gateway: {{listen: "127.0.0.1:{port}"}}\n')
    refused = other.run("up")
    assert refused.code == 1
    assert f"the stack of {first['config']} (pid {first['pid']}) has it" in refused.err
    assert f"freehold down --state-dir {first['state_dir']} ends that one" in refused.err
    checks = {check["name"]: check for check in other.run("doctor", "--json").said["checks"]}
    assert checks["port"]["found"] == "problem"
    assert f"freehold down --state-dir {first['state_dir']}" in checks["port"]["fix"]
    assert box.run("down").code == 0
