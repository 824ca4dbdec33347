"""How deep a JSON value is nested is counted exactly, whatever its texts hold."""

import json
import random
from typing import Any

import pytest

from freehold.core.events import PRIVATE_KEYS
from freehold.engines.base import ConstraintLimits
from freehold.gateway.wire.body import BodyFields, read_body
from freehold.gateway.wire.constraint_limits import CONSTRAINTS, COUNTS, refuse_constraints, refuse_counts

LIMITS = ConstraintLimits(depth=6)
TEXTS = ('"', "\\", '\\"', "[{", "]}", "a", "\\\\", '{"', "é", "\n")


def value(rng: random.Random, room: int) -> Any:
    if not room or rng.random() < 0.2:
        return "".join(rng.choices(TEXTS, k=rng.randrange(5)))
    inner = [value(rng, room - 1) for _ in range(rng.randrange(1, 3))]
    return (
        inner
        if rng.random() < 0.5
        else {f"{each}{TEXTS[each % 10]}": item for each, item in enumerate(inner)}
    )


def depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth, inner), default=0)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("ascii_only", [True, False])
def test_the_depth_is_exact(seed: int, *, ascii_only: bool) -> None:
    rng = random.Random(seed)
    for _ in range(50):
        tools = [value(rng, rng.randrange(10))]
        body = json.dumps({"model": "m", "tools": tools}, ensure_ascii=ascii_only).encode()
        fields = read_body(body)
        assert isinstance(fields, BodyFields)
        assert (refuse_constraints(fields, LIMITS) is not None) == (depth(tools) > LIMITS.depth), body


def test_every_constraint_is_a_field_of_a_body() -> None:
    assert set(CONSTRAINTS) <= set(BodyFields.__struct_fields__)
    for name in CONSTRAINTS:
        fields = read_body(b'{"model":"m","messages":[{}],"%b":%b%b}' % (name.encode(), b"[" * 7, b"]" * 7))
        assert isinstance(fields, BodyFields)
        assert not fields.is_usual()
        refused = refuse_constraints(fields, LIMITS)
        assert refused is not None
        assert refused.error.param == name


@pytest.mark.parametrize("name", [*PRIVATE_KEYS, "input", "previous_response_id"])
def test_a_body_with_a_key_that_has_to_be_judged_is_not_usual(name: str) -> None:
    for value, usual in (("", True), (f',"{name}":null', False)):
        fields = read_body(f'{{"model":"m","messages":[{{}}]{value}}}'.encode())
        assert isinstance(fields, BodyFields)
        assert fields.is_usual() == usual


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize(
    ("value", "refused"),
    [
        ("{most}", False),
        ("{more}", True),
        ("2147483647", True),
        ("1e99", True),
        ("-1", False),
    ],
)
def test_a_number_that_an_engine_allocates_by_is_bounded(name: str, value: str, *, refused: bool) -> None:
    """800 million last tokens took 3 GB of llama.cpp, and 49,000 probabilities for each token held the loop for a second."""
    value = value.format(most=COUNTS[name], more=COUNTS[name] + 1)
    fields = read_body(f'{{"model":"m","messages":[{{}}],"{name}":{value}}}'.encode())
    assert isinstance(fields, BodyFields)
    assert not fields.is_usual()
    found = refuse_counts(fields)
    assert (found is not None) == refused
    assert found is None or (found.error.status, found.error.param) == (400, name)
