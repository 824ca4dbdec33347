"""The contract of a probe file, whatever it looks at: pure, declared, and never healthy for want of data.

`check_probe(PROBE, views)` is for every probe, also one of another package; `views` are a healthy node's, which it spoils: it takes
parts away, lets readings fail, and puts values in that no machine has. It reports all that is wrong at once. Whether a
probe judges rightly it cannot know: that is for the probe's own tests.
"""

import ast
import importlib.util
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, get_args

import msgspec

from freehold.core.findings import Finding, Verdict
from freehold.health.model.probe import Expected, Part, Probe
from freehold.health.model.view import Reading, State, View

FAILED = (
    State.TRANSIENT,
    State.LOST,
    State.RESET_REQUIRED,
    State.MISMATCH,
    State.DENIED,
    State.HUNG,
    State.UNKNOWN,
)
"""States in which a value may be there and bad; UNSUPPORTED and ABSENT say that there is none."""
POKES: tuple[float | str, ...] = (
    0,
    1,
    2,
    7,
    100,
    1000,
    100_000,
    10**10,
    -100,
    -1e-3,
    "",
    "9",
    math.inf,
    math.nan,
)
"""What a reading is set to, to see whether the probe judges by it, and that nothing breaks."""
SOURCE_LETTERS_LEAST = 5
"""A source is at least a name. Our own bound."""
LONG_S = 600.0
"""Readings so old say nothing of now. Our own choice: ten times what any probe may count as fresh."""
IMPURE = frozenset(
    {
        *(
            "asyncio",
            "concurrent",
            "freehold.core.clock",
            "freehold.telemetry",
            "httptools",
            "httpx2",
            "io",
            "multiprocessing",
        ),
        *(
            "os",
            "psutil",
            "pynvml",
            "random",
            "secrets",
            "select",
            "selectors",
            "shutil",
            "signal",
            "socket",
            "ssl",
        ),
        *("subprocess", "sys", "threading", "time", "urllib", "uvloop"),
    }
)
"""What no probe may import, not even through a room of Freehold. Source: the import contract on pure modules, and what else reads the world."""
_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_BAD = (Verdict.UNKNOWN, Verdict.DEGRADED, Verdict.UNHEALTHY)
_SUMMARY_MOST = 200
"""Longest summary: one line of a table. Our own bound."""

Path_ = tuple[str | int, ...]
"""Where a reading stands in a view: `("gpus", "gpus", 0, "readings", "power_w")`."""


def check_probe(probe: Probe, views: Sequence[View]) -> None:
    """Raise AssertionError that lists every way in which the probe breaks the contract; else return.

    `views` are healthy for this probe, oldest first, with every reading that it needs.
    """
    failures = [*_check_declared(probe), *_check_imports(probe)]
    failures += [failure for check in _CHECKS for failure in check(probe, views)]
    if failures:
        raise AssertionError(f"probe {probe.name!r} breaks the contract:\n- " + "\n- ".join(failures))


def _check_declared(probe: Probe) -> Iterator[str]:
    file_name = probe.check.__module__.rpartition(".")[2]
    if probe.name != file_name or not _NAME.fullmatch(probe.name):
        yield f"it is named {probe.name!r}, its file {file_name!r}; both must be one name in snake_case"
    if not probe.summary or "\n" in probe.summary or len(probe.summary) > _SUMMARY_MOST:
        yield f"its summary must be one line of at most {_SUMMARY_MOST} characters"
    if not probe.reads or not set(probe.reads) <= set(get_args(Part)):
        yield f"it must read some of {', '.join(get_args(Part))}"
    if probe.window_s <= 0 or probe.confirm < 1 or probe.clear < 1:
        yield "window_s, confirm and clear must be positive"
    if not probe.thresholds:
        yield "it has no threshold: say by what it judges, and who says so"
    for threshold in probe.thresholds:
        if len(threshold.source.strip()) < SOURCE_LETTERS_LEAST or not math.isfinite(threshold.value):
            yield f"threshold {threshold.name!r} has no source or no finite value"
    for reason, words in probe.reasons.items():
        if not _NAME.fullmatch(reason) or len(words) < SOURCE_LETTERS_LEAST:
            yield f"reason {reason!r} must be in snake_case and say what it means and what to do"


def _check_imports(probe: Probe) -> Iterator[str]:
    for module in sorted(_imported_by(probe.check.__module__) & IMPURE):
        yield f"it imports {module}, be it through another module: a probe is pure"


@cache
def _imported_by(module: str) -> frozenset[str]:
    """Return what a module imports, and what the modules of Freehold that it imports import."""
    seen: set[str] = set()
    todo = [module]
    while todo:
        for name in _imports(todo.pop()) - seen:
            seen.add(name)
            if name.startswith("freehold."):
                todo.append(name)
    return frozenset(seen | {name.split(".", maxsplit=1)[0] for name in seen})


def _imports(module: str) -> set[str]:
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:  # a name of a module, `from freehold.core.findings import Finding`
        return set()
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return set()
    found: set[str] = set()
    for node in ast.walk(ast.parse(Path(spec.origin).read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def _findings(
    probe: Probe, views: Sequence[View], where: str, expected: Expected | None = None
) -> tuple[list[str], list[Finding]]:
    """Return what is wrong with the findings themselves, and them."""
    expected = expected or Expected()
    findings = list(probe.check(views, expected))
    wrong = [] if findings else [f"{where}: no finding at all"]
    for finding in findings:
        wrong += [f"{where}: {fault}" for fault in _wrong(probe, finding)]
    components = [finding.component for finding in findings]
    if len(set(components)) < len(components):
        wrong.append(f"{where}: more than one finding on one component")
    if repr(list(probe.check(views, expected))) != repr(findings):
        wrong.append(f"{where}: asked twice it answers differently")
    return wrong, findings


def _wrong(probe: Probe, finding: Finding) -> Iterator[str]:
    if finding.reason not in probe.reasons:
        yield f"the reason {finding.reason!r} is not declared"
    if finding.probe != probe.name:
        yield f"a finding calls its probe {finding.probe!r}"
    if not finding.component or not finding.message.strip() or "\n" in finding.message:
        yield f"a finding ({finding.reason}) has no component, or no message of one line"


def _check_healthy(probe: Probe, views: Sequence[View]) -> Iterator[str]:
    wrong, findings = _findings(probe, views, "a healthy node")
    yield from wrong
    bad = [
        f"{finding.component} {finding.verdict} {finding.reason}"
        for finding in findings
        if finding.verdict in _BAD
    ]
    if bad:
        yield f"on a healthy node it says {'; '.join(bad)}"
    if not any(finding.verdict is Verdict.HEALTHY for finding in findings):
        yield "on a healthy node with all readings it says nothing is healthy"


def _check_empty(probe: Probe, views: Sequence[View]) -> Iterator[str]:
    for where, empty in _empties(probe, views):
        wrong, findings = _findings(probe, empty, where)
        yield from wrong
        if any(finding.verdict is Verdict.HEALTHY for finding in findings):
            yield f"{where}: it is HEALTHY without data"


def _empties(probe: Probe, views: Sequence[View]) -> Iterator[tuple[str, list[View]]]:
    bare = View(at_s=1.0, monotonic_s=1.0)
    yield "an empty view", [bare]
    yield "many empty views", [View(at_s=float(n), monotonic_s=float(n)) for n in range(50)]
    gone = [msgspec.structs.replace(view, **dict.fromkeys(probe.reads)) for view in views]
    yield f"without {', '.join(probe.reads)}", gone
    last = msgspec.structs.replace(
        gone[-1], at_s=views[-1].at_s + LONG_S, monotonic_s=views[-1].monotonic_s + LONG_S
    )
    yield f"{', '.join(probe.reads)} gone for ten minutes", [*views, last]


def _check_failed(probe: Probe, views: Sequence[View]) -> Iterator[str]:
    """Let every reading that it judges by fail, alone and all together."""
    places = [place for place in _places(views[-1]) if place[0] in probe.reads]
    judged = [place for place in places if _judges(probe, views, place)]
    for state in FAILED:
        if judged:
            yield from _not_healthy(
                probe, _changed(views, judged, _failed(state)), f"all its readings {state}"
            )
        for place in judged:
            spoilt = _changed(views, [place], _failed(state))
            yield from _not_healthy(probe, spoilt, f"{_path(place)} {state}", component_only=True)


def _not_healthy(
    probe: Probe, views: Sequence[View], where: str, *, component_only: bool = False
) -> Iterator[str]:
    """Say where it stays healthy: all its findings when all is spoilt, every single one when one reading is."""
    wrong, findings = _findings(probe, views, where)
    yield from wrong
    healthy = [finding.verdict in (Verdict.HEALTHY, Verdict.NOT_APPLICABLE) for finding in findings]
    if all(healthy) or (
        not component_only and any(f.verdict is Verdict.HEALTHY for f in findings if _is_judged(f))
    ):
        yield f"{where}: it is still HEALTHY"


def _is_judged(finding: Finding) -> bool:
    """Leave out findings on a whole (`gpus`: how many there are), which one reading's failure does not touch."""
    return ":" in finding.component


def _judges(probe: Probe, views: Sequence[View], place: Path_) -> bool:
    """Return whether some value of the reading, in all views or in the newest alone, makes it worse."""
    old = len(views) - 1
    return any(
        finding.verdict in _BAD
        for poke in POKES[:12]
        for start in (0, old)
        for finding in probe.check(_changed(views, [place], _valued(poke), start), Expected())
    )


def _valued(value: float | str) -> Callable[[Reading], Reading]:
    return lambda _reading: Reading(value=value)


def _failed(state: State) -> Callable[[Reading], Reading]:
    return lambda _reading: Reading(state=state, detail="spoilt")


def _check_odd(probe: Probe, views: Sequence[View]) -> Iterator[str]:
    """See that odd values and odd times break nothing and give declared findings."""
    places = [place for place in _places(views[-1]) if place[0] in probe.reads]
    for poke in POKES:
        yield from _findings(probe, _changed(views, places, _valued(poke)), f"all readings {poke!r}")[0]
    for state in State:
        yield from _findings(probe, _changed(views, places, _failed(state)), f"all readings {state}")[0]
    stopped = [msgspec.structs.replace(view, at_s=1.0, monotonic_s=1.0) for view in views]
    yield from _findings(probe, stopped, "a clock that stands still")[0]
    booted = [*views, msgspec.structs.replace(views[-1], monotonic_s=1.0, at_s=views[-1].at_s + 60)]
    yield from _findings(probe, booted, "a reboot")[0]
    yield from _findings(probe, views[-1:], "one view")[0]
    partly = [*views, msgspec.structs.replace(views[-1], **dict.fromkeys(probe.reads[:1]))]
    yield from _findings(probe, partly, f"a newest view without {', '.join(probe.reads[:1])}")[0]
    expected = Expected(gpus=9, driver_version="1.2", rdma_ports=("mlx5_9/1",), link_mbit_s={"eth9": 400_000})
    yield from _findings(probe, views, "other things expected", expected)[0]


_CHECKS: tuple[Callable[[Probe, Sequence[View]], Iterator[str]], ...] = (
    _check_healthy,
    _check_empty,
    _check_failed,
    _check_odd,
)


def _places(view: View) -> list[Path_]:
    """Return where readings stand in a view."""
    return [place for place, _ in _walk(view, ())]


def _walk(value: Any, at: Path_) -> Iterator[tuple[Path_, Reading]]:
    if isinstance(value, Reading):
        yield at, value
    elif isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            yield from _walk(getattr(value, name), (*at, name))
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _walk(inner, (*at, key))
    elif isinstance(value, tuple):
        for index, inner in enumerate(value):
            yield from _walk(inner, (*at, index))


def _changed(
    views: Sequence[View], places: Sequence[Path_], change: Callable[[Reading], Reading], start: int = 0
) -> list[View]:
    """Return the views, from `start` on with the readings at those places changed."""
    return [*views[:start], *(_with(view, places, change) for view in views[start:])]


def _with(value: Any, places: Sequence[Path_], change: Callable[[Reading], Reading]) -> Any:
    if isinstance(value, Reading):
        return change(value)
    inner: dict[str | int, list[Path_]] = {}
    for place in places:
        inner.setdefault(place[0], []).append(place[1:])
    if isinstance(value, Mapping):
        return {
            **value,
            **{key: _with(value[key], rest, change) for key, rest in inner.items() if key in value},
        }
    if isinstance(value, tuple):
        return tuple(
            _with(item, inner[index], change) if index in inner else item for index, item in enumerate(value)
        )
    if not isinstance(value, msgspec.Struct):
        return value
    fresh = {str(name): _with(getattr(value, str(name)), rest, change) for name, rest in inner.items()}
    return msgspec.structs.replace(value, **fresh)


def _path(place: Path_) -> str:
    return ".".join(map(str, place))
