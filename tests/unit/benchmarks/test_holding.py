"""What benchmarks/hold.py says of its counts: a loading replica is left in peace, and streams go on where one froze."""

import sys
from pathlib import Path
from typing import Any

import pytest

_PATHS = [str(Path(__file__).parents[3] / "benchmarks" / part) for part in ("", "gateway")]
sys.path[:0] = _PATHS  # first, since `build` may be installed, too

import hold  # noqa: E402 -- after the path
from holding import dead, freeze, refuse  # noqa: E402 -- after the path
from holding.asking import CHAT, Asked  # noqa: E402 -- the same
from stack import Bar, CannotMeasureError  # noqa: E402 -- the same

sys.path[:] = [path for path in sys.path if path not in _PATHS]

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


def refused(**changes: float) -> dict[str, Any]:
    """Return what the load client says of a turn."""
    counts = {"started": 100, "refused": 100, "window_requests": 80, "window_s": 2.0, "cpu_sched_ns": 4e6}
    return counts | {"wait_us_p50": 110.0, "wait_us_p99": 190.0} | changes


def test_what_a_refusal_costs_is_measured_where_everything_is_refused() -> None:
    fine = refuse.summary([refused(), refused(), refused(cpu_sched_ns=9e9)])
    assert fine == {"cpu_us": 50.0, "per_s": 40.0, "p50_us": 110.0, "p99_us": 190.0}
    assert not missed(refuse.bars("503", fine, fine))
    for odd in (
        {"refused": 99},
        {"started": 0, "refused": 0, "window_requests": 0},
    ):
        with pytest.raises(CannotMeasureError):
            refuse.summary([refused(), refused(**odd)])


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"cpu_us": 1001.0}, "CPU time of a refusal, 503"),
        ({"p50_us": 5001.0}, "p50 in a flood, 503"),
        ({"p99_us": 50001.0}, "p99 in a flood, 503"),
    ],
)
def test_a_refusal_has_bars(changes: dict[str, float], name: str) -> None:
    fine = refuse.summary([refused()])
    assert missed(refuse.bars("503", fine, fine | changes)) == {name}


def fine_part() -> list[Bar]:
    return [Bar(name="a", value=1, limit=2)]


def bad_part() -> list[Bar]:
    return [*fine_part(), Bar(name="b", value=3, limit=2)]


def blind_part() -> list[Bar]:
    raise CannotMeasureError("no such thing here")


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ([fine_part, fine_part], 0),
        ([fine_part, blind_part], 1),
        ([blind_part, bad_part, fine_part], 3),
        ([bad_part, blind_part], 3),
    ],
)
def test_a_part_that_misses_outweighs_one_that_could_not_be_measured(
    parts: list[Any], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hold, "PARTS", {f"part-{number}": part for number, part in enumerate(parts)})
    monkeypatch.setattr(sys, "argv", ["hold.py"])
    assert hold.main() == code
