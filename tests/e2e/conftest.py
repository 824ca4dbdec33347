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
def children_with_usual_signals() -> Iterator[None]:
    """Start children with Ctrl-C and hang-up at their defaults, also where the tests run in the background or by nohup.

    Children inherit an ignored signal, and a stack leaves one ignored, as whoever started it so wants.
    """
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGHUP)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if before[signal.SIGHUP] is signal.SIG_IGN:
        # The tests themselves outlive the terminal, as nohup promised; a handler is not inherited, an ignored signal is.
        signal.signal(signal.SIGHUP, lambda *_: None)
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


@pytest.fixture
def box(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Box]:
    failed_before = request.session.testsfailed
    box = Box(home=tmp_path)
    yield box
    left = box.kill_all()
    # A test that failed half-way leaves what it leaves: one failure is enough.
    assert not left or request.session.testsfailed > failed_before, f"left running: {left}"
