"""Engines made of bytes for the gateway's contract tests (see tests/gateway_rig)."""

from collections.abc import Iterator

import pytest

from gateway_rig.engines import Engine, Engines
from gateway_rig.killing import answer as with_usage


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


@pytest.fixture(scope="module")
def the_cloud(engines: Engines) -> Engine:
    """Give the engine that stands behind a module's fallbacks; tests take `cloud`."""
    return engines.new()


@pytest.fixture
def cloud(the_cloud: Engine) -> Engine:
    """Give the same engine as if it were new; its answers tell their usage."""
    the_cloud.do(the_cloud.hang_up)
    the_cloud.reset()
    the_cloud.answer = with_usage
    return the_cloud
