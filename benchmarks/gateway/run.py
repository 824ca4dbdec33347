"""Measure the gateway against its peers on this machine: CPU, latency, memory, behaviour when something fails.

    python benchmarks/gateway/run.py              all of it, about five minutes
    python benchmarks/gateway/run.py --quick      fewer and shorter turns, two and a half minutes, coarse
    python benchmarks/gateway/run.py --only load  one part: load, memory, slow, failures
    python benchmarks/gateway/run.py --bars full  our gateway with ledger, keys and limits, access log, continuation
    python benchmarks/gateway/run.py --only before --before DIR   this checkout's gateway and an older one's, in turns
    python benchmarks/gateway/run.py --only tls   requests and streams over TLS, against nginx with TLS
    python benchmarks/gateway/run.py --only parts what each of these costs, switched on one after another, and admission

Needs Linux, two cores, gcc and taskset. nginx and vllm-router are compared with when they can be had; vllm-router
is installed into .venv-bench from requirements/bench.txt on first use. Prints a table and a verdict per bar, and
writes JSON to benchmarks/results/. Exit code: 0 all bars of the parts that were asked for hold, 3 one does not, 1 none
failed but one could not be measured, as without nginx or vllm-router.
"""

import argparse
import datetime as dt
import fcntl
import json
import os
import platform
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import bars
import measure
import peers
from build import BIN, CannotMeasureError, build, build_tls_client
from processes import Cores, start_mock, stop

RESULTS = peers.ROOT / "benchmarks" / "results"
SHM = Path("/dev/shm")
PARTS = ("load", "memory", "slow", "failures")
STAGES, BEFORE, TLS = "parts", "before", "tls"  # asked for by name only
SCALE = ("tcp-relay", "nginx", "vllm-router", peers.BEFORE)
FAILOVER = ("nginx", "vllm-router", "freehold")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="3 rounds of 0.8 s turns instead of 5 of 1.2 s")
    parser.add_argument("--rounds", type=int, help="rounds per load shape that has a bar (the others: half)")
    parser.add_argument("--turn-s", type=float, help="counted seconds per turn")
    parser.add_argument(
        "--only", choices=(*PARTS, STAGES, BEFORE, TLS), action="append", help="one part (may be given again)"
    )
    parser.add_argument(
        "--peers", default=",".join(peers.PEERS), help="comma-separated (default: %(default)s)"
    )
    parser.add_argument(
        "--bars", choices=("plain", "full"), default="plain", help="which column (default: plain)"
    )
    parser.add_argument("--proxy-core", type=int, default=0, help="core of the gateways (default: 0)")
    parser.add_argument("--load-core", type=int, default=1, help="core of engine and client (default: 1)")
    parser.add_argument(
        "--venv", type=Path, default=peers.ROOT / ".venv-bench", help="environment of the peers"
    )
    parser.add_argument("--before", type=Path, help="an older checkout, for --only before")
    parser.add_argument("--no-install", action="store_true", help="skip a peer rather than install it")
    options = parser.parse_args()
    options.rounds = options.rounds or (3 if options.quick else 5)
    options.turn_s = options.turn_s or (0.8 if options.quick else 1.2)
    options.only = options.only or list(PARTS)
    if BEFORE in options.only:
        if options.before is None:
            parser.error("--only before needs --before DIR, an older checkout")
        os.environ["FREEHOLD_BEFORE"] = str(options.before.resolve())
        options.peers = f"freehold,{peers.BEFORE}"
    return options


def check_cores(options: argparse.Namespace) -> None:
    usable = os.sched_getaffinity(0)
    if not {options.proxy_core, options.load_core} <= usable or options.proxy_core == options.load_core:
        raise CannotMeasureError(f"two different cores are needed; usable here: {sorted(usable)}")
    os.sched_setaffinity(0, {options.load_core})


@contextmanager
def alone() -> Iterator[None]:
    """Hold the benchmark's lock: two at once would measure each other."""
    with (BIN / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            raise CannotMeasureError("another run of this benchmark is going on here") from exc
        yield


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# ---- the parts --------------------------------------------------------------------------------------------------


def middle(values: list[float | None]) -> dict[str, float] | None:
    there = [value for value in values if value is not None]
    if not there:
        return None
    return {"median": statistics.median(there), "min": min(there), "max": max(there)}


def added(turns: dict[str, list[measure.Turn]], name: str) -> list[float | None]:
    """What a gateway adds to the median wait, round by round, over asking the engine directly."""
    direct = turns["mock"]
    return [
        None if mine.wait_us_p50 is None or bare.wait_us_p50 is None else mine.wait_us_p50 - bare.wait_us_p50
        for mine, bare in zip(turns[name], direct, strict=True)
    ]


def summarise(shape: measure.Shape, turns: dict[str, list[measure.Turn]]) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for name, mine in turns.items():
        rows[name] = {
            "cpu_us": middle([turn.cpu_us for turn in mine]) if name != "mock" else None,
            "per_s": middle([turn.per_s for turn in mine if turn.per_s]),
            "wait_us_p50": middle([turn.wait_us_p50 for turn in mine]),
            "wait_us_p99": middle([turn.wait_us_p99 for turn in mine]),
            "added_us_p50": middle(added(turns, name)) if shape.latency and name != "mock" else None,
            "turns": [asdict(turn) for turn in mine],
        }
    return {"unit": shape.unit, "rows": rows, "ratios": ratios(shape, turns)}


def ratios(shape: measure.Shape, turns: dict[str, list[measure.Turn]]) -> dict[str, dict[str, float | None]]:
    """Median of the per-round ratios of our gateway to each peer."""
    found: dict[str, dict[str, float | None]] = {"cpu": {}, "added": {}}
    if bars.OURS not in turns:
        return found
    for peer in SCALE:
        if peer not in turns:
            continue
        upper, lower = [turn.cpu_us for turn in turns[bars.OURS]], [turn.cpu_us for turn in turns[peer]]
        found["cpu"][peer] = measure.median_ratio(upper, lower)
        if shape.latency:
            found["added"][peer] = measure.median_ratio(added(turns, bars.OURS), added(turns, peer))
    return found


def run_load(
    bench: measure.Bench,
    results: dict[str, Any],
    rounds: int,
    shapes: tuple[measure.Shape, ...] = measure.SHAPES,
) -> None:
    results["shapes"] = {}
    for shape in shapes:
        times = rounds if shape in measure.BARRED else max(2, rounds // 2)
        say(f"load: {shape.name}, {times} rounds")
        results["shapes"][shape.name] = summarise(shape, measure.rotation(bench, shape, times))


def run_memory(bench: measure.Bench, results: dict[str, Any]) -> None:
    """Run first, on fresh processes: memory that an earlier load left free would hide what streams need."""
    say("memory: 1,000 idle streams")
    results["idle"] = measure.each(bench, bench.gateways, lambda one: measure.idle_streams(bench, one, 1000))


def run_slow(bench: measure.Bench, results: dict[str, Any], pairs: int) -> None:
    say("slow readers: memory with 16")
    results["slow"] = measure.each(
        bench, bench.gateways, lambda one: measure.slow_readers(bench, one.name, 16)
    )
    say(f"slow readers: 16 others beside them, {pairs} pairs")
    chosen = [gateway for gateway in bench.gateways if gateway.name in {"nginx", bars.OURS}]
    results["slow_ab"] = measure.each(bench, chosen, lambda one: measure.slow_reader_ab(bench, one, pairs))


def run_failures(bench: measure.Bench, results: dict[str, Any]) -> None:
    say("failures: 50 aborts, 20 cut streams, one engine of four")
    results["aborts"] = measure.each(bench, bench.gateways, lambda one: measure.aborts(bench, one, 50))
    results["cut"] = measure.each(bench, bench.gateways, lambda one: measure.cut_streams(bench, one.name, 20))
    chosen = [gateway for gateway in bench.gateways if gateway.name in FAILOVER]
    results["one_of_four"] = measure.each(
        bench, chosen, lambda one: measure.one_of_four(bench, one.name, 200)
    )


def run_stages(bench: measure.Bench, rounds: int) -> dict[str, Any]:
    """What each part adds, per round over the stage before it: all stages are up at once and take turns."""
    for running in bench.gateways:
        stop(running.process)
    bench.gateways.clear()
    measure.start_gateways(bench, list(peers.STAGES))
    found: dict[str, Any] = {}
    for shape in measure.SHAPES[:2]:
        say(f"parts: {shape.name}, {2 * rounds} rounds")
        turns, before = measure.rotation(bench, shape, 2 * rounds), None
        for name, mine in turns.items():
            cpu = [turn.cpu_us for turn in mine]
            steps = [
                a - b for a, b in zip(cpu, before or cpu, strict=True) if a is not None and b is not None
            ]
            found.setdefault(name, {})[shape.name] = {"cpu_us": middle(cpu), "added_us": middle([*steps])}
            before = cpu
    return found


def run_tls(bench: measure.Bench, rounds: int) -> dict[str, Any]:
    """The shapes that have bars, with TLS between clients and gateways; on fresh processes."""
    build_tls_client()
    for running in bench.gateways:
        stop(running.process)
    bench.gateways.clear()
    bench.tls = peers.certificate(bench.folder)
    measure.start_gateways(bench, ["nginx", bars.OURS])
    found: dict[str, Any] = {}
    for shape in (measure.SHAPES[0], measure.SHAPES[1], measure.SHAPES[3]):
        say(f"tls: {shape.name}, {rounds} rounds")
        found[shape.name] = summarise(shape, measure.rotation(bench, shape, rounds))
    return found


def run_inside(bench: measure.Bench) -> dict[str, float]:
    """What cannot be switched off, or is too small for turns, as time per call on the gateways' core."""
    say("parts: admission, routing and continuation from inside")
    try:
        return peers.inside(bench.cores.proxy)
    except CannotMeasureError as exc:
        bench.failed.append((bars.OURS, str(exc)))
        return {}


def run_parts(bench: measure.Bench, options: argparse.Namespace) -> dict[str, Any]:
    results: dict[str, Any] = {}
    if "memory" in options.only:
        run_memory(bench, results)
    if "load" in options.only:
        run_load(bench, results, options.rounds)
    if BEFORE in options.only:
        run_load(bench, results, options.rounds, measure.BARRED)
    if "slow" in options.only:
        run_slow(bench, results, options.rounds)
    if "failures" in options.only:
        run_failures(bench, results)
    if TLS in options.only:
        results["tls"] = run_tls(bench, options.rounds)
    if STAGES in options.only:
        results["stages"] = run_stages(bench, options.rounds)
        results["inside"] = run_inside(bench)
    return results


# ---- what is printed --------------------------------------------------------------------------------------------


def table(title: str, head: list[str], rows: list[list[str]]) -> None:
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    print(f"\n{title}")
    for row in [head, ["-" * width for width in widths], *rows]:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        print("  " + "  ".join(cells).rstrip())


def span(found: dict[str, float] | None) -> str:
    return "-" if found is None else f"{found['median']:.1f} [{found['min']:.1f}-{found['max']:.1f}]"


def number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def print_shape(name: str, shape: dict[str, Any]) -> None:
    rows = []
    for peer, row in shape["rows"].items():
        wait = [span(row["wait_us_p50"]), span(row["added_us_p50"])]
        rows.append(
            [
                peer,
                span(row["cpu_us"]),
                "-" if row["per_s"] is None else f"{row['per_s']['median']:.0f}",
                *wait,
            ]
        )
    unit = shape["unit"]
    table(name, ["", f"CPU us/{unit}", f"{unit}s/s", "p50 us", "added p50 us"], rows)
    for what, by_peer in shape["ratios"].items():
        if by_peer:
            print(
                f"  {what}: freehold to "
                + ", ".join(f"{peer} {number(value)}" for peer, value in by_peer.items())
            )


def print_rest(results: dict[str, Any]) -> None:
    for part in ("idle", "slow", "slow_ab", "aborts", "cut"):
        found = results.get(part)
        if not found:
            continue
        keys = [key for key, value in next(iter(found.values())).items() if not isinstance(value, list)]
        rows = [[peer, *(number(row[key]) for key in keys)] for peer, row in found.items()]
        table(part.replace("_", " "), ["", *keys], rows)
    for shape in dict.fromkeys(shape for row in results.get("stages", {}).values() for shape in row):
        rows = [
            [name, span(row[shape]["cpu_us"]), span(row[shape]["added_us"])]
            for name, row in results["stages"].items()
        ]
        table(f"parts: {shape}", ["", "CPU us", "added by this part"], rows)
    if results.get("inside"):
        rows = [[name, number(value)] for name, value in results["inside"].items()]
        table("parts, from inside (in the figures above, too)", ["", "CPU us"], rows)
    if results.get("one_of_four"):
        rows = [
            [peer, *(str(mode["served"]) for mode in row.values())]
            for peer, row in results["one_of_four"].items()
        ]
        table("of 200 served while one engine of four", ["", "closes", "says 503", "exits"], rows)


def print_verdicts(found: list[bars.Verdict]) -> None:
    print("\nbars")
    for one in found:
        word = {True: "holds ", False: "MISSED", None: "not measured"}[one.holds]
        print(f"  {word}  {one.name}: {number(one.value)} {one.sense} {one.bound:g} {one.unit}".rstrip())


def machine() -> dict[str, Any]:
    return {"kernel": platform.release(), "cpus": os.cpu_count(), "load_average": os.getloadavg()}


def save(report: dict[str, Any]) -> Path:
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"gateway-{report['at'].replace(':', '')}.json"
    path.write_text(json.dumps(report, indent=1) + "\n")
    return path


# ---- main -------------------------------------------------------------------------------------------------------


def measure_all(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    cores = Cores(proxy=options.proxy_core, load=options.load_core)
    bench = measure.Bench(
        cores=cores,
        folder=folder,
        venv=options.venv,
        may_install=not options.no_install,
        turn_s=options.turn_s,
        mock=start_mock(folder, cores.load),
        features=peers.EVERYTHING if options.bars == "full" else (),
    )
    try:
        if options.only != [STAGES]:
            measure.start_gateways(bench, options.peers.split(","))
        for name, reason in bench.skipped.items():
            say(f"skipped {name}: {reason}")
        return {"skipped": bench.skipped, **run_parts(bench, options), "failed": bench.failed}
    finally:
        for running in [*bench.gateways, bench.mock]:
            stop(running.process)


def show(results: dict[str, Any], verdicts: list[bars.Verdict]) -> None:
    over_tls = {f"{name}, over TLS": shape for name, shape in results.get("tls", {}).items()}
    for name, shape in (results.get("shapes", {}) | over_tls).items():
        print_shape(name, shape)
    print_rest(results)
    for name, reason in results["skipped"].items():
        print(f"\nskipped {name}: {reason}")
    for name, failure in results["failed"]:
        print(f"\nFAILED {name}: {failure}")
    print_verdicts(verdicts)


def report(options: argparse.Namespace) -> int:
    began, at = time.monotonic(), dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    build()
    check_cores(options)
    before = machine()
    # In memory, since a gateway's spool is.
    memory = SHM if SHM.is_dir() else None
    with alone(), tempfile.TemporaryDirectory(prefix="freehold-bench-", dir=memory) as folder:
        results = measure_all(options, Path(folder))
    found = bars.verdicts(results, options.bars, options.only)
    show(results, found)
    took_s = time.monotonic() - began
    path = save(
        {"at": at, "machine": before, "took_s": took_s, **results, "verdicts": [asdict(one) for one in found]}
    )
    print(f"\nwritten to {path.relative_to(peers.ROOT)}, took {took_s:.0f} s")
    return bars.exit_code(found, results)


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return report(parse())
    except CannotMeasureError as exc:
        say(f"cannot measure: {exc}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
