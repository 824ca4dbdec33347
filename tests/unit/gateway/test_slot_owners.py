"""Whose tokens a slot holds: what a request may use again is always its own caller's."""

import random

from freehold.gateway.endpoints.slot_owners import SlotOwners, SlotStay


def test_a_conversation_goes_back_to_its_slot() -> None:
    owners = SlotOwners(3)
    stays = [owners.enter("a", key, pinned=True) for key in (1, 2)]
    for stay in stays:
        owners.leave(stay, answered=True)
    assert [stay.reuses for stay in stays] == [False, False]
    again = owners.enter("a", 1, pinned=True)
    assert (again.slot, again.reuses) == (stays[0].slot, True)


def test_without_slots_nothing_is_used_again() -> None:
    owners = SlotOwners(0)
    for _ in range(2):
        stay = owners.enter("a", 1, pinned=True)
        assert (stay.slot, stay.reuses) == (-1, False)
        owners.leave(stay, answered=True)


def test_a_request_that_leaves_before_its_answer_makes_no_slot_its_own() -> None:
    owners = SlotOwners(1)
    owners.leave(owners.enter("b", 1, pinned=True), answered=True)
    owners.leave(owners.enter("a", 1, pinned=True), answered=False)
    assert not owners.enter("a", 1, pinned=True).reuses


def test_whatever_happens_nobody_uses_what_may_be_anothers() -> None:
    """Against a model of the engine: a pinned request fills its slot, an unpinned one some free slot at any moment."""
    seed = random.randrange(10**6)
    rng = random.Random(seed)
    owners, holds = SlotOwners(4), dict.fromkeys(range(4), "before")
    running: list[SlotStay] = []
    reused = 0
    for _ in range(3000):
        if running and (rng.random() < 0.5 or len(running) == 4):
            stay = running.pop(rng.randrange(len(running)))
            answered = rng.random() < 0.8
            if not answered and stay.slot >= 0 and not stay.reuses:
                holds[stay.slot] = "before"  # its client left before the engine had begun
            owners.leave(stay, answered=answered)
        else:
            domain = rng.choice("abc")
            stay = owners.enter(domain, rng.randrange(2), pinned=rng.random() < 0.9)
            if stay.reuses:
                assert holds[stay.slot] == domain, f"seed {seed}"
                reused += 1
            if stay.slot >= 0:
                assert stay.slot not in {each.slot for each in running}
                holds[stay.slot] = domain
            running.append(stay)
        busy = {each.slot for each in running}
        for loose in (each for each in running if each.slot < 0):
            free = [slot for slot in holds if slot not in busy]
            if free and rng.random() < 0.5:
                holds[rng.choice(free)] = loose.domain
    assert reused > 50
