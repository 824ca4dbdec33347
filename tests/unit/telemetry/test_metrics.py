import re

from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_plain

from freehold import __version__
from freehold.core.events import MODELS_MAX
from freehold.spec.load import load_text
from freehold.telemetry.declared import AGENT, DECLARED
from freehold.telemetry.metrics import OTHER, Metrics


def scraped(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_a_handle_counts_and_is_the_same_for_the_same_labels() -> None:
    metrics = Metrics()
    requests = metrics.counter("freehold_gateway_requests_total")
    handle = requests.labels("m", "/v1/models", "200")
    handle.value += 2
    requests.add("m", "/v1/models", "200", by=3)
    assert requests.labels("m", "/v1/models", "200") is handle
    assert scraped(metrics, "freehold_gateway_requests_total", model="m", path="/v1/models", code="200") == 5


def test_a_value_on_a_bound_falls_under_it_and_buckets_accumulate() -> None:
    metrics = Metrics()
    ttft = metrics.histogram("freehold_gateway_ttft_seconds")
    for value in (0.001, 0.0011, 0.5, 3000.0):
        ttft.observe("m", value=value)
    counts = {
        le: scraped(metrics, "freehold_gateway_ttft_seconds_bucket", model="m", le=le)
        for le in ("0.001", "0.005", "0.25", "0.5", "2560.0", "+Inf")
    }
    assert counts == {"0.001": 1, "0.005": 2, "0.25": 2, "0.5": 3, "2560.0": 3, "+Inf": 4}
    assert scraped(metrics, "freehold_gateway_ttft_seconds_count", model="m") == 4
    assert scraped(metrics, "freehold_gateway_ttft_seconds_sum", model="m") == 3000.5021


def test_label_values_beyond_the_bound_fold_into_other_and_are_counted() -> None:
    metrics = Metrics()
    refused = metrics.counter("freehold_gateway_refused_total")
    (bound,) = (label.at_most for label in refused.declared.labels)
    for index in range(bound + 5):
        refused.add(f"reason-{index}")
    assert len(refused.cells) == bound + 1
    assert scraped(metrics, "freehold_gateway_refused_total", reason=OTHER) == 5
    folded = scraped(metrics, "freehold_metrics_folded_total", metric="freehold_gateway_refused_total")
    assert folded == 5


def test_a_callback_gives_series_at_scrape_time_and_what_it_leaves_out_is_absent() -> None:
    metrics = Metrics()
    speeds: dict[tuple[str, ...], float] = {("m", "m-0"): 41.5}
    metrics.gauge("freehold_replica_tokens_per_second").read_from(lambda: speeds)
    name = "freehold_replica_tokens_per_second"
    assert scraped(metrics, name, model="m", replica="m-0") == 41.5
    speeds.clear()
    assert scraped(metrics, name, model="m", replica="m-0") is None


def test_a_callback_beyond_the_bound_is_summed_under_other() -> None:
    metrics = Metrics()
    gauge = metrics.gauge("freehold_gateway_upstream_connections")
    bound = gauge.declared.labels[0].at_most
    gauge.read_from(lambda: {(f"e-{index}",): 1 for index in range(bound + 4)})
    assert scraped(metrics, "freehold_gateway_upstream_connections", endpoint=OTHER) == 4
    assert len(gauge.now()) == bound + 1


def test_a_forgotten_series_is_gone_from_the_scrape() -> None:
    metrics = Metrics()
    metrics.gauge("freehold_gateway_in_flight").set("m", to=3)
    metrics.gauge("freehold_gateway_in_flight").forget("m")
    assert scraped(metrics, "freehold_gateway_in_flight", model="m") is None


def test_counters_without_labels_start_at_zero_and_the_version_is_told() -> None:
    metrics = Metrics()
    assert scraped(metrics, "freehold_log_dropped_total") == 0
    assert scraped(metrics, "freehold_build_info", version=__version__) == 1


def test_two_metrics_share_nothing() -> None:
    first, second = Metrics(), Metrics()
    first.counter("freehold_bugs_total").add("gateway.run")
    assert scraped(second, "freehold_bugs_total", where="gateway.run") is None


def test_both_text_formats_parse_and_say_the_same() -> None:
    metrics = Metrics()
    metrics.counter("freehold_gateway_requests_total").add('m"\n', "/v1/models", "200")
    metrics.histogram("freehold_gateway_request_seconds").observe("m", value=0.4)
    plain, plain_type = metrics.render()
    opened = generate_openmetrics(metrics.registry)
    assert plain_type.startswith("text/plain; version=0.0.4")
    assert opened.endswith(b"# EOF\n")
    assert b"process_cpu_seconds_total" in plain

    def ours(families: object) -> set[tuple[str, str, float]]:
        return {
            (sample.name, str(sorted(sample.labels.items())), sample.value)
            for family in families
            if family.name.startswith("freehold_")
            for sample in family.samples
        }

    assert ours(parse_plain(plain.decode())) == ours(parse_openmetrics(opened.decode()))


def test_the_table_keeps_its_own_rules() -> None:
    rows = (*DECLARED, *AGENT)
    names = [row.name for row in rows]
    assert len(set(names)) == len(names)  # also between the two: both stand on one page
    for row in rows:
        assert re.fullmatch(r"freehold_[a-z_]+", row.name), row.name
        assert row.name.endswith("_total") == (row.kind == "counter"), row.name
        assert bool(row.buckets) == (row.kind == "histogram"), row.name
        assert row.buckets == tuple(sorted(set(row.buckets))), row.name
        assert row.help.endswith("."), row.name


def test_every_model_of_a_full_stack_has_its_own_series() -> None:
    line = "- {name: m%d, engine: external, endpoints: ['http://127.0.0.1:%d']}\n"
    text = "version: 1\nmodels:\n" + "".join(line % (n, 9000 + n) for n in range(256))
    spec = load_text(text, engines=("external",), env={}).spec
    assert spec is not None
    metrics = Metrics()
    for model in spec.models:
        metrics.gauge("freehold_gateway_in_flight").set(model.name, to=1)
    assert b'model="other"' not in metrics.render()[0]


def test_every_model_of_a_configuration_has_its_own_label_value() -> None:
    bounds = {label.at_most for row in DECLARED for label in row.labels if label.name == "model"}
    assert bounds == {MODELS_MAX}
