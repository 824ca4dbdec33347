"""Why a vLLM server ended: what its exit code and its log lines tell, in a person's words. Part of the engine file `vllm`.

The server is several processes; the one that failed tells its cause a hundred lines above the last one, which only says that a
part of it did not start. So the rules read all lines that they are given. It deliberately does not decide what to do about it.
"""

import re

from freehold.engines.base import ExitCause, ExitKind, explain_code
from freehold.engines.shared.exit_rules import ExitRule, by_rules, exit_rule, otherwise


def _rule(kind: ExitKind, words: str, summary: str, *, hint: str, restart: bool = False) -> ExitRule:
    return exit_rule(kind, words, summary=summary, hint=hint, restart=restart)


_LESS_CONTEXT = "lower max_model_len or max_num_seqs, raise the memory that it may take, or take smaller weights or kv_cache_dtype: fp8"
_RULES = (
    _rule(
        ExitKind.MISSING_PROGRAM,
        r"^ModuleNotFoundError: No module named '(?:vllm|torch)'|^importlib\.metadata\.PackageNotFoundError: .* for vllm$",
        "vLLM cannot be imported",
        hint="freehold engine check vllm says what is wrong with its environment; freehold engine install makes it anew",
    ),
    _rule(
        ExitKind.PORT_IN_USE,
        r"OSError: \[Errno 98\] Address already in use",
        "its port was already in use",
        hint="a restart takes another port",
        restart=True,
    ),
    _rule(
        ExitKind.BAD_OPTION,
        r"^vllm(?: serve)?: error: |^TypeError: Error: --[a-z-]+ requires --|^KeyError: .invalid tool call parser: "
        r"|^KeyError: .Reasoning parser '.*' not found",
        "it refused an option",
        hint="correct engine_options; freehold engine check vllm says which flags the installed version knows",
    ),
    # Before what follows from it: a model that cannot be inspected.
    _rule(
        ExitKind.BAD_OPTION,
        r"invalid literal for int\(\) with base 10: '(?:GPU|MIG)-",
        "this vLLM does not know GPUs by their UUIDs",
        hint="take vLLM 0.32.0 or newer: freehold engine install vllm-cuda",
    ),
    # Before what is said of memory: a context that cannot fit fails the same way however often it is tried.
    _rule(
        ExitKind.OUT_OF_MEMORY,
        r"^ValueError: (?:To serve at least one request with the model's max seq len"
        r"|The model's max seq len \(\d+\) is larger than the maximum number of tokens)",
        "its KV cache is too small for one request of max_model_len tokens",
        hint="lower max_model_len, or raise gpu_memory_utilization (on a CPU: cpu_kv_cache_gib)",
    ),
    _rule(
        ExitKind.OUT_OF_MEMORY,
        r"No available memory for the cache blocks",
        "the weights left no memory for its KV cache",
        hint="raise gpu_memory_utilization (on a CPU: cpu_kv_cache_gib), or spread the model: tensor_parallel_size",
        restart=True,  # what others take while it measures counts as its own
    ),
    _rule(
        ExitKind.OUT_OF_MEMORY,
        r"Free memory on device .* (?:is less than desired|than the engine's budget)",
        "others hold so much of the GPU's memory that gpu_memory_utilization cannot be had",
        hint="end what else runs there (nvidia-smi names it), run fewer replicas, or lower gpu_memory_utilization",
        restart=True,
    ),
    _rule(
        ExitKind.OUT_OF_MEMORY,
        r"Available memory on node .* is less than requested memory for kv",
        "the machine has less free memory than its KV cache is to take",
        hint="lower cpu_kv_cache_gib, or run fewer replicas",
        restart=True,
    ),
    _rule(
        ExitKind.OUT_OF_MEMORY,
        r"CUDA out of memory|CUDA error: out of memory|Cuda failure 'out of memory'|HIP out of memory",
        "the GPU had not enough memory",
        hint=_LESS_CONTEXT,
        restart=True,
    ),
    _rule(
        ExitKind.OUT_OF_MEMORY,
        r"MemoryError|std::bad_alloc|Cannot allocate memory|DefaultCPUAllocator: (?:not enough|can't allocate) memory",
        "there was not enough memory",
        hint=_LESS_CONTEXT,
        restart=True,
    ),
    _rule(
        ExitKind.BAD_DRIVER,
        r"^RuntimeError: The NVIDIA driver on your system is too old \(found version"
        r"|Error 804: forward compatibility was attempted on non supported HW|no kernel image is available for execution on the device",
        "the GPU's driver and the CUDA that vLLM was built with do not go together",
        hint="update the driver, or install a vLLM that was built for it; freehold doctor shows the driver",
    ),
    _rule(
        ExitKind.BAD_DRIVER,
        r"CUDA driver version is insufficient|Error 803:|No CUDA GPUs are available|Failed to infer device type"
        r"|no NVIDIA driver on your system",
        "it found no GPU and driver that it can use",
        hint="look at nvidia-smi and CUDA_VISIBLE_DEVICES; without a GPU take the environment vllm-cpu",
        restart=True,  # while a driver is loaded or a GPU is reset, that passes
    ),
    _rule(
        ExitKind.CRASHED,
        r"NCCL error|ncclUnhandledCudaError|ncclSystemError|ncclInternalError|ncclRemoteError",
        "the GPUs could not talk to each other (NCCL)",
        hint="NCCL_DEBUG=INFO in the environment says why; a container needs a large /dev/shm, nodes need NCCL_SOCKET_IFNAME",
        restart=True,
    ),
    _rule(
        ExitKind.BAD_WEIGHTS,
        r"^huggingface_hub\.errors\.(?:LocalEntryNotFoundError: .*outgoing traffic has been disabled|OfflineModeIsEnabled: "
        r"|HFValidationError: Repo id must )|^Value error, Invalid repository ID or local directory specified: ",
        "the weights are not where it looked, and it may not fetch them",
        hint="check them with `freehold model verify`; vLLM needs a folder with config.json, a tokenizer and *.safetensors",
    ),
    _rule(
        ExitKind.BAD_WEIGHTS,
        r"^(?:ValueError: |Value error, )(?:Model architectures \[.*\] are not supported for now|.*does not recognize this architecture)",
        "this vLLM does not know the model's architecture",
        hint="take a newer vLLM, or another engine",
    ),
    _rule(
        ExitKind.BAD_WEIGHTS,
        r"^OSError: (?:It looks like the config file at '.*' is not a valid JSON file|\S+ does not appear to have a file named config\.json"
        r"|Can't load tokenizer for )|SafetensorError: Error while deserializing header|^ValueError: Couldn't instantiate the backend"
        r" tokenizer|^RuntimeError: Cannot find any model weights with |^ValueError: Following weights were not initialized",
        "the weights folder is damaged or incomplete",
        hint="check it with `freehold model verify`, and fetch or convert it anew",
    ),
    _rule(
        ExitKind.BAD_OPTION,
        r"Sleep mode is not supported on current platform",
        "sleep mode is for GPUs, and this vLLM runs on a processor",
        hint="leave enable_sleep_mode out; with server_dev_mode alone /sleep stops its work, though it frees no memory",
    ),
    # After the others: many causes are told as an invalid configuration.
    _rule(
        ExitKind.BAD_OPTION,
        r"^(?:ValueError: |Value error, )(?:User-specified max_model_len \(\d+\) is greater than the derived"
        r"|Total number of attention heads \(|Unknown quantization|Cannot find the config file for )",
        "the options do not fit the model or each other",
        hint="correct engine_options as it says",
    ),
    _rule(
        ExitKind.BAD_WEIGHTS,
        r"SafetensorError|does not appear to have a file named|following weights were not initialized",
        "the weights could not be loaded",
        hint="check them with `freehold model verify`",
        restart=True,
    ),
    _rule(
        ExitKind.BAD_OPTION,
        r"^\w+: Input should be .*, input_type=\w+\]$",
        "an option has a value that it cannot have",
        hint="correct it in engine_options",
    ),
    _rule(
        ExitKind.BAD_OPTION,
        r"^Value error, ",
        "the options do not fit the model, the machine or each other",
        hint="correct engine_options as it says",
        restart=True,  # the number of GPUs that are there now is among what it compares
    ),
)
"""Source: on the real program (0.32.0, CPU): a taken port, an unknown flag, a wrong choice, parsers that it does not know, a
context beyond the KV cache, a KV cache beyond the memory, a folder that is missing, empty, cut, without tokenizer, with a broken
config.json, of an unknown architecture, RLIMIT_AS. From public threads, where no GPU was at hand: vllm-project/vllm 20305 and 23192
(free memory), 2248 and 17431 (cache blocks), 16343 (CUDA out of memory), 39774 and 10626 (NCCL), 1772 (old driver), 18446;
gpustack/gpustack 2691 (error 803) and 1540 (forward compatibility). tests/unit/engines/test_vllm.py holds the lines."""


_STAMP = re.compile(
    r"^(?:\((\w+) pid=\d+\) )?(?:(?:ERROR|WARNING|INFO|CRITICAL) \d\d-\d\d \d\d:\d\d:\d\d \[[^]]*\] )?"
)
"""Process, level and place before vLLM's log lines. Source: seen on the real server."""
_TAIL = re.compile(r" \[type=value_error, .*$")
"""What pydantic says behind a message. Source: seen on the real server."""


def explain_exit(exit_code: int, lines: tuple[str, ...]) -> ExitCause:
    """Return the cause by the first rule that any line fits, else by the exit code; total."""
    said = _with_fields(tuple(map(_plain, lines)))
    by_code, by_words = explain_code(exit_code), by_rules(_RULES, said)
    if exit_code in (0, 1) and by_words is None and any(_LOST in line for line in said):
        return _A_PART_DIED  # it ends in order then, as if it had been asked to (code 0)
    if by_code is not None and by_code.kind in (ExitKind.STOPPED, ExitKind.KILLED):
        return by_code  # whatever the log says, that is not why it ended
    return by_words or otherwise(exit_code, said)


_LOST = "died unexpectedly (exit code: None)"
"""Of a worker that was killed; one that fails by itself tells why. Source: seen on the real server."""
_A_PART_DIED = ExitCause(
    kind=ExitKind.CRASHED,
    summary="one of its own processes died while it served",
    hint="if nobody killed it, the kernel ran out of memory: see `dmesg | grep -i oom`",
)


def _with_fields(lines: tuple[str, ...]) -> tuple[str, ...]:
    """Return the lines with the option's name, which stands in a line of its own, before what pydantic says of it."""
    before = ("", *lines)
    return tuple(
        f"{name}: {line}" if line.startswith("Input should be ") else line
        for name, line in zip(before, lines, strict=False)
    )


def _plain(line: str) -> str:
    return " ".join(_TAIL.sub("", _STAMP.sub("", line)).split())
