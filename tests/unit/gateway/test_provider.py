"""Whether a request may go to an endpoint of others, what it costs there, and that a budget is a bound."""

import pytest
from msgspec.structs import replace

from freehold.gateway.answers.price import Price, price_from
from freehold.gateway.answers.usage import Usage
from freehold.gateway.callers.spend import Daily
from freehold.gateway.exchange import provider
from freehold.gateway.exchange.ledger_record import AnswerTokens, RequestEnd, outcome_of
from freehold.gateway.exchange.provider import (
    HOPELESS_S,
    Provider,
    Reason,
    ShareSampler,
    Stay,
    reason_for,
)
from freehold.gateway.settings import FallbackSettings
from freehold.gateway.wire.errors import Rejection, bad_gateway, not_ready, timeout, unavailable
from freehold.gateway.wire.request import Request
from freehold.ledger.records.money import usd_text
from freehold.ledger.records.record import Outcome
from freehold.spec.model import PriceSpec

PRICE = Price(input_picousd=2, cached_picousd=1, output_picousd=10)
RESERVED = 2 * 11 + 10 * 5
"""What a request may cost: 11 tokens of prompt by its size, 5 of answer as it asks."""
ENDED = RequestEnd(
    wall_s=0.0,
    id_line=b"x-request-id: r\r\n",
    key_id="",
    path="/v1/chat/completions",
    stream=False,
    model="m",
    endpoint="fallback/f",
    status=200,
    outcome=Outcome.COMPLETE,
    bytes=9,
    ttft_s=None,
    took_s=1.0,
    retries=0,
    wait_s=0.0,
    code="",
    tokens=AnswerTokens(Usage(1, 0, 0), None, 0),
)


def a_request(body: bytes = b'{"model":"m","max_tokens":5, "x":"12345"}') -> Request:
    request = Request()
    request.path, request.body, request.max_tokens = "/v1/chat/completions", body, 5
    return request


class Heardof:
    """What the fallback told of its stays."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, int | None]] = []

    def __call__(self, away: Stay, outcome: Outcome, cost_picousd: int | None) -> None:
        self.told.append((away.reason, outcome.value, cost_picousd))


def fallback(heard: Heardof | None = None, *, budget: int = 10**6, places: int = 8) -> Provider:
    settings = FallbackSettings(
        name="f", url="http://127.0.0.1:1", price=PRICE, budget_picousd_per_day=budget, max_concurrency=places
    )
    return Provider(settings, heard or Heardof())


def enter(there: Provider, reason: Reason = "no_replica", now_s: float = 0.0) -> Stay | None:
    return there.enter(a_request(), "m", reason=reason, cost_tokens=0, now_s=now_s)


def stay(there: Provider, reason: Reason = "no_replica") -> Stay:
    away = enter(there, reason)
    assert isinstance(away, Stay), away
    return away


@pytest.mark.parametrize(
    ("usage", "cost"),
    [
        (Usage(10, 4, 3), 6 * 2 + 4 * 1 + 3 * 10),
        (Usage(10, None, 3), 10 * 2 + 3 * 10),
        (Usage(10, 99, 0), 10 * 1),
        (Usage(0, 0, 0), 0),
        (Usage(10, 4, None), None),
        (Usage(None, None, 3), None),
        (None, None),
    ],
)
def test_a_cost_comes_from_the_whole_usage_or_is_unknown(usage: Usage | None, cost: int | None) -> None:
    assert PRICE.cost_picousd(usage) == cost
    assert PRICE.cost_usd(usage, nothing=False) == ("" if cost is None else usd_text(cost))
    assert PRICE.cost_usd(usage, nothing=True) == usd_text(cost or 0)


def test_prices_of_the_file_are_exact() -> None:
    spec = PriceSpec(input_usd_per_million_tokens=0.15, output_usd_per_million_tokens=0.000001)
    assert price_from(spec) == Price(input_picousd=150_000, cached_picousd=150_000, output_picousd=1)
    cached = spec.model_copy(update={"cached_input_usd_per_million_tokens": 0.0})
    assert price_from(cached).cached_picousd == 0


@pytest.mark.parametrize("part", [0.0, 0.01, 0.1, 1 / 3, 0.5, 0.99, 1.0])
def test_a_part_is_kept_at_every_moment(part: float) -> None:
    due, taken = ShareSampler(part), 0
    for count in range(1, 2001):
        taken += due.next()
        assert abs(taken - part * count) <= 1


@pytest.mark.parametrize(
    ("refusal", "reason"),
    [
        (unavailable("", code="engine_overloaded"), "queue_full"),
        (unavailable("", code="engine_failed"), "no_replica"),
        (not_ready("m"), "no_replica"),
        (unavailable("", code="draining"), None),
        (bad_gateway(""), None),
        (timeout(""), None),
    ],
)
def test_what_a_fallback_can_spare_a_caller(refusal: Rejection, reason: str | None) -> None:
    assert reason_for(refusal) == reason


def test_a_reservation_becomes_the_real_cost() -> None:
    heard = Heardof()
    there = fallback(heard)
    away = stay(there)
    assert there.spent_picousd == RESERVED
    said = AnswerTokens(Usage(10, 0, 1), None, 0)
    away.settle(replace(ENDED, tokens=said))
    assert (there.spent_picousd, there.spent_total_picousd, said.cost_usd) == (30, 30, usd_text(30))
    assert heard.told == [("no_replica", "complete", 30)]


def test_an_unknown_cost_stays_reserved_and_no_answer_costs_nothing() -> None:
    there = fallback()
    unknown = AnswerTokens(None, None, 0)
    stay(there).settle(replace(ENDED, tokens=unknown))
    assert (there.spent_picousd, there.spent_total_picousd, unknown.cost_usd) == (RESERVED, 0, "")
    stay(there).came_to_nothing()
    assert there.spent_picousd == RESERVED


class ErrorLog:
    """A logger that keeps the names of errors."""

    def __init__(self) -> None:
        self.errors: list[str] = []

    def error(self, event: str, **_fields: object) -> None:
        self.errors.append(event)


def test_a_budget_is_never_passed_whatever_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    log = ErrorLog()
    monkeypatch.setattr(provider, "get_logger", lambda _name: log)
    there = fallback(budget=3 * RESERVED - 1, places=100)
    stays = [enter(there) for _ in range(5)]
    assert [isinstance(away, Stay) for away in stays] == [True, True, False, False, False]
    assert there.skipped == {"budget": 3, "concurrency": 0, "shut": 0}
    assert log.errors == ["fallback_budget_spent"]
    there.enter_day({})
    assert [isinstance(enter(there), Stay) for _ in range(4)] == [True, True, False, False]
    assert log.errors == ["fallback_budget_spent"] * 2


def test_a_stay_settles_in_the_day_that_it_began_in() -> None:
    spending = Daily()
    spending.enter(0)
    there = fallback()
    there.enter_day(spending.month)
    away, yesterday = stay(there), spending.month
    spending.enter(86_400)
    there.enter_day(spending.month)
    away.settle(ENDED)
    assert (yesterday, spending.month) == ({"f": 2}, {})
    assert Daily(spending.saved()).saved() == spending.saved()


def test_places_are_bounded_and_copies_leave_half_of_them_free() -> None:
    there = fallback(places=4)
    copies = [enter(there, "shadow") for _ in range(3)]
    assert [isinstance(away, Stay) for away in copies] == [True, True, False]
    others = [enter(there) for _ in range(3)]
    assert [isinstance(away, Stay) for away in others] == [True, True, False]
    assert there.skipped == {"budget": 0, "concurrency": 2, "shut": 0}


def test_after_failures_it_is_left_alone_for_longer_each_time_and_an_answer_ends_that() -> None:
    there, now_s = fallback(), 100.0
    waits = []
    for _ in range(9):
        for _ in range(3):  # those that were there when it failed say nothing new
            there.failed(now_s)
        waits.append(there.shut_until_s - now_s)
        now_s = there.shut_until_s
    assert waits == [1, 2, 4, 8, 16, 32, HOPELESS_S, HOPELESS_S, HOPELESS_S]
    there.failed(now_s)
    assert enter(there, now_s=now_s + 1) is None
    assert there.skipped["shut"] == 1
    there.failed(now_s, wait_s=3.0)
    assert isinstance(enter(there, now_s=now_s + 3), Stay)
    there.succeeded(now_s)
    assert there.shut_until_s == 0
    there.failed(now_s)
    assert there.shut_until_s == now_s + 1


@pytest.mark.parametrize("outcome", list(Outcome))
def test_how_a_stay_ends_says_nothing_of_the_next(outcome: Outcome) -> None:
    there = fallback()
    away = stay(there)
    there.failed(0.0)
    away.settle(replace(ENDED, outcome=outcome, tokens=AnswerTokens(None, None, 0)))
    assert there.shut_until_s == 1.0


@pytest.mark.parametrize(
    ("status", "answer_bytes", "complete", "outcome"),
    [
        (200, 9, True, Outcome.COMPLETE),
        (499, 9, False, Outcome.ABANDONED),
        (499, 0, False, Outcome.ABANDONED),
        (502, 9, False, Outcome.CUT),
        (504, 0, False, Outcome.FAILED),
    ],
)
def test_how_a_request_ended_in_one_word(
    status: int, answer_bytes: int, *, complete: bool, outcome: Outcome
) -> None:
    assert outcome_of(status, answer_bytes, complete=complete) is outcome


def test_who_says_nothing_to_anybody_is_left_alone() -> None:
    there = fallback()
    there.silent(since_s=100.0, now_s=100.9)
    assert there.shut_until_s == 0
    there.succeeded(100.5)
    there.silent(since_s=100.0, now_s=102.0)  # it is slow: it answered another one meanwhile
    assert there.shut_until_s == 0
    there.silent(since_s=100.6, now_s=101.6)
    assert there.shut_until_s == 102.6
