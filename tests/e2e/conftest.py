"""Every end-to-end test gets a box; what it leaves running is ended, and is a failure of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.box import Box

pytest.register_assert_rewrite(
    "e2e.client_asks", "e2e.client_suite", "e2e.client_table"
)  # as pytest does with test files: an assertion tells its values


@pytest.fixture
def box(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Box]:
    failed_before = request.session.testsfailed
    box = Box(home=tmp_path)
    yield box
    left = box.kill_all()
    # A test that failed half-way leaves what it leaves: one failure is enough.
    assert not left or request.session.testsfailed > failed_before, f"left running: {left}"
