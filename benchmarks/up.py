"""Measure how long it takes until a token is served: a clean clone with `make up`, then `freehold up` again.

    python benchmarks/up.py               both: bars 120 s and 5 s
    python benchmarks/up.py --no-clone    only the second, in this checkout, three times

The clone gets its own state folder and an empty weight store, while the package caches of pip and uv stay as they
are: that is "a clean clone with a warm package cache". A run ends with the first streamed token; nothing but HTTP is
asked, so it measures what a user waits for. Exit code: 0 both bars hold, 3 one does not, 1 none failed but one could
not be measured. Needs port 8000 free. Deliberately parses no output of `freehold`.
"""

import argparse
import http.client
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONFIG = "examples/01-one-box/freehold.yaml"  # what `make up` serves
CLEAN_BAR_S = 120.0
SECOND_BAR_S = 5.0
STOP_GRACE_S = 45.0


class CannotMeasureError(Exception):
    """Something outside the measurement is in the way; the message says what."""


FAILURES = (CannotMeasureError, subprocess.SubprocessError)


@dataclass(kw_only=True, slots=True)
class Place:
    """Where `freehold` runs, what it sees of the environment, and where it is asked."""

    checkout: Path
    env: dict[str, str]
    port: int
    log: Path


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--no-clone", action="store_true", help="skip the clean clone, use this checkout")
    parser.add_argument(
        "--keep-weights", action="store_true", help="let the clone use the existing weight store"
    )
    parser.add_argument(
        "--repeats", type=int, default=3, help="runs of the second `freehold up` (default: 3)"
    )
    parser.add_argument(
        "--config", default=CONFIG, help="what the second `freehold up` serves (default: %(default)s)"
    )
    parser.add_argument("--port", type=int, default=8000, help="the gateway's port (default: 8000)")
    parser.add_argument(
        "--limit-s", type=float, default=240.0, help="give up on one run after this (default: 240)"
    )
    return parser.parse_args()


# ---- asking for a token -----------------------------------------------------------------------------------------


def model_name(port: int) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/v1/models")
        return str(json.loads(connection.getresponse().read())["data"][0]["id"])
    finally:
        connection.close()


def has_text(line: bytes) -> bool:
    """Is this line of the stream a chunk with text in it?"""
    if not line.startswith(b"data: {"):
        return False
    choices = json.loads(line[6:]).get("choices") or [{}]
    return bool(choices[0].get("delta", {}).get("content"))


def streamed_token(port: int) -> bool:
    """Ask for a short stream; True as soon as a chunk with text has come."""
    message = {"role": "user", "content": "Name a colour."}
    body = {"model": model_name(port), "messages": [message], "max_tokens": 8, "stream": True}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(
            "POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"}
        )
        answer = connection.getresponse()
        return answer.status == 200 and any(has_text(line) for line in answer)
    finally:
        connection.close()


def wait_for_token(place: Place, process: subprocess.Popen[bytes], limit_s: float) -> float:
    """Seconds until the first token; raises CannotMeasureError with the log's end."""
    began = time.monotonic()
    while time.monotonic() - began < limit_s:
        try:
            if streamed_token(place.port):
                return time.monotonic() - began
        except (OSError, http.client.HTTPException, ValueError, LookupError):
            pass
        if process.poll() not in {None, 0}:  # 0: it went to the background
            break
        time.sleep(0.05)
    tail = place.log.read_text(errors="replace").strip().splitlines()[-8:]
    raise CannotMeasureError("no token came:\n  " + "\n  ".join(tail))


# ---- starting and ending ----------------------------------------------------------------------------------------


def check_port(port: int) -> None:
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise CannotMeasureError(f"port {port} is in use: end what listens there first")


def end(place: Place, process: subprocess.Popen[bytes]) -> None:
    """Ctrl-C to what runs in the foreground, `freehold down` where it went to the background."""
    if process.poll() is not None:
        down = [str(place.checkout / ".venv" / "bin" / "freehold"), "down"]
        subprocess.run(down, cwd=place.checkout, env=place.env, capture_output=True, timeout=60, check=False)
        return
    for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign)
            process.wait(STOP_GRACE_S)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue
        return


def time_to_token(place: Place, command: list[str], limit_s: float) -> float:
    """Start the command, wait for a token, end it again; returns the seconds from start to token."""
    check_port(place.port)
    with place.log.open("wb") as out:
        process = subprocess.Popen(
            command,
            cwd=place.checkout,
            env=place.env,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        return wait_for_token(place, process, limit_s)
    finally:
        end(place, process)


# ---- the two measurements ---------------------------------------------------------------------------------------


def user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def private_env(folder: Path, *, keep_weights: bool) -> dict[str, str]:
    """Own state and, unless kept, an own empty weight store; the package caches stay where they are."""
    env = {**os.environ, "XDG_STATE_HOME": str(folder / "state")}
    env.pop("VIRTUAL_ENV", None)
    if not keep_weights:
        env.setdefault("PIP_CACHE_DIR", str(user_cache() / "pip"))
        env.setdefault("UV_CACHE_DIR", str(user_cache() / "uv"))
        env["XDG_CACHE_HOME"] = str(folder / "cache")
    return env


def clone(folder: Path) -> Path:
    git = shutil.which("git")
    if not git:
        raise CannotMeasureError("git is not installed")
    target = folder / "freehold"
    subprocess.run([git, "clone", "-q", str(ROOT), str(target)], check=True)
    return target


def verdict(name: str, value_s: float, bar_s: float) -> bool:
    holds = value_s < bar_s
    print(f"{'holds ' if holds else 'MISSED'}  {name}: {value_s:.2f} s < {bar_s:g} s", flush=True)
    return holds


def second(place: Place, options: argparse.Namespace) -> bool:
    command = [str(place.checkout / ".venv" / "bin" / "freehold"), "up", "--config", options.config]
    if not Path(command[0]).exists():
        raise CannotMeasureError(f"{command[0]} is not there: run `make up` once")
    if options.no_clone:  # what is measured is a second start, so make a first one
        time_to_token(place, command, options.limit_s)
    times_s = [time_to_token(place, command, options.limit_s) for _ in range(options.repeats)]
    print("second `freehold up`: " + ", ".join(f"{one:.2f} s" for one in times_s))
    return verdict(
        "second `freehold up` to a streamed token, median", statistics.median(times_s), SECOND_BAR_S
    )


def measure(options: argparse.Namespace, folder: Path) -> int:
    check_port(options.port)
    checkout = ROOT if options.no_clone else clone(folder)
    env = private_env(folder, keep_weights=options.keep_weights or options.no_clone)
    place = Place(checkout=checkout, env=env, port=options.port, log=folder / "log")
    holds = True
    if not options.no_clone:
        first_s = time_to_token(place, ["make", "up"], options.limit_s)
        holds = verdict("clean clone, `make up` to a streamed token", first_s, CLEAN_BAR_S)
    try:
        return 0 if second(place, options) and holds else 3
    except FAILURES as exc:  # a bar that was missed before stays missed
        print(f"cannot measure: {exc}", file=sys.stderr)
        return 1 if holds else 3


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    options = parse()
    try:
        with tempfile.TemporaryDirectory(prefix="freehold-up-") as folder:
            return measure(options, Path(folder))
    except FAILURES as exc:
        print(f"cannot measure: {exc}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
