"""`freehold reload` and `freehold restart` on a stack that serves: a stream that is under way never notices."""

import contextlib
import json
import os
import signal
import threading
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from conftest import MODEL_SHA256, MODEL_SOURCE
from e2e.box import Box, Ran, Stack, http
from waiting import wait_until

WEIGHTS = b"no weights are needed"
SLOW = {"tokens_per_s": 10, "answer_tokens": 400}
"""Streams that outlast any test here; each ends its own when it has seen enough."""


def config(box: Box, *models: str, more: str = "") -> Path:
    (box.home / "weights.bin").write_bytes(WEIGHTS)
    box.env["FREEHOLD_CACHE_DIR"] = str(box.home / "cache")
    return box.write("version: 1\nmodels:\n" + "".join(models) + more)


def fake(name: str = "fake", *, replicas: int = 1, **options: object) -> str:
    told = ", ".join(f"{key}: {value}" for key, value in (SLOW | options).items())
    return (
        f"  - name: {name}\n    engine: fake\n    source: file://weights.bin\n"
        f"    sha256: {sha256(WEIGHTS).hexdigest()}\n    replicas: {replicas}\n    engine_options: {{{told}}}\n"
    )


def reload(box: Box, *arguments: str) -> Ran:
    return box.run("reload", "--json", *arguments)


def states(box: Box) -> dict[str, str]:
    return {replica["id"]: replica["state"] for replica in box.status()["replicas"]}


class Streaming:
    """A streamed answer that is read by a thread of its own."""

    def __init__(self, url: str, model: str = "fake", **more: Any) -> None:
        self.pieces: list[str] = []
        self.error = ""
        self.done = threading.Event()
        self._leave = threading.Event()
        self._body = {
            "model": model,
            "stream": True,
            "messages": [{"role": "user", "content": "tell me"}],
            "max_tokens": 400,
        } | more
        self._thread = threading.Thread(target=self._read, args=(f"{url}/v1/chat/completions",))
        self._thread.start()

    def _read(self, url: str) -> None:
        with http(60) as client, client.stream("POST", url, json=self._body) as stream:
            for line in stream.iter_lines():
                if line == "data: [DONE]":
                    self.done.set()
                elif line.startswith("data: "):
                    event = json.loads(line.removeprefix("data: "))
                    self.error = self.error or str(event.get("error") or "")
                    self.pieces += [c["delta"].get("content") or "" for c in event.get("choices", ())]
                if self._leave.is_set():
                    return

    def lives(self) -> None:
        """Wait for more of it."""
        before = len(self.pieces)
        wait_until(lambda: len(self.pieces) > before + 2 or self.error, what="more of the stream")
        assert not self.error

    def whole(self) -> str:
        self._thread.join(60)
        assert self.done.is_set(), self.error or "the stream was cut"
        assert not self.error
        return "".join(self.pieces)

    def leave(self) -> None:
        self._leave.set()
        self._thread.join(30)
        assert not self.error


@contextlib.contextmanager
def streaming(stack: Stack, model: str = "fake") -> Iterator[Streaming]:
    stream = Streaming(stack.url, model)
    try:
        stream.lives()
        yield stream
    finally:
        stream.leave()


def asked(stack: Stack, model: str, text: str = "hi") -> int:
    body = {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 1}
    with http() as client:
        return client.post(f"{stack.url}/v1/chat/completions", json=body).status_code


def test_a_stream_survives_every_change(box: Box) -> None:
    config(box, fake(slots=1))
    with box.foreground() as stack, streaming(stack) as stream:
        gateway_pid = box.status()["gateway"]["pid"]
        config(box, fake(slots=1), more="gateway: {max_body: 1KiB, queue: {max_wait: 100ms}}\n")
        ran = reload(box)
        assert ran.code == 0, ran
        assert [(c["how"], c["what"], c["old"], c["new"]) for c in ran.said["changes"]] == [
            ("live", "gateway.queue.max_wait", "20s", "100ms"),
            ("live", "gateway.max_body", "16MiB", "1KiB"),
        ]
        assert asked(stack, "fake") == 503
        assert asked(stack, "fake", "x" * 1024) == 413
        stream.lives()
        config(box, fake(slots=1), fake("other"))
        assert reload(box).code == 0
        assert states(box) == {"fake-0": "ready", "other-0": "ready"}
        assert asked(stack, "other") == 200
        stream.lives()
        config(box, fake(replicas=2, slots=1))
        assert reload(box).code == 0
        assert states(box) == {"fake-0": "ready", "fake-1": "ready"}
        assert asked(stack, "other") == 404
        stream.lives()
        config(box, fake(replicas=1, slots=1))
        assert reload(box, "--no-wait").code == 0
        stream.lives()
        config(box, fake(replicas=1, slots=2))
        assert reload(box, "--no-wait").code == 0
        wait_until(lambda: "ready" in states(box).values() and "draining" in states(box).values())
        stream.lives()
        status = box.status()
        assert status["gateway"]["pid"] == gateway_pid
        assert status["in_force"]["generation"] == 6
        assert asked(stack, "fake") == 200
        stream.leave()
        wait_until(lambda: list(states(box).values()) == ["ready"], what="one replica, ready")
        assert stack.end() == 0
    box.assert_nothing_left()


def test_a_bad_file_changes_nothing_and_every_mistake_is_told(box: Box) -> None:
    path = config(box, fake())
    with box.foreground() as stack, streaming(stack) as stream:
        before = box.status()
        path.write_text(path.read_text().replace("replicas: 1", "replicas: none") + "gatewey: {}\n")
        ran = reload(box)
        assert ran.code == 2
        assert [p["where"] for p in ran.said["problems"]] == [f"{path}:7:15", f"{path}:9:1"]
        stream.lives()
        config(box, fake(replicas=2), more="gateway: {auth: keys, keys_file: k.json}\n")
        ran = reload(box)
        assert ran.code == 2
        assert [(p["where"], p["message"]) for p in ran.said["problems"]] == [
            (f"{path}:9:11", "gateway.auth cannot change from none to keys while the stack runs"),
            (f"{path}:9:23", "gateway.keys_file cannot change from nothing to k.json while the stack runs"),
        ]
        assert "freehold down" in ran.said["problems"][0]["hint"]
        after = box.status()
        assert (after["in_force"]["hash"], after["in_force"]["generation"]) == (before["in_force"]["hash"], 1)
        assert "gateway.auth" in after["in_force"]["refused"]
        assert states(box) == {"fake-0": "ready"}
        stream.lives()
        stream.leave()
        assert stack.end() == 0


def test_another_key_of_a_fallback_is_refused(box: Box) -> None:
    key = box.home / "key"
    key.write_text("sk-one\n")
    key.chmod(0o600)
    price = "{input_usd_per_million_tokens: 1, output_usd_per_million_tokens: 1}"
    there = f'  - {{name: cloud, url: "https://h.example/v1", api_key_file: {key}, price: {price}}}\n'
    path = config(box, fake(), more=f"fallback:\n{there}")
    with box.foreground() as stack:
        key.write_text("sk-two\n")
        ran = reload(box)
        assert ran.code == 2
        (problem,) = ran.said["problems"]
        assert problem["where"].startswith(f"{path}:10:")
        assert problem["message"] == "fallback[0].api_key_file: the key cannot change while the stack runs"
        assert "sk-" not in str(ran)
        key.write_text("sk-one\n")
        assert reload(box).code == 0
        assert stack.end() == 0


def test_a_dry_run_tells_and_does_nothing(box: Box) -> None:
    config(box, fake())
    with box.foreground() as stack:
        config(box, fake(replicas=2, slots=3))
        ran = box.run("reload", "--dry-run")
        assert ran.code == 0
        assert ran.out.splitlines() == [
            "~ models.fake.replicas: 1 -> 2",
            "~ models.fake.engine_options.slots: nothing -> 3 (its replicas are replaced one by one)",
            "Nothing was changed.",
        ]
        status = box.status()
        assert (len(status["replicas"]), status["in_force"]["generation"]) == (1, 1)
        assert stack.end() == 0


def test_a_replacement_that_cannot_start_leaves_the_old_one_serving(box: Box) -> None:
    config(box, fake())
    with box.foreground() as stack, streaming(stack) as stream:
        config(box, fake(exit_at_start=1, exit_words="'no such tensor'"))
        ran = box.run("reload", "--json", timeout_s=60)
        assert ran.code == 1
        assert "fake-1 cannot be started" in ran.said["error"]["message"]
        assert states(box) == {"fake-0": "ready", "fake-1": "crash_loop"}
        stream.lives()
        assert asked(stack, "fake") == 200
        config(box, fake())
        assert reload(box).code == 0
        assert states(box) == {"fake-0": "ready"}
        stream.lives()
        stream.leave()
        assert stack.end() == 0


def test_restart_replaces_a_model_without_a_gap_and_a_replica_in_its_place(box: Box) -> None:
    config(box, fake())
    with box.foreground() as stack:
        pid = stack.replicas()[0]["pid"]
        ran = box.run("restart", "fake", "--json")
        assert (ran.code, ran.said["replicas"]) == (0, {"fake-1": "ready"}), ran
        (replica,) = stack.replicas()
        assert (replica["pid"] != pid, replica["restarts"]) == (True, 0)
        ran = box.run("restart", "fake-1", "--json")
        assert (ran.code, ran.said["replicas"]) == (0, {"fake-1": "ready"}), ran
        assert stack.replicas()[0]["restarts"] == 1
        ran = box.run("restart", "fake-7")
        assert ran.code == 2
        assert "there is no model and no replica 'fake-7'" in ran.err
        assert "fake-1" in ran.err
        replaced = box.run("restart", "fake-0").err
        assert (
            "the replicas of fake are fake-1; a reload or restart replaces replicas by new ones" in replaced
        )
        assert "did you mean" not in replaced
        assert stack.end() == 0


def test_hanging_up_on_a_stack_in_the_background_reloads_it(box: Box) -> None:
    config(box, fake())
    up = box.run("up", "-d", "--json", "--listen", "127.0.0.1:0")
    assert up.code == 0, up
    pid = up.said["status"]["pid"]
    config(box, fake(replicas=2))
    os.kill(pid, signal.SIGHUP)
    wait_until(lambda: states(box) == {"fake-0": "ready", "fake-1": "ready"}, timeout_s=20)
    box.write("version: 2\n")
    os.kill(pid, signal.SIGHUP)
    wait_until(lambda: box.status()["in_force"]["refused"], what="the refusal in the status")
    assert len(box.status()["replicas"]) == 2
    assert box.run("down").code == 0
    box.assert_nothing_left()


def test_without_a_stack_there_is_nothing_to_reload(box: Box) -> None:
    for arguments in (("reload",), ("restart", "fake")):
        ran = box.run(*arguments)
        assert ran.code == 1
        assert "no stack runs here" in ran.err


def test_the_access_log_is_shown_by_its_name(box: Box) -> None:
    config(box, fake(tokens_per_s=0, answer_tokens=3))
    with box.foreground() as stack:
        assert asked(stack, "fake") == 200
        assert asked(stack, "nobody") == 404

        def lines() -> list[dict[str, Any]]:
            return [json.loads(line) for line in box.run("logs", "access", "--raw").out.splitlines()]

        wait_until(lambda: len(lines()) >= 2, timeout_s=20)
        served, refused = lines()
        assert (served["model"], served["endpoint"], served["end"]) == ("fake", "fake-0", "complete")
        assert (refused["status"], refused["code"]) == (404, "model_not_found")
        assert served["completion_tokens"] == 1
        assert "access" not in {
            json.loads(line)["source"] for line in box.run("logs", "--json").out.splitlines()
        }
        assert stack.end() == 0


@pytest.mark.real_model
@pytest.mark.timeout(240)
def test_a_real_model_is_replaced_while_it_answers(box: Box, weights_path: Path) -> None:
    def write(n_ctx: int, replicas: int, max_requests: int) -> None:
        box.write(
            f"version: 1\nmodels:\n  - name: m\n    engine: llama-cpp\n    source: {MODEL_SOURCE}\n"
            f"    sha256: {MODEL_SHA256}\n    replicas: {replicas}\n"
            f"    engine_options: {{n_ctx: {n_ctx}, n_parallel: 2}}\n"
            f"gateway: {{drain_grace: 120s, queue: {{max_requests: {max_requests}}}}}\n"
        )

    del weights_path
    write(2048, 1, 64)
    with box.foreground() as stack:
        stream = Streaming(stack.url, "m", temperature=0, max_tokens=160, ignore_eos=True)
        stream.lives()
        write(2048, 2, 32)
        assert reload(box).code == 0
        assert states(box) == {"m-0": "ready", "m-1": "ready"}
        stream.lives()
        write(4096, 1, 16)
        ran = box.run("reload", "--json", timeout_s=120)
        assert ran.code == 0, ran
        assert len(stream.whole()) > 100
        wait_until(lambda: list(states(box).values()) == ["ready"], timeout_s=30)
        assert len(stack.replicas()) == 1
        assert stack.end() == 0
    box.assert_nothing_left()


TOOLS = {"tools": [{"type": "function", "function": {"name": "f"}}]}


@pytest.mark.parametrize(
    ("asked_for", "stays", "whole"),
    [({}, True, True), (TOOLS, True, False), ({}, False, False)],
    ids=["plain text", "tools", "a model that is gone"],
)
def test_a_stream_that_outlasts_its_replicas_grace(
    box: Box, asked_for: dict[str, Any], *, stays: bool, whole: bool
) -> None:
    """It goes on at the replica that has taken over, where it can be continued and there is one; else it ends in band."""
    others = fake("other")

    def write(*models: str) -> None:
        config(box, others, *models, more="gateway: {drain_grace: 500ms, queue: {max_wait: 1s}}\n")

    write(fake(tokens_per_s=20))
    with box.foreground() as stack:
        stream = Streaming(stack.url, "fake", **{"max_tokens": 100, **asked_for})
        stream.lives()
        write(*([fake(tokens_per_s=20, slots=5)] if stays else []))
        assert reload(box).code == 0
        if whole:
            assert stream.whole() == "".join(f" w{index}" for index in range(100))
        else:
            wait_until(lambda: stream.error, what="the stream's end")
            assert not stream.done.is_set()
        stream._thread.join(30)
        assert stack.end() == 0
    box.assert_nothing_left()
