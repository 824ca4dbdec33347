"""How long a caller waits in steady state: time to first token behind other prompts, and time between tokens.

Prompts queue for the GPUs as in M/D/1, whose load is the share of time that prompts take; and they come in bunches, since
callers start together and answers of one length end together. At most all other sequences' prompts are ahead. Starts of a
batch, where everybody waits for everybody, are `replica.batch`. No SLO is judged here.
"""

from dataclasses import dataclass

import numpy as np

from freehold.sizing.replica.memory import Number
from freehold.sizing.replica.roofline import RooflineSetting, Step, decode_step, prefill_s

TAIL = 0.05
"""What may be later than the 95th percentile."""
SERVER_S = 0.05
"""Of a first token, what is neither queue nor GPU: HTTP, tokenising, handing over, detokenising. Source: together with
BUNCHED, of 0.025 to 0.08 s and 0.05 to 0.25 what left least log error of measured first tokens on the rows of
silicon_sample.csv that the vectors were fitted on, each group counting alike."""
BUNCHED = 0.25
"""How much of the wait there is that would be if all others' prompts came at once, half of which are ahead in the mean.
Source: as SERVER_S; without it, measured first tokens are 2.4 to 3 times as late as said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaLoad:
    """What one replica is asked for, tokens; all of a kind."""

    input_tokens: float
    """Of a prompt, cached ones included."""
    output_tokens: float
    cached_share: float = 0.0

    @property
    def new_tokens(self) -> float:
        """Return the tokens of a prompt that are calculated; the last one always is."""
        return max(self.input_tokens * (1 - self.cached_share), 1.0)

    @property
    def mean_length(self) -> float:
        """Return the length of a sequence halfway through its answer."""
        return self.input_tokens + self.output_tokens / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaPace:
    """Times in seconds, rates per replica; arrays where the concurrency was one."""

    step: Step
    prompt_s: Number
    """One prompt's own time on the GPUs."""
    itl_s: Number
    ttft_s: Number
    """Mean."""
    ttft_p95_s: Number
    """Of requests, by the queue alone; an SLO is held against the middle of `vector.Chosen.late_first_token`."""
    output_per_s: Number


def pace(setting: RooflineSetting, concurrency: Number, *, load: ReplicaLoad) -> ReplicaPace:
    """Return the steady state of `concurrency` sequences (at least 1, a float or an array) under way at once."""
    step = decode_step(setting, concurrency, length=load.mean_length)
    prompt = prefill_s(setting, load.new_tokens, context=load.input_tokens)
    output = max(load.output_tokens, 1.0)
    itl = step.total_s + concurrency * prompt / output
    share = concurrency * prompt / (output * itl)
    slowness = prompt / (2 * np.maximum(1 - share, 1e-9))  # mean wait of those who wait, M/D/1
    ahead = (concurrency - 1) * prompt
    bunch = BUNCHED * ahead / 2
    own = SERVER_S + prompt + 1.5 * step.total_s  # half a step is under way, and the prompt ends with one
    return ReplicaPace(
        step=step,
        prompt_s=prompt,
        itl_s=itl,
        ttft_s=own + np.minimum(share * slowness + bunch, ahead),
        ttft_p95_s=own + np.minimum(slowness * np.log(np.maximum(share / TAIL, 1.0)) + bunch, ahead),
        output_per_s=concurrency / itl,
    )
