"""What benchmarks/hold.py says of its counts: a loading replica is left in peace, and streams go on where one froze."""

import sys
from pathlib import Path
from typing import Any

import pytest

_PATHS = [str(Path(__file__).parents[2] / "benchmarks" / part) for part in ("", "gateway")]
sys.path[:0] = _PATHS  # first, since `build` may be installed, too

from holding import dead, freeze  # noqa: E402 -- after the path
from holding.asking import CHAT, Asked  # noqa: E402 -- the same
from stack import Bar, CannotMeasureError  # noqa: E402 -- the same

for path in _PATHS:
    sys.path.remove(path)

REFUSED = [
    Asked(at_s=0.03 * number, took_s=0.002, status=503, headers={"retry-after": "1"}) for number in range(120)
]
SERVED = [Asked(at_s=5 + 0.03 * number, took_s=0.01, status=200) for number in range(100)]
READY_AT_S = {"one": 4.5, "two": 7.5}
PROBED = {"while_loading": {"/v1/completions": 9}}


def missed(bars: list[Bar]) -> set[str]:
    return {bar.name for bar in bars if not bar.holds}


def test_replicas_that_load_are_left_in_peace() -> None:
    assert not missed(dead.bars(REFUSED + SERVED, READY_AT_S, [PROBED, PROBED]))


@pytest.mark.parametrize("which", [0, 1])
def test_one_request_that_reaches_either_of_two_loading_replicas_is_one_too_many(which: int) -> None:
    seen: list[dict[str, Any]] = [PROBED, PROBED]
    seen[which] = {"while_loading": {"/v1/completions": 9, CHAT: 1}}
    names = missed(dead.bars(REFUSED + SERVED, READY_AT_S, seen))
    assert names == {"requests that reached one of two loading replicas"}


@pytest.mark.parametrize("seen", [[PROBED], [PROBED, {"while_loading": {}}]])
def test_both_must_be_seen_to_load(seen: list[dict[str, Any]]) -> None:
    with pytest.raises(CannotMeasureError):
        dead.bars(REFUSED + SERVED, READY_AT_S, seen)


def test_after_the_first_success_all_are_served() -> None:
    assert missed(dead.bars([*REFUSED, *SERVED, REFUSED[0]], READY_AT_S, [PROBED, PROBED])) == {
        "not served after that"
    }


def stream(*, gap_s: float = 0.0, resumed: bool = False, text: str = freeze.TEXT) -> freeze.Stream:
    return freeze.Stream(text=text, at_s=[0.0, 0.02, 0.02 + gap_s], resumed=resumed, ended=True)


def test_a_stream_goes_on_within_the_limit_whole_and_elsewhere() -> None:
    fine = [stream(), stream(gap_s=freeze.STALL_S + 1, resumed=True)]
    assert not missed(freeze.stream_bars(fine))
    assert missed(freeze.stream_bars(fine[:1])) == {"streams that went on elsewhere"}
    assert missed(freeze.stream_bars([*fine, stream(gap_s=4.0, resumed=True)])) == {"longest gap in a stream"}
    for text in (freeze.TEXT[:-4], freeze.TEXT + " w9"):
        assert missed(freeze.stream_bars([*fine, stream(text=text)])) == {"streams that are not whole"}


def test_a_stream_is_read_as_its_caller_reads_it() -> None:
    one = freeze.Stream()
    for line in (
        b'data: {"choices":[{"delta":{"content":" w0"}}]}',
        b": x-freehold-resumed tokens=1",
        b'data: {"choices":[{"delta":{"content":" w1"}}]}',
    ):
        one.take(line)
    assert (one.text, one.resumed, one.ended, len(one.at_s)) == (" w0 w1", True, False, 2)
    one.take(b"data: [DONE]")
    assert one.ended
    assert not one.whole
