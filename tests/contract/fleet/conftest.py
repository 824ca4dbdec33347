"""An engine made of bytes for the fleet's contract tests (see tests/gateway_rig)."""

from collections.abc import Iterator

import pytest

from gateway_rig.engines import Engine, Engines


@pytest.fixture
def engine() -> Iterator[Engine]:
    """Give an engine of its own event loop, healthy and without connections."""
    engines = Engines()
    yield engines.new()
    engines.stop()
