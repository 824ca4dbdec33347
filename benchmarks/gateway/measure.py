"""The measurements: each takes running gateways and returns plain numbers.

Timed ones go in short turns, all gateways in rotation, because neighbours on a shared machine move even CPU time by
a quarter; what counts is the ratio within a round. The rest (memory, aborts, dying engines) is done once per gateway.
Every turn's answers are checked by the client, and a wrong one ends the measurement with what was wrong.
"""

import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import peers
from build import CannotMeasureError
from processes import (
    Cores,
    Held,
    Running,
    ask,
    free_port,
    rss_bytes,
    run_client,
    socket_bytes,
    start_mock,
    stop,
    tree,
)

WARM_MS = 250
AB_WINDOWS = 4
AB_WINDOW_S = 0.4
SETTLE_STEP_S = 0.2
QUIET_BYTES = 65536
# schedstat loses threads that ended, utime has 10 ms ticks; beyond this gap the ticks are believed
CPU_GAP_SHARE = 0.10
CPU_GAP_NS = 30_000_000
PACE_SHARE = 0.97
FLOOD_CHUNKS = 150_000  # 32 MB per stream: enough to fill any buffer, bounded for a proxy that has no limit


@dataclass(kw_only=True, slots=True)
class Shape:
    """One load: how many connections, what they ask for, and what one unit of work is."""

    name: str
    unit: str  # "request" or "chunk"
    conns: int
    delay_ms: int = 0
    chunks: int = 0  # 0: not a stream; for paced streams it follows from the turn's length
    spread: int = 0
    latency: bool = False  # wait times are the result, and the engine is also asked directly


SHAPES = (
    Shape(name="requests, 32 connections", unit="request", conns=32),
    Shape(name="200 streams x 10 ms, in step", unit="chunk", conns=200, chunks=1, delay_ms=10),
    Shape(name="1 in flight", unit="request", conns=1, latency=True),
    Shape(name="200 streams x 10 ms, spread", unit="chunk", conns=200, chunks=1, delay_ms=10, spread=1),
    Shape(name="64 streams, full speed", unit="chunk", conns=64, chunks=500),
    Shape(name="20 streams x 20 ms", unit="chunk", conns=20, chunks=1, delay_ms=20, spread=1),
    Shape(name="16 in flight", unit="request", conns=16, latency=True),
    Shape(name="64 in flight", unit="request", conns=64, latency=True),
)
BARRED = SHAPES[:4]  # these have bars and get every round; the others get half


@dataclass(kw_only=True, slots=True)
class Bench:
    """What stands while the benchmark runs: the engine, the gateways in front of it, and the settings."""

    cores: Cores
    folder: Path
    venv: Path
    may_install: bool
    turn_s: float
    mock: Running
    features: tuple[str, ...] = ()  # what our gateway runs with
    tls: tuple[str, str] | None = None  # files of a certificate and its key, for gateways started from now on
    gateways: list[Running] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    failed: list[tuple[str, str]] = field(default_factory=list)  # which gateway, and what was wrong
    tag: int = 0


@dataclass(kw_only=True, slots=True)
class Turn:
    """What one turn of one gateway gave: CPU per unit and the median wait, in microseconds; work per second."""

    cpu_us: float | None
    wait_us_p50: float | None
    wait_us_p99: float | None
    per_s: float


# ---- starting ---------------------------------------------------------------------------------------------------


def setting(bench: Bench, name: str, engines: list[int]) -> peers.Setting:
    port = free_port()
    return peers.Setting(
        port=port,
        engines=engines,
        folder=bench.folder / f"{name.replace(' ', '')}-{port}",
        venv=bench.venv,
        may_install=bench.may_install,
        features=peers.STAGES.get(name, bench.features),
        tls=bench.tls,
    )


def start_gateways(bench: Bench, names: list[str]) -> None:
    """Start them all; one that cannot be had is noted with its reason."""
    for name in names:
        try:
            bench.gateways.append(
                peers.start(name, setting(bench, name, [bench.mock.port]), bench.cores.proxy)
            )
        except CannotMeasureError as exc:
            bench.skipped[name] = str(exc)


@contextmanager
def one_gateway(bench: Bench, name: str, engines: list[int]) -> Iterator[Running]:
    gateway = peers.start(name, setting(bench, name, engines), bench.cores.proxy)
    try:
        yield gateway
    finally:
        stop(gateway.process)


def each(
    bench: Bench, gateways: list[Running], what: Callable[[Running], dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Do this with every gateway in turn; one that fails is noted, and the others go on."""
    found: dict[str, dict[str, Any]] = {}
    for gateway in gateways:
        try:
            found[gateway.name] = what(gateway)
        except CannotMeasureError as exc:
            bench.failed.append((gateway.name, str(exc)))
    return found


# ---- turns in rotation ------------------------------------------------------------------------------------------


def arguments(shape: Shape, turn_s: float) -> dict[str, object]:
    common: dict[str, object] = {"conns": shape.conns, "secs": turn_s, "warm_ms": WARM_MS}
    if not shape.chunks:
        return {**common, "prompt": "bench:bytes=1024"}
    chunks = shape.chunks
    if shape.delay_ms:  # one stream per connection lasts the whole turn: only chunks are in the counted time
        chunks = int((turn_s + 2 * WARM_MS / 1000) * 1000 / shape.delay_ms)
    prompt = f"bench:chunks={chunks};delay_ms={shape.delay_ms};spread={shape.spread}"
    return {**common, "prompt": prompt, "stream": 1, "chunks": chunks}


def cpu_ns(report: dict[str, Any]) -> int:
    sched, ticks = int(report["cpu_sched_ns"]), int(report["cpu_tick_ns"])
    return sched if abs(sched - ticks) <= CPU_GAP_SHARE * ticks + CPU_GAP_NS else ticks


def must_be_whole(shape: Shape, report: dict[str, Any]) -> None:
    if report["whole"] != report["started"] or report["unfinished"]:
        wrong = {
            key: report[key]
            for key in ("truncated", "inband", "refused", "broken", "unfinished")
            if report[key]
        }
        raise CannotMeasureError(f"{shape.name}: answers were wrong: {wrong} {report['first_error']}")


def lagged(shape: Shape, per_s: float) -> bool:
    """Did a paced load miss its pace (a neighbour took the core)? Then its chunks came in bursts: another shape."""
    return bool(shape.delay_ms) and per_s < PACE_SHARE * shape.conns * 1000 / shape.delay_ms


def take_turn(bench: Bench, gateway: Running, shape: Shape) -> Turn:
    cpu = ",".join(map(str, tree(gateway.process.pid)))
    program = "client_tls" if bench.tls else "client"
    words = {"port": gateway.port, "cpu": cpu, **arguments(shape, bench.turn_s)}
    report = run_client("load", bench.cores.load, program=program, **words)
    must_be_whole(shape, report)
    done = report["window_requests"] if shape.unit == "request" else report["window_chunks"]
    return Turn(
        cpu_us=cpu_ns(report) / done / 1000
        if done and not lagged(shape, done / report["window_s"])
        else None,
        wait_us_p50=report.get("wait_us_p50"),
        wait_us_p99=report.get("wait_us_p99"),
        per_s=done / report["window_s"],
    )


def rotation(bench: Bench, shape: Shape, rounds: int) -> dict[str, list[Turn]]:
    """Rounds of turns; every round starts with another gateway. A latency shape asks the engine directly as well."""
    running = [*bench.gateways]
    if shape.latency:
        running.append(bench.mock)
    turns: dict[str, list[Turn]] = {gateway.name: [] for gateway in running}
    for number in range(rounds):
        first = number % len(running)
        for gateway in running[first:] + running[:first]:
            turns[gateway.name].append(turn_or_nothing(bench, gateway, shape))
    return turns


def turn_or_nothing(bench: Bench, gateway: Running, shape: Shape) -> Turn:
    """A turn, or an empty one with the failure noted, so that the rounds of all gateways stay in line."""
    try:
        turn = take_turn(bench, gateway, shape)
        # one more try where a neighbour spoilt it
        return take_turn(bench, gateway, shape) if turn.cpu_us is None else turn
    except CannotMeasureError as exc:
        bench.failed.append((gateway.name, str(exc)))
        return Turn(cpu_us=None, wait_us_p50=None, wait_us_p99=None, per_s=0.0)


# ---- memory -----------------------------------------------------------------------------------------------------


def idle_streams(bench: Bench, gateway: Running, count: int) -> dict[str, float]:
    """Resident memory per stream that is open and silent."""
    pids = tree(gateway.process.pid)
    before = rss_bytes(pids)
    hold = {"port": gateway.port, "conns": count, "stream": 1, "prompt": "bench:chunks=1;hold=1"}
    with Held(bench.cores.load, **hold) as held:
        if held.ready != count:
            raise CannotMeasureError(f"only {held.ready} of {count} streams started")
        grown = rss_bytes(pids) - before
    return {"streams": count, "rss_kib_per_stream": grown / 1024 / count}


def flood(gateway: Running, count: int) -> dict[str, object]:
    prompt = f"bench:chunks={FLOOD_CHUNKS};batch=16"
    return {"port": gateway.port, "conns": count, "stream": 1, "prompt": prompt}


def settle(bench: Bench, limit_s: float = 4.0) -> None:
    """Until the engine has sent next to nothing for two looks (all buffers full, or all swallowed), or the limit."""
    end, before, quiet = time.monotonic() + limit_s, 0, 0
    while time.monotonic() < end and quiet < 2:
        sent = stats(bench.mock)["sent_bytes"]
        quiet = quiet + 1 if sent - before < QUIET_BYTES else 0
        before = sent
        time.sleep(SETTLE_STEP_S)


def slow_readers(bench: Bench, name: str, count: int) -> dict[str, float]:
    """What clients that stopped reading hold: in the gateway's memory, and in the kernel's queues of its sockets.

    On a process of its own: memory that an earlier load left free would hide what these clients need.
    """
    with one_gateway(bench, name, [bench.mock.port]) as gateway:
        pids = tree(gateway.process.pid)
        rss, queued = rss_bytes(pids), socket_bytes(pids)
        with Held(bench.cores.load, **flood(gateway, count)) as held:
            settle(bench)
            grown, kernel = rss_bytes(pids) - rss, socket_bytes(pids) - queued
            ready = held.ready
    mib = 1024 * 1024
    total = (grown + kernel) / count / mib
    return {"clients": ready, "rss_mib": grown / mib, "kernel_mib": kernel / mib, "mib_per_client": total}


def others(bench: Bench, gateway: Running) -> dict[str, list[float]]:
    """Wait times of 16 other clients in several short windows: one long p99 would hold the neighbours' worst slice."""
    shape = Shape(name="16 others", unit="request", conns=16)
    windows: dict[str, list[float]] = {"p50": [], "p99": []}
    for _ in range(AB_WINDOWS):
        asked = {**arguments(shape, AB_WINDOW_S), "warm_ms": 50}
        report = run_client("load", bench.cores.load, port=gateway.port, **asked)
        must_be_whole(shape, report)
        windows["p50"].append(report["wait_us_p50"])
        windows["p99"].append(report["wait_us_p99"])
    return windows


def beside_slow(bench: Bench, gateway: Running) -> dict[str, list[float]]:
    with Held(bench.cores.load, **flood(gateway, 16)):
        settle(bench)
        return others(bench, gateway)


def slow_reader_ab(bench: Bench, gateway: Running, pairs: int) -> dict[str, Any]:
    """Wait times of 16 other clients with and without 16 that stopped reading, in pairs of alternating order."""
    alone: list[dict[str, list[float]]] = []
    beside: list[dict[str, list[float]]] = []
    for number in range(pairs):
        if number % 2:
            alone.append(others(bench, gateway))
        beside.append(beside_slow(bench, gateway))
        if not number % 2:
            alone.append(others(bench, gateway))
    found: dict[str, Any] = {"alone": alone, "beside": beside}
    for quantile in ("p50", "p99"):
        upper, lower = medians(beside, quantile), medians(alone, quantile)
        found[f"{quantile}_us_alone"] = statistics.median(lower)
        found[f"{quantile}_ratio"] = median_ratio(upper, lower)
    found["p99_ratio_quiet"] = quiet(beside) / quiet(alone)
    return found


def quiet(blocks: list[dict[str, list[float]]]) -> float:
    """Lower quartile of all windows' p99: what is left when the neighbours were quiet."""
    return statistics.quantiles([value for block in blocks for value in block["p99"]], n=4)[0]


def medians(blocks: list[dict[str, list[float]]], quantile: str) -> list[float]:
    return [statistics.median(block[quantile]) for block in blocks]


def median_ratio(upper: Sequence[float | None], lower: Sequence[float | None]) -> float | None:
    """Median of the pairwise ratios; None when under half of the pairs are whole: that would be luck."""
    ratios = [a / b for a, b in zip(upper, lower, strict=True) if a is not None and b is not None and b > 0]
    return statistics.median(ratios) if ratios and len(ratios) * 2 >= len(upper) else None


# ---- clients that leave, engines that die -----------------------------------------------------------------------


def stats(mock: Running) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ask(mock.port, "/stats")[1])
    return found


def aborts(bench: Bench, gateway: Running, count: int) -> dict[str, Any]:
    """How long the engine takes to see that a client left mid-stream."""
    bench.tag += 10_000
    prompt = "bench:chunks=6000;delay_ms=10;spread=1"
    report = run_client(
        "abort",
        bench.cores.load,
        port=gateway.port,
        conns=count,
        stream=1,
        chunks=6000,
        prompt=prompt,
        tag=bench.tag,
    )
    time.sleep(0.3)
    seen = dict(stats(bench.mock)["abort_list"])
    delays = sorted((seen[tag] - left) / 1e6 for tag, left in report["closed"] if left and tag in seen)
    in_time = sum(delay <= 20 for delay in delays)
    return {
        "aborts": count,
        "seen": len(delays),
        "within_20_ms": in_time,
        "worst_ms": delays[-1] if delays else None,
    }


def cut_streams(bench: Bench, name: str, count: int) -> dict[str, Any]:
    """Streams whose engine dies after five chunks, with another engine there: what does the client see?

    Each engine cuts each stream that it begins and none that it goes on with, so all that come whole were continued.
    """
    prompt = "bench:chunks=50;cut=5;delay_ms=2"
    asked = {"conns": 4, "count": count, "stream": 1, "chunks": 50, "prompt": prompt}
    mocks = [start_mock(bench.folder, bench.cores.load) for _ in range(2)]
    try:
        with one_gateway(bench, name, [mock.port for mock in mocks]) as gateway:
            report = run_client("load", bench.cores.load, port=gateway.port, **asked)
        said = [stats(mock) for mock in mocks]
    finally:
        for mock in mocks:
            stop(mock.process)
    found = {"cut": sum(one["cuts"] for one in said), "continued": sum(one["continued"] for one in said)}
    if found["cut"] < count:
        raise CannotMeasureError(f"of {count} streams only {found['cut']} were cut")
    words = ("started", "whole", "inband", "truncated", "refused", "broken", "unfinished")
    return found | {word: report[word] for word in words}


def one_of_four(bench: Bench, name: str, count: int) -> dict[str, Any]:
    """Requests while one engine of four fails: closes before its answer, says 503, or its process ends."""
    return {mode: one_of_four_in(bench, name, mode, count) for mode in ("close", "503", "exit")}


def one_of_four_in(bench: Bench, name: str, mode: str, count: int) -> dict[str, Any]:
    mocks = [start_mock(bench.folder, bench.cores.load) for _ in range(4)]
    try:
        with one_gateway(bench, name, [mock.port for mock in mocks]) as gateway:
            ask(mocks[0].port, f"/mode/{mode}")
            asked = {"conns": 4, "count": count, "prompt": "bench:bytes=1024"}
            report = run_client("load", bench.cores.load, port=gateway.port, **asked)
        met = 1 if mode == "exit" and mocks[0].process.poll() is not None else stats(mocks[0])["failed"]
    finally:
        for mock in mocks:
            stop(mock.process)
    if not met:
        raise CannotMeasureError(f"no request met the engine that fails by {mode}")
    return {"requests": count, "served": report["whole"], "met": met, "first_error": report["first_error"]}
