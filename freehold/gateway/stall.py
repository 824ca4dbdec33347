"""How long an engine may say nothing before the gateway takes it for frozen. Pure.

Each model has its own limit (`stall` in freehold.yaml, else what its engine file says), for a request of up to
`STEP_TOKENS`; a longer one gets more in proportion, as does an answer that the engine sends only when it is whole.
Never longer than the gateway's own `timeouts`, which hold for every engine.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from freehold.gateway.settings import Settings

STEP_TOKENS = 2048
"""Tokens that an engine may work through within its limit without a word. Source: llama.cpp's default of n_batch, the
most prompt tokens that it takes in between two steps of the answers under way."""


def limit_s(settings: "Settings", stall_s: float, *, silent_tokens: int, began: bool) -> float:
    """Return the longest silence, seconds; `stall_s` 0: the model has no limit of its own.

    `silent_tokens`: what has to be worked through before there is anything to say; `began`: the answer's head has come.
    """
    own_s = settings.between_bytes_s if began else settings.first_byte_s
    if not stall_s:
        return own_s
    return min(own_s, stall_s if began else stall_s * max(1.0, silent_tokens / STEP_TOKENS))
