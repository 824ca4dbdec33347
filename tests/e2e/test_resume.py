"""One of two replicas of the real model is killed, each under some ten streams: twenty whole answers, most to the letter.

How long the streams are silent depends on the machine; `benchmarks/resume.py` holds that to a bound.
"""

import asyncio
from pathlib import Path

import pytest

from e2e import dying
from e2e.box import EXAMPLE, Box

STREAMS = 10


@pytest.mark.real_model
@pytest.mark.timeout(240)
def test_streams_of_a_killed_replica_are_whole(box: Box, weights_path: Path) -> None:
    assert weights_path.exists()
    path = dying.config(box, EXAMPLE, streams=STREAMS)
    with box.foreground("--config", str(path)) as stack:
        fine = asyncio.run(dying.undisturbed(stack.url, STREAMS))
        assert all(caller.whole for caller in fine)
        callers, _ = asyncio.run(dying.disturbed(stack, STREAMS, after=8))
        assert [caller.failure for caller in callers] == [""] * 2 * STREAMS
        assert all(caller.whole for caller in callers)
        resumed = [pair for pair in zip(callers, fine, strict=True) if pair[0].resumed]
        assert len(resumed) >= STREAMS // 2
        # A text may differ where the batch or a token's border made a tie fall otherwise; most are the same to a letter.
        assert sum(a.text == b.text for a, b in resumed) >= len(resumed) * 0.7
        assert stack.end() == 0
