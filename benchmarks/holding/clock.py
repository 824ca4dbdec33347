"""A wall clock that jumps an hour ahead and back: requests, streams, limits, waits, a drain and the ledger go on as before."""

import itertools
import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from stack import Bar, CannotMeasureError, freehold

from holding.asking import Asked, ask, whole_stream
from holding.ground import FEW_KEY, FEW_PER_MINUTE, Ground, Shim, shimmed

HOUR_S = 3600
PAIRS = 4
MAX_WAIT_S = 2.0  # as in ground.CONFIG
STREAM_S = 4
LONG = f"bench:chunks={STREAM_S * 100};delay_ms=10"


@contextmanager
def jumping(shim: Shim, every_s: float = 0.5) -> Iterator[None]:
    """Let the clock jump again and again: an hour ahead, an hour behind, right."""
    over = threading.Event()

    def jump() -> None:
        for ahead_s in itertools.cycle((HOUR_S, -HOUR_S, 0)):
            if over.wait(every_s):
                return
            shim.set("ahead_s", ahead_s)

    thread = threading.Thread(target=jump)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        shim.set("ahead_s", 0)


def latency(stage: Ground, shim: Shim) -> tuple[list[Bar], int]:
    """Turns with and without jumps; all answers whole, or it is no measurement."""
    added: list[float] = []
    whole = 0
    for _ in range(PAIRS):
        right = stage.latency()
        with jumping(shim):
            wrong = stage.latency()
        added.append((wrong["wait_us_p99"] - right["wait_us_p99"]) / 1e3)
        whole += right["whole"] + wrong["whole"]
    bar = Bar(name="p99 added by jumps", value=statistics.median(added), limit=2, unit=" ms")
    return [bar], whole


def streams(stage: Ground, shim: Shim) -> tuple[list[Bar], int]:
    """Twenty streams across jumps."""
    with jumping(shim), ThreadPoolExecutor(20) as pool:
        asked = list(pool.map(lambda _: ask(stage.port, prompt=LONG, stream=True), range(20)))
    whole = sum(map(whole_stream, asked))
    late = max(each.took_s for each in asked)
    return [
        Bar(name="of 20 streams across jumps, whole", value=whole, limit=20, at_least=True),
        Bar(name="the slowest of them beyond its length", value=late - STREAM_S, limit=1, unit=" s"),
    ], whole


def limits(stage: Ground, shim: Shim) -> tuple[list[Bar], int]:
    """A key's minute is used up; neither jump gives it a new one, and none takes away what real time brings back."""
    used = [ask(stage.port, key=FEW_KEY).status for _ in range(FEW_PER_MINUTE)]
    over: list[Asked] = []
    while len(over) < 3:  # what real time gave back meanwhile is used up too
        answer = ask(stage.port, key=FEW_KEY)
        over = [*over, answer] if answer.status == 429 else []
    wrong: list[Asked] = []
    for ahead_s in (HOUR_S, -HOUR_S):
        shim.set("ahead_s", ahead_s)
        wrong += [ask(stage.port, key=FEW_KEY) for _ in range(3)]
    # One request a second is given back: of six quick ones at most one may pass.
    passed = sum(each.status == 200 for each in wrong)
    longest = max(each.retry_after_s or 0.0 for each in wrong)
    time.sleep(2 * 60 / FEW_PER_MINUTE)
    after = ask(stage.port, key=FEW_KEY)
    shim.set("ahead_s", 0)
    whole = used.count(200) + passed + (after.status == 200)
    return [
        Bar(name="requests that a jump gave to a key over its limit", value=passed, limit=1),
        Bar(
            name="longest Retry-After that a jump led to", value=longest, limit=60 / FEW_PER_MINUTE, unit=" s"
        ),
        Bar(name="served again in real time", value=after.status == 200, limit=1, at_least=True),
    ], whole


def queue(stage: Ground, shim: Shim) -> tuple[list[Bar], int]:
    """Who waits for the one place of a model waits as long as is configured, whatever the clock says."""
    waits: list[float] = []
    with ThreadPoolExecutor(2) as pool:
        for ahead_s in (HOUR_S, -HOUR_S):
            first = pool.submit(ask, stage.port, model="one", prompt=LONG, stream=True)
            time.sleep(0.3)
            second = pool.submit(ask, stage.port, model="one")
            time.sleep(0.3)
            shim.set("ahead_s", ahead_s)
            refused = second.result()
            if refused.status != 503 or not whole_stream(first.result()):
                raise CannotMeasureError(f"the queue did not hold {refused}")
            waits.append(refused.took_s)
            shim.set("ahead_s", 0)
    return [
        Bar(
            name="shortest wait in the queue",
            value=min(waits),
            limit=MAX_WAIT_S - 0.1,
            at_least=True,
            unit=" s",
        ),
        Bar(name="longest wait in the queue", value=max(waits), limit=MAX_WAIT_S + 0.5, unit=" s"),
    ], 2


def drain(stage: Ground, shim: Shim) -> tuple[list[Bar], int]:
    """`freehold down` under jumps: streams end in their own time, and so does the stack."""
    with jumping(shim), ThreadPoolExecutor(20) as pool:
        asked = [pool.submit(ask, stage.port, prompt=LONG, stream=True) for _ in range(10)]
        time.sleep(1)
        started_s = time.monotonic()
        freehold("down", *stage.stack.where, limit_s=60)
        took_s = time.monotonic() - started_s
        whole = sum(whole_stream(each.result()) for each in asked)
    return [
        Bar(name="of 10 streams across drain and jumps, whole", value=whole, limit=10, at_least=True),
        Bar(name="the drain", value=took_s, limit=STREAM_S + 5, unit=" s"),
    ], whole


def measure() -> list[Bar]:
    found: list[Bar] = []
    whole = 0
    with shimmed() as (stage, shim):
        for part in (latency, streams, limits, queue, drain):
            bars, count = part(stage, shim)
            found, whole = found + bars, whole + count
        rows, doubled = stage.rows()  # after the drain all of it is there
    return [
        *found,
        Bar(name="answers missing in the ledger", value=whole - rows, limit=0),
        Bar(name="answers counted twice", value=doubled, limit=0),
    ]
