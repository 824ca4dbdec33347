"""How long an engine may send nothing before the gateway takes it for frozen. Pure.

Each model has its own limit (`stall` in freehold.yaml, else its engine's default), for a request of up to `STEP_TOKENS`; a
longer one gets more in proportion, as does an answer that the engine sends only when it is whole. It is never longer than the
gateway's own `timeouts`, which hold for every engine.
"""

STEP_TOKENS = 2048
"""Tokens that an engine may work through within its limit without sending anything. Source: llama.cpp's default of n_batch, the
most prompt tokens that it takes in between two steps of the answers under way."""


def limit_s(timeout_s: float, stall_s: float, *, silent_tokens: int) -> float:
    """Return the longest silence, seconds, never more than `timeout_s`; `stall_s` 0: the model has no limit of its own.

    `silent_tokens`: what has to be worked through before anything can be sent; 0 inside an answer.
    """
    if not stall_s:
        return timeout_s
    return min(timeout_s, stall_s * max(1.0, silent_tokens / STEP_TOKENS))
