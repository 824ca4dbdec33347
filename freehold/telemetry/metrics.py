"""Metrics: plain integers on the hot path, turned into Prometheus text only on a scrape.

The idea: a request's cost is one attribute increment on a handle that was looked up before (about 50 ns), and one
bisect for a histogram. prometheus_client's own counters lock on every increment, so it is used for the text formats
and the process's own figures only.

What it deliberately does not do: no global registry (each `Metrics` has its own), no undeclared metric (the table is
`freehold.telemetry.declared`), no locks. A handle has one writing thread; a scrape from another thread may see a
request half counted, never a torn number.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from freehold import __version__
from freehold.telemetry.declared import DECLARED, Declared, Kind

PLAIN_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Source: prometheus.io/docs/instrumenting/exposition_formats, text-based format."""

OTHER = "other"
"""The label value that stands for every value beyond a label's bound."""

Values = tuple[str, ...]
Reading = Callable[[], Mapping[Values, float]]


class Number:
    """One series of a counter (only add to `value`) or of a gauge (set it, add to or take from it)."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0


class BucketCounts:
    """A histogram's one series: how many observations fell under each bound, and their sum."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count `value`, in the metric's unit."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def cumulative(self) -> list[tuple[str, float]]:
        """Return (upper bound, observations at or under it), the last one `+Inf`."""
        total, rows = 0, []
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            total += count
            rows.append(("+Inf" if bound == float("inf") else repr(bound), float(total)))
        return rows


Cell = TypeVar("Cell", Number, BucketCounts)


class Series(Generic[Cell]):
    """All series of one declared metric, by label values in the declared order."""

    def __init__(self, declared: Declared, new_cell: Callable[[], Cell], on_fold: Callable[[], None]) -> None:
        self.declared = declared
        self.cells: dict[Values, Cell] = {}
        self._new_cell: Callable[[], Cell] = new_cell
        self._on_fold: Callable[[], None] = on_fold
        self._known: tuple[set[str], ...] = tuple(set() for _ in declared.labels)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.declared.name} series={len(self.cells)}>"

    def labels(self, *values: str) -> Cell:
        """Return the handle for these label values; keep it where the same values come again."""
        cell = self.cells.get(values)
        return self._make(values) if cell is None else cell

    def forget(self, *values: str) -> None:
        """Drop one series, for example of a replica that is gone for good; its label values stay counted."""
        self.cells.pop(values, None)

    def bounded(self, values: Values) -> Values:
        """Return `values` with each one beyond its label's bound replaced by `other`; each such call is counted."""
        assert len(values) == len(self.declared.labels), (self.declared.name, values)
        return tuple(self._admit(index, value) for index, value in enumerate(values))

    def _make(self, values: Values) -> Cell:
        folded = self.bounded(values)
        return self.cells.setdefault(folded, self._new_cell())

    def _admit(self, index: int, value: str) -> str:
        known = self._known[index]
        if value not in known:
            if len(known) >= self.declared.labels[index].at_most:
                self._on_fold()
                return OTHER
            known.add(value)
        return value


class _Readable(Series[Number]):
    """A counter or gauge, whose series may also come from a callback at scrape time."""

    _family: type[CounterMetricFamily | GaugeMetricFamily]
    _reading: Reading | None = None
    _carried: Mapping[Values, float] = MappingProxyType({})

    def read_from(self, reading: Reading) -> None:
        """Take all series from `reading` at each scrape: label values → number. It must not block nor raise.

        A missing series is absent from the scrape, which is how an unknown number is shown.
        """
        self._reading = reading

    def carry(self, values: Values, number: float) -> None:
        """Add a number that an earlier process counted to the numbers of this one."""
        self._carried = {**self._carried, values: self._carried.get(values, 0) + number}

    def now(self) -> dict[Values, float]:
        """Return every series' number at this moment."""
        numbers: dict[Values, float] = {}
        if self._reading is None:
            numbers = {values: cell.value for values, cell in self.cells.items()}
        else:
            for values, number in self._reading().items():
                folded = self.bounded(values)
                numbers[folded] = numbers.get(folded, 0) + number
        for values, number in self._carried.items():
            numbers[values] = numbers.get(values, 0) + number
        return numbers

    def family(self) -> Family:
        """Return the samples for a scrape."""
        names = [label.name for label in self.declared.labels]
        family = self._family(self.declared.name, self.declared.help, labels=names)
        for values, number in self.now().items():
            family.add_metric(values, number)
        return family


class Counter(_Readable):
    """A number that only rises."""

    _family = CounterMetricFamily

    def add(self, *values: str, by: int = 1) -> None:
        """Add `by` (not negative) to the series with these label values."""
        self.labels(*values).value += by


class Gauge(_Readable):
    """A number that goes up and down."""

    _family = GaugeMetricFamily

    def set(self, *values: str, to: float) -> None:
        """Set the series with these label values."""
        self.labels(*values).value = to


class Histogram(Series[BucketCounts]):
    """A distribution in declared buckets."""

    def observe(self, *values: str, value: float) -> None:
        """Count one observation in the series with these label values."""
        self.labels(*values).observe(value)

    def family(self) -> Family:
        """Return the samples for a scrape."""
        names = [label.name for label in self.declared.labels]
        family = HistogramMetricFamily(self.declared.name, self.declared.help, labels=names)
        for values, spread in self.cells.items():
            family.add_metric(values, spread.cumulative(), sum_value=spread.sum)
        return family


class Metrics:
    """All declared metrics of one process, and its scrape."""

    def __init__(
        self,
        declared: tuple[Declared, ...] = DECLARED,
        *,
        process: Collector | None = None,
        namespace: str = "freehold",
    ) -> None:
        """Build the series of a table; `process` collects the process's figures, None: those of this process.

        `namespace` begins the names of what every table has: its version, and label values folded. Another than the usual one
        also begins those of the process's figures, so that two processes' can stand on one page.
        """
        self._namespace = namespace
        self._series: dict[str, Counter | Gauge | Histogram] = {
            row.name: self._build(row) for row in declared
        }
        self._expose_constants()
        self.registry = CollectorRegistry()
        self.registry.register(self)
        if process is None:
            ProcessCollector(namespace="" if namespace == "freehold" else namespace, registry=self.registry)
        else:
            self.registry.register(process)

    def __repr__(self) -> str:
        return (
            f"<Metrics names={len(self._series)} series={sum(len(s.cells) for s in self._series.values())}>"
        )

    def series(self) -> Iterator["Counter | Gauge | Histogram"]:
        """Yield all series, in the table's order."""
        yield from self._series.values()

    def counter(self, name: str) -> Counter:
        """Return the declared counter; another name or kind is a bug."""
        series = self._series[name]
        assert isinstance(series, Counter), f"{name} is not a counter"
        return series

    def gauge(self, name: str) -> Gauge:
        """Return the declared gauge; another name or kind is a bug."""
        series = self._series[name]
        assert isinstance(series, Gauge), f"{name} is not a gauge"
        return series

    def histogram(self, name: str) -> Histogram:
        """Return the declared histogram; another name or kind is a bug."""
        series = self._series[name]
        assert isinstance(series, Histogram), f"{name} is not a histogram"
        return series

    def collect(self) -> Iterator[Family]:
        """Yield every family in the table's order; prometheus_client calls this on a scrape."""
        for series in self._series.values():
            yield series.family()

    def render(self) -> tuple[bytes, str]:
        """Return the scrape's body and its content type."""
        return bytes(generate_latest(self.registry)), PLAIN_CONTENT_TYPE

    def _build(self, row: Declared) -> Counter | Gauge | Histogram:
        makers: dict[Kind, Callable[[], Counter | Gauge | Histogram]] = {
            "counter": lambda: Counter(row, Number, lambda: self._folded(row)),
            "gauge": lambda: Gauge(row, Number, lambda: self._folded(row)),
            "histogram": lambda: Histogram(row, lambda: BucketCounts(row.buckets), lambda: self._folded(row)),
        }
        return makers[row.kind]()

    def _folded(self, row: Declared) -> None:
        self.counter(f"{self._namespace}_metrics_folded_total").add(row.name)

    def _expose_constants(self) -> None:
        """Set the series that exist from the first scrape on: counters without labels at 0, and the version."""
        for series in self._series.values():
            if isinstance(series, Counter) and not series.declared.labels:
                series.labels()
        self.gauge(f"{self._namespace}_build_info").set(__version__, to=1)
