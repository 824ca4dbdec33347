"""From samples to figures: quantiles, rates and goodput of one load in one run. Pure.

Requests that were meant to be sent within the window are measured; those of the warm-up and those after it are load and no
more. Tokens/s and goodput count what came within the window, whoever asked. Quantiles are of whole answers, but a request that got no
first token in time stands in the TTFT with all of its wait, so that those who were not served cannot make others look quick.
What was refused or failed is counted beside them by kind, and is never goodput.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from freehold.bench.analysis.sample import RequestSample
from freehold.core.spread import quantile


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """The measured time, seconds from the start of the load."""

    since_s: float
    until_s: float

    @property
    def length_s(self) -> float:
        """Return how long it is."""
        return self.until_s - self.since_s

    def has(self, at_s: float) -> bool:
        """Return whether a moment is in it."""
        return self.since_s <= at_s < self.until_s


class SloBounds(msgspec.Struct, frozen=True, kw_only=True):
    """What a request must keep for its tokens to count."""

    ttft_s: float
    itl_s: float
    """Mean of its own time between tokens."""


class Distribution(msgspec.Struct, frozen=True, kw_only=True):
    """A distribution in five numbers."""

    count: int
    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    most: float


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What one load in one run gave. Rates are per second of the window."""

    window_s: float
    requests: int
    """Measured."""
    whole: int
    refused: int
    errors: dict[str, int] = {}
    """Others that did not end well, by kind."""
    wrong_length: int = 0
    """Whole answers that had not the tokens asked for."""
    uncounted: int = 0
    """Whole answers of which the engine reported no count: pieces stand for tokens."""
    requests_per_s: float = 0.0
    """Whole answers that ended in the window."""
    prompt_tokens_per_s: float | None = None
    """Of those; None: the engine did not report it."""
    output_tokens_per_s: float = 0.0
    goodput_tokens_per_s: float = 0.0
    """Those of them that belong to requests which kept the SLO, whoever asked: callers who wait for each other's batch all ask at
    once, so that to count whole answers by when they were asked would be off by up to a whole round."""
    slo_share: float | None = None
    """Of measured requests, those that kept it; None: there were none."""
    prompt_tokens: float | None = None
    """Mean of a whole request."""
    answer_tokens: float | None = None
    ttft_s: Distribution | None = None
    token_s: Distribution | None = None
    """Mean time between tokens, by request."""
    itl_s: Distribution | None = None
    """Between two pieces, all requests together."""
    latency_s: Distribution | None = None
    late_s: Distribution | None = None
    """How late the bench itself sent."""
    in_flight: float = 0.0
    """Mean of requests under way in the window."""


def figures(samples: Sequence[RequestSample], window: Window, slo: SloBounds) -> Figures:
    """Return the figures of a load; a window must be longer than nothing."""
    measured = [each for each in samples if window.has(each.intended_s) and each.fate != "cancelled"]
    whole = [each for each in measured if each.fate == "whole"]
    ended = [each for each in samples if each.fate == "whole" and window.has(each.end_s)]
    good = [each for each in samples if keeps(each, slo)]
    kinds = Counter(each.fate for each in measured if each.fate not in {"whole", "refused"})
    prompts = [each.prompt_tokens for each in ended if each.prompt_tokens is not None]
    length_s = window.length_s
    tokens = sum(each.tokens_between(window.since_s, window.until_s) for each in samples)
    return Figures(
        window_s=length_s,
        requests=len(measured),
        whole=len(whole),
        refused=sum(each.fate == "refused" for each in measured),
        errors=dict(sorted(kinds.items())),
        wrong_length=sum(each.answer_tokens != each.ask.size.answer_tokens for each in whole),
        uncounted=sum(not each.counted for each in whole),
        requests_per_s=len(ended) / length_s,
        prompt_tokens_per_s=sum(prompts) / length_s if len(prompts) == len(ended) else None,
        output_tokens_per_s=tokens / length_s,
        goodput_tokens_per_s=sum(each.tokens_between(window.since_s, window.until_s) for each in good)
        / length_s,
        slo_share=sum(keeps(each, slo) for each in whole) / len(measured) if measured else None,
        prompt_tokens=_mean(each.prompt_tokens for each in whole),
        answer_tokens=_mean(each.answer_tokens for each in whole),
        ttft_s=distribution(waited_s(each) for each in measured),
        token_s=distribution(each.token_s for each in whole),
        itl_s=distribution(
            later - earlier for each in whole for earlier, later in itertools.pairwise(each.chunk_s)
        ),
        latency_s=distribution(each.latency_s for each in whole),
        late_s=distribution(each.sent_s - each.intended_s for each in measured),
        in_flight=sum(_overlap(each, window) for each in samples) / length_s,
    )


def keeps(sample: RequestSample, slo: SloBounds) -> bool:
    """Return whether a request was answered whole within the SLO; an answer of one token has no time between tokens."""
    if sample.fate != "whole" or sample.ttft_s is None or sample.ttft_s > slo.ttft_s:
        return False
    return sample.token_s is None or sample.token_s <= slo.itl_s


def waited_s(sample: RequestSample) -> float | None:
    """Return a request's time to first token: of a whole one what it was, of one that timed out at least how long it waited."""
    if sample.fate == "whole" or (sample.fate == "timeout" and sample.chunk_s):
        return sample.ttft_s
    return sample.latency_s if sample.fate == "timeout" else None


def distribution(values: Iterable[float | None]) -> Distribution | None:
    """Return the distribution of the values that there are; None: there are none."""
    known = sorted(value for value in values if value is not None)
    if not known:
        return None
    shares = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
    return Distribution(
        count=len(known),
        mean=sum(known) / len(known),
        most=known[-1],
        **{name: quantile(known, share) for name, share in shares.items()},
    )


def _mean(values: Iterable[int | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _overlap(sample: RequestSample, window: Window) -> float:
    return max(0.0, min(sample.end_s, window.until_s) - max(sample.sent_s, window.since_s))
