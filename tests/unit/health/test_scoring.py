"""Weights added up: what supports, what speaks against, and that evidence against never makes surer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.catalog.load_evidence import Hypothesis, Sign, load_evidence
from freehold.catalog.load_xids import xids
from freehold.core.findings import Action
from freehold.health.evidence.scoring import (
    CEILING,
    FLOOR,
    NOT_KNOWN,
    SeenSign,
    see,
    speaks_against,
    speaks_for,
    weigh,
)

TABLE = load_evidence()
SIGNS = st.lists(st.sampled_from(sorted(TABLE.signs)), max_size=8)


def seen(*names: str) -> list[SeenSign]:
    return [see(TABLE, name) for name in names]


def confidence(items: list[SeenSign], hypothesis: Hypothesis) -> float:
    return next((score.confidence for score in weigh(items) if score.hypothesis == hypothesis), 0.0)


def test_one_strong_sign_is_enough_and_a_weak_one_is_not() -> None:
    assert confidence(seen("memory_fatal"), Hypothesis.HARDWARE) > 0.9
    assert confidence(seen("engine_killed"), Hypothesis.SOFTWARE) < FLOOR
    assert weigh([]) == []


def test_a_sign_counts_once_however_often_it_was_seen() -> None:
    once = seen("app_fault")
    again = [SeenSign(sign=once[0].sign, component="gpu:0", at_s=float(i)) for i in range(20)]
    assert weigh(again) == weigh(once)


def test_rivals_of_equal_strength_leave_nobody_above_the_floor() -> None:
    assert all(score.confidence < FLOOR for score in weigh(seen("ambiguous", "engine_unit")))


@given(SIGNS, st.sampled_from(sorted(TABLE.signs)), st.sampled_from(list(Hypothesis)))
def test_evidence_against_never_makes_surer(names: list[str], other: str, hypothesis: Hypothesis) -> None:
    if TABLE.signs[other].weights.get(hypothesis, 0.0) > 0:
        return
    items = seen(*names)
    assert confidence([*items, *seen(other)], hypothesis) <= confidence(items, hypothesis) + 1e-12


@given(SIGNS, st.randoms(use_true_random=False))
def test_the_order_of_signs_does_not_matter_and_confidence_is_a_probability(
    names: list[str], dice: object
) -> None:
    shuffled = list(names)
    dice.shuffle(shuffled)  # type: ignore[attr-defined]
    scores = weigh(seen(*names))
    assert scores == weigh(seen(*shuffled))
    assert all(0 <= score.confidence <= CEILING for score in scores)


@given(SIGNS, st.sampled_from(list(Hypothesis)))
def test_nothing_speaks_both_for_and_against(names: list[str], hypothesis: Hypothesis) -> None:
    items = seen(*dict.fromkeys(names))
    support, against = speaks_for(items, hypothesis), speaks_against(items, hypothesis)
    rivals = [item for item in support if item in against]
    assert all(max(item.sign.weights.values()) > item.sign.weights[hypothesis] for item in rivals)


@pytest.mark.parametrize("name", sorted(TABLE.signs))
def test_every_sign_has_its_source_and_what_would_change_it(name: str) -> None:
    sign: Sign = TABLE.signs[name]
    assert len(sign.source) > 10, "a weight says on what it rests"
    assert len(sign.changes) > 5, "a verdict says what would change it"
    if sign.direct is not None:
        assert sign.weights[sign.direct] - NOT_KNOWN > 2, "a direct verdict stands by itself"
    if sign.action is not Action.NONE and sign.weights:
        assert max(sign.weights.values()) > 0, "a symptom points somewhere"


def test_every_xid_of_the_catalog_that_means_something_has_a_sign() -> None:
    silent = {"display", "information", "verdict"}
    missing = [n for n, fact in xids().items() if str(fact.kind) not in silent and not fact.sign]
    assert not missing
