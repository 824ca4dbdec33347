from freehold.gateway.callers.keys import PRIORITY_LAST
from freehold.gateway.queue.fair_queue import KNOWN_MAX, Claim, FairQueue


def put(turns: FairQueue[str], caller: str, cost_tokens: int = 10, *, priority: int = 0) -> Claim[str]:
    flow = turns.flow(caller, 1.0, priority)
    claim = Claim(caller, flow, cost_tokens=cost_tokens, arrived_s=0.0, deadline_s=9.0)
    turns.put(claim)
    return claim


def started(turns: FairQueue[str]) -> str:
    claim = turns.next()
    assert claim is not None
    turns.take(claim)
    return claim.owner


def test_nothing_waits_in_an_empty_line() -> None:
    assert FairQueue[str]().next() is None


def test_callers_take_turns_however_many_of_one_came_first() -> None:
    turns: FairQueue[str] = FairQueue()
    for caller in "aaaabb":
        put(turns, caller)
    assert [started(turns) for _ in range(6)] == ["a", "b", "a", "b", "a", "a"]


def test_a_dear_request_lets_others_have_several_cheap_ones() -> None:
    turns: FairQueue[str] = FairQueue()
    put(turns, "dear", 30)
    put(turns, "dear", 30)
    for _ in range(4):
        put(turns, "cheap", 10)
    assert "".join(started(turns)[0] for _ in range(6)) == "dcccdc"


def test_a_start_without_a_wait_is_charged_by_weight() -> None:
    turns: FairQueue[str] = FairQueue()
    for caller, weight, cost_tokens in (("light", 1.0, 60), ("heavy", 3.0, 150)):
        turns.charge(turns.flow(caller, weight, 0), cost_tokens)
    for caller, weight in (("light", 1.0), ("heavy", 3.0)):
        flow = turns.flow(caller, weight, 0)
        turns.put(Claim(caller, flow, cost_tokens=1, arrived_s=0.0, deadline_s=9.0))
    assert started(turns) == "heavy"


def test_a_priority_outside_the_range_counts_as_the_nearest() -> None:
    turns: FairQueue[str] = FairQueue()
    assert put(turns, "a", priority=1000).flow is put(turns, "a", priority=PRIORITY_LAST).flow
    assert len(turns._flows) == 1


def test_idle_callers_are_forgotten_while_others_are_not_idle() -> None:
    turns: FairQueue[str] = FairQueue()
    busy = turns.flow("busy", 1.0, 0)
    turns.charge(busy, 10)
    for number in range(1000):
        over(turns, f"caller {number}")
        over(turns, "busy")
    assert len(turns._flows) == 1001
    turns.tidy()
    assert len(turns._flows) <= 3
    put(turns, "busy")
    turns.tidy()
    assert started(turns) == "busy"


def test_the_number_of_callers_remembered_has_a_bound() -> None:
    turns: FairQueue[str] = FairQueue()
    turns.charge(turns.flow("busy", 1.0, 0), 10)  # never over
    for number in range(KNOWN_MAX + 1):
        over(turns, f"caller {number}", 100 + number)
        turns.flow("busy", 1.0, 0).counter = 0.0
    turns.tidy()
    assert len(turns._flows) == 1


def over(turns: FairQueue[str], caller: str, cost_tokens: int = 10) -> None:
    """Start and end a request."""
    flow = turns.flow(caller, 1.0, 0)
    turns.charge(flow, cost_tokens)
    flow.under_way -= 1
    flow.held_tokens -= cost_tokens
