"""What is believed after which looks: hysteresis, what cannot be read, what nobody mentions any more."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.core.findings import Action, Finding, Verdict
from freehold.health.model.hysteresis import (
    FORGET_LOOKS,
    STALE,
    STALE_LOOKS,
    UNCONFIRMED,
    SettledState,
    settle,
    settle_all,
)
from freehold.health.model.probe import Expected, Probe
from freehold.health.model.view import View

H, U, D, B, N = (
    Verdict.HEALTHY,
    Verdict.UNKNOWN,
    Verdict.DEGRADED,
    Verdict.UNHEALTHY,
    Verdict.NOT_APPLICABLE,
)
LETTERS = {"h": H, "u": U, "d": D, "b": B, "n": N}


def _check(_views: Sequence[View], _expected: Expected) -> Sequence[Finding]:
    return ()


def probe(confirm: int = 3, clear: int = 3) -> Probe:
    return Probe(
        name="p", summary="s", reads=("host",), window_s=60, reasons={}, thresholds=(), check=_check,
        confirm=confirm, clear=clear,
    )  # fmt: skip


def look(verdict: Verdict, component: str = "c") -> Finding:
    return Finding(
        probe="p", component=component, verdict=verdict, reason=f"is_{verdict}", message=f"it is {verdict}",
        action=Action.RESTART_ENGINE if verdict is B else Action.NONE,
    )  # fmt: skip


def after(letters: str, by: Probe) -> SettledState:
    held: SettledState | None = None
    for second, letter in enumerate(letters):
        held = settle(held, look(LETTERS[letter]), probe=by, now_s=float(second))
    assert held is not None
    return held


@pytest.mark.parametrize(
    ("letters", "verdict"),
    [
        ("h", H),
        ("hb", H),
        ("hbb", H),
        ("hbbb", B),
        ("hbbhbb", H),  # not in a row
        ("hbdb", D),  # they agree on no worse than that
        ("hdbb", D),
        ("hbbbh", B),
        ("hbbbhh", B),
        ("hbbbhhh", H),
        ("hbbbhhbhh", B),  # not in a row
        ("hbbbhdh", D),  # better, but by no more than that
        ("hbbbddd", D),
        ("hdddbb", D),
        ("hdddbbb", B),
        ("hdddhbhb", D),  # worse and better in turns agree on nothing
        ("hu", U),
        ("huh", H),
        ("hbbbu", B),  # what cannot be read is not well again
        ("hbbbuuuuuu", B),
        ("hbbbhuhuh", H),
        ("hbubub", B),  # nor does it take back what was bad before
        ("hbuhbb", H),
        ("n", N),
        ("nb", N),
        ("b", U),  # nothing is known before it
        ("bbb", B),
        ("bh", H),
        ("ub", U),
    ],
)
def test_what_is_believed_with_three_looks_each_way(letters: str, verdict: Verdict) -> None:
    assert after(letters, probe()).believed.verdict is verdict


def test_direct_verdicts_are_believed_at_once() -> None:
    assert after("b", probe(confirm=1)).believed.verdict is B
    assert after("hd", probe(confirm=1)).believed.verdict is D


def test_what_looks_bad_at_first_says_that_it_is_not_believed_yet() -> None:
    first = after("b", probe()).believed
    assert (first.reason, first.action) == (UNCONFIRMED, Action.WATCH)
    assert first.message == "it is unhealthy (seen 1 of 3 times: not confirmed)"
    assert after("bb", probe()).believed.message.endswith("(seen 2 of 3 times: not confirmed)")


def test_a_bad_one_that_cannot_be_read_says_both_and_only_while_it_is_so() -> None:
    said = after("bbbuu", probe()).believed.message
    assert said == "it is unhealthy; now it cannot be read: it is unknown"
    assert after("bbbuuh", probe()).believed.message == "it is unhealthy"


def test_since_is_when_the_verdict_became_this_one() -> None:
    assert after("hhhbbbb", probe()).since_s == 5.0
    assert after("hhh", probe()).since_s == 0.0


def test_the_same_verdict_for_another_reason_is_told_at_once() -> None:
    other = Finding(probe="p", component="c", verdict=B, reason="other", message="m")
    assert settle(after("bbb", probe()), other, probe=probe(), now_s=9.0).believed.reason == "other"


def test_what_nobody_mentions_becomes_stale_and_then_is_forgotten() -> None:
    by = probe(confirm=1)
    held = settle_all({}, [look(B, "a"), look(H, "b")], probe=by, now_s=0.0)
    for second in range(1, FORGET_LOOKS + 1):
        held = settle_all(held, [look(H, "b")], probe=by, now_s=float(second))
        found = held.get(("p", "a"))
        if second < STALE_LOOKS:
            assert found is not None
            assert found.believed.verdict is B
        elif second < FORGET_LOOKS:
            assert found is not None
            assert (found.believed.verdict, found.believed.reason) == (U, STALE)
            assert found.since_s == STALE_LOOKS
    assert set(held) == {("p", "b")}


def test_other_probes_components_stay() -> None:
    held = settle_all({("q", "c"): after("h", probe())}, [look(H)], probe=probe(), now_s=0.0)
    assert set(held) == {("q", "c"), ("p", "c")}
    assert held["q", "c"].missed == 0


@given(st.text("hudbn", min_size=1, max_size=40), st.integers(1, 4), st.integers(1, 4))
def test_bad_is_never_believed_of_what_was_never_bad_nor_well_of_what_was_not_clear(
    letters: str, confirm: int, clear: int
) -> None:
    by = probe(confirm, clear)
    held: SettledState | None = None
    row = better = 0
    for letter in letters:
        before = held.believed.verdict if held else U
        held = settle(held, look(LETTERS[letter]), probe=by, now_s=0.0)
        row = row + 1 if letter in "db" else row if letter == "u" else 0
        better = better + 1 if letter in "hn" else better if letter == "u" else 0
        now = held.believed.verdict
        if now in (D, B) and before not in (D, B):
            assert row >= confirm
        if before in (D, B) and now not in (D, B):
            assert LETTERS[letter] in (H, N)
            assert now is not U
        assert not (letter == "u" and now in (H, N))
