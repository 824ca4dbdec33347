"""A key's limits on virtual time: never over, exact, fair to clocks that jump, nothing lost by a refusal or a reload."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.gateway.callers.keys import KeyLimits
from freehold.gateway.callers.rate_limits import Allowance, Bucket, Over, duration

MINUTE_MS = 60_000
RATES = st.integers(1, 10**7)
STEPS = st.lists(st.tuples(st.integers(0, 2 * MINUTE_MS), st.integers(1, 50)), max_size=60)
"""(milliseconds that pass, how much is asked for)"""


@given(rate=RATES, steps=STEPS)
def test_a_bucket_never_gives_more_than_a_brim_and_what_time_earned(rate: int, steps: list[tuple[int, int]]):
    bucket, now_ms = Bucket(rate, 0), 0
    taken: list[tuple[int, int]] = []
    for pause_ms, amount in steps:
        now_ms += pause_ms
        if not bucket.wait_ms(amount, now_ms):
            bucket.take(amount)
            taken.append((now_ms, amount))
    for first, (start_ms, _) in enumerate(taken):
        given_out = 0
        for at_ms, amount in taken[first:]:
            given_out += amount
            assert given_out * MINUTE_MS <= rate * (MINUTE_MS + at_ms - start_ms)


@given(rate=RATES, steps=STEPS, amount=st.integers(1, 50))
def test_the_wait_is_exact(rate: int, steps: list[tuple[int, int]], amount: int):
    bucket, now_ms = Bucket(rate, 0), 0
    for pause_ms, debt in steps:
        now_ms += pause_ms
        bucket.wait_ms(0, now_ms)
        bucket.take(debt)  # also below nothing, as late corrections do
    wait_ms = bucket.wait_ms(amount, now_ms)
    if amount <= rate:
        assert bucket.wait_ms(amount, now_ms + wait_ms) == 0
        assert not wait_ms or bucket.wait_ms(amount, now_ms + wait_ms) <= 1


@given(steps=STEPS)
def test_the_same_limit_taken_over_is_the_same_bucket(steps: list[tuple[int, int]]):
    bucket, now_ms = Bucket(60, 0), 0
    for pause_ms, amount in steps:
        now_ms += pause_ms
        bucket.take(amount)
    follower = Bucket(60, now_ms, older=bucket)
    assert (follower.wait_ms(1, now_ms), follower.level) == (bucket.wait_ms(1, now_ms), bucket.level)


def test_one_a_minute_is_one_a_minute():
    bucket = Bucket(1, 1000)
    assert bucket.wait_ms(1, 1000) == 0
    bucket.take(1)
    assert bucket.wait_ms(1, 1000) == MINUTE_MS
    assert bucket.wait_ms(1, 1000 + MINUTE_MS - 1) == 1
    assert bucket.wait_ms(1, 1000 + MINUTE_MS) == 0


def test_nothing_is_lost_in_rounding_over_a_day_of_odd_steps():
    bucket, given_out = Bucket(7, 0), 0
    day_ms = 24 * 60 * MINUTE_MS
    for now_ms in range(0, day_ms, 997):
        if not bucket.wait_ms(1, now_ms):
            bucket.take(1)
            given_out += 1
    assert (
        given_out == 7 + 7 * 24 * 60 - 1
    )  # the brim, and what a day earns but for what its last step still lacks


@given(jump_ms=st.integers(-(10**9), 10**9))
def test_a_clock_that_jumps_gives_at_most_a_brim(jump_ms: int):
    bucket = Bucket(60, 10**9)
    bucket.take(60)
    waits = bucket.wait_ms(1, 10**9 + jump_ms)
    assert 0 <= bucket.level <= 60 * MINUTE_MS
    if jump_ms <= 0:
        assert waits == 1000  # going back fills nothing, and takes nothing away
    assert bucket.wait_ms(1, 10**9 + 1000) == 0


def test_what_is_given_back_stops_at_the_brim():
    bucket = Bucket(10, 0)
    bucket.take(3)
    bucket.take(-8)
    assert bucket.shown() == (10, b"0ms")
    bucket.take(25)
    assert bucket.shown() == (0, b"2m30s")
    assert bucket.wait_ms(1, 0) == 96_000  # fifteen in debt, and one


def allowance(**limits: int) -> Allowance:
    return Allowance(KeyLimits(**limits), 0)


def test_a_refusal_takes_nothing():
    one = allowance(requests_per_minute=2, tokens_per_minute=100, concurrency=5)
    assert one.ask(60, 0) is None
    for _ in range(10):
        assert one.ask(60, 0) == Over("tokens", 12_000)
        assert one.ask(101, 0) == Over("size")
    assert one.in_flight == 1
    assert one.ask(40, 0) is None
    assert one.ask(0, 0) == Over("requests", 30_000)


def test_concurrency_counts_what_is_under_way():
    one = allowance(concurrency=1)
    assert one.ask(0, 0) is None
    assert one.ask(0, 10**9) == Over("concurrency")
    one.in_flight -= 1
    assert one.ask(0, 0) is None
    assert one.lines() == b""


def test_the_longer_wait_is_told():
    one = allowance(requests_per_minute=60, tokens_per_minute=60)
    assert one.ask(60, 0) is None
    assert one.ask(30, 0) == Over("tokens", 30_000)
    slow = allowance(requests_per_minute=1, tokens_per_minute=60)
    assert slow.ask(30, 0) is None
    assert slow.ask(31, 0) == Over("requests", 60_000)


def test_another_limit_keeps_what_was_used():
    one = allowance(requests_per_minute=10)
    for _ in range(8):
        assert one.ask(0, 0) is None
    one.change(KeyLimits(requests_per_minute=20), 0)
    assert one.lines().count(b"remaining-requests: 12\r\n") == 1
    one.change(KeyLimits(requests_per_minute=5), 0)
    assert one.ask(0, 0) == Over("requests", 48_000)  # three too many already, and one: four at five a minute
    one.change(KeyLimits(), 0)
    assert one.ask(0, 0) is None


def test_header_lines_are_openais():
    one = allowance(requests_per_minute=60, tokens_per_minute=1000)
    assert one.ask(100, 0) is None
    assert one.lines() == (
        b"x-ratelimit-limit-requests: 60\r\nx-ratelimit-remaining-requests: 59\r\nx-ratelimit-reset-requests: 1s\r\n"
        b"x-ratelimit-limit-tokens: 1000\r\nx-ratelimit-remaining-tokens: 900\r\nx-ratelimit-reset-tokens: 6s\r\n"
    )
    tokens = allowance(tokens_per_minute=1000)
    assert tokens.lines().startswith(
        b"x-ratelimit-limit-tokens: 1000\r\nx-ratelimit-remaining-tokens: 1000\r\n"
    )


@pytest.mark.parametrize(
    ("value_ms", "text"),
    [
        (0, b"0ms"),
        (1, b"1ms"),
        (999, b"999ms"),
        (1000, b"1s"),
        (1001, b"2s"),
        (59_001, b"1m0s"),
        (360_000, b"6m0s"),
    ],
)
def test_durations_are_written_as_openai_writes_them(value_ms: int, text: bytes):
    assert duration(value_ms) == text


@given(
    steps=st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 1000), st.integers(0, 2000)), max_size=50)
)
def test_real_usage_holds_the_long_run_to_the_limit(steps: list[tuple[int, int, int]]):
    """What is reserved may be wrong either way; what was really used never exceeds brim, time and the last mistake."""
    one, now_ms, used, worst = allowance(tokens_per_minute=1000), 0, 0, 0
    for pause_ms, reserved, real in steps:
        now_ms += pause_ms
        if one.ask(reserved, now_ms) is None:
            one.charge(real - reserved)
            one.in_flight -= 1
            used += real
            worst = max(worst, real - reserved)
        assert used * MINUTE_MS <= 1000 * (MINUTE_MS + now_ms) + worst * MINUTE_MS
