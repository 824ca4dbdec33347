"""How long an engine may be silent: its model's limit, more for long prompts, never more than the gateway's."""

import pytest

from freehold.gateway.settings import Settings
from freehold.gateway.stall import STEP_TOKENS, limit_s

SETTINGS = Settings(first_byte_s=600.0, between_bytes_s=500.0)


@pytest.mark.parametrize(
    ("stall_s", "tokens", "began", "wanted_s"),
    [
        (0.0, 10, False, 600.0),
        (0.0, 10, True, 500.0),
        (30.0, 10, False, 30.0),
        (30.0, STEP_TOKENS, False, 30.0),
        (30.0, 4 * STEP_TOKENS, False, 120.0),
        (30.0, 100 * STEP_TOKENS, False, 600.0),
        (30.0, 100 * STEP_TOKENS, True, 30.0),
        (3600.0, 10, True, 500.0),
    ],
)
def test_the_limit(*, stall_s: float, tokens: int, began: bool, wanted_s: float) -> None:
    assert limit_s(SETTINGS, stall_s, silent_tokens=tokens, began=began) == wanted_s
