"""One scrape for several processes."""

import os

from prometheus_client.parser import text_string_to_metric_families

from freehold.telemetry.metrics import Metrics
from freehold.telemetry.pooled import continue_from, dump, pool


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = metrics.render()[0].decode()
    found = (s for family in text_string_to_metric_families(text) for s in family.samples)
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for s in found}


def process(requests: int, *, in_flight: int = 0, took_s: float = 1.0) -> Metrics:
    metrics = Metrics()
    metrics.counter("freehold_gateway_requests_total").add("m", "/p", "200", by=requests)
    metrics.gauge("freehold_gateway_in_flight").set("m", to=in_flight)
    metrics.gauge("freehold_gateway_endpoint_limit").set("m-0", to=4)
    metrics.histogram("freehold_gateway_request_seconds").observe("m", value=took_s)
    metrics.counter("freehold_log_dropped_total").read_from(lambda: {(): 2})
    return metrics


REQUESTS = ("freehold_gateway_requests_total", (("code", "200"), ("model", "m"), ("path", "/p")))
IN_FLIGHT = ("freehold_gateway_in_flight", (("model", "m"),))


def test_parts_are_added_and_each_ones_word_is_taken_once():
    texts = [dump(process(3, in_flight=1)), dump(process(4, in_flight=2, took_s=100.0))]
    found = samples(pool([(text, True) for text in texts], [os.getpid()]))
    assert found[REQUESTS] == 7
    assert found[IN_FLIGHT] == 3
    assert found["freehold_gateway_endpoint_limit", (("endpoint", "m-0"),)] == 4
    assert found["freehold_gateway_request_seconds_count", (("model", "m"),)] == 2
    assert found["freehold_gateway_request_seconds_sum", (("model", "m"),)] == 101
    assert found["freehold_log_dropped_total", ()] == 4


def test_the_dead_count_by_what_they_counted_only():
    found = samples(pool([(dump(process(3, in_flight=1)), False), (dump(process(4)), True)], []))
    assert found[REQUESTS] == 7
    assert found[IN_FLIGHT] == 0


def test_who_takes_a_place_goes_on_with_its_counters():
    first = process(3, in_flight=5)
    second = process(2)
    continue_from(second, dump(first))
    third = process(1)
    continue_from(third, dump(second))
    found = samples(third)
    assert found[REQUESTS] == 6
    assert found[IN_FLIGHT] == 0
    assert found["freehold_gateway_request_seconds_count", (("model", "m"),)] == 3
    assert found["freehold_log_dropped_total", ()] == 6


def test_nonsense_counts_as_nothing():
    assert samples(pool([(b"\xc1nonsense", True), (b"", True), (dump(process(4)), True)], []))[REQUESTS] == 4


def test_the_kernels_figures_are_added_up():
    one = samples(pool([], [os.getpid()]))
    two = samples(pool([], [os.getpid(), os.getpid()]))
    assert one["process_open_fds", ()] > 0
    assert two["process_max_fds", ()] == 2 * one["process_max_fds", ()]
    assert two["process_start_time_seconds", ()] == one["process_start_time_seconds", ()]
