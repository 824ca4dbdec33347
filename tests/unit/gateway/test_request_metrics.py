"""What counts as a request and what as a failure, in the two numbers that `freehold status` shows."""

from freehold.gateway.counters.request_metrics import GatewayMetrics


def test_a_refusal_for_want_of_an_engine_is_a_failure_and_a_clients_mistake_is_none() -> None:
    meters = GatewayMetrics()
    meters.refused("model_not_ready", status=503)
    meters.refused("model_not_found", status=404)
    served = meters.for_model("m")
    served.finished("/v1/completions", 503, took_s=0.1, ttft_s=None, answer_bytes=0)
    served.finished("/v1/completions", 200, took_s=0.1, ttft_s=None, answer_bytes=0)
    assert (meters.requests_total, meters.errors_total) == (4, 2)
    refused = {
        reason: meters.metrics.registry.get_sample_value("freehold_gateway_refused_total", {"reason": reason})
        for reason in ("model_not_ready", "model_not_found")
    }
    assert refused == {"model_not_ready": 1, "model_not_found": 1}
