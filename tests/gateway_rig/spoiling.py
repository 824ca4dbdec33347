"""Ways to spoil bytes, and how long to go on with it."""

import os
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

ROUNDS = int(os.environ.get("FUZZ_ROUNDS", "1"))
"""`FUZZ_ROUNDS=100 pytest tests/contract/gateway/test_fuzz*.py` tries a hundred times as many examples, other ones each
time; without it, the same few on every run."""


def fuzz(examples: int) -> settings:
    """Return how a fuzz test runs that tries so many examples by default."""
    more: dict[str, Any] = {"derandomize": False, "print_blob": True} if ROUNDS > 1 else {}
    checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(max_examples=examples * ROUNDS, suppress_health_check=checks, **more)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Return the data in pieces of these sizes, then the rest."""
    pieces = []
    for size in places:
        pieces.append(data[:size])
        data = data[size:]
    return [*filter(None, pieces), *([data] if data else [])]


@st.composite
def spoil(draw: st.DrawFn, whole: bytes, bits: st.SearchStrategy[bytes], *, most: int = 4) -> bytes:
    """Give the bytes with some places cut out, doubled or filled in."""
    data = whole
    for _ in range(draw(st.integers(1, most))):
        at = draw(st.integers(0, len(data)))
        end = min(len(data), at + draw(st.integers(0, 30)))
        between = draw(st.one_of(bits, st.just(b""), st.just(data[at:end] * 2)))
        data = data[:at] + between + data[end:]
    return data


PIECES = st.lists(st.integers(1, 400), max_size=8)
