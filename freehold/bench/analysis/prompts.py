"""Prompts of a wanted length that no cache has seen: common words, drawn; and how words become tokens. Pure.

Each prompt's words are drawn by its own label, so that no two share more than the chat template's first tokens, and a
prefix cache finds nothing, unless a shared prefix is asked for. How many tokens a word makes is the tokeniser's: two short
questions to an engine tell (`Scale`), and what prompts really had is what usage says, not what was wanted. What the
words mean does not matter: an answer's length is forced.
"""

from dataclasses import dataclass

import numpy as np

_TEXT = """
the of and to in is that for it as was with be by on not he his but at are this have from or had an they which
one you were all her she there would their we him been has when who will no more if out so up said what its
about than into them can only other time new some could these two may first then do any like my now over such
our man me even most made after also did many off before must well back through years much where your way down
should because long each just state those people too how good very make world still see own work men day get
here old life both between being under three never know same last another while us might great year go come
since against right came take used himself few house use place during high without again home around small
found part school think water set left end open case number face put city group fact point hand second side
"""
WORDS = tuple(_TEXT.split())
"""Common English words, which tokenisers of English text make one token of. Source: our own list of frequent words."""
_SHARED_SEED = 20_260_000
"""Seed of the shared prefix: any number, always the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Tokens of a prompt of n words: `overhead + per_word * n`."""

    per_word: float = 1.0
    overhead: float = 0.0
    """Of the chat template and the like."""

    def words(self, tokens: int) -> int:
        """Return how many words make that many tokens, at least one."""
        return max(1, round((tokens - self.overhead) / self.per_word))


def fitted(short: tuple[int, int], long: tuple[int, int]) -> Scale:
    """Return the line through two prompts of (words, tokens); the plain scale where they tell nothing."""
    if long[0] <= short[0] or long[1] <= short[1]:
        return Scale()
    per_word = (long[1] - short[1]) / (long[0] - short[0])
    return Scale(per_word=per_word, overhead=max(0.0, short[1] - per_word * short[0]))


def prompt(words: int, *, label: tuple[int, ...], shared_words: int = 0) -> str:
    """Return a text of so many words, the first of them shared with all others, the rest its own by `label`."""
    shared = min(shared_words, max(0, words - 1))
    own = np.random.Generator(np.random.PCG64(list(label)))
    common = np.random.Generator(np.random.PCG64(_SHARED_SEED))
    drawn = [*common.integers(len(WORDS), size=shared), *own.integers(len(WORDS), size=words - shared)]
    return " ".join(WORDS[index] for index in drawn)
