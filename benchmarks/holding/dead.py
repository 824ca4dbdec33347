"""Both replicas killed at once: how callers are answered until one is back, and whether one that loads is left in peace."""

import os
import signal
import threading
import time

from stack import Bar, CannotMeasureError, Stack, quantile

from holding.asking import CHAT, Asked, ask
from holding.fakes import answers_health, fake_state, two_fakes

LOADS_S = 4
BACK_LIMIT_S = 60.0
ASKED = 100


class Watch(threading.Thread):
    """Looks at the new engines until one is ready: which requests of callers reach them while they load."""

    def __init__(self, stack: Stack, killed: set[int]) -> None:
        super().__init__()
        self._stack = stack
        self._killed = killed
        self.ready_at_s: float | None = None
        self.too_early = 0
        self.looks = 0

    def run(self) -> None:
        """Look again and again."""
        end_s = time.monotonic() + BACK_LIMIT_S
        while self.ready_at_s is None and time.monotonic() < end_s:
            replicas = self._stack.status()["replicas"]
            for replica in replicas:
                if replica["url"] and replica["pid"] and replica["pid"] not in self._killed:
                    self._look(replica["url"])

    def _look(self, url: str) -> None:
        end_s = time.monotonic() + BACK_LIMIT_S
        while time.monotonic() < end_s:
            state, ready = fake_state(url), answers_health(url)
            if ready:
                self.ready_at_s = time.monotonic()
                return
            if state is not None:
                self.looks += 1
                seen = sum(each["target"] == CHAT for each in state["counts"]["recent"])
                self.too_early = max(self.too_early, seen)
            time.sleep(0.02)


def ask_until_back(port: int) -> list[Asked]:
    """Ask again and again until one is served, and a hundred times at least."""
    asked: list[Asked] = []
    end_s = time.monotonic() + BACK_LIMIT_S
    while (not asked or asked[-1].status != 200) and time.monotonic() < end_s:
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
        asked = ask_until_back(port)
        watch.join()
    return bars(asked, watch)


def bars(asked: list[Asked], watch: Watch) -> list[Bar]:
    refused = asked[:-1] if asked[-1].status == 200 else asked
    if watch.ready_at_s is None or not watch.looks:
        raise CannotMeasureError("no replica was seen to load and become ready")
    took_ms = [1e3 * each.took_s for each in refused]
    wrong = [each for each in refused if each.status != 503 or each.retry_after_s is None]
    first_s = max(0.0, asked[-1].at_s + asked[-1].took_s - watch.ready_at_s)
    print(f"  {len(refused)} refused, p50 {quantile(took_ms, 0.5):.1f} ms; back after "
          f"{asked[-1].at_s - asked[0].at_s:.1f} s; {watch.looks} looks at engines that load")  # fmt: skip
    if wrong:
        print(f"  wrong: {wrong[0]}")
    return [
        Bar(name="requests asked meanwhile", value=len(refused), limit=ASKED, at_least=True),
        Bar(name="not answered 503 with Retry-After", value=len(wrong), limit=0),
        Bar(name="slowest refusal", value=max(took_ms) / 1e3, limit=1, unit=" s"),
        Bar(name="served again", value=asked[-1].status == 200, limit=1, at_least=True),
        Bar(name="first success after readiness", value=first_s, limit=10, unit=" s"),
        Bar(name="requests that reached a loading replica", value=watch.too_early, limit=0),
    ]
