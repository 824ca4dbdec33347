"""Words in engines' logs: what is wrong with settings, files and packages, and what only looks so."""

import time

import pytest

from freehold.health.evidence.log_patterns import log_signs

LINES = [
    ("OSError: [Errno 98] Address already in use", "engine_configuration"),
    ("start: couldn't bind HTTP server socket, hostname: 0.0.0.0, port: 8080", "engine_configuration"),
    ("vllm: error: unrecognized arguments: --gpu-memory-utilisation 0.9", "engine_configuration"),
    ("pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig", "engine_configuration"),
    ("ValueError: User-specified max_model_len (65536) is greater than the derived max_model_len (32768)", "engine_configuration"),
    ("ValueError: Total number of attention heads (28) must be divisible by tensor parallel size (8).", "engine_configuration"),
    ("ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0.", "engine_configuration"),
    ("huggingface_hub.errors.GatedRepoError: 401 Client Error.", "engine_configuration"),
    ("RuntimeError: CUDA error: invalid device ordinal", "engine_configuration"),
    ("FileNotFoundError: [Errno 2] No such file or directory: '/models/x/config.json'", "engine_configuration"),
    ("ERROR: Unexpected bus error encountered in worker. This might be caused by insufficient shared memory (shm).", "engine_configuration"),
    ("OSError: [Errno 24] Too many open files", "engine_configuration"),
    ("safetensors_rust.SafetensorError: Error while deserializing header: MetadataIncompleteBuffer", "engine_weights"),
    ("llama_model_load: error loading model: invalid magic characters: 'HTML'", "engine_weights"),
    ("RuntimeError: PytorchStreamReader failed reading zip archive: failed finding central directory", "engine_weights"),
    ("[TensorRT-LLM][ERROR] Assertion failed: Failed to deserialize cuda engine", "log_build"),
    ("RuntimeError: CUDA error: no kernel image is available for execution on the device", "log_build"),
    ("ImportError: /x/_C.abi3.so: undefined symbol: _ZN3c10", "log_build"),
    ("RuntimeError: No CUDA GPUs are available", "log_no_gpu"),
    ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.", "driver_missing"),
    ("CUDA error: all CUDA-capable devices are busy or unavailable", "log_device_busy"),
    ("RuntimeError: [enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: can't allocate memory", "engine_memory"),
    ("CUDA error: the provided PTX was compiled with an unsupported toolchain.", "log_driver_old"),
    ("[TensorRT-LLM][ERROR] CUDA runtime error in ::cudaMallocAsync(ptr, n, mCudaStream->get()): out of memory", "log_gpu_memory_full"),
    ("NCCL WARN NET/IB : Got completion from peer 10.0.0.1<1> with status=12 opcode=0 len=0 vendor err 129", "log_network"),
    ("OSError: Can't load the configuration of '/models/x'. If you were trying to load it from a hub", "engine_configuration"),
    ("AssertionError: 16 is not divisible by 3", "engine_configuration"),
    ("huggingface_hub.errors.LocalEntryNotFoundError: Cannot find an appropriate cached snapshot folder", "engine_configuration"),
    ("ValueError: The output_size of gate's weight is smaller than the block size; it must be at least 64", "log_advice"),
    ("ValueError: Unsupported tokenizer mode: mistral2", "log_advice"),
    ("RuntimeError: x failed. Please upgrade transformers to the newest version", "log_advice"),
    ("ptxas fatal   : Value 'sm_103a' is not defined for option 'gpu-name'", "log_build"),
    ("CUDA initialization: CUDA unknown error - this may be due to an incorrectly set up environment", "log_no_gpu"),
    ("OSError: [Errno 116] Stale file handle: '/nfs/m.safetensors'", "log_storage"),
    ("OSError: [Errno 122] Disk quota exceeded", "log_disk_full"),
    ("requests.exceptions.ConnectionError: HTTPSConnectionPool(host='hub', port=443): Max retries exceeded with url: /api", "log_network"),
    ("n1:1:2 [2] transport/nvls.cc:244 NCCL WARN Cuda failure 1 'invalid argument'", "fabric_manager"),
    ("RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", "log_gpu_memory_full"),
    ("free(): invalid pointer", "engine_crashed"),
    ("AttributeError: 'NoneType' object has no attribute 'shape'", "log_exception"),
    ("RuntimeError: CUDA error: unspecified launch failure", "log_exception"),
    ("KeyError: 'layers.0.mlp.gate_up_proj.weight'", "log_exception"),
    ("[2026-08-02 19:24:30 TP3] Watchdog timeout (self.watchdog_timeout=300)", "engine_frozen"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "sign"), LINES)
def test_one_line(line: str, sign: str) -> None:
    assert [name for name, _ in log_signs([line])] == [sign]


@pytest.mark.parametrize(
    "line",
    [
        'INFO: 10.0.0.9:51122 - "POST /v1/chat/completions HTTP/1.1" 401 Unauthorized',
        'INFO: 10.0.0.9:51122 - "POST /v1/chat/completions HTTP/1.1" 403 Forbidden',
        "INFO non-default args: {'model': 'x', 'trust_remote_code': True, 'quantization': None}",
        "server_args=ServerArgs(model_path='x', mem_fraction_static=0.88, quantization=None)",
        "INFO: Application startup complete.",
        "slot release: id  0 | task 5 | stop processing: n_past = 77, truncated = 0",
    ],
)
def test_everyday_lines_say_nothing(line: str) -> None:
    assert list(log_signs([line])) == []


def test_a_fault_of_the_machine_goes_before_what_a_program_complains_of_besides() -> None:
    lines = [
        "ModuleNotFoundError: No module named 'flash_attn'",
        "CUDA error: uncorrectable ECC error encountered",
    ]
    assert [name for name, _ in log_signs(lines)] == ["log_ecc"]


def test_a_crash_by_itself_does_not_hide_the_setting_that_led_to_it() -> None:
    lines = [
        "terminate called after throwing an instance of 'x'",
        "what(): [Errno 98] address already in use",
    ]
    assert {name for name, _ in log_signs(lines)} == {"engine_crashed", "engine_configuration"}


@pytest.mark.parametrize(
    "text", ["a", "Error ", "[TensorRT-LLM][ERROR] ", "MIG ", "not divisible ", "x.y_z "]
)
def test_a_hostile_line_costs_no_time(text: str) -> None:
    started = time.perf_counter()
    list(log_signs([text * (200_000 // len(text))]))
    assert time.perf_counter() - started < 0.5


def test_the_end_of_a_long_line_is_read() -> None:
    assert [
        name for name, _ in log_signs(["x" * 9000 + " CUDA error: uncorrectable ECC error encountered"])
    ] == ["log_ecc"]
