"""Ten thousand idle connections: what they cost those who ask meanwhile, and how much memory they hold."""

import resource
import socket
import statistics
from collections.abc import Iterator
from contextlib import contextmanager

from processes import API_KEY, rss_bytes
from stack import Bar, CannotMeasureError

from holding.ground import Ground, ground

IDLE = 10_000
TURNS = 4
_BODY = b'{"model":"m","messages":[{"role":"user","content":"bench:bytes=400"}]}'
REQUEST = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer %b\r\nContent-Length: %d\r\n\r\n%b"
    % (API_KEY.encode(), len(_BODY), _BODY)
)


@contextmanager
def idle(port: int, count: int) -> Iterator[list[socket.socket]]:
    """Hold that many connections open; every second one has been served before."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count + 200:
        raise CannotMeasureError(f"the limit on open files is {hard}; {count + 200} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count + 200), hard))
    held: list[socket.socket] = []
    try:
        for number in range(count):
            held.append(socket.create_connection(("127.0.0.1", port), timeout=10))
            if number % 2:
                held[-1].sendall(REQUEST)
                _read_answer(held[-1])
        yield held
    finally:
        for each in held:
            each.close()


def _read_answer(client: socket.socket) -> None:
    data = b""
    while b'"choices"' not in data or not data.endswith(b"}"):
        more = client.recv(65536)
        if not more:
            raise CannotMeasureError(f"an answer was cut: {data[:200]!r}")
        data += more


def still_open(held: list[socket.socket]) -> int:
    """How many of these the gateway has not closed."""
    count = 0
    for each in held:
        each.setblocking(False)
        try:
            each.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            count += 1
        except OSError:
            continue
    return count


def waits_us(stage: Ground) -> list[tuple[float, float]]:
    reports = [stage.latency() for _ in range(TURNS)]
    return [(report["wait_us_p50"], report["wait_us_p99"]) for report in reports]


def measure() -> list[Bar]:
    with ground() as stage:
        pid = stage.gateway_pid
        bare = rss_bytes([pid])
        quiet = waits_us(stage)
        with idle(stage.port, IDLE) as held:
            beside = waits_us(stage)
            held_bytes, kept = rss_bytes([pid]), still_open(held)
        quiet += waits_us(stage)
    (p50, p99), (p50_quiet, p99_quiet) = (
        [statistics.median(column) for column in zip(*waits, strict=True)] for waits in (beside, quiet)
    )
    print(
        f"  quiet: p50 {p50_quiet:.0f} us, p99 {p99_quiet:.0f} us; beside {IDLE} idle: {p50:.0f}, {p99:.0f}"
    )
    print(f"  memory: {bare / 1e6:.0f} MB before, {(held_bytes - bare) / IDLE / 1024:.1f} KiB for each")
    return [
        Bar(name="idle connections kept", value=kept, limit=IDLE, at_least=True),
        Bar(name="p50 beside them, to quiet", value=p50 / p50_quiet, limit=3),
        Bar(name="p99 beside them, to quiet", value=p99 / p99_quiet, limit=3),
        Bar(name="gateway's memory", value=held_bytes / 1e6, limit=300, unit=" MB"),
    ]
