"""Both replicas killed at once: how callers are answered until one is back, and whether one that loads is left in peace."""

import os
import signal
import threading
import time
from typing import Any

from stack import Bar, CannotMeasureError, Stack, quantile

from holding.asking import CHAT, Asked, ask
from holding.fakes import answers_health, change, counts, two_fakes

LOADS_S = 4
LONGER_S = 3
"""So much longer the second one loads, while the first one serves."""
BACK_LIMIT_S = 60.0
ASKED = 100


class Watch(threading.Thread):
    """Looks at the two new engines until both are ready; the one that is found last is made to load longer."""

    def __init__(self, stack: Stack, killed: set[int]) -> None:
        super().__init__()
        self._stack = stack
        self._killed = killed
        self._found: list[str] = []
        self.ready_at_s: dict[str, float] = {}
        """When each said that it is ready, by its address."""

    def run(self) -> None:
        """Look again and again."""
        end_s = time.monotonic() + BACK_LIMIT_S
        while len(self.ready_at_s) < 2 and time.monotonic() < end_s:
            if len(self._found) < 2:
                self._find()
            for url in self._found:
                if url not in self.ready_at_s and answers_health(url):
                    self.ready_at_s[url] = time.monotonic()
            time.sleep(0.02)

    def _find(self) -> None:
        for replica in self._stack.status()["replicas"]:
            url = replica["url"]
            if not url or not replica["pid"] or replica["pid"] in self._killed or url in self._found:
                continue
            # One that does not listen yet is found at the next look.
            if change(url, start_s=LOADS_S + LONGER_S * len(self._found)):
                self._found.append(url)


def ask_until_back(port: int, watch: Watch) -> list[Asked]:
    """Ask again and again until both are ready and one is served."""
    asked: list[Asked] = []
    end_s = time.monotonic() + BACK_LIMIT_S
    while (not asked or watch.is_alive() or asked[-1].status != 200) and time.monotonic() < end_s:
        asked.append(ask(port, key=""))
        time.sleep(0.02)
    return asked


def measure() -> list[Bar]:
    with two_fakes(options=f", start_s: {LOADS_S}") as stack:
        port = stack.port
        if ask(port, key="").status != 200:
            raise CannotMeasureError("nothing was served before anything was killed")
        killed = {int(replica["pid"]) for replica in stack.status()["replicas"]}
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        watch = Watch(stack, killed)
        watch.start()
        asked = ask_until_back(port, watch)
        watch.join()
        seen = [counts(url) for url in watch.ready_at_s]
    return bars(asked, watch.ready_at_s, seen)


def bars(asked: list[Asked], ready_at_s: dict[str, float], seen: list[dict[str, Any]]) -> list[Bar]:
    """What came of it; `seen`: what both new engines counted, each by itself and from its first moment on."""
    while_loading = [each["while_loading"] for each in seen]
    if len(seen) < 2 or not all(while_loading):  # the controller's own probes are counted there, too
        raise CannotMeasureError(f"both replicas must be seen to load and become ready: {while_loading}")
    back = next((number for number, each in enumerate(asked) if each.status == 200), len(asked))
    refused, served = asked[:back], asked[back:]
    took_ms = [1e3 * each.took_s for each in refused]
    wrong = [each for each in refused if each.status != 503 or each.retry_after_s is None]
    first_s = (
        max(0.0, served[0].at_s + served[0].took_s - min(ready_at_s.values())) if served else BACK_LIMIT_S
    )
    alone_s = max(ready_at_s.values()) - min(ready_at_s.values())
    print(f"  {len(refused)} refused, p50 {quantile(took_ms, 0.5):.1f} ms, p99 {quantile(took_ms, 0.99):.1f}; then "
          f"{len(served)} asked, {alone_s:.1f} s of them while the other one still loads; while loading: {while_loading}")  # fmt: skip
    if wrong:
        print(f"  wrong: {wrong[0]}")
    return [
        Bar(name="requests asked meanwhile", value=len(refused), limit=ASKED, at_least=True),
        Bar(name="not answered 503 with Retry-After", value=len(wrong), limit=0),
        Bar(name="slowest refusal", value=max(took_ms, default=0.0) / 1e3, limit=1, unit=" s"),
        Bar(name="served again", value=bool(served), limit=1, at_least=True),
        Bar(name="first success after readiness", value=first_s, limit=10, unit=" s"),
        Bar(name="not served after that", value=sum(each.status != 200 for each in served), limit=0),
        Bar(
            name="requests that reached one of two loading replicas",
            value=sum(each.get(CHAT, 0) for each in while_loading),
            limit=0,
        ),
    ]
