"""The bars the gateway is held to, and a verdict on each. Pure: numbers in, verdicts out.

A bar holds for this repository's gateway only; the peers give the scale. `plain` is the path with routing, pooling
and failover; `full` is with keys, fair queue, metering, access log, metrics and continuation on. Deliberately no
averaging across bars: each stands or falls alone, and one that could not be measured does not hold.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

OURS = "freehold"
OTHERS = frozenset({"mock", "tcp-relay", "nginx", "vllm-router", "freehold before"})
"""The engine and those that are compared with; every other name is ours, with these or those features."""
Results = dict[str, Any]
Reading = float | None


@dataclass(kw_only=True, slots=True)
class Bar:
    """One bar: what is read from the results, and the bound for each feature set."""

    name: str
    part: str
    """The part of a run that measures it."""
    read: Callable[[Results], Reading]
    plain: float | None
    """None: that set is held to another bar."""
    full: float | None
    at_least: bool = False
    unit: str = ""


@dataclass(kw_only=True, slots=True)
class Verdict:
    """What was read, the bound, and whether it holds; None when it could not be measured."""

    name: str
    value: Reading
    bound: float
    holds: bool | None
    sense: str
    unit: str


def at(results: Results, *path: str) -> Any:
    """Walk down the results; None where a step is missing."""
    found: Any = results
    for step in path:
        found = found.get(step) if isinstance(found, dict) else None
    return found


def ratio(shape: str, what: str, peer: str, part: str = "shapes") -> Callable[[Results], Reading]:
    return lambda results: at(results, part, shape, "ratios", what, peer)


def ours(*path: str) -> Callable[[Results], Reading]:
    return lambda results: at(results, *path[:1], OURS, *path[1:])


def least_served(results: Results) -> Reading:
    """The worst of the three ways in which one engine of four fails."""
    served = [at(results, "one_of_four", OURS, mode, "served") for mode in ("close", "503", "exit")]
    return None if None in served else min(served)


def told(results: Results) -> Reading:
    """Streams that ended in an error event, or whole after all."""
    cut = at(results, "cut", OURS)
    return None if cut is None else cut["inband"] + cut["whole"]


def whole(results: Results) -> Reading:
    """Streams that came whole although their engine died in each of them."""
    cut = at(results, "cut", OURS)
    return None if cut is None else cut["whole"]


REQUESTS, STEP, SPREAD = (
    "requests, 32 connections",
    "200 streams x 10 ms, in step",
    "200 streams x 10 ms, spread",
)

BEFORE = tuple(
    Bar(
        name=f"CPU to the gateway before, {shape}",
        part="before",
        read=ratio(shape, "cpu", "freehold before"),
        plain=1.02,
        full=1.02,
    )
    for shape in (REQUESTS, STEP, SPREAD)
)
"""What a change of the structure may cost."""
TLS = tuple(
    Bar(
        name=f"CPU per chunk over TLS, {shape}, to nginx with TLS",
        part="tls",
        read=ratio(shape, "cpu", "nginx", "tls"),
        plain=1.5,
        full=1.5,
    )
    for shape in (STEP, SPREAD)
)
BARS = (
    *BEFORE,
    *TLS,
    Bar(
        name="CPU per request, to nginx",
        part="load",
        read=ratio(REQUESTS, "cpu", "nginx"),
        plain=1.8,
        full=2.3,
    ),
    Bar(
        name="CPU per request, to vllm-router",
        part="load",
        read=ratio(REQUESTS, "cpu", "vllm-router"),
        plain=0.45,
        full=0.6,
    ),
    Bar(
        name="CPU per chunk in step, to nginx",
        part="load",
        read=ratio(STEP, "cpu", "nginx"),
        plain=1.3,
        full=1.4,
    ),
    Bar(
        name="CPU per chunk in step, to vllm-router",
        part="load",
        read=ratio(STEP, "cpu", "vllm-router"),
        plain=1.0,
        full=1.1,
    ),
    Bar(
        name="CPU per chunk spread, to nginx",
        part="load",
        read=ratio(SPREAD, "cpu", "nginx"),
        plain=1.3,
        full=1.4,
    ),
    Bar(
        name="CPU per chunk spread, to vllm-router",
        part="load",
        read=ratio(SPREAD, "cpu", "vllm-router"),
        plain=1.0,
        full=1.1,
    ),
    Bar(
        name="added p50, 1 in flight, to nginx",
        part="load",
        read=ratio("1 in flight", "added", "nginx"),
        plain=1.6,
        full=2.0,
    ),
    Bar(
        name="memory per idle stream",
        part="memory",
        read=ours("idle", "rss_kib_per_stream"),
        plain=15,
        full=25,
        unit="KiB",
    ),
    Bar(
        name="growth with 16 slow readers",
        part="slow",
        read=ours("slow", "rss_mib"),
        plain=5,
        full=8,
        unit="MiB",
    ),
    Bar(
        name="held per slow reader, kernel too",
        part="slow",
        read=ours("slow", "mib_per_client"),
        plain=1,
        full=1,
        unit="MiB",
    ),
    Bar(
        name="p99 of 16 others beside slow readers",
        part="slow",
        read=ours("slow_ab", "p99_ratio"),
        plain=1.15,
        full=1.15,
    ),
    Bar(
        name="of 200, one engine of four failing",
        part="failures",
        read=least_served,
        plain=200,
        full=200,
        at_least=True,
        unit="served",
    ),
    Bar(
        name="of 50 aborts, seen within 20 ms",
        part="failures",
        read=ours("aborts", "within_20_ms"),
        plain=50,
        full=50,
        at_least=True,
        unit="seen",
    ),
    Bar(
        name="of 20 streams whose engine dies, told",
        part="failures",
        read=told,
        plain=20,
        full=None,
        at_least=True,
        unit="told",
    ),
    Bar(
        name="of 20 streams whose engine dies, whole",
        part="failures",
        read=whole,
        plain=None,
        full=20,
        at_least=True,
        unit="whole",
    ),
)


def judge(bar: Bar, results: Results, bound: float) -> Verdict:
    value = bar.read(results)
    holds = None if value is None else (value >= bound if bar.at_least else value <= bound)
    return Verdict(
        name=bar.name,
        value=value,
        bound=bound,
        holds=holds,
        sense=">=" if bar.at_least else "<=",
        unit=bar.unit,
    )


def verdicts(results: Results, column: str, parts: Collection[str]) -> list[Verdict]:
    """One verdict per bar of the parts that were asked for, in the order of the table."""
    chosen = [(bar, bar.plain if column == "plain" else bar.full) for bar in BARS if bar.part in parts]
    return [judge(bar, results, bound) for bar, bound in chosen if bound is not None]


def exit_code(found: Collection[Verdict], results: Results) -> int:
    """0: every bar holds; 3: one does not, or our own answers were wrong; 1: something could not be measured.

    A peer that failed says nothing of ours: what was to be measured against it was not.
    """
    wrong = any(name not in OTHERS for name, _ in results["failed"])
    if wrong or any(one.holds is False for one in found):
        return 3
    missing = results["failed"] or results["skipped"].keys() - OTHERS
    return 1 if missing or any(one.holds is None for one in found) else 0
