"""Several gateway workers from end to end: started by one line of freehold.yaml, one of them killed, all of them ended."""

import psutil
import pytest

from e2e.box import GONE_S, Box, Stack, http
from freehold.testing.fake_engine import start_fake_engine
from waiting import wait_until

WORKERS = "gateway: {workers: 2}\n"


def chat(stack: Stack, *, model: str = "fake") -> int:
    with http() as client:
        body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}
        return client.post(f"{stack.url}/v1/chat/completions", json=body).status_code


def live(box: Box) -> int:
    return int(box.status()["gateway"]["workers_live"])


def workers_of(stack: Stack) -> list[psutil.Process]:
    children = psutil.Process(stack.process.pid).children()
    found = [child for child in children if "freehold.gateway.run" in child.cmdline()]
    return sorted(found, key=lambda child: child.create_time())


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


def test_beside_an_external_endpoint_all_serve_on_without_a_controller_and_one_may_die(box: Box):
    with start_fake_engine(model="other") as engine:
        more = f"  - name: other\n    engine: external\n    endpoints: ['{engine.url}']\n"
        box.fake_config(more=more + WORKERS)
        with box.foreground() as stack:
            wait_until(lambda: live(box) == 2)
            workers = workers_of(stack)
            stack.process.kill()
            wait_until(lambda: len(box.living()) == 2, timeout_s=GONE_S)
            assert [chat(stack, model="other") for _ in range(6)] == [200] * 6
            workers[0].kill()
            assert [chat(stack, model="other") for _ in range(6)] == [200] * 6
            with http() as client:
                wait_until(lambda: client.get(f"{stack.url}/health").json()["workers"]["live"] == 1)
        down = box.run("down", "--json")
    assert down.code == 0
    assert down.said["leftovers_ended"] in (["gateway"], ["gateway-1"])
    box.assert_nothing_left()


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
