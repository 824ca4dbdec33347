"""Every end-to-end test gets a box; what it leaves running is ended, and is a failure of its own."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.box import Box

pytest.register_assert_rewrite(
    "e2e.client_asks", "e2e.client_suite", "e2e.client_table"
)  # as pytest does with test files: an assertion tells its values


@pytest.fixture(scope="session", autouse=True)
def children_with_ctrl_c() -> Iterator[None]:
    """Start children with Ctrl-C at its default, also where the shell that runs the tests in the background has it ignored.

    Children inherit an ignored signal, and a stack leaves one ignored, as whoever started it so wants.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def box(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Box]:
    failed_before = request.session.testsfailed
    box = Box(home=tmp_path)
    yield box
    left = box.kill_all()
    # A test that failed half-way leaves what it leaves: one failure is enough.
    assert not left or request.session.testsfailed > failed_before, f"left running: {left}"
