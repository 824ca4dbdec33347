"""How long an engine may be silent: its model's limit, more for long prompts, never more than the gateway's."""

import pytest

from freehold.gateway.endpoints.stall import STEP_TOKENS, limit_s


@pytest.mark.parametrize(
    ("stall_s", "tokens", "wanted_s"),
    [
        (0.0, 10, 600.0),
        (0.0, 100 * STEP_TOKENS, 600.0),
        (30.0, 0, 30.0),
        (30.0, STEP_TOKENS, 30.0),
        (30.0, 4 * STEP_TOKENS, 120.0),
        (30.0, 100 * STEP_TOKENS, 600.0),
        (3600.0, 10, 600.0),
    ],
)
def test_the_limit(*, stall_s: float, tokens: int, wanted_s: float) -> None:
    assert limit_s(600.0, stall_s, silent_tokens=tokens) == wanted_s
