"""A disk that takes half a second for each write, and one that is full: what requests feel of it, and who says so."""

import statistics
import time
from collections.abc import Callable

from stack import Bar

from holding.asking import health, metric
from holding.ground import Ground, Shim, shimmed

DELAY_MS = 500
PAIRS = 5
SAID_S = 20.0
DRAINED_S = 60.0


def slow(stage: Ground, shim: Shim) -> tuple[list[Bar], int]:
    """Turns with and without the delay, in pairs of alternating order."""
    p50: list[float] = []
    p99: list[float] = []
    whole = 0
    for number in range(PAIRS):
        reports = {}
        for delay_ms in (0, DELAY_MS) if number % 2 else (DELAY_MS, 0):
            shim.set("delay_ms", delay_ms)
            reports[delay_ms] = stage.latency(3.0)
            whole += reports[delay_ms]["whole"]
        p50.append(reports[DELAY_MS]["wait_us_p50"] - reports[0]["wait_us_p50"])
        p99.append(reports[DELAY_MS]["wait_us_p99"] - reports[0]["wait_us_p99"])
        print(
            f"  without: p99 {reports[0]['wait_us_p99']:.0f} us; with: {reports[DELAY_MS]['wait_us_p99']:.0f}"
        )
    shim.set("delay_ms", 0)
    return [
        Bar(name="disk calls that were delayed", value=shim.touched, limit=PAIRS, at_least=True),
        Bar(name="p50 added by a slow disk", value=statistics.median(p50) / 1e3, limit=2, unit=" ms"),
        Bar(name="p99 added by a slow disk", value=statistics.median(p99) / 1e3, limit=2, unit=" ms"),
    ], whole


def full(stage: Ground, shim: Shim) -> tuple[list[Bar], int]:
    """A turn while nothing can be written; then until somebody says so."""
    before = stage.latency(3.0)
    shim.set("full", 1)
    try:
        during = stage.latency(3.0)
        said_s = _until(lambda: bool(health(stage.port)["ledger"]["error"]), SAID_S)
        errors = metric(stage.port, "freehold_ledger_drain_errors_total")
        print(f"  /health, ledger: {health(stage.port)['ledger']}")
    finally:
        shim.set("full", 0)
    added = (during["wait_us_p99"] - before["wait_us_p99"]) / 1e3
    return [
        Bar(name="p99 added by a full disk", value=added, limit=2, unit=" ms"),
        Bar(name="a full disk is in /health after", value=said_s, limit=SAID_S, unit=" s"),
        Bar(name="failed rounds in /metrics", value=errors, limit=1, at_least=True),
    ], before["whole"] + during["whole"]


def _until(condition: Callable[[], bool], limit_s: float) -> float:
    """Seconds until it holds; beyond the limit where it does not."""
    started_s = time.monotonic()
    while not condition():
        if time.monotonic() - started_s > limit_s:
            return limit_s + 1
        time.sleep(0.05)
    return time.monotonic() - started_s


def measure() -> list[Bar]:
    with shimmed() as (stage, shim):
        found, whole = slow(stage, shim)
        more, also = full(stage, shim)
        whole += also
        drained_s = _until(lambda: stage.rows()[0] >= whole, DRAINED_S)
        rows, doubled = stage.rows()
    return [
        *found,
        *more,
        Bar(name="all in the ledger once there is room, after", value=drained_s, limit=DRAINED_S, unit=" s"),
        Bar(name="answers missing in the ledger", value=whole - rows, limit=0),
        Bar(name="answers counted twice", value=doubled, limit=0),
    ]
