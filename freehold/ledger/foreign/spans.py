"""Stretches of time, united: what a history covers, and where it does not. Pure; Unix seconds throughout."""

import itertools
from collections.abc import Iterable, Iterator

HOUR_S = 3600
"""Source: 60 * 60."""
_COMPACT_AT = 20_000  # Stretches that are held before they are united (then twice what is left): rows come in any order.

Span = tuple[float, float]
"""From the first up to and without the second."""


class Spans:
    """A union of stretches of time."""

    def __init__(self, spans: Iterable[Span] = ()) -> None:
        self._spans: list[Span] = []
        self._compact_at = _COMPACT_AT
        for span in spans:
            self.add(*span)

    def __repr__(self) -> str:
        return f"<Spans {len(self._spans)}>"

    def add(self, start_s: float, end_s: float) -> None:
        """Add a stretch; one without length adds nothing."""
        if end_s <= start_s:
            return
        spans = self._spans
        if spans and spans[-1][0] <= start_s <= spans[-1][1]:
            spans[-1] = (spans[-1][0], max(spans[-1][1], end_s))
            return
        spans.append((start_s, end_s))
        if len(spans) > self._compact_at:
            self._compact_at = max(_COMPACT_AT, 2 * len(self.united()))

    def united(self) -> list[Span]:
        """Return the stretches in order; none of them touch."""
        self._spans = _united(self._spans)
        return self._spans

    def total_s(self) -> float:
        """Return how long they are together."""
        return sum(end - start for start, end in self.united())

    def within(self, start_s: float, end_s: float) -> "Spans":
        """Return the part of them between two times."""
        return Spans((max(start_s, start), min(end_s, end)) for start, end in self.united())

    def without(self, holes: Iterable[Span]) -> "Spans":
        """Return what is left of them without these."""
        left = self.united()
        for hole_start, hole_end in holes:
            left = [
                piece
                for start, end in left
                for piece in ((start, min(end, hole_start)), (max(start, hole_end), end))
                if piece[0] < piece[1]
            ]
        return Spans(left)

    def holes(self) -> list[Span]:
        """Return the stretches between them."""
        spans = self.united()
        return [(before[1], after[0]) for before, after in itertools.pairwise(spans)]

    def by_hour(self) -> Iterator[tuple[int, float]]:
        """Give each hour since the epoch that they touch, in order, and how many seconds of it they hold."""
        held: tuple[int, float] | None = None
        for start, end in self.united():
            for hour in range(int(start // HOUR_S), -int(-end // HOUR_S)):
                part_s = min(end, (hour + 1) * HOUR_S) - max(start, hour * HOUR_S)
                if held is not None and held[0] == hour:
                    part_s += held[1]
                elif held is not None:
                    yield held
                held = (hour, part_s)
        if held is not None:
            yield held


def _united(spans: list[Span]) -> list[Span]:
    united: list[Span] = []
    for start, end in sorted(spans):
        if united and start <= united[-1][1]:
            united[-1] = (united[-1][0], max(united[-1][1], end))
        else:
            united.append((start, end))
    return united
