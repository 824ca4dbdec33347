"""The fake engine's process: `python -m freehold.testing.fake_engine`, and `start_fake_engine` to run it in a test.

It is a real HTTP child, so that whoever runs, routes to or kills it meets sockets, signals and exit codes. It listens
on the loopback address only and knows no secrets. While it runs, `POST /_fake` with settings changes it and
`GET /_fake` tells all that it counted.
"""

import argparse
import asyncio
import functools
import json
import os
import select
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from freehold.core.clock import monotonic_s
from freehold.testing.fake_http import Connection
from freehold.testing.fake_server import CONTROL_PATH, FakeServer
from freehold.testing.fake_settings import add_flags, from_flags, to_flags

READY_WORDS = "fake engine listens on "
# Our own bounds: more waiting connections than any test opens at once; far longer than an answer from loopback takes.
_BACKLOG = 1024
_CALL_TIMEOUT_S = 10.0


class FakeEngine:
    """A running fake engine: where it is, what it saw, and the means to change or end it. Calls block."""

    def __init__(self, process: "subprocess.Popen[str]", url: str) -> None:
        self.process = process
        self.url = url
        """`http://127.0.0.1:PORT`, no path."""

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    @property
    def port(self) -> int:
        """Its port."""
        return int(self.url.rpartition(":")[2])

    def stats(self) -> dict[str, Any]:
        """Return its counters by the names of `fake_http.Counts`; raises OSError when it does not answer."""
        counts: dict[str, Any] = self._call(None)["counts"]
        return counts

    def set(self, **settings: object) -> dict[str, Any]:
        """Change settings of `fake_settings.Settings` and return all; raises ValueError for impossible ones."""
        return self._call(settings)

    def kill(self) -> None:
        """End it with SIGKILL and wait until it is gone."""
        self.process.kill()
        self.process.wait()

    def _call(self, changes: dict[str, object] | None) -> dict[str, Any]:
        body = None if changes is None else json.dumps(changes).encode()
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(self.url + CONTROL_PATH, body, timeout=_CALL_TIMEOUT_S) as answer:
                value: dict[str, Any] = json.load(answer)
                return value
        except urllib.error.HTTPError as exc:
            raise ValueError(exc.read().decode()) from exc


@contextmanager
def start_fake_engine(
    *, port: int = 0, model: str = "fake", timeout_s: float = 20.0, **settings: object
) -> Iterator[FakeEngine]:
    """Run a fake engine on a free port of 127.0.0.1 until the block ends; it also ends when this process does.

    Raises TimeoutError when it does not listen within `timeout_s` seconds, RuntimeError when it ended before.
    """
    flags = ["--port", str(port), "--model", model, "--end-with-stdin", *to_flags(settings)]
    command = [sys.executable, "-P", "-m", "freehold.testing.fake_engine", *flags]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield FakeEngine(process, _wait_for_url(process, timeout_s))
    finally:
        process.kill()
        process.communicate()


def _wait_for_url(process: "subprocess.Popen[str]", timeout_s: float) -> str:
    assert process.stdout is not None
    deadline_s = monotonic_s() + timeout_s
    while select.select([process.stdout], [], [], max(0.0, deadline_s - monotonic_s()))[0]:
        line = process.stdout.readline()
        if line.startswith(READY_WORDS):
            return line.removeprefix(READY_WORDS).strip()
        if not line:
            raise RuntimeError(f"the fake engine ended with exit code {process.wait()} before it listened")
    raise TimeoutError(f"the fake engine did not listen within {timeout_s:g} s")


def main(argv: list[str]) -> int:
    """Serve until SIGTERM or SIGINT; exit code 2 for wrong flags, or what `exit_at_start` says."""
    parser = argparse.ArgumentParser(prog="fake engine", allow_abbrev=False)
    parser.add_argument("--host", default="127.0.0.1", help="127.0.0.1, ::1 or the path of a Unix socket")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--model", default="fake")
    parser.add_argument("--end-with-stdin", action="store_true")
    add_flags(parser)
    flags = parser.parse_args(argv)
    try:
        settings = from_flags(flags)
    except msgspec.ValidationError as exc:
        parser.error(str(exc))
    if settings.exit_at_start >= 0:
        print(settings.exit_words, file=sys.stderr, flush=True)  # noqa: T201
        return settings.exit_at_start
    server = FakeServer(settings, model=flags.model)
    asyncio.run(serve(server, flags.host, port=flags.port, end_with_stdin=flags.end_with_stdin))
    return 0


async def serve(server: FakeServer, host: str, *, port: int, end_with_stdin: bool = False) -> None:
    """Serve until a signal ends the process; `port` 0 is one that the kernel picks. Prints where it listens."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, functools.partial(_on_signal, loop, server))
    if end_with_stdin:
        loop.add_reader(0, _end_at_eof)
    if host.endswith(".sock"):
        on_socket = await loop.create_unix_server(lambda: Connection(server), host, backlog=_BACKLOG)
        print(f"{READY_WORDS}unix:{host}", flush=True)  # noqa: T201
        await on_socket.serve_forever()
    listening = await loop.create_server(lambda: Connection(server), host, port, backlog=_BACKLOG)
    port = listening.sockets[0].getsockname()[1]
    host = f"[{host}]" if ":" in host else host
    print(f"{READY_WORDS}http://{host}:{port}", flush=True)  # noqa: T201
    await listening.serve_forever()


def _on_signal(loop: asyncio.AbstractEventLoop, server: FakeServer) -> None:
    if not server.settings.ignore_sigterm:
        loop.call_later(server.settings.term_delay_s, os._exit, 0)


def _end_at_eof() -> None:
    if not os.read(0, 4096):
        os._exit(0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
