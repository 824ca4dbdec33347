"""One of two replicas frozen with its port open: how long until the other one answers, and until streams go on there."""

import http.client
import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from stack import Bar, CannotMeasureError, Stack, quantile

from holding.asking import CHAT, Asked, ask, whole_stream
from holding.fakes import change, two_fakes

STALL_S = 2.0
SECONDS = 15.0
CALLERS = 8
STREAMS, TOKENS, PER_S = 20, 250, 50
TEXT = "".join(f" w{number}" for number in range(TOKENS))
"""What the fake engine says, and goes on with."""
LATE_S = 1.25
"""Longest gap beyond the limit. The gateway looks twice a second, for the last byte as well as for the end of the limit, so
up to a second is its own; the rest is the machine's."""


def asking(port: int, until_s: float) -> list[Asked]:
    """One caller that never pauses for long."""
    asked: list[Asked] = []
    while time.monotonic() < until_s:
        asked.append(ask(port, stream=True, key="", timeout_s=SECONDS))
        time.sleep(0.05)
    return asked


def before_the_first_byte(stack: Stack) -> list[Bar]:
    """Callers come again and again; one replica freezes among them."""
    port = stack.port
    frozen = int(stack.status()["replicas"][0]["pid"])
    with ThreadPoolExecutor(CALLERS) as pool:
        callers = [pool.submit(asking, port, time.monotonic() + SECONDS) for _ in range(CALLERS)]
        time.sleep(1)
        os.kill(frozen, signal.SIGSTOP)
        frozen_s = time.monotonic()
        asked = [each for caller in callers for each in caller.result()]
    slow = [each for each in asked if each.took_s > STALL_S / 2]
    last_s = max((each.at_s - frozen_s for each in slow), default=0.0)
    print(f"  {len(asked)} asked, {len(slow)} met the frozen one, the last of them {last_s:.1f} s after it froze; "
          f"p50 {1e3 * quantile([each.took_s for each in asked], 0.5):.0f} ms")  # fmt: skip
    for each in slow:
        print(
            f"    asked at {each.at_s - frozen_s:6.2f} s, took {each.took_s:5.2f} s: {each.status} {each.body[:80]!r}"
        )
    return [
        Bar(name="requests that met the frozen replica", value=len(slow), limit=1, at_least=True),
        Bar(name="not answered whole", value=sum(not whole_stream(each) for each in asked), limit=0),
        Bar(name="longest wait", value=max(each.took_s for each in asked), limit=STALL_S + 1, unit=" s"),
    ]


@dataclass(kw_only=True)
class Stream:
    """One stream as its caller saw it."""

    text: str = ""
    at_s: list[float] = field(default_factory=list)
    """When each event with text came."""
    resumed: bool = False
    ended: bool = False

    @property
    def whole(self) -> bool:
        """Whether it has its end and every token, once and in order."""
        return self.ended and self.text == TEXT

    @property
    def gap_s(self) -> float:
        """The longest silence between two of its events."""
        return max((b - a for a, b in zip(self.at_s, self.at_s[1:], strict=False)), default=0.0)

    def take(self, line: bytes) -> None:
        """Take one line of the answer."""
        if line.startswith(b": x-freehold-resumed"):
            self.resumed = True
        elif line == b"data: [DONE]":
            self.ended = True
        elif line.startswith(b"data:"):
            said: dict[str, Any] = json.loads(line[5:])
            text = "".join(choice["delta"].get("content") or "" for choice in said.get("choices", ()))
            self.text += text
            self.at_s += [time.monotonic()] * bool(text)


def listen(port: int) -> Stream:
    """Ask for a long stream and listen to its end, or for as long as it may take."""
    stream = Stream()
    body = {"model": "m", "max_tokens": 2 * TOKENS, "stream": True, "messages": [{"role": "user", "content": "Go on."}]}  # fmt: skip
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=4 * STALL_S)
    try:
        connection.request("POST", CHAT, json.dumps(body), {"Content-Type": "application/json"})
        for line in connection.getresponse():
            stream.take(line.strip())
    except (OSError, http.client.HTTPException) as exc:
        print(f"    a stream ended with {exc!r}")
    finally:
        connection.close()
    return stream


def in_mid_stream(stack: Stack) -> list[Bar]:
    """Streams run on both replicas; one replica freezes under them."""
    port, replicas = stack.port, stack.status()["replicas"]
    if not all(change(each["url"], answer_tokens=TOKENS, tokens_per_s=PER_S) for each in replicas):
        raise CannotMeasureError("a fake engine does not take its settings")
    with ThreadPoolExecutor(STREAMS) as pool:
        listening = [pool.submit(listen, port) for _ in range(STREAMS)]
        time.sleep(TOKENS / PER_S / 4)
        os.kill(int(replicas[0]["pid"]), signal.SIGSTOP)
        return stream_bars([each.result() for each in listening])


def stream_bars(streams: list[Stream]) -> list[Bar]:
    resumed = [each for each in streams if each.resumed]
    gaps_s = [each.gap_s for each in resumed]
    print(f"  of {len(streams)} streams {len(resumed)} were on the frozen one and went on elsewhere: gap p50 "
          f"{quantile(gaps_s, 0.5):.2f} s, longest {max(gaps_s, default=0.0):.2f} s; the others' longest "
          f"{max((each.gap_s for each in streams if not each.resumed), default=0.0):.2f} s")  # fmt: skip
    longest_s = max((each.gap_s for each in streams), default=0.0)
    return [
        Bar(name="streams that went on elsewhere", value=len(resumed), limit=1, at_least=True),
        Bar(name="streams that are not whole", value=sum(not each.whole for each in streams), limit=0),
        Bar(name="longest gap in a stream", value=longest_s, limit=STALL_S + LATE_S, unit=" s"),
    ]


def measure() -> list[Bar]:
    found: list[Bar] = []
    for part in (before_the_first_byte, in_mid_stream):
        with two_fakes(more=f"    stall: {STALL_S:g}s\n") as stack:
            found += part(stack)
    return found
