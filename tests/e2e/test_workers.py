"""Several gateway workers from end to end: started by one line of freehold.yaml, one of them killed, all of them ended."""

import psutil
import pytest

from e2e.box import Box, Stack, http
from waiting import wait_until

WORKERS = "gateway: {workers: 2}\n"


def chat(stack: Stack, text: str = "hi") -> int:
    with http() as client:
        body = {"model": "fake", "messages": [{"role": "user", "content": text}], "max_tokens": 5}
        return client.post(f"{stack.url}/v1/chat/completions", json=body).status_code


def live(box: Box) -> int:
    return int(box.status()["gateway"]["workers_live"])


def workers_of(stack: Stack) -> list[psutil.Process]:
    children = psutil.Process(stack.process.pid).children()
    return [child for child in children if "freehold.gateway.run" in child.cmdline()]


def test_two_workers_serve_as_one_and_one_may_die(box: Box):
    box.fake_config(more=WORKERS)
    with box.foreground() as stack:
        wait_until(lambda: live(box) == 2)
        assert [chat(stack) for _ in range(10)] == [200] * 10
        assert "2 of 2 workers live" in box.run("status").out
        first, second = workers_of(stack)
        first.kill()
        assert [chat(stack) for _ in range(10)] == [200] * 10
        wait_until(lambda: box.status()["gateway"]["restarts"] == 1 and live(box) == 2)
        assert second.is_running()
        assert [chat(stack) for _ in range(5)] == [200] * 5
        taken = stack.url.removeprefix("http://")
        other = box.run("up", "--json", "--listen", taken, FREEHOLD_STATE_DIR=str(box.home / "other"))
        assert other.code != 0
        assert "cannot listen" in other.out + other.err
        assert stack.end() == 0
    box.assert_nothing_left()
    used = box.run("usage", "--json")
    assert used.code == 0
    assert '"requests": 25' in used.out or '"requests":25' in used.out, used.out


@pytest.mark.parametrize("workers", [1, 3])
def test_one_port_is_all_that_anybody_sees(box: Box, workers: int):
    box.fake_config(more=f"gateway: {{workers: {workers}}}\n")
    with box.foreground() as stack:
        wait_until(lambda: live(box) == workers)
        assert len(workers_of(stack)) == workers
        with http() as client:
            assert client.get(f"{stack.url}/health").json()["workers"] == {"live": workers, "wanted": workers}
        assert stack.end() == 0
    box.assert_nothing_left()
