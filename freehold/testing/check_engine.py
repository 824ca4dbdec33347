"""The contract of an engine file, as far as it can be checked without starting anything.

`check_engine(ENGINE)` is for every engine, also one that lives in another package; it reports all that is wrong at
once. That the program does what the file says is checked by `check_running_engine`. A test may throw arbitrary input
at `check_exit` and `check_error`, which hold for any.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePath

from freehold.engines.base import (
    Adapter,
    ApiError,
    Capacity,
    Engine,
    ExitCause,
    ExitKind,
    HttpCheck,
    Option,
    Placement,
)
from freehold.engines.shared.option_check import check_options

METRIC_NAMES = frozenset(
    {
        "generated_tokens_total",
        "prompt_tokens_total",
        "running_requests",
        "waiting_requests",
        "decode_steps_total",
        "kv_usage_ratio",
        "preemptions_total",
        "awake_engines",
    }
)
"""Our names for an engine's counters. Source: `freehold.engines.base.Metric`."""
PROGRESS_NAMES = frozenset({"generated_tokens_total", "decode_steps_total"})
"""Of these a managed engine has at least one: liveness is progress. Source: DESIGN section 3, decision 4."""
SUMMARY_LENGTH_MAX = 500
"""Longest exit summary, characters. Source: our own bound: it is one line for a person."""
EXIT_CODES = range(-64, 256)
"""Minus every signal of Linux (1 to 64), and every exit code (0 to 255)."""
HTTP_ERRORS = range(400, 600)

_ENGINE_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_OPTION_NAME = re.compile(r"[a-z][a-z0-9_]*")
_METRIC_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
"""Source: Prometheus data model, metric names."""
_SHELLS = {"sh", "bash", "dash", "zsh", "env"}
_LOGS: tuple[tuple[str, ...], ...] = (
    (),
    ("",),
    ("   ", "\t"),
    ("x" * 100_000,),
    ("\x00\x1b[31m\x7f", "\ud800", "漢字", "%s %d {0}"),
    ("Traceback (most recent call last):", "MemoryError"),
    tuple(f"line {number}" for number in range(1000)),
)
_BODIES = (
    b"",
    b"\xff\xfe",
    b"null",
    b"[]",
    b"0",
    b'"text"',
    b"{}",
    b'{"error": null}',
    b'{"error": "text"}',
    b'{"error": []}',
    b'{"error": {"message": null, "type": 5, "code": {}}}',
    b'{"error": {"message": 1e999, "param": []}}',
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"<html>502 Bad Gateway</html>",
    b"x" * 1_000_000,
)
_PLACE = Placement(
    model="some-model",
    weights=Path("/weights/some.gguf"),
    host="127.0.0.1",
    port=54321,
    options={},
    threads=3,
)
_SOCKET, _KEY = "/run/freehold-0/engine.sock", "key-of-one-launch"
_ADAPTERS = (
    Adapter(name="first", path=Path("/adapters/first"), rank=8),
    Adapter(name="second", path=Path("/adapters/second, 2:0")),
)

_Value = int | str | bool | float


def check_engine(engine: Engine) -> None:
    """Raise AssertionError that lists every way in which the engine breaks the contract; else return."""
    failures = [failure for check in _CHECKS for failure in check(engine)]
    if failures:
        raise AssertionError(f"engine {engine.name!r} breaks the contract:\n- " + "\n- ".join(failures))


def check_exit(engine: Engine, exit_code: int, lines: tuple[str, ...]) -> list[str]:
    """Return what is wrong with the engine's explanation of an exit; right for any code and any lines."""
    cause: object = engine.explain_exit(exit_code, lines)
    where = f"explain_exit({exit_code}, …)"
    if not isinstance(cause, ExitCause):
        return [f"{where} gives {type(cause).__name__}, no ExitCause"]
    failures = []
    if not cause.summary.strip() or len(cause.summary) > SUMMARY_LENGTH_MAX or "\n" in cause.summary:
        failures.append(f"{where}: the summary must be one line of 1 to {SUMMARY_LENGTH_MAX} characters")
    if cause != engine.explain_exit(exit_code, lines):
        failures.append(f"{where} gives different answers to the same question")
    return failures


def check_error(engine: Engine, status: int, body: bytes) -> list[str]:
    """Return what is wrong with the engine's translation of an error; right for any status 400-599 and body."""
    error: object = engine.translate_error(status, body)
    where = f"translate_error({status}, {body[:40]!r})"
    if error is None:
        return []
    if not isinstance(error, ApiError):
        return [f"{where} gives {type(error).__name__}, neither ApiError nor None"]
    failures = []
    if error.status not in HTTP_ERRORS:
        failures.append(f"{where} has the status {error.status}")
    if not error.message or not error.type:
        failures.append(f"{where} has no message or no type")
    return failures


def _check_names(engine: Engine) -> Iterator[str]:
    if not _ENGINE_NAME.fullmatch(engine.name):
        yield "its name must be lower-case words joined by '-'"
    if not engine.summary or "\n" in engine.summary:
        yield "its summary must be one line"
    if engine.managed != (engine.command is not None):
        yield "it must have a command if and only if it is managed"
    if not engine.paths:
        yield "it serves no path"
    yield from (
        f"path {path!r} does not begin with /v1/" for path in engine.paths if not path.startswith("/v1/")
    )


def _check_options(engine: Engine) -> Iterator[str]:
    names = [option.name for option in engine.options]
    yield from (f"option {name!r} stands twice" for name in {name for name in names if names.count(name) > 1})
    for option in engine.options:
        if not _OPTION_NAME.fullmatch(option.name):
            yield f"option {option.name!r} must be in snake_case"
        if not option.help:
            yield f"option {option.name!r} has no help"
        if option.choices and not _fit(option):
            yield f"option {option.name!r} has choices that are no {option.type}"
        given = {} if option.default is None else {option.name: option.default}
        for problem in check_options(engine, given, lambda name: name):
            yield f"the default of option {problem.where!r} is not allowed by itself: {problem.message}"


def _fit(option: Option) -> bool:
    return option.type == "str" or (
        option.type == "int" and all(text.lstrip("-").isdigit() for text in option.choices)
    )


def _values(option: Option) -> list[_Value]:
    """Return some values that a user may write: both ends, both truths, every choice."""
    if option.type == "bool":
        return [False, True]
    if option.type == "str":
        if option.items in ("int", "float"):
            return ["1", "2 3"]
        return list(option.choices) or (["{}", '{"some": 1}'] if option.json else ["some", "other"])
    if option.choices and _fit(option):
        return [int(text) for text in option.choices]
    low = 1 if option.minimum is None else option.minimum
    high = low + 1_000_000 if option.maximum is None else option.maximum
    return [int(low), int(high)] if option.type == "int" else [float(low), float(high)]


def _placements(engine: Engine) -> Iterator[tuple[str, Mapping[str, _Value]]]:
    yield "without options", {}
    for option in engine.options:
        for value in _values(option):
            yield f"with {option.name}={value!r}", {option.name: value}


def _placed(options: Mapping[str, _Value]) -> Placement:
    return replace(_PLACE, options=options)


def _check_command(engine: Engine) -> Iterator[str]:
    if engine.command is None:
        return
    for when, options in _placements(engine):
        command = engine.command(_placed(options))
        if command != engine.command(_placed(options)):
            yield f"{when} the command differs from one call to the next"
        yield from (f"{when} {failure}" for failure in _check_argv(command.argv))
        texts = [*command.env.items(), *command.files.items()]
        if not all(isinstance(text, str) for pair in texts for text in pair):
            yield f"{when} the environment or the files are not text to text"
        if any(PurePath(name).name != name for name in (*command.files, *command.links)):
            yield f"{when} a file or a link has no plain name"
        for name in command.files:
            named_so = engine.command(replace(_placed(options), model=name))
            if not named_so.files.keys().isdisjoint(named_so.links):
                yield f"{when} a model named {name} has a link in place of a file"


def _check_adapters(engine: Engine) -> Iterator[str]:
    """Find an engine that is given adapters and does not load them, or cannot be asked for them."""
    if (engine.ask_adapter is None) is not (engine.managed and not engine.adapter_formats):
        yield "it must say how it is asked for an adapter if and only if it can have some"
        return
    if engine.ask_adapter is None:
        if engine.adapter_keys or engine.adapter_paths:
            yield "it says of adapters what it takes, and takes none"
        return
    yield from (
        f"it heeds adapters on {path}, which it does not serve"
        for path in engine.adapter_paths - engine.paths
    )
    for place, adapter in enumerate(_ADAPTERS):
        keys = engine.ask_adapter(_PLACE.model, place, adapter)
        if not keys or keys != json.loads(json.dumps(dict(keys))):
            yield f"a request by the adapter {adapter.name} has no JSON keys of its own"
    if engine.command is not None:
        command = engine.command(replace(_PLACE, adapters=_ADAPTERS))
        said = " ".join((*command.argv, *command.files.values(), *command.links.values()))
        yield from (
            f"its command does not hold the adapter {adapter.path}"
            for adapter in _ADAPTERS
            if str(adapter.path) not in said
        )


def _check_address(engine: Engine) -> Iterator[str]:
    """Find an engine that listens elsewhere than its file says, or that shows its key to every user."""
    if engine.command is None:
        return
    argv = engine.command(replace(_PLACE, socket=_SOCKET)).argv
    if any(_SOCKET in word for word in argv) is not engine.unix_socket:
        yield "its command must hold the Unix socket if and only if unix_socket is true"
    if engine.unix_socket and any(_PLACE.host in word for word in argv):
        yield "it has a Unix socket and listens on the host besides"
    if any(_KEY in word for word in engine.command(replace(_PLACE, key=_KEY)).argv):
        yield "argv, which every user can read, holds its key: write it into a file or the environment"


def _check_argv(argv: tuple[str, ...]) -> Iterator[str]:
    if not argv or not all(isinstance(word, str) and "\0" not in word for word in argv):
        yield "argv is empty or not all text"
        return
    if PurePath(argv[0]).name in _SHELLS:
        yield f"argv goes through {argv[0]}"
    for name, word in (("host", _PLACE.host), ("port", str(_PLACE.port)), ("model", _PLACE.model)):
        if not any(word == part or part.endswith((f"={word}", f"/{word}")) for part in argv):
            yield f"argv does not hold the {name}"


def _check_options_matter(engine: Engine) -> Iterator[str]:
    """Find options that change neither the command nor what the file says of the engine."""
    for option in engine.options:
        given = [{}, *({option.name: value} for value in _values(option))]
        outcomes = {_outcome(engine, options) for options in given}
        if len(outcomes) < 2:
            yield f"option {option.name!r} changes nothing"


def _outcome(engine: Engine, options: Mapping[str, _Value]) -> object:
    command = engine.command(_placed(options)) if engine.command is not None else None
    said = (
        (command.argv, tuple(sorted(command.env.items())), tuple(sorted(command.files.items())))
        if command is not None
        else None
    )
    return said, *(value for _, value in _room(engine, options))


def _check_ready(engine: Engine) -> Iterator[str]:
    check: object = engine.ready(_PLACE.model)
    if not isinstance(check, HttpCheck):
        yield "ready gives no HttpCheck"
        return
    if check.path not in engine.paths or check.method != "POST" or check.body is None:
        yield "ready must POST to one of its own paths: only a completion proves that it works"
        return
    if check.body.get("model") != _PLACE.model or check.body.get("max_tokens") != 1:
        yield "ready must ask the given model for one token"
    try:
        json.dumps(dict(check.body))
    except (TypeError, ValueError):
        yield "ready's body is no JSON"


def _check_metrics(engine: Engine) -> Iterator[str]:
    names = [metric.name for metric in engine.metrics]
    if len(set(names)) < len(names) or not METRIC_NAMES.issuperset(names):
        yield f"its metrics must be some of {', '.join(sorted(METRIC_NAMES))}, each once"
    if bool(names) != (engine.metrics_path is not None):
        yield "it must have a metrics_path if and only if it has metrics"
    if engine.managed and not (PROGRESS_NAMES.intersection(names) and "running_requests" in names):
        yield "a managed engine must show its progress: running_requests and a token or decode counter"
    for metric in engine.metrics:
        if not metric.theirs or not all(_METRIC_NAME.fullmatch(name) for name in metric.theirs):
            yield f"metric {metric.name!r} maps to no or to impossible names"
        if metric.scale <= 0:
            yield f"metric {metric.name!r} has the scale {metric.scale}"


def _check_unfinished(engine: Engine) -> Iterator[str]:
    if engine.unfinished is None:
        return
    if not engine.unfinished.path.startswith("/"):
        yield f"unfinished: {engine.unfinished.path!r} is not a path"
    for body in (b"", b"{}", b"[1]", b'[{"next_token": 3}]', b"\xff", b"[" * 5000):
        tokens = engine.unfinished.tokens(body)
        if tokens is not None and not tokens >= 0:
            yield f"unfinished tokens of {body[:20]!r} are {tokens!r}"


def _check_pages(engine: Engine) -> Iterator[str]:
    for page in engine.more_pages:
        if not page.path.startswith("/"):
            yield f"more_pages: {page.path!r} is not a path"
        for body in (b"", b"{}", b"[1]", b"[[]]", b'[{"iter": {}}]', b"\xff", b"[" * 5000):
            if page.read(body):
                yield f"what {page.path} shows by {body[:20]!r} is not unknown"


def _check_tells(engine: Engine) -> Iterator[str]:
    for page in engine.capacity_pages:
        if not page.path.startswith("/"):
            yield f"capacity_pages: {page.path!r} is not a path"
        for body in (b"", b"{}", b"[1]", b'{"data": [3, {"id": "m"}]}', b"a{b} 1\n", b"\xff", b"[" * 5000):
            if page.read(body, "m") != Capacity():
                yield f"what {page.path} tells by {body[:20]!r} is not unknown"


def _room(engine: Engine, options: Mapping[str, _Value]) -> tuple[tuple[str, int], ...]:
    return (
        ("slots", engine.slots(options)),
        ("kv_tokens", engine.kv_tokens(options) if engine.kv_tokens is not None else 0),
        ("max_context_tokens", engine.max_context_tokens(options)),
    )


def _check_sizes(engine: Engine) -> Iterator[str]:
    for when, options in _placements(engine):
        for name, size in _room(engine, options):
            if type(size) is not int or size < 0:
                yield f"{when} {name} gives {size!r}"


def _check_phases(engine: Engine) -> Iterator[str]:
    for phase in engine.phases:
        try:
            said = phase.says.format(*("33%" for _ in range(phase.words.groups)))
        except (IndexError, KeyError, ValueError):
            said = ""
        if not said.strip() or "\n" in said or len(said) > SUMMARY_LENGTH_MAX:
            yield f"phase {phase.says!r} must be one line, with no more places than its words have groups"
        if phase.words.search(""):
            yield f"phase {phase.says!r} fits every line"


def _check_gpus(engine: Engine) -> Iterator[str]:
    for when, options in _placements(engine):
        count = engine.gpus_of(options, None)
        if count is not None and (type(count) is not int or count < 0):
            yield f"{when} gpus gives {count!r}"


def _check_exits(engine: Engine) -> Iterator[str]:
    failures = [
        failure
        for exit_code in EXIT_CODES
        for lines in (_LOGS if exit_code in (1, -6, 127) else _LOGS[:2])
        for failure in check_exit(engine, exit_code, lines)
    ]
    yield from failures
    if failures or not engine.managed:
        return
    for exit_code, kind in ((0, ExitKind.STOPPED), (-15, ExitKind.STOPPED), (-9, ExitKind.KILLED)):
        if engine.explain_exit(exit_code, ()).kind != kind:
            yield f"explain_exit({exit_code}, ()) must be {kind}"
    missing = engine.explain_exit(127, ())
    if missing.kind != ExitKind.MISSING_PROGRAM or missing.restart:
        yield "explain_exit(127, ()) must be a missing program, and no reason to start again"


def _check_errors(engine: Engine) -> Iterator[str]:
    for body in _BODIES:
        for status in (400, 404, 413, 429, 500, 501, 503, 599):
            yield from check_error(engine, status, body)


_CHECKS: tuple[Callable[[Engine], Iterator[str]], ...] = (
    _check_names,
    _check_options,
    _check_command,
    _check_adapters,
    _check_address,
    _check_options_matter,
    _check_ready,
    _check_metrics,
    _check_unfinished,
    _check_pages,
    _check_tells,
    _check_sizes,
    _check_phases,
    _check_gpus,
    _check_exits,
    _check_errors,
)
