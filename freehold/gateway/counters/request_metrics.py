"""What the gateway counts: handles bound once per label set, plain integers after that.

Names and meanings stand in `freehold.telemetry.declared`; this file decides when each is counted and nothing else.
"""

from collections.abc import Mapping

from freehold.telemetry.metrics import Metrics, Number, Reading


def read_at_scrape(metrics: Metrics, readings: Mapping[str, Reading]) -> None:
    """Let a page read these at each scrape; a name that ends in `_total` is a counter, any other a gauge."""
    for name, reading in readings.items():
        (metrics.counter if name.endswith("_total") else metrics.gauge)(name).read_from(reading)


class GatewayMetrics:
    """The gateway's counters."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.requests_total = 0
        self.errors_total = 0

    def for_model(self, model: str) -> "ModelMetrics":
        """Return the counters of one model's requests."""
        return ModelMetrics(self, model)

    def refused(self, reason: str, *, status: int) -> None:
        """Count one request that the gateway itself rejected; 500 and above is also a failure."""
        self.requests_total += 1
        self.errors_total += status >= 500
        self.metrics.counter("freehold_gateway_refused_total").add(reason)

    def retried(self, model: str, reason: str) -> None:
        """Count one more attempt before the first byte."""
        self.metrics.counter("freehold_gateway_retries_total").add(model, reason)

    def cut(self, model: str, reason: str) -> None:
        """Count one answer that could not be finished."""
        self.metrics.counter("freehold_gateway_cut_streams_total").add(model, reason)

    def client_left(self, model: str) -> None:
        """Count one client that left before its answer's end."""
        self.metrics.counter("freehold_gateway_client_aborts_total").add(model)

    def bug(self) -> None:
        """Count one unexpected exception."""
        self.metrics.counter("freehold_bugs_total").add("gateway")


class ModelMetrics:
    """What is counted of one model's requests, with its handles at hand."""

    __slots__ = (
        "_all",
        "_away",
        "_bytes",
        "_counts",
        "_home",
        "_model",
        "_requests",
        "_seconds",
        "_ttft",
        "_waits",
    )

    def __init__(self, all_meters: GatewayMetrics, model: str) -> None:
        metrics = all_meters.metrics
        self._all = all_meters
        self._model = model
        self._requests = metrics.counter("freehold_gateway_requests_total")
        self._counts: dict[tuple[str, int], Number] = {}
        self._bytes = metrics.counter("freehold_gateway_response_bytes_total").labels(model)
        self._seconds = metrics.histogram("freehold_gateway_request_seconds").labels(model)
        self._ttft = metrics.histogram("freehold_gateway_ttft_seconds").labels(model)
        affinity = metrics.counter("freehold_gateway_affinity_total")
        self._home, self._away = affinity.labels(model, "home"), affinity.labels(model, "away")
        self._waits = metrics.histogram("freehold_gateway_queue_wait_seconds").labels(model)

    def waited(self, seconds: float) -> None:
        """Count one request that had to wait and is started now."""
        self._waits.observe(seconds)

    def went(self, *, home: bool) -> None:
        """Count one request of a conversation, which went to the replica that has its beginning, or to the next."""
        (self._home if home else self._away).value += 1

    def ejected(self, reason: str) -> None:
        """Count one endpoint that gets no requests for a while."""
        self._all.metrics.counter("freehold_gateway_ejections_total").add(self._model, reason)

    def resumed(self, outcome: str) -> None:
        """Count one stream whose engine died, by how it ended."""
        self._all.metrics.counter("freehold_gateway_resumed_total").add(self._model, outcome)

    def turned_away(self, reason: str) -> None:
        """Count one request that is rejected instead of being started."""
        self._all.metrics.counter("freehold_gateway_queue_refused_total").add(self._model, reason)

    def finished(
        self, path: str, status: int, *, took_s: float, ttft_s: float | None, answer_bytes: int
    ) -> None:
        """Count one request that went to an engine, however it ended (499: the client left)."""
        self._all.requests_total += 1
        count = self._counts.get((path, status))
        if count is None:
            count = self._counts[path, status] = self._requests.labels(self._model, path, str(status))
        count.value += 1
        self._bytes.value += answer_bytes
        self._seconds.observe(took_s)
        if ttft_s is not None:
            self._ttft.observe(ttft_s)
        if status >= 500:
            self._all.errors_total += 1
