"""How long prompts and answers are: fixed, in a range, by published quantiles, or as a ledger recorded them. Pure.

A draw takes its dice from the caller, so that one seed gives every engine the same sizes. Prompt and answer of a published
shape are drawn independently, since only their own quantiles are published; those of a recorded one stay together.
"""

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

MIDDLE = 0.5
"""The median's share."""
_NORMALS = {
    0.1: -1.2815516,
    0.2: -0.8416212,
    0.5: 0.0,
    0.8: 0.8416212,
    0.9: 1.2815516,
    0.95: 1.6448536,
    0.99: 2.3263479,
}
"""The standard normal's quantiles by share. Source: its quantile function."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """One request's tokens."""

    prompt_tokens: int
    answer_tokens: int


class Sizes(Protocol):
    """Where requests get their sizes from."""

    def draw(self, dice: np.random.Generator) -> Size:
        """Return one request's size, at least one token each."""
        ...

    def words(self) -> str:
        """Return what it is, for a person, in a line."""
        ...


@dataclass(frozen=True, slots=True)
class Range:
    """Whole numbers from `low` to `high`, all equally likely; equal ends are a fixed number."""

    low: int
    high: int

    def draw(self, dice: np.random.Generator) -> int:
        """Return one of them."""
        return int(dice.integers(self.low, self.high, endpoint=True))

    def words(self) -> str:
        """Return `512`, or `100 to 900`."""
        return f"{self.low:,}" if self.low == self.high else f"{self.low:,} to {self.high:,}"


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Tokens by share of requests that have at most so many; ascending, the median among them."""

    points: tuple[tuple[float, float], ...]

    def draw(self, dice: np.random.Generator) -> int:
        """Return one draw.

        The logarithm is linear in the normal's quantile between points; below the first one its slope goes on, and
        nothing is beyond the last one, since too few rows say what is.
        """
        return self.at(float(dice.standard_normal()))

    def at(self, normal: float) -> int:
        """Return the tokens at a quantile of the standard normal."""
        shares, tokens = zip(*self.points, strict=True)
        places = [_NORMALS[share] for share in shares]
        logs = np.log(tokens)
        if normal < places[0]:
            slope = (logs[1] - logs[0]) / (places[1] - places[0])
            return max(1, round(float(np.exp(logs[0] + slope * (normal - places[0])))))
        return max(1, round(float(np.exp(np.interp(normal, places, logs)))))

    def words(self) -> str:
        """Return the median and the last point."""
        median, (share, last) = dict(self.points)[MIDDLE], self.points[-1]
        return f"median {median:,.0f}, p{share * 100:.0f} {last:,.0f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """Prompt and answer, each by itself."""

    prompt: Range | Quantiles
    answer: Range | Quantiles
    name: str = ""
    """Of a published shape, with its source; empty: flags."""

    def draw(self, dice: np.random.Generator) -> Size:
        """Return one of each."""
        prompt = self.prompt.draw(dice)
        return Size(prompt_tokens=prompt, answer_tokens=self.answer.draw(dice))

    def words(self) -> str:
        """Return both in a line."""
        said = f"prompts of {self.prompt.words()} tokens, answers of {self.answer.words()}"
        return f"{self.name}: {said}" if self.name else said


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """Requests as they were recorded; not empty, in the order in which they came."""

    sizes: tuple[Size, ...]
    at_s: tuple[float, ...]
    """When each came, seconds after the first."""
    left_out: int = 0
    """Records of that time whose tokens are not known."""
    context_tokens: int = 0
    """What they are cut to; 0: to nothing."""

    def draw(self, dice: np.random.Generator) -> Size:
        """Return one of them."""
        return self.sizes[int(dice.integers(len(self.sizes)))]

    def words(self) -> str:
        """Return how many there are and their medians."""
        prompt = float(np.median([size.prompt_tokens for size in self.sizes]))
        answer = float(np.median([size.answer_tokens for size in self.sizes]))
        cut_to = f", together at most {self.context_tokens:,}" if self.context_tokens else ""
        left = f", {self.left_out:,} without token counts left out" if self.left_out else ""
        return f"{len(self.sizes):,} recorded requests, medians {prompt:,.0f} and {answer:,.0f} tokens{cut_to}{left}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """Other sizes, cut so that prompt and answer fit a context together."""

    sizes: Sizes
    context_tokens: int

    def draw(self, dice: np.random.Generator) -> Size:
        """Return one that fits."""
        return cut(self.sizes.draw(dice), self.context_tokens)

    def words(self) -> str:
        """Return what they are and where they are cut."""
        return f"{self.sizes.words()}, together at most {self.context_tokens:,}"


def cut(size: Size, context_tokens: int) -> Size:
    """Return a size that fits: a prompt gives way before an answer does, and an answer keeps half of the context at most."""
    answer = min(size.answer_tokens, max(1, context_tokens // 2))
    return Size(prompt_tokens=max(1, min(size.prompt_tokens, context_tokens - answer)), answer_tokens=answer)


def fit(sizes: Sizes, context_tokens: int) -> Sizes:
    """Return sizes that fit a context of at least 2 tokens; recorded ones stay recorded. 0: nothing is known, nothing cut."""
    if not context_tokens or _fits(sizes, context_tokens):
        return sizes
    if isinstance(sizes, Recorded):
        fitting = tuple(cut(size, context_tokens) for size in sizes.sizes)
        return replace(sizes, sizes=fitting, context_tokens=context_tokens)
    return Fitted(sizes=sizes, context_tokens=context_tokens)


def _fits(sizes: Sizes, context_tokens: int) -> bool:
    """Return whether no request of these sizes can be cut."""
    if isinstance(sizes, Recorded):
        return all(cut(size, context_tokens) == size for size in sizes.sizes)
    if not isinstance(sizes, Given):
        return False
    longest = Size(prompt_tokens=_longest(sizes.prompt), answer_tokens=_longest(sizes.answer))
    return cut(longest, context_tokens) == longest


def _longest(tokens: Range | Quantiles) -> int:
    return tokens.high if isinstance(tokens, Range) else round(tokens.points[-1][1])
