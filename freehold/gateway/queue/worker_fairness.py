"""Which worker starts next when requests for the same model wait at several: weighted fair queueing over shared counters.

Every start charges its cost to the worker's virtual time, divided by the weight of the callers that wait there; the lowest time
goes first (start-time fair queueing: Goyal, Vin, Cheng, SIGCOMM 1996). A caller with requests at several workers gives each of
them a part of its weight, in proportion to its requests there. So the worker at which connections end does not change a
caller's share, and if all requests are one caller's, workers are served in proportion to what waits. Priorities come first, with the
ageing that `fair_queue` has. It does not know which requests wait within a worker, nor whether there is room.
"""

from typing import Any

from freehold.gateway.callers.keys import PRIORITY_FIRST
from freehold.gateway.counters.shared_counters import CounterRow, SharedCounters
from freehold.gateway.queue.fair_queue import PASSED_MAX, FairQueue, Flow

_WAITING, _UNDER_WAY, _TOKENS, _TIME, _WEIGHT, _PRIORITY, _STARTS = range(7)
_FINE = 1000
"""Virtual time and weights are kept in thousandths, since the counters hold whole numbers."""


class WorkerTurn:
    """One worker's part in the turns of one model."""

    __slots__ = ("_callers", "_counters", "_marked", "_name", "_row", "_still", "_weight")

    def __init__(self, counters: SharedCounters, model: str) -> None:
        self._counters = counters
        self._name = model
        self._row = counters.row(f"model {model}")
        self._callers: dict[Flow[Any], CounterRow] = {}
        self._weight = 1.0
        self._marked = 0
        self._still: dict[int, int] = {}

    def __repr__(self) -> str:
        return f"<WorkerTurn {self._row!r}>"

    @property
    def waits(self) -> bool:
        """Return whether it is published that something waits here."""
        return self._row.get(_WAITING) > 0

    def others_wait(self) -> bool:
        """Return whether something waits at another worker."""
        return self._row.others(_WAITING) > 0

    def totals(self) -> tuple[int, int, int]:
        """Return the requests under way, those that wait and the tokens that wait, all workers' together."""
        row = self._row
        return row.total(_UNDER_WAY), row.total(_WAITING), row.total(_TOKENS)

    def part(self) -> float:
        """Return which part of what the model serves is this worker's, as things stand."""
        others = self._row.others(_WEIGHT)
        return self._weight / (self._weight + others / _FINE)

    def publish(self, waiting: int, under_way: int, tokens: int) -> None:
        """Publish how many wait, how many are under way, and the cost of those that wait."""
        row = self._row
        row.put(_UNDER_WAY, under_way)
        waited = row.get(_WAITING)
        if not (waiting or waited):
            return
        if not waited:
            self._join()
        elif not waiting:
            row.put(_WEIGHT, 0)
        row.put(_TOKENS, tokens)
        row.put(_WAITING, waiting)

    def _join(self) -> None:
        """Begin to wait where the others are, or at 0 where nothing waits: neither credit nor debt is kept."""
        times = [numbers[_TIME] for _, numbers in self._row.each() if numbers[_WAITING]]
        self._row.put(_TIME, min(times, default=0))
        self._marked = self._row.others(_STARTS)
        self._row.put(_WEIGHT, round(self._weight * _FINE))

    def next_is(self, priority: int) -> None:
        """Publish the priority of the request that would start next here."""
        self._row.put(_PRIORITY, priority - PRIORITY_FIRST)

    def holder(self) -> int:
        """Return the worker whose turn it is among those where something waits; -1: this one's, or no worker's."""
        row, mine = self._row, self._counters.index
        best = (row.get(_PRIORITY), row.get(_TIME), mine)
        if self._passed():
            best = (-1, row.get(_TIME), mine)
        for index, numbers in row.each():
            if numbers[_WAITING] and self._still.get(index) != numbers[_STARTS]:
                best = min(best, (numbers[_PRIORITY], numbers[_TIME], index))
        return -1 if best[2] == mine else best[2]

    def pass_over(self, worker: int) -> None:
        """Keep no more places for a worker, which did not take the last one, until it has started something."""
        self._still.update((index, n[_STARTS]) for index, n in self._row.each() if index == worker)

    def next_other(self) -> int:
        """Return the other worker whose turn it is, whatever waits here; -1: nothing waits elsewhere."""
        waiting = [(n[_PRIORITY], n[_TIME], index) for index, n in self._row.each() if n[_WAITING]]
        return min(waiting)[2] if waiting else -1

    def _passed(self) -> bool:
        return self._row.others(_STARTS) - self._marked >= PASSED_MAX * self._counters.workers

    def started(self, cost_tokens: int) -> None:
        """Charge a start out of the queue."""
        self._row.add(_TIME, round(cost_tokens * _FINE / self._weight))
        self._row.add(_STARTS, 1)
        self._marked = self._row.others(_STARTS)

    def weigh(self, turns: FairQueue[Any]) -> None:
        """Compute and publish the weight of the callers that wait here, each by the part of its requests that is here."""
        waiting = set(turns.waiting())
        for flow in self._callers.keys() - waiting:
            row = self._callers.pop(flow)
            row.put(0, 0)
            row.release()
            flow.shift(1.0)
        for flow in waiting:
            row = self._callers.get(flow) or self._row_of(flow)
            row.put(0, flow.waiting)
            flow.shift(flow.waiting / (flow.waiting + max(0, row.others(0))))
        if waiting:
            self._weight = max(1 / _FINE, sum(flow.weight for flow in waiting))
            self._row.put(_WEIGHT, round(self._weight * _FINE))

    def _row_of(self, flow: Flow[Any]) -> CounterRow:
        row = self._callers[flow] = self._counters.row(f"caller {self._name} {flow.priority} {flow.caller}")
        return row
