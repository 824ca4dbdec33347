"""How the fake engine fails: each fault as what it does to one connection, or to the whole process.

The faults named `*_stream` happen after some tokens; the others come instead of an answer.
None of them lies in `/health`; that is a setting of its own.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable

from freehold.testing.fake_answers import error_body, error_event
from freehold.testing.fake_http import Connection
from freehold.testing.fake_settings import FakeSettings, Fault

CRASH_EXIT_CODE = 70
"""Exit code of the `crash` faults. Source: EX_SOFTWARE of sysexits.h; no shell or signal uses it."""
# Our own choices: past every server's and client's limit on heads (8 to 64 KiB); more than the body that comes.
_HUGE_HEADER_BYTES = 1 << 20
_PROMISED_BYTES = 1000
_WORKS_S = 0.5
"""How long it works on what makes it crash, seconds. Source: our own choice: llama.cpp parses 800 KB of parentheses for 0.3 s."""
_LAST_S = 0.1
"""How long a process lives on after its last answer, seconds. Source: our own choice: the answer has left by then."""


async def hang() -> None:
    """Wait for ever; only the client's leaving ends it."""
    await asyncio.Event().wait()


async def _hang(_connection: Connection, _settings: FakeSettings) -> None:
    await hang()


async def _crash(_connection: Connection, _settings: FakeSettings) -> None:
    os._exit(CRASH_EXIT_CODE)


async def _late_crash(_connection: Connection, _settings: FakeSettings) -> None:
    asyncio.get_running_loop().call_later(_WORKS_S, os._exit, CRASH_EXIT_CODE)
    await hang()


async def _close(connection: Connection, _settings: FakeSettings) -> None:
    connection.close()


async def _status(connection: Connection, settings: FakeSettings) -> None:
    status = settings.fault_status
    wait_s = settings.fault_retry_after_s
    lines = [f"Retry-After: {wait_s}"] if wait_s else []
    connection.respond(status, error_body(status, "the fake was told to say so", kind="server_error"), *lines)


async def _status_crash(connection: Connection, settings: FakeSettings) -> None:
    await _status(connection, settings)
    asyncio.get_running_loop().call_later(_LAST_S, os._exit, CRASH_EXIT_CODE)


async def _bad_head(connection: Connection, _settings: FakeSettings) -> None:
    connection.send(b"HTTP/1.1 fine\r\nno colon here\r\n\r\n")
    connection.close()


async def _huge_headers(connection: Connection, _settings: FakeSettings) -> None:
    connection.respond(200, {}, f"X-Huge: {'x' * _HUGE_HEADER_BYTES}")


async def _two_lengths(connection: Connection, _settings: FakeSettings) -> None:
    connection.send(connection.head(200, "Content-Length: 2", "Content-Length: 4") + b"{}{}")


async def _short_body(connection: Connection, _settings: FakeSettings) -> None:
    connection.send(connection.head(200, f"Content-Length: {_PROMISED_BYTES}") + b'{"choices": [')
    connection.close()


async def _long_body(connection: Connection, _settings: FakeSettings) -> None:
    connection.send(connection.head(200, "Content-Length: 2") + b'{}{"more": "than promised"}')


async def _reset_stream(connection: Connection, _settings: FakeSettings) -> None:
    connection.reset()


async def _bad_chunk(connection: Connection, _settings: FakeSettings) -> None:
    connection.send(b"zz\r\nthis is no chunk\r\n")


async def _error_event(connection: Connection, _settings: FakeSettings) -> None:
    connection.chunk(error_event("the fake was told to fail"))
    connection.chunk(b"")


Act = Callable[[Connection, FakeSettings], Awaitable[None]]
INSTEAD: dict[Fault, Act] = {
    "hang": _hang,
    "crash": _crash,
    "late_crash": _late_crash,
    "close": _close,
    "status": _status,
    "status_crash": _status_crash,
    "bad_head": _bad_head,
    "huge_headers": _huge_headers,
    "two_lengths": _two_lengths,
    "short_body": _short_body,
    "long_body": _long_body,
}
MIDWAY: dict[Fault, Act] = {
    "hang_stream": _hang,
    "crash_stream": _crash,
    "close_stream": _close,
    "reset_stream": _reset_stream,
    "bad_chunk": _bad_chunk,
    "error_event": _error_event,
}
