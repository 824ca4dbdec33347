"""Ways to spoil bytes, and how long to go on with it."""

import os
from collections.abc import Callable
from typing import Any, TypeVar

from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st

ROUNDS = int(os.environ.get("FUZZ_ROUNDS", "1"))
"""How many times as many examples are tried as in `make test`; `make fuzz` sets it."""
SEED = int(os.environ.get("FUZZ_SEED", "1"))
"""What the examples are drawn from: the same seed gives the same ones."""


_Test = TypeVar("_Test", bound=Callable[..., Any])


def fuzz(examples: int) -> Callable[[_Test], _Test]:
    """Return what makes a fuzz test of a test: so many examples by default, drawn from SEED."""
    checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
    bounds = settings(max_examples=examples * ROUNDS, suppress_health_check=checks, print_blob=True)
    return lambda test: seed(SEED)(bounds(test))


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
