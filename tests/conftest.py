"""What every test may use: a free port, golden files, the real model's weights, and the time cap of unit tests."""

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
UNIT_CAP_S = 2
"""DESIGN section 5: a unit test is pure and fast."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden-update", action="store_true", help="write the golden files anew; review the diff"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(TESTS / "unit") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(UNIT_CAP_S))


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Give `check(name, text)`: compare with tests/golden/NAME, or write it under `--golden-update`."""

    def check(name: str, text: str) -> None:
        path = TESTS / "golden" / name
        if request.config.getoption("--golden-update"):
            path.write_text(text)
        assert path.exists(), f"no golden file {name}: run pytest --golden-update and review it"
        assert text == path.read_text(), (
            f"{name} changed: if meant, run pytest --golden-update and review the diff"
        )

    return check


@pytest.fixture
def free_port() -> int:
    """Give a port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
