"""Rules on what code may call: each banned name with its replacement, and broad excepts only in the guards."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch

from tidy.source import Source, Violation

CHILDREN = (
    "freehold/fleet/processes/minder.py",
    "freehold/engines/programs/*.py",
    "freehold/testing/fake_engine.py",
)
GUARDS = (
    "freehold/fleet/run.py",
    "freehold/gateway/run.py",
    "freehold/health/agent/runner.py",
    "freehold/cli/main.py",
)
BROAD = {"Exception", "BaseException"}
TOLD_BY = ("exception", "error", "critical", "echo", "print", "show")
COUNTED_BY = ("add", "count", "bug")
LONGEST_SLEEP_S = 1


@dataclass(frozen=True, kw_only=True)
class Ban:
    """A name that must not be used, what to use, and the files that own it."""

    name: str
    instead: str
    allowed: tuple[str, ...] = ()


IN_PACKAGE = (
    Ban(name="time.sleep", instead="an Event's or a condition's wait with a timeout", allowed=CHILDREN),
    Ban(name="time", instead="freehold.core.clock", allowed=("freehold/core/clock.py", *CHILDREN)),
    Ban(name="datetime.datetime.now", instead="datetime.fromtimestamp(clock.wall_s(), UTC)"),
    Ban(name="datetime.datetime.utcnow", instead="datetime.fromtimestamp(clock.wall_s(), UTC)"),
    Ban(name="datetime.datetime.today", instead="datetime.fromtimestamp(clock.wall_s(), UTC)"),
    Ban(name="datetime.date.today", instead="datetime.fromtimestamp(clock.wall_s(), UTC).date()"),
    Ban(
        name="builtins.print",
        instead="telemetry.logs, or a return value that cli shows",
        allowed=("freehold/cli/*", *CHILDREN),
    ),
    Ban(name="builtins.input", instead="a flag or freehold.yaml", allowed=("freehold/cli/*",)),
    Ban(name="builtins.eval", instead="msgspec or pydantic"),
    Ban(name="builtins.exec", instead="a function"),
    Ban(name="builtins.exit", instead="a return value"),
    Ban(name="builtins.quit", instead="a return value"),
    Ban(name="os.system", instead="subprocess with an argv"),
    Ban(name="os.popen", instead="subprocess with an argv"),
    Ban(name="subprocess.getoutput", instead="subprocess.run with an argv"),
    Ban(name="subprocess.getstatusoutput", instead="subprocess.run with an argv"),
    Ban(name="asyncio.create_subprocess_shell", instead="asyncio.create_subprocess_exec"),
    Ban(name="asyncio.get_event_loop", instead="asyncio.get_running_loop"),
    Ban(name="pickle", instead="msgspec"),
    Ban(name="marshal", instead="msgspec"),
    Ban(name="shelve", instead="msgspec and a file"),
    Ban(
        name="yaml",
        instead="freehold.spec.load, which keeps file:line:column (ruamel.yaml); core.own_files for the package's own files",
        allowed=("freehold/core/own_files.py",),
    ),
    Ban(name="random", instead="a random.Random that the caller seeds", allowed=()),
    Ban(
        name="logging.getLogger",
        instead="freehold.telemetry.logs.get_logger",
        allowed=("freehold/telemetry/logs.py",),
    ),
    Ban(name="logging.basicConfig", instead="freehold.telemetry.logs.configure"),
    Ban(
        name="structlog",
        instead="freehold.telemetry.logs.get_logger",
        allowed=("freehold/telemetry/logs.py",),
    ),
    Ban(name="requests", instead="httpx2"),
    Ban(name="httpx", instead="httpx2"),
    Ban(name="urllib.request", instead="httpx2", allowed=("freehold/testing/*",)),
    Ban(name="http.client", instead="httpx2"),
    Ban(name="aiohttp", instead="httpx2"),
    Ban(name="unittest", instead="the fake engine in freehold.testing"),
)
IN_TESTS = (
    Ban(name="time.sleep", instead="waiting.wait_until", allowed=("tests/waiting.py",)),
    Ban(name="asyncio.get_event_loop", instead="asyncio.get_running_loop"),
    Ban(name="unittest.mock", instead="the real part, or the fake engine in freehold.testing"),
    Ban(name="os.system", instead="subprocess with an argv"),
    Ban(name="pickle", instead="msgspec"),
    Ban(name="requests", instead="httpx2"),
    Ban(name="httpx", instead="httpx2"),
)
FREE = {"random.Random", "random.SystemRandom"}
"""Names below a banned one that may be used: a generator that somebody holds, seeded or for jitter."""
BUILTINS = {"print", "input", "eval", "exec", "exit", "quit"}


def banned_in_package(source: Source) -> Iterator[Violation]:
    """The package uses no banned name; the message names the replacement."""
    yield from _banned(source, IN_PACKAGE)


def banned_in_tests(source: Source) -> Iterator[Violation]:
    """Tests use no banned name, `time.sleep` and `unittest.mock` among them."""
    yield from _banned(source, IN_TESTS)


def _banned(source: Source, bans: tuple[Ban, ...]) -> Iterator[Violation]:
    here = [ban for ban in bans if not any(fnmatch(source.path, pattern) for pattern in ban.allowed)]
    for node, name in _uses(source):
        for ban in here:
            if (name == ban.name or name.startswith(f"{ban.name}.")) and name not in FREE:
                yield source.violation("banned", node, subject=name, message=f"use {ban.instead}")
                break


def _uses(source: Source) -> Iterator[tuple[ast.AST, str]]:
    """Yield each outermost use of an imported or built-in name, and each import of a name from a module."""
    inner: set[int] = set()
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute):
            inner.add(id(node.value))
        if isinstance(node, ast.Name) and node.id in BUILTINS and node.id not in source.imports:
            yield node, f"builtins.{node.id}"
        elif isinstance(node, ast.Name | ast.Attribute) and id(node) not in inner:
            name = source.dotted(node)
            if name:
                yield node, name


def shell(source: Source) -> Iterator[Violation]:
    """No call goes through a shell."""
    for node in ast.walk(source.tree):
        if (
            isinstance(node, ast.keyword)
            and node.arg == "shell"
            and not _is_constant(node.value, value=False)
        ):
            yield source.violation(
                "shell", node.value, subject="shell=True", message="pass an argv; no shell parses it"
            )


def _is_constant(node: ast.expr, *, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def long_sleeps(source: Source) -> Iterator[Violation]:
    """A test does not sleep a second or more."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call) and source.dotted(node.func) == "asyncio.sleep" and node.args:
            first = node.args[0]
            if (
                isinstance(first, ast.Constant)
                and isinstance(first.value, int | float)
                and first.value >= LONGEST_SLEEP_S
            ):
                yield source.violation(
                    "long_sleeps", node, subject="asyncio.sleep", message="use waiting.until"
                )


def broad_excepts(source: Source) -> Iterator[Violation]:
    """A broad except re-raises, or stands in a guard file and logs and counts there what it caught."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call) and (source.dotted(node.func) or "").endswith("contextlib.suppress"):
            if any(_is_broad(argument) for argument in node.args):
                yield source.violation(
                    "broad_excepts", node, subject="suppress", message="name the exceptions"
                )
        elif isinstance(node, ast.ExceptHandler) and (node.type is None or _is_broad(node.type)):
            message = _guard_fault(source, node)
            if message:
                yield source.violation("broad_excepts", node, subject="except", message=message)


def _is_broad(node: ast.expr) -> bool:
    return any(isinstance(part, ast.Name) and part.id in BROAD for part in ast.walk(node))


def _guard_fault(source: Source, handler: ast.ExceptHandler) -> str:
    last = handler.body[-1]
    if isinstance(last, ast.Raise) and last.exc is None:
        return ""
    if source.path not in GUARDS:
        return f"name the exceptions, or re-raise; broad excepts stand in {', '.join(GUARDS)}"
    done = _done_in(source, handler)
    if not any(name.startswith(TOLD_BY) for name in done):
        return "a guard tells what it caught: logger.exception(…)"
    if not any(name.startswith(COUNTED_BY) for name in done) and not source.path.startswith("freehold/cli/"):
        return "a guard counts what it caught: freehold_bugs_total"
    return ""


def _done_in(source: Source, handler: ast.ExceptHandler) -> set[str]:
    """Return what a handler calls (and `add` for a +=), by itself or through a function of the same file."""
    done = _done(handler)
    for function in source.functions():
        if function.name.lstrip("_") in done:
            done |= _done(function)
    return done


def _done(node: ast.AST) -> set[str]:
    parts = list(ast.walk(node))
    adds = {"add" for part in parts if isinstance(part, ast.AugAssign)}
    return adds | {_called_name(part) for part in parts if isinstance(part, ast.Call)}


def _called_name(call: ast.Call) -> str:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    return name.lstrip("_")


ON_PACKAGE = (banned_in_package, shell, broad_excepts)
ON_TESTS = (banned_in_tests, shell, long_sleeps)
