"""One scrape for several processes: each dumps its metrics, and the scraped one combines them.

A process dumps all its numbers as bytes; the scraped process adds up all dumps. Counters and histograms of a process
that died continue in the one that takes its place, so that no sum ever falls because a process was killed. How the bytes
travel is not decided here.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import add

import msgspec
from prometheus_client import ProcessCollector
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from freehold.telemetry.metrics import Counter, Histogram, Metrics, Values

_EARLIEST = "process_start_time_seconds"  # All others of a process are parts of a whole.


class _ProcessNumbers(msgspec.Struct, array_like=True, frozen=True):
    """The dump of one process: numbers, and distributions as counts per bucket with their sum."""

    numbers: dict[str, list[tuple[Values, float]]]
    spreads: dict[str, list[tuple[Values, list[int], float]]]


_ENCODER, _DECODER = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(_ProcessNumbers)


def dump(metrics: Metrics) -> bytes:
    """Return all numbers of this process."""
    numbers: dict[str, list[tuple[Values, float]]] = {}
    spreads: dict[str, list[tuple[Values, list[int], float]]] = {}
    for series in metrics.series():
        name = series.declared.name
        if isinstance(series, Histogram):
            spreads[name] = [(values, cell.counts, cell.sum) for values, cell in series.cells.items()]
        else:
            numbers[name] = list(series.now().items())
    return _ENCODER.encode(_ProcessNumbers(numbers, spreads))


def continue_from(metrics: Metrics, dumped: bytes) -> None:
    """Continue the counters and histograms of this process where an earlier process ended."""
    before = _read(dumped)
    for series in metrics.series():
        name = series.declared.name
        if isinstance(series, Histogram):
            _add_spreads(series, before.spreads.get(name, ()))
        elif isinstance(series, Counter) and series.declared.pooled == "sum":
            for values, number in before.numbers.get(name, ()):
                series.carry(values, number)


def pool(dumped: Iterable[tuple[bytes, bool]], pids: Sequence[int]) -> Metrics:
    """Return the metrics of all processes together, from each dump and whether its process still runs.

    A process that has ended counts by its counters, not by its levels. `pids` are those that run.
    """
    whole = Metrics(process=_Processes(pids))
    for text, lives in dumped:
        one = _read(text)
        for series in whole.series():
            name = series.declared.name
            if isinstance(series, Histogram):
                _add_spreads(series, one.spreads.get(name, ()))
            elif lives or isinstance(series, Counter):
                merge = _MERGERS[series.declared.pooled]
                for values, number in one.numbers.get(name, ()):
                    cell = series.labels(*values)
                    cell.value = merge(cell.value, number)
    return whole


_MERGERS: dict[str, Callable[[float, float], float]] = {"sum": add, "max": max}


def _add_spreads(series: Histogram, dumped: Iterable[tuple[Values, list[int], float]]) -> None:
    for values, counts, total in dumped:
        cell = series.labels(*values)
        if len(counts) == len(cell.counts):
            cell.counts = [one + other for one, other in zip(cell.counts, counts, strict=True)]
            cell.sum += total


def _read(dumped: bytes) -> _ProcessNumbers:
    with contextlib.suppress(msgspec.MsgspecError):
        return _DECODER.decode(dumped)
    return _ProcessNumbers({}, {})


class _Processes(Collector):
    """The figures that the kernel keeps of several processes, added up."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = pids

    def __repr__(self) -> str:
        return f"<_Processes {list(self._pids)}>"

    def collect(self) -> Iterator[Family]:
        """Yield the families of prometheus_client's ProcessCollector, one number each."""
        families: dict[str, Family] = {}
        for pid in self._pids:
            for family in ProcessCollector(pid=lambda pid=pid: pid, registry=None).collect():  # type: ignore[misc]
                whole = families.setdefault(family.name, family)
                if whole is not family:
                    merge = min if family.name == _EARLIEST else add
                    whole.samples = [
                        one._replace(value=merge(one.value, other.value))
                        for one, other in zip(whole.samples, family.samples, strict=True)
                    ]
        yield from families.values()
