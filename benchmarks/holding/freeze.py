"""One of two replicas frozen with its port open: how long until requests are answered by the other."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from stack import Bar, quantile

from holding.asking import Asked, ask, whole_stream
from holding.fakes import two_fakes

STALL_S = 2.0
SECONDS = 15.0
CALLERS = 8
SCHEMA = Path(__file__).resolve().parents[2] / "docs" / "freehold.schema.json"


def asking(port: int, until_s: float) -> list[Asked]:
    """One caller that never pauses for long."""
    asked: list[Asked] = []
    while time.monotonic() < until_s:
        asked.append(ask(port, stream=True, key="", timeout_s=SECONDS))
        time.sleep(0.05)
    return asked


def measure() -> list[Bar]:
    # The stall limit of a model moves a silent request to another replica; without one, first_byte ends it.
    stall = '"stall"' in SCHEMA.read_text()
    more = f"    stall: {STALL_S:g}s\n" if stall else ""
    with two_fakes(
        more=more,
        gateway="" if stall else f", timeouts: {{first_byte: {STALL_S:g}s, between_bytes: {STALL_S:g}s}}",
    ) as stack:
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
