"""The messages on the socket pair between a gateway process and its parent: JSON lines, bounded, in both directions.

The parent sends settings (first, and again when they change), snapshots, the agent's metrics, and the order to drain. The
gateway sends statistics about once a second and reports when all is drained. If one side closes the pair, it is gone; nothing
else is inferred from silence.
"""

import asyncio
from collections.abc import AsyncIterator

import msgspec

from freehold.core.events import AgentMetrics, GatewayStats, Snapshot
from freehold.gateway.settings import Settings

LINE_BYTES_MAX = 16 * 1024 * 1024
"""Longest message, bytes. Source: our own bound; a snapshot of 10,000 endpoints takes about 3 MB."""


class EndpointsMessage(msgspec.Struct, frozen=True, tag="endpoints"):
    """A newer snapshot."""

    snapshot: Snapshot


class AgentMessage(msgspec.Struct, frozen=True, tag="agent"):
    """The newest metrics of this node's agent."""

    metrics: AgentMetrics


class SettingsMessage(msgspec.Struct, frozen=True, tag="retune"):
    """How to run, from now on: the first message down, and again when it changes."""

    settings: Settings


class DrainMessage(msgspec.Struct, frozen=True, tag="drain"):
    """Finish and end."""


class StatsMessage(msgspec.Struct, frozen=True, tag="stats"):
    """What the gateway is doing."""

    stats: GatewayStats


class DrainedMessage(msgspec.Struct, frozen=True, tag="drained"):
    """The last message up: whether every stream could be finished within the grace."""

    whole: bool


Down = EndpointsMessage | AgentMessage | SettingsMessage | DrainMessage
Up = StatsMessage | DrainedMessage
_DOWN: msgspec.json.Decoder[Down] = msgspec.json.Decoder(Down)
_UP: msgspec.json.Decoder[Up] = msgspec.json.Decoder(Up)


def line(message: Down | Up) -> bytes:
    """Return a message as one line."""
    return msgspec.json.encode(message) + b"\n"


async def downs(reader: asyncio.StreamReader) -> AsyncIterator[Down]:
    """Yield the parent's messages until it closes."""
    async for raw in _lines(reader):
        yield _DOWN.decode(raw)


async def ups(reader: asyncio.StreamReader) -> AsyncIterator[Up]:
    """Yield the gateway's messages until it closes."""
    async for raw in _lines(reader):
        yield _UP.decode(raw)


async def _lines(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while True:
        try:
            raw = await reader.readuntil(b"\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return  # a half line is what a killed peer leaves: it was never a message
        yield raw
