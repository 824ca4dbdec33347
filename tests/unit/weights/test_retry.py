from collections.abc import Callable

import pytest

from freehold.core.errors import Permanent, Temporary
from freehold.weights.retry import GAIN_BYTES, Backoff, persist

QUICK = Backoff(attempts=3, first_s=0.001)


def failing(*failures: Exception | str):
    outcomes = iter(failures)
    tries: list[int] = []

    def attempt() -> object:
        tries.append(1)
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return attempt, tries


def run(attempt: Callable[[], object], gained: Callable[[], int] = lambda: 0):
    waits = []
    result = persist(
        attempt, backoff=QUICK, gained_bytes=gained, on_wait=lambda error, s: waits.append((error, s))
    )
    return result, waits


def test_a_temporary_failure_is_tried_again_and_told() -> None:
    attempt, tries = failing(Temporary("cut"), Temporary("cut"), "done")
    result, waits = run(attempt)
    assert result == "done"
    assert len(tries) == 3
    assert {error.message for error, _ in waits} == {"cut"}


def test_it_gives_up_after_the_bound_with_the_last_failure() -> None:
    attempt, tries = failing(*[Temporary(str(number)) for number in range(9)])
    with pytest.raises(Temporary, match="2"):
        run(attempt)
    assert len(tries) == QUICK.attempts


def test_a_permanent_failure_is_not_tried_again() -> None:
    attempt, tries = failing(Permanent("gone"), "never")
    with pytest.raises(Permanent):
        run(attempt)
    assert len(tries) == 1


def test_new_bytes_start_the_count_anew_and_old_bytes_do_not() -> None:
    attempt, tries = failing(*[Temporary("cut")] * 7, "done")
    result, _ = run(attempt, gained=lambda: len(tries) * GAIN_BYTES)
    assert result == "done"
    attempt, tries = failing(*[Temporary("cut")] * 9)
    with pytest.raises(Temporary):
        run(attempt, gained=lambda: GAIN_BYTES)  # the same half again and again is no gain
    assert len(tries) == QUICK.attempts


def test_a_caller_cancels_a_wait_by_raising() -> None:
    class Cancelled(Exception):
        pass

    def cancel(_error: Temporary, _left_s: float) -> None:
        raise Cancelled

    attempt, tries = failing(Temporary("cut"), "never")
    with pytest.raises(Cancelled):
        persist(
            attempt, backoff=Backoff(first_s=1000, longest_s=1000), gained_bytes=lambda: 0, on_wait=cancel
        )
    assert len(tries) == 1


def test_waits_double_up_to_the_longest_and_vary_by_chance() -> None:
    backoff = Backoff(attempts=99, first_s=1, longest_s=8)
    for failures, most_s in ((1, 1), (2, 2), (3, 4), (4, 8), (9, 8)):
        wait_s = backoff.wait_s(failures, Temporary("x"))
        assert wait_s is not None
        assert 0.75 * most_s <= wait_s <= most_s


def test_the_servers_own_wish_is_obeyed_within_patience() -> None:
    backoff = Backoff(patience_s=60)
    assert backoff.wait_s(1, Temporary("x", retry_after_s=42)) == 42
    assert backoff.wait_s(1, Temporary("x", retry_after_s=61)) is None
