"""Engines made of bytes for the gateway's contract tests (see tests/gateway_rig)."""

from collections.abc import Iterator

import pytest

from gateway_rig.engines import Engine, Engines


@pytest.fixture(scope="module")
def engines() -> Iterator[Engines]:
    """Give a maker of engines; all of a module share one event loop in a thread."""
    engines = Engines()
    yield engines
    engines.stop()


@pytest.fixture(scope="module")
def the_engine(engines: Engines) -> Engine:
    """Give the engine that a module's gateway stands in front of; tests take `engine`."""
    return engines.new()


@pytest.fixture
def engine(the_engine: Engine) -> Engine:
    """Give the same engine as if it were new: no connections, nothing seen, healthy."""
    the_engine.do(the_engine.hang_up)
    the_engine.reset()
    return the_engine
