"""One HTTP/1.1 request to an engine or exporter: no client library's memory and time for a page of counters.

Each request has a connection of its own, which the server is asked to close: one that was idle and closed by the engine
would look like a sick engine. It follows no redirect, speaks no TLS and keeps nothing.
"""

import asyncio
from dataclasses import dataclass
from urllib.parse import urlsplit

from freehold.core.events import socket_path

BODY_BYTES_MOST = 4 * 1024 * 1024
"""Longest answer that is read; vLLM's counters have some ten kilobytes, a DCGM exporter's of 16 GPUs 0.5 MB. Source: our own bound, as the fleet's."""
_HEAD_BYTES_MOST = 64 * 1024  # asyncio's own limit for one line, and more than any engine sends


@dataclass(frozen=True, slots=True, kw_only=True)
class Got:
    """An answer."""

    status: int
    body: bytes


async def fetch(url: str, path: str, *, deadline_s: float, body: bytes | None = None, key: str = "") -> Got:
    """Return the answer to GET, or to POST of a JSON body.

    Raises:
        TimeoutError: it took longer than `deadline_s` in all.
        ConnectionRefusedError, FileNotFoundError: no server listens there.
        OSError, ValueError: the connection broke, or the answer is not HTTP.
    """
    async with asyncio.timeout(deadline_s):
        parts = urlsplit(url)
        socket = socket_path(url)
        if socket:
            reader, writer = await asyncio.open_unix_connection(socket)
        else:
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 80)
        try:
            target = path if socket else parts.path.rstrip("/") + path
            writer.write(_request(parts.netloc or "localhost", target, body, key))
            await writer.drain()
            return await _answer(reader)
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as exc:
            raise ValueError(f"the answer is not whole: {exc}") from exc
        finally:
            writer.close()


def _request(host: str, path: str, body: bytes | None, key: str) -> bytes:
    lines = [f"{'GET' if body is None else 'POST'} {path} HTTP/1.1", f"Host: {host}", "Connection: close"]
    if key:
        lines.append(f"Authorization: Bearer {key}")
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


async def _answer(reader: asyncio.StreamReader) -> Got:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    words = head[0].split(" ", 2)
    if not words[0].startswith("HTTP/1.") or len(words) < 2:
        raise ValueError("this is not HTTP/1")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
    if "chunked" in fields.get("transfer-encoding", "").lower():
        return Got(status=int(words[1]), body=await _chunks(reader))
    length = int(fields["content-length"]) if "content-length" in fields else BODY_BYTES_MOST
    return Got(status=int(words[1]), body=await _body(reader, min(length, BODY_BYTES_MOST)))


async def _body(reader: asyncio.StreamReader, most: int) -> bytes:
    pieces, left = [], most
    while left > 0 and (piece := await reader.read(min(left, _HEAD_BYTES_MOST))):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    pieces: list[bytes] = []
    total = 0
    while (size := int((await reader.readline()).split(b";")[0], 16)) and total < BODY_BYTES_MOST:
        pieces.append(await reader.readexactly(size))
        await reader.readline()
        total += size
    return b"".join(pieces)
