"""A start in words: its phase by the log, whether it moves, and when it is told to be still."""

from dataclasses import replace
from pathlib import Path

import pytest

from freehold.core.clock import wall_s
from freehold.core.events import ReplicaState, ReplicaStatus
from freehold.engines import all_engines
from freehold.fleet.processes.proc_files import ProcessUsage
from freehold.fleet.processes.start_progress import (
    LOOK_S,
    QUIET_S,
    EngineStart,
    StartObservation,
    StartWatch,
    look,
    moved,
)

SIGHT = StartObservation(
    at_s=100.0,
    phase="loading weights, 33%",
    log_bytes=10,
    log_age_s=0.0,
    pids=frozenset({7}),
    used=ProcessUsage(1.0, 0),
)


@pytest.mark.parametrize(
    ("change", "is_life"),
    [
        ({}, False),
        ({"log_bytes": 11}, True),
        ({"log_bytes": 3}, True),  # it was rotated
        ({"pids": frozenset({7, 8})}, True),
        ({"used": ProcessUsage(1.03, 0)}, False),  # it looks now and then whether something has come
        ({"used": ProcessUsage(1.04, 0)}, True),
        ({"used": ProcessUsage(1.0, 1_000_000)}, False),
        ({"used": ProcessUsage(1.0, 2_000_000)}, True),
        ({"log_age_s": 500.0}, False),
    ],
)
def test_what_is_a_sign_of_life(change: dict[str, object], *, is_life: bool) -> None:
    assert moved(SIGHT, replace(SIGHT, at_s=102.0, **change)) is is_life  # type: ignore[arg-type]


def test_a_start_that_moves_and_one_that_does_not() -> None:
    start = EngineStart(pid=7, sight=SIGHT, sign_s=100.0)
    assert start.words() == "loading weights, 33%"
    start = start.after(replace(SIGHT, at_s=102.0, log_age_s=40.0, used=ProcessUsage(3.0, 0)))
    assert start.words() == "loading weights, 33% (last log line 40 s ago, its processes are busy)"
    start = start.after(replace(SIGHT, at_s=112.0, log_age_s=50.0, used=ProcessUsage(3.0, 0)))
    assert start.words() == "loading weights, 33% (last log line 50 s ago, its processes are still for 10 s)"
    start = start.after(replace(SIGHT, at_s=102.0 + QUIET_S, log_age_s=100.0, used=ProcessUsage(3.0, 0)))
    assert start.words() == (
        "loading weights, 33%; no activity for 60 s: no log line, no processor time, nothing read"
    )
    start = start.after(
        replace(SIGHT, at_s=104.0 + QUIET_S, phase="", log_bytes=20, used=ProcessUsage(3.0, 0))
    )
    assert start.words() == "loading"


def test_the_words_are_of_the_present_process_only(tmp_path: Path) -> None:
    log = tmp_path / "m-0.log"
    before = "[freehold: x process 6 started]\nLoading safetensors checkpoint shards: 100% Completed | 1/1\n"
    log.write_text(before + "[freehold: x process 7 started]\n(W pid=7) Starting to load model /w...\n")
    vllm = all_engines()["vllm"]
    assert look(log, 7, vllm).phase == "loading weights"
    with log.open("a") as file:
        file.write(
            "\rLoading safetensors checkpoint shards:   0% Completed\rLoading safetensors checkpoint shards:  33% Completed"
        )
    seen = look(log, 7, vllm)
    assert seen.phase == "loading weights, 33%"
    assert seen.log_bytes == log.stat().st_size
    assert seen.log_age_s < 60
    assert look(tmp_path / "nothing", 7, vllm).phase == ""


def test_only_what_starts_says_so(tmp_path: Path) -> None:
    watch = StartWatch(tmp_path, {})
    watch._starts["m-0"] = EngineStart(pid=7, sight=SIGHT, sign_s=100.0)
    status = ReplicaStatus(
        id="m-0",
        model="m",
        engine="vllm",
        state=ReplicaState.STARTING,
        pid=7,
        reason="loading",
        started_wall_s=wall_s(),
    )
    others = (
        ReplicaStatus(
            id="m-0", model="m", engine="vllm", state=ReplicaState.STARTING, pid=8, reason="loading"
        ),
        ReplicaStatus(id="m-0", model="m", engine="vllm", state=ReplicaState.READY, pid=7),
        ReplicaStatus(
            id="m-1", model="m", engine="vllm", state=ReplicaState.STARTING, pid=7, reason="loading"
        ),
    )
    (told,) = watch.with_progress([status])
    assert told.reason == "loading weights, 33%"
    assert watch.with_progress(others) == others
    assert LOOK_S < QUIET_S


PHASES = [
    ("vllm", "(APIServer pid=1) INFO 11-27 22:01:32 [model.py:733] Resolved architecture: LlamaForCausalLM", "reading the model's configuration"),
    ("vllm", "(EngineCore pid=2) INFO 11-27 22:01:44 [core.py:133] Initializing a V1 LLM engine (v0.32.0) with config: model='/w'", "starting its processes"),
    ("vllm", "(Worker pid=3) INFO 11-27 22:01:57 [cpu_model_runner.py:68] Starting to load model /w...", "loading weights"),
    ("vllm", "Loading safetensors checkpoint shards:  33% Completed | 1/3 [00:00<00:01,  1.5it/s]", "loading weights, 33%"),
    ("vllm", "(Worker pid=3) INFO 11-27 22:01:58 [default_loader.py:501] Loading weights took 0.51 seconds", "preparing the model"),
    ("vllm", "(EngineCore pid=2) INFO 11-27 22:02:00 [kv_cache_utils.py:2327] CPU KV cache size: 93,184 tokens, Maximum", "making its KV cache"),
    ("vllm", "Capturing CUDA graphs (mixed prefill-decode, PIECEWISE):  14%|#         | 1/7 [00:00<00:02]", "capturing CUDA graphs, 14%"),
    ("vllm", "(EngineCore pid=2) INFO 06-04 00:38:39 [core.py:299] init engine (profile, create kv cache, warmup model) took 200.37 s", "starting its server"),
    ("vllm", "INFO:     Application startup complete.", "answering its first request"),
    ("sglang", "[2026-11-27 10:00:00 TP0] Load weight begin. avail mem=78.00 GB", "loading weights"),
    ("sglang", "[2026-11-27 10:00:00] Load weight end. type=Qwen3ForCausalLM, dtype=torch.bfloat16", "preparing the model"),
    ("sglang", "[2026-11-27 10:00:00] KV Cache is allocated. #tokens: 15387, K size: 0.82 GB", "making its KV cache"),
    ("sglang", "[2026-11-27 10:00:00 TP4] Capture cuda graph begin. This can take up to several minutes. avail mem=15.30 GB", "capturing CUDA graphs"),
    ("sglang", "Capturing batches (bs=128 avail_mem=15.16 GB):  50%|     | 10/20 [00:00<?, ?it/s]", "capturing CUDA graphs, 50%"),
    ("sglang", "[2026-11-27 10:00:00] Capture cuda graph end. Time elapsed: 1.23 s.", "starting its server"),
    ("tensorrt-llm", "Loading weights concurrently:  25%|##        | 1/4 [00:00<00:00]", "loading weights, 25%"),
    ("tensorrt-llm", "[12/20/2025-04:21:10] [TRT-LLM] [I] [Autotuner] Autotuning process starts ...", "tuning its kernels"),
    ("tensorrt-llm", "[12/20/2025-04:21:37] [TRT-LLM] [I] Run generation only CUDA graph warmup for batch size=56, draft_len=0", "capturing CUDA graphs"),
    ("tensorrt-llm", "[TensorRT-LLM][INFO] [MemUsageChange] Allocated 0.56 GiB for max tokens in paged KV cache (8224).", "making its KV cache"),
    ("llama-cpp", "load_tensors: loading model tensors, this can take a while... (mmap = true)", "loading weights"),
    ("llama-cpp", "llama.cpp listens on http://127.0.0.1:1 after 0.50 s", "answering its first request"),
    ("vllm", "(EngineCore pid=2) INFO 06-04 00:37:39 [backends.py:1] Dynamo bytecode transform time: 5.47 s", "compiling the model"),
    ("vllm", "(APIServer pid=1) WARNING 11-27 22:01:32 [vllm.py:1703] Enforce eager set, disabling torch.compile, CUDAGraphs, and JIT kernel warmup.", ""),
    ("external", "anything", ""),
]  # fmt: skip


@pytest.mark.parametrize(("engine", "line", "says"), PHASES, ids=[f"{row[0]} {row[2]}" for row in PHASES])
def test_a_logs_words_tell_the_phase(engine: str, line: str, says: str) -> None:
    assert all_engines()[engine].phase(("some line", line, "what says nothing of it")) == says
