"""What is left of a stack when one of its processes dies or hangs, and how Ctrl-C ends it. Fake engines."""

import contextlib
import json
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import httpx2
import psutil

from e2e.box import GONE_S, Box, Stack, http
from freehold.testing.fake_engine import FakeEngine, start_fake_engine
from waiting import remove_at_once, wait_until


def asked(stack: Stack, model: str = "fake", *, client: httpx2.Client | None = None) -> httpx2.Response:
    """Return the answer to a small plain request."""
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
    with http() as fresh:
        return (client or fresh).post(f"{stack.url}/v1/chat/completions", json=body)


def streamed(client: httpx2.Client, stack: Stack) -> AbstractContextManager[httpx2.Response]:
    body = {"model": "fake", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    return client.stream("POST", f"{stack.url}/v1/chat/completions", json=body)


def gateway_pid(box: Box) -> int:
    return int(wait_until(lambda: box.status()["gateway"]["pid"], what="a gateway"))


def with_external(box: Box, engine: FakeEngine) -> None:
    box.fake_config(more=f"  - name: other\n    engine: external\n    endpoints: ['{engine.url}']\n")


def test_kill_9_of_the_controller_leaves_nothing(box: Box) -> None:
    box.fake_config(replicas=2)
    with box.foreground() as stack:
        assert len(box.living()) >= 6  # controller, gateway, two minders, two engines
        stack.process.kill()
        box.assert_nothing_left()


def test_engines_that_ignore_sigterm_end_with_a_killed_controller_too(box: Box) -> None:
    box.fake_config(replicas=1, ignore_sigterm="true", more="fleet: {stop_grace: 1s}\n")
    with box.foreground() as stack:
        stack.process.kill()
        box.assert_nothing_left()


def test_beside_an_external_endpoint_the_gateway_serves_on_until_the_next_up(box: Box) -> None:
    with start_fake_engine(model="other") as engine:
        with_external(box, engine)
        with box.foreground() as stack:
            leftover = gateway_pid(box)
            stack.process.kill()
            wait_until(lambda: [p.pid for p in box.living()] == [leftover], timeout_s=GONE_S)
            assert asked(stack, "other").status_code == 200
            assert http().get(f"{stack.url}/health").json()["control_plane"] == "gone"
            assert asked(stack, "fake").status_code == 503
        with box.foreground("--listen", stack.url.removeprefix("http://")) as again:
            assert again.url == stack.url
            assert leftover not in [process.pid for process in box.living()]
            assert [asked(again, name).status_code for name in ("fake", "other")] == [200, 200]
            assert again.end() == 0
    box.assert_nothing_left()


def test_down_ends_what_a_killed_controller_left(box: Box) -> None:
    with start_fake_engine(model="other") as engine:
        with_external(box, engine)
        with box.foreground() as stack:
            stack.process.kill()
            stack.process.wait()
        down = box.run("down", "--json")
    assert (down.code, down.said) == (
        0,
        {"was_running": False, "leftovers_ended": ["gateway"], "elsewhere": []},
    )
    box.assert_nothing_left()


def test_a_stopped_controller_delays_no_request(box: Box) -> None:
    box.fake_config(replicas=2, tokens_per_s=100, answer_tokens=300)
    with box.foreground() as stack, http() as client:
        stack.process.send_signal(signal.SIGSTOP)
        try:
            with streamed(client, stack) as stream:
                lines = [line for line in stream.iter_lines() if line]
            assert lines[-1] == "data: [DONE]"
            assert len(lines) > 300
            assert [asked(stack).status_code for _ in range(3)] == [200] * 3
        finally:
            stack.process.send_signal(signal.SIGCONT)
        assert box.status()["gateway"]["restarts"] == 0
        assert [replica["restarts"] for replica in stack.replicas()] == [0, 0]
        assert stack.end() == 0


def test_a_controller_that_hangs_is_not_running_into_a_wall(box: Box) -> None:
    box.fake_config()
    with box.foreground() as stack:
        stack.process.send_signal(signal.SIGSTOP)
        with ThreadPoolExecutor() as beside:
            patient = beside.submit(box.run, "down", "--json")
            urgent = beside.submit(box.run, "down", "--now", "--json")
        assert patient.result().code == 1
        assert "down --now" in patient.result().said["error"]["hint"]
        assert urgent.result().code == 0
        assert stack.process.wait(GONE_S) == -signal.SIGKILL
    box.assert_nothing_left()


def test_a_killed_gateway_comes_back_on_its_socket_and_refuses_nobody(box: Box) -> None:
    box.fake_config(replicas=1)
    with box.foreground() as stack:
        old = psutil.Process(gateway_pid(box))
        old.kill()
        psutil.wait_procs([old], timeout=5)
        assert asked(stack).status_code == 200  # waited in the socket's queue, and was not refused
        wait_until(lambda: box.status()["gateway"]["restarts"] == 1, what="the restart to be counted")
        assert gateway_pid(box) != old.pid
        assert stack.end() == 0
    box.assert_nothing_left()


def test_ctrl_c_lets_a_stream_finish_and_takes_nothing_new(box: Box) -> None:
    box.fake_config(tokens_per_s=100, answer_tokens=200)
    with box.foreground() as stack, http() as client:
        with streamed(client, stack) as stream:
            lines = stream.iter_lines()
            assert json.loads(next(lines).removeprefix("data: "))["object"] == "chat.completion.chunk"
            stack.process.send_signal(signal.SIGINT)
            address = stack.url.removeprefix("http://").split(":")
            wait_until(lambda: refused(address[0], int(address[1])), what="the listener to close")
            rest = [line for line in lines if line]
        assert rest[-1] == "data: [DONE]"
        assert len(rest) > 150
        assert stack.process.wait(GONE_S) == 0
    box.assert_nothing_left()


def refused(host: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) != 0


def lines_until_cut(lines: Iterator[str]) -> Iterator[str]:
    """Give the lines of a stream up to its end, whether that is an error in band or, past the last words, a cut."""
    with contextlib.suppress(httpx2.RemoteProtocolError):
        yield from lines


def test_a_second_ctrl_c_does_not_wait(box: Box) -> None:
    box.fake_config(tokens_per_s=1, answer_tokens=60)
    with box.foreground() as stack, http() as client, streamed(client, stack) as stream:
        lines = stream.iter_lines()
        next(lines)
        stack.process.send_signal(signal.SIGINT)
        wait_until(lambda: box.status()["gateway"]["draining"], what="the drain")
        stack.process.send_signal(signal.SIGINT)
        assert stack.process.wait(5) == 0
        assert not any("[DONE]" in line for line in lines_until_cut(lines))
    box.assert_nothing_left()


def test_a_terminal_that_closes_ends_the_stack_in_order(box: Box) -> None:
    box.fake_config()
    with box.foreground() as stack:
        stack.process.send_signal(signal.SIGHUP)
        assert stack.process.wait(GONE_S) == 0
    box.assert_nothing_left()


def test_what_lies_in_the_folder_stands_in_for_no_module(box: Box) -> None:
    box.fake_config()
    for name in ("click", "msgspec", "asyncio"):
        box.write("raise SystemExit('a file of the folder was run')", f"{name}.py")
    up = box.run("up", "-d", "--json", "--listen", "127.0.0.1:0")
    assert up.code == 0, up
    assert box.run("down").code == 0
    box.assert_nothing_left()


def test_down_finds_a_stack_whose_state_folder_was_removed(box: Box) -> None:
    box.fake_config()
    with box.foreground() as stack:
        remove_at_once(Path(box.env["FREEHOLD_STATE_DIR"]))
        wait_until(box.status, timeout_s=10, what="the state folder to be made again")
        assert asked(stack).status_code == 200
        assert box.run("status", "--json").said["gateway"]["restarts"] == 0
        assert stack.end() == 0
    box.assert_nothing_left()


def test_a_stack_whose_folder_another_one_has_taken_ends_and_says_so(box: Box) -> None:
    box.fake_config()
    with box.foreground() as first:
        first.process.send_signal(signal.SIGSTOP)  # else it may be the quicker one, and the second is told so
        remove_at_once(Path(box.env["FREEHOLD_STATE_DIR"]))
        with box.foreground() as second:
            first.process.send_signal(signal.SIGCONT)
            assert first.process.stdout is not None
            said = json.loads(first.process.stdout.read().splitlines()[-1])["error"]["message"]
            assert said.endswith(f"was removed and pid {second.process.pid} has it now")
            assert first.process.wait(GONE_S) == 1
            assert asked(second).status_code == 200
            assert second.end() == 0
    box.assert_nothing_left()


def test_a_disk_that_takes_nothing_and_a_gateway_that_dies_end_no_stack(box: Box) -> None:
    box.fake_config()
    with box.foreground() as stack:
        state = Path(box.env["FREEHOLD_STATE_DIR"])
        (state / f".processes.json.{stack.process.pid}.new").mkdir()  # no file can be written there any more
        recorded = (state / "processes.json").read_bytes()
        old = psutil.Process(gateway_pid(box))
        old.kill()
        psutil.wait_procs([old], timeout=5)
        assert asked(stack).status_code == 200
        wait_until(lambda: box.status()["gateway"]["restarts"] == 1, what="the restart to be counted")
        log = state / "logs" / "controller.log"
        wait_until(lambda: "not_recorded" in log.read_text(), what="the controller to tell")
        assert (state / "processes.json").read_bytes() == recorded
        assert stack.end() == 0
    box.assert_nothing_left()
