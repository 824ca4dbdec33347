"""What a reader of the gateway has to follow: the files that one streamed chat enters, and how often it moves between them."""

import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import freehold
from freehold.ledger.spool import make_folder
from gateway_rig.client import ask
from gateway_rig.engines import STREAM_HEAD, chunk
from gateway_rig.memory import MemoryGateway, Wire

PACKAGE = Path(freehold.__file__).parent.as_posix() + "/"
FILES_MAX, MOVES_MAX = 28, 40
"""A chat of five tokens, with the ledger on; moves are counted until the engine is asked."""
TOKEN_PATH = ["gateway/exchange/upstream.py data_received", "gateway/wire/frame.py is_known_chunk"]


def event(**fields: Any) -> bytes:
    return chunk(
        b"data: %b\n\n" % json.dumps({"id": "c", "object": "chat.completion.chunk", **fields}).encode()
    )


def says(delta: dict[str, str], end: str | None = None) -> bytes:
    return event(choices=[{"index": 0, "delta": delta, "finish_reason": end}])


USAGE = event(choices=[], usage={"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8})
TOKENS = [says({"content": letter}) for letter in "abcde"]
READS = [
    STREAM_HEAD + says({"role": "assistant", "content": ""}),
    *TOKENS,
    says({}, "stop") + USAGE,
    chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n",
]


class Tracer:
    """Every call of a function of the package, in order."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.asked_at = 0
        """How many calls came before the engine was asked."""

    def __call__(self, frame: FrameType, what: str, _argument: Any) -> None:
        name = frame.f_code.co_filename
        if what == "call" and name.startswith(PACKAGE):
            self.calls.append(f"{name.removeprefix(PACKAGE)} {frame.f_code.co_name}")

    @property
    def files(self) -> list[str]:
        return list(dict.fromkeys(call.split()[0] for call in self.calls))

    @property
    def moves(self) -> int:
        """Return how often a call went to another file than the one before, until the engine was asked."""
        files = [call.split()[0] for call in self.calls[: self.asked_at]]
        return sum(one != other for one, other in itertools.pairwise(files))


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[MemoryGateway]:
    make_folder(tmp_path / "spool")
    rig = MemoryGateway(monkeypatch, spool_path=str(tmp_path / "spool"))
    rig.renew()
    yield rig
    rig.close()


def traced_chat(rig: MemoryGateway) -> tuple[Tracer, list[list[str]]]:
    """Return the trace of one streamed chat on a new connection, and the calls that each read of the engine made."""
    tracer = Tracer()
    reads: list[list[str]] = []

    def on_connect(wire: Wire) -> None:
        def answer() -> None:
            wire.on_write = None
            tracer.asked_at = tracer.asked_at or len(tracer.calls)
            for data in READS:
                before = len(tracer.calls)
                wire.send(data)
                reads.append(tracer.calls[before:])

        wire.on_write = answer

    rig.on_connect = on_connect
    before = sys.getprofile()
    sys.setprofile(tracer)
    try:
        client = rig.client()
        client.send(ask("m", stream=True))
    finally:
        sys.setprofile(before)
    assert b"[DONE]" in client.wire.written
    return tracer, reads


def test_a_streamed_chat_enters_few_files_and_moves_little_between_them(rig: MemoryGateway) -> None:
    tracer, _ = traced_chat(rig)
    sys.stdout.write("\n".join([*tracer.files, f"{len(tracer.files)} files, {tracer.moves} moves"]) + "\n")
    assert len(tracer.files) <= FILES_MAX
    assert 10 < tracer.moves <= MOVES_MAX


def test_a_known_token_takes_two_calls_in_two_files(rig: MemoryGateway) -> None:
    _, reads = traced_chat(rig)
    assert reads[3:6] == [TOKEN_PATH] * 3
