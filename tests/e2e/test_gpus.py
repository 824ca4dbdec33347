"""Replicas on a node that says it has four GPUs: doubles of vLLM see their own two, after a kill and a reload too."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from e2e.box import Box, Stack, http
from e2e.test_engine_doubles import program, small_folder
from fake_smi import fake_smi, uuid
from nvml_shim import Scenario, build
from waiting import wait_until

FOUR = [uuid(index) for index in range(4)]
START_S = 30.0
"""A double is ready in a second; others use the machine too."""


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    box = Box(
        home=tmp_path,
        env={
            "FREEHOLD_CACHE_DIR": str(tmp_path / "cache"),
            "PATH": f"{fake_smi(tmp_path / 'bin', 4)}:{os.environ['PATH']}",
        },
    )
    box.env.pop("CUDA_VISIBLE_DEVICES", None)
    small_folder(tmp_path / "weights")
    program(tmp_path, "vllm")
    yield box
    box.kill_all()


def configure(box: Box, *, replicas: int, options: str = "") -> None:
    (sha256,) = set(re.findall(r"[0-9a-f]{64}", box.run("model", "hash", str(box.home / "weights")).out))
    box.write(
        f"version: 1\nmodels:\n  - name: m\n    engine: vllm\n    source: file://weights/\n    sha256: '{sha256}'\n"
        f"    replicas: {replicas}\n    engine_options:\n      program: {box.home}/serve-vllm\n"
        f"      tensor_parallel_size: 2\n{options}"
    )


def seen(pid: int) -> list[str]:
    """Return the GPUs that a process sees, by its own environment."""
    env = psutil.Process(pid).environ()
    assert env["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    return env["CUDA_VISIBLE_DEVICES"].split(",")


def ready(stack: Stack, replicas: int = 2) -> list[dict[str, Any]]:
    """Return the replicas once so many serve and there are no others."""
    found: list[dict[str, Any]] = []

    def all_ready() -> bool:
        found[:] = stack.replicas()
        return len(found) == replicas and all(each["state"] == "ready" for each in found)

    wait_until(all_ready, timeout_s=START_S, what=f"{replicas} ready replicas, not {found}")
    return found


def by_status(replicas: list[dict[str, Any]]) -> dict[str, list[str]]:
    return {each["id"]: [gpu["uuid"] for gpu in each["gpus"]] for each in replicas}


@pytest.mark.timeout(180)
def test_each_has_its_own_and_keeps_them_over_a_kill_and_a_reload(box: Box) -> None:
    configure(box, replicas=2)
    with box.foreground() as stack, http() as client:
        replicas = ready(stack)
        assert by_status(replicas) == {"m-0": FOUR[:2], "m-1": FOUR[2:]}
        assert {each["id"]: seen(each["pid"]) for each in replicas} == by_status(replicas)
        table = box.run("status", COLUMNS="200").out
        assert re.search(r"^m-0 .* 0, 1$", table, re.MULTILINE), table

        first = next(each for each in replicas if each["id"] == "m-0")
        psutil.Process(first["pid"]).kill()
        wait_until(lambda: stack.replicas()[0]["restarts"] == 1, timeout_s=START_S, what="a new m-0")
        again = ready(stack)
        assert again[0]["pid"] != first["pid"]
        assert {each["id"]: seen(each["pid"]) for each in again} == by_status(replicas)

        tried = box.run("engine", "check", "--with-model", "m")
        assert tried.code == 1
        assert "the running stack uses GPU 0 (m-0), 1 (m-0)" in tried.err

        # Other options on a full node: one after the other gives its GPUs to its successor.
        configure(box, replicas=2, options="      max_num_seqs: 16\n")
        reloaded = box.run("reload")
        assert reloaded.code == 0, reloaded
        newer = ready(stack)
        assert not {each["pid"] for each in newer} & {each["pid"] for each in again}
        assert sorted(seen(each["pid"]) for each in newer) == [FOUR[:2], FOUR[2:]]
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
        assert client.post(f"{stack.url}/v1/chat/completions", json=body).status_code == 200

        # One more than there is room for is refused, and nothing is touched.
        configure(box, replicas=3, options="      max_num_seqs: 16\n")
        refused = box.run("reload")
        assert refused.code != 0
        assert (
            "m: 3 replicas take 2 GPUs each; that is 6 in all, and 4 available" in refused.out + refused.err
        )
        assert {each["pid"] for each in ready(stack)} == {each["pid"] for each in newer}
        assert stack.end() == 0


def test_three_are_refused_before_anything_starts(box: Box) -> None:
    configure(box, replicas=3)
    up = box.run("up", "--listen", "127.0.0.1:0")
    assert up.code == 2
    assert f"{box.home}/freehold.yaml:4:" in up.err
    assert "too few GPUs: m: 3 replicas take 2 GPUs each; that is 6 in all, and 4 available" in up.err
    assert "gpus: 0" in up.err
    assert box.living() == []


def test_what_the_user_hides_is_given_to_nobody(box: Box) -> None:
    configure(box, replicas=1)
    box.env["CUDA_VISIBLE_DEVICES"] = "1,3"
    with box.foreground() as stack:
        (replica,) = ready(stack, 1)
        assert seen(replica["pid"]) == [FOUR[1], FOUR[3]]
        # An nvidia-smi that does not work any more takes them from nobody.
        fake_smi(box.home / "bin", 0, exit_code=9)
        assert box.run("reload").code == 0
        assert ready(stack, 1)[0]["pid"] == replica["pid"]
        assert stack.end() == 0


def test_on_a_node_that_nobody_can_read_nothing_is_set(box: Box) -> None:
    configure(box, replicas=2)
    fake_smi(box.home / "bin", 0, exit_code=9)
    with box.foreground() as stack:
        for replica in ready(stack):
            assert replica["gpus"] is None
            assert "CUDA_VISIBLE_DEVICES" not in psutil.Process(replica["pid"]).environ()
        # Nor is anything started anew because it can be read now.
        pids = {each["pid"] for each in ready(stack)}
        fake_smi(box.home / "bin", 4)
        assert box.run("reload").code == 0
        assert {each["pid"] for each in ready(stack)} == pids
        assert stack.end() == 0


@pytest.mark.timeout(120)
def test_a_bench_counts_the_joules_of_the_gpus_that_it_has(box: Box) -> None:
    configure(box, replicas=1, options="    gpus: [1, 3]\n")
    scenario = Scenario(box.home / "scenario", gpus=4)
    for index in range(4):
        scenario.set("nvmlDeviceGetPowerUsage", (index + 1) * 100_000, gpu=index)
    box.env |= {"LD_LIBRARY_PATH": str(build(box.home / "lib")), "NVML_SHIM_SCENARIO": str(scenario.path)}
    load = (
        "--warm-up",
        "200ms",
        "--duration",
        "2s",
        "--runs",
        "1",
        "--answer-tokens",
        "8",
        "--prompt-tokens",
        "20",
    )
    ran = box.run(
        *("bench", "--concurrency", "1", "--through", "direct", "--out", "r.json", "--json", *load),
        timeout_s=90,
    )
    assert ran.code in (0, 3), ran
    bench = ran.said["bench"]
    assert [each["uuid"] for each in bench["candidates"][0]["gpus"]] == [FOUR[1], FOUR[3]]
    assert [each["resources"]["gpu_watts"] for each in bench["results"]] == [pytest.approx(600)]
    assert "GPUs of vllm: 1, 3" in box.run("bench", "show", "r.json").out
