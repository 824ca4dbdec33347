"""SGLang in words and numbers: its command, its ends, its errors. The words are those of its source, version 0.5.23."""

import json
from pathlib import Path

import pytest

from freehold.engines.base import Capacity, ExitKind, Placement, Value
from freehold.engines.sglang import ENGINE, FLAGS
from freehold.engines.shared.option_check import check_options


def argv(environment: Path | None = None, **options: Value) -> tuple[str, ...]:
    assert ENGINE.command is not None
    place = Placement(
        model="m", weights=Path("/w/m"), host="127.0.0.1", port=1234, options=options, environment=environment
    )
    return ENGINE.command(place).argv


def test_the_flags_are_of_the_named_version() -> None:
    assert (FLAGS.program, FLAGS.version) == ("python -m sglang.launch_server", "0.5.23")
    assert len(FLAGS.flags) == 531


@pytest.mark.parametrize(
    ("environment", "program", "words"),
    [
        (None, None, ("sglang", "serve")),
        (Path("/e"), None, ("/e/bin/python", "-P", "-m", "sglang.launch_server")),
        (
            Path("/e"),
            "/opt/sg/bin/python3.12",
            ("/opt/sg/bin/python3.12", "-P", "-m", "sglang.launch_server"),
        ),
        (None, "/opt/sg/bin/sglang", ("/opt/sg/bin/sglang", "serve")),
    ],
)
def test_the_program_is_the_environments_unless_named(
    environment: Path | None, program: str | None, words: tuple[str, ...]
) -> None:
    options = {"program": program} if program else {}
    assert argv(environment, **options)[: len(words)] == words


def test_flags_are_the_programs_own() -> None:
    words = argv(tp_size=2, lora_paths='a=/x "b=/y z"', enable_lora=True, mem_fraction_static=0.8)
    assert {"--tp-size=2", "--enable-lora", "--mem-fraction-static=0.8", "--enable-metrics"} <= set(words)
    at = words.index("--lora-paths")
    assert words[at + 1 : at + 3] == ("a=/x", "b=/y z")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"port": 1}, "Freehold takes a free one"),
        ({"api_key": "k"}, "callers' keys"),
        ({"tensor_parallel_size": 2}, "write tp_size"),
        ({"model": "x"}, "`source`"),
        ({"tp_sise": 2}, "did you mean 'tp_size'"),
        ({"schedule_policy": "lmp"}, "did you mean 'lpm'"),
        ({"cuda_graph_config": "{"}, "as one text in quotes"),
        ({"program": 3}, "a `sglang` program"),
    ],
)
def test_a_mistake_is_told_with_the_way_out(options: dict[str, Value], words: str) -> None:
    (problem,) = check_options(ENGINE, options, lambda name: name)
    assert words in problem.hint


def test_an_embedding_server_is_ready_with_an_embedding() -> None:
    assert ENGINE.proof("m", {"is_embedding": True}).path == "/v1/embeddings"
    assert ENGINE.proof("m", {}).path == "/v1/completions"


SIGQUIT = "[2026-11-27 10:00:09] Received sigquit from a child process. It usually means the child failed."


@pytest.mark.parametrize(
    ("exit_code", "lines", "kind", "restart"),
    [
        (2, ["launch_server.py: error: unrecognized arguments: --no-such"], ExitKind.BAD_OPTION, False),
        (1, ["/usr/bin/python3: Error while finding module specification for 'sglang.launch_server' (ModuleNotFoundError: No module named 'sglang')"], ExitKind.MISSING_PROGRAM, False),
        (-9, ["RuntimeError: Not enough memory. Please try to increase --mem-fraction-static. Current value: mem_fraction_static=0.5", SIGQUIT], ExitKind.OUT_OF_MEMORY, True),
        (-9, ["torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.", SIGQUIT], ExitKind.OUT_OF_MEMORY, True),
        (-9, ["RuntimeError: No CUDA GPUs are available", SIGQUIT], ExitKind.BAD_DRIVER, True),
        (-9, ["safetensors_rust.SafetensorError: Error while deserializing header: incomplete metadata", SIGQUIT], ExitKind.BAD_WEIGHTS, False),
        (-9, ["safetensors_rust.SafetensorError: device error: Input/output error (os error 5)", SIGQUIT], ExitKind.BAD_WEIGHTS, True),
        (-9, ["[2026-11-27 10:00:00] /w does not appear to have a file named chat_template.json", "KeyError: 'x'", SIGQUIT], ExitKind.BAD_WEIGHTS, True),
        (-9, ["ValueError: tp_size 2 does not fit the 1 GPU that is seen now", SIGQUIT], ExitKind.BAD_OPTION, True),
        (1, ["ValueError: http_port at 30000 is not available in 30 seconds. http_port is used by a process already."], ExitKind.PORT_IN_USE, True),
        (1, ["ERROR:    [Errno 98] error while attempting to bind on address ('127.0.0.1', 30000): address already in use"], ExitKind.PORT_IN_USE, True),
        (-9, ["RuntimeError: The NVIDIA driver on your system is too old (found version 12020).", SIGQUIT], ExitKind.BAD_DRIVER, False),
        (-9, ["ValueError: Model architectures ['XForCausalLM'] are not supported for now. Supported architectures: ...", SIGQUIT], ExitKind.BAD_WEIGHTS, False),
        (-9, ["torch.distributed.DistBackendError: NCCL error in: ProcessGroupNCCL.cpp:2005, unhandled system error", SIGQUIT], ExitKind.CRASHED, True),
        (0, ["Scheduler hit an exception: Traceback (most recent call last):", "  File x", "KeyError: 'rope'", SIGQUIT], ExitKind.CRASHED, True),
        (-9, [], ExitKind.KILLED, True),
        (-9, ["[2026-11-27 10:00:00] INFO: something"], ExitKind.KILLED, True),
        (-9, ["[2026-11-27 10:00:00] SIGTERM received. signum=15 frame=None. Draining requests and shutting down..."], ExitKind.STOPPED, True),
        (0, ["[2026-11-27 10:00:00] SIGTERM received. signum=15 frame=None. Draining requests and shutting down..."], ExitKind.STOPPED, True),
        (-11, [], ExitKind.CRASHED, True),
        (3, ["something new"], ExitKind.UNKNOWN, True),
    ],
)  # fmt: skip
def test_ends_are_explained_by_the_servers_words(
    exit_code: int, lines: list[str], kind: ExitKind, *, restart: bool
) -> None:
    cause = ENGINE.explain_exit(exit_code, tuple(lines))
    assert (cause.kind, cause.restart) == (kind, restart)


def test_a_failed_child_without_a_rule_tells_its_last_error() -> None:
    lines = (
        "Scheduler hit an exception: Traceback (most recent call last):",
        "  x",
        "KeyError: 'rope'",
        SIGQUIT,
    )
    assert ENGINE.explain_exit(-9, lines).summary == "a process of it failed: KeyError: 'rope'"


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("The input (6031 tokens) is longer than the model's context length (2048 tokens).", "context_length_exceeded"),
        ("Requested token count exceeds the model's maximum context length of 2048 tokens. You requested a total of 9000 tokens: 10 tokens from the input messages and 8990 tokens for the completion. Please reduce the number of tokens in the input messages or the completion to fit within the limit.", "context_length_exceeded"),
        ("The request queue is full.", "engine_overloaded"),
        ("Failed to parse tools", None),
    ],
)  # fmt: skip
def test_its_refusals_are_told_in_openais_words(message: str, code: str | None) -> None:
    body = json.dumps(
        {"object": "error", "message": message, "type": "BadRequestError", "param": None, "code": 400}
    )
    error = ENGINE.translate_error(400, body.encode())
    assert (error.code if error else None) == code


def test_what_each_copy_takes_is_added_up() -> None:
    info, cards = (page.read for page in ENGINE.capacity_pages[::2])
    states = [{"effective_max_running_requests_per_dp": 100}, {"effective_max_running_requests_per_dp": 90}]
    body = json.dumps({"max_total_num_tokens": 1000, "internal_states": states}).encode()
    assert info(body, "m") == Capacity(slots=190, kv_tokens=2000)
    models = json.dumps({"data": [{"id": "x", "max_model_len": 9}, {"id": "m", "max_model_len": 7}]}).encode()
    assert cards(models, "m") == Capacity(max_context_tokens=7)


def test_it_fetches_nothing_by_itself() -> None:
    assert ENGINE.command is not None
    place = Placement(model="m", weights=Path("/w/m"), host="127.0.0.1", port=1, options={})
    assert ENGINE.command(place).env["HF_HUB_OFFLINE"] == "1"


def test_a_clients_long_prompt_is_no_mistake_in_the_options() -> None:
    """Its words in the log of a server that then crashes must not keep it from being started again; the option's own words must."""
    asked = "ValueError: The input (6031 tokens) is longer than the model's context length (2048 tokens)."
    assert ENGINE.explain_exit(1, (asked,)).restart
    set_so = "ValueError: Warning: User-specified context_length (9000) is greater than the derived context_length (2048)."
    assert ENGINE.explain_exit(1, (set_so,)).kind is ExitKind.BAD_OPTION
    assert ENGINE.explain_exit(1, ("Unrecognized model keys in the configuration: foo",)).restart
