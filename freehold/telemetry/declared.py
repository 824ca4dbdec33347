"""Every metric that Freehold itself exposes, as two tables (the gateway's, the agent's): name, kind, meaning, labels with their bounds.

A metric that is not here cannot be written. A table counts nothing; `freehold.telemetry.metrics` does. Names, kinds
and labels are public: the golden file tests/golden/metrics.txt shows every change of them in review.
"""

from dataclasses import dataclass
from typing import Literal

from freehold.core.events import MODELS_MAX

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """A label and the most values it may take; further values fold into `other` and are counted."""

    name: str
    at_most: int
    """Bound on distinct values, so that no client and no bug can grow a process's memory through a label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """One row of the table."""

    name: str
    """`freehold_*` in base units: `_seconds`, `_bytes`, and `_total` for every counter."""
    kind: Kind
    help: str
    labels: tuple[Label, ...] = ()
    buckets: tuple[float, ...] = ()
    """Upper bounds of a histogram's buckets in the metric's unit, rising, without `+Inf`."""
    pooled: Literal["sum", "max"] = "sum"
    """What several processes' numbers make together: most are parts of a whole; some are each process's word on it."""


TTFT_BUCKETS_S = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
"""Source: vLLM's `vllm:time_to_first_token_seconds` (vllm/v1/metrics/loggers.py), so that dashboards line up."""

REQUEST_BUCKETS_S = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    *(120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)
"""Source: vLLM's `vllm:e2e_request_latency_seconds` (vllm/v1/metrics/loggers.py), so that dashboards line up."""

PROBE_BUCKETS_S = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Source: our own choice: a probe takes from 20 microseconds (a clock) to some milliseconds (eight GPUs over an hour)."""

MODEL = Label(name="model", at_most=MODELS_MAX)
"""Models come from freehold.yaml, never from a request."""
PATH = Label(name="path", at_most=16)
"""Only the gateway's known paths are passed here; there are fewer than 16."""
CODE = Label(name="code", at_most=32)
"""HTTP status codes that a gateway or an engine answers with."""
REASON = Label(name="reason", at_most=32)
"""Words from the code, never a message."""
OUTCOME = Label(name="outcome", at_most=8)
"""What became of something, in words from the code."""
REPLICA = Label(name="replica", at_most=256)
"""Replica ids `<model>-<index>`: stable over restarts; 256 is beyond one controller's machine."""
ENDPOINT = Label(name="endpoint", at_most=256)
"""Endpoint ids, as replica ids."""
STATE = Label(name="state", at_most=8)
"""`core.events.ReplicaState` has 8 values."""
WHERE = Label(name="where", at_most=32)
"""Guard names from the code."""
FALLBACK = Label(name="fallback", at_most=16)
"""Names of `fallback:` in freehold.yaml, which has at most 16."""
OUTCOME = Label(name="outcome", at_most=8)
"""`ledger.record.Outcome` has 4 values."""
PROBE = Label(name="probe", at_most=64)
"""One file each in freehold/health/checks, of which there are some twenty, and those of other packages."""
KIND = Label(name="kind", at_most=16)
"""Kinds of component: `gpu`, `disk`, `engine`; never which one."""
HEALTH_REASON = Label(name="reason", at_most=512)
"""Words from the probes' own lists, some ten each."""
HYPOTHESIS = Label(name="hypothesis", at_most=16)
"""`catalog.load_evidence.Hypothesis` has 8 values."""
ACTION = Label(name="action", at_most=32)
"""`core.findings.Action` has 13 values."""
READER = Label(name="reader", at_most=16)
"""Readers of the agent, a handful."""
METRIC = Label(name="metric", at_most=128)
"""Names of this table."""
VERSION = Label(name="version", at_most=1)
"""One process runs one version."""

DECLARED: tuple[Declared, ...] = (
    Declared(
        name="freehold_gateway_requests_total",
        kind="counter",
        help="Requests answered, by model, path and HTTP status.",
        labels=(MODEL, PATH, CODE),
    ),
    Declared(
        name="freehold_gateway_in_flight",
        kind="gauge",
        help="Requests being worked on now.",
        labels=(MODEL,),
    ),
    Declared(
        name="freehold_gateway_request_seconds",
        kind="histogram",
        help="From a request's last byte received to its answer's last byte sent.",
        labels=(MODEL,),
        buckets=REQUEST_BUCKETS_S,
    ),
    Declared(
        name="freehold_gateway_ttft_seconds",
        kind="histogram",
        help="Time to first token: from a request's last byte received to the first byte of the answer's body.",
        labels=(MODEL,),
        buckets=TTFT_BUCKETS_S,
    ),
    Declared(
        name="freehold_gateway_response_bytes_total",
        kind="counter",
        help="Bytes of answer bodies sent to clients.",
        labels=(MODEL,),
    ),
    Declared(
        name="freehold_gateway_retries_total",
        kind="counter",
        help="Attempts beyond a request's first, before its first byte.",
        labels=(MODEL, REASON),
    ),
    Declared(
        name="freehold_gateway_cut_streams_total",
        kind="counter",
        help="Answers that ended in an in-band error after their first byte.",
        labels=(MODEL, REASON),
    ),
    Declared(
        name="freehold_gateway_resumed_total",
        kind="counter",
        help="Streams whose engine died after their first byte: `whole` (another replica finished it), `ended` (only its "
        "end was missing), `cut` (others failed too), `abandoned` (the client left), `not_possible`.",
        labels=(MODEL, OUTCOME),
    ),
    Declared(
        name="freehold_gateway_client_aborts_total",
        kind="counter",
        help="Requests whose client left before the end of the answer.",
        labels=(MODEL,),
    ),
    Declared(
        name="freehold_gateway_refused_total",
        kind="counter",
        help="Requests refused by the gateway itself; no engine saw them.",
        labels=(REASON,),
    ),
    Declared(
        name="freehold_gateway_queue_requests",
        kind="gauge",
        help="Requests that wait for an engine to have room.",
        labels=(MODEL,),
    ),
    Declared(
        name="freehold_gateway_queue_tokens",
        kind="gauge",
        help="Tokens that the waiting requests are expected to cost.",
        labels=(MODEL,),
    ),
    Declared(
        name="freehold_gateway_queue_overloaded",
        kind="gauge",
        help="1 while more requests come than can be answered, so that waits are kept short.",
        labels=(MODEL,),
        pooled="max",
    ),
    Declared(
        name="freehold_gateway_queue_wait_seconds",
        kind="histogram",
        help="How long requests waited that had to wait and were started.",
        labels=(MODEL,),
        buckets=TTFT_BUCKETS_S,
    ),
    Declared(
        name="freehold_gateway_queue_refused_total",
        kind="counter",
        help="Requests that were refused instead of being started, by reason.",
        labels=(MODEL, REASON),
    ),
    Declared(
        name="freehold_gateway_affinity_total",
        kind="counter",
        help="Requests of conversations with a home replica, by whether they went there.",
        labels=(MODEL, WHERE),
    ),
    Declared(
        name="freehold_gateway_ejections_total",
        kind="counter",
        help="Endpoints left alone for a while because they failed, by reason.",
        labels=(MODEL, REASON),
    ),
    Declared(
        name="freehold_gateway_endpoint_ejected",
        kind="gauge",
        help="1 while an endpoint is ejected or on trial, else 0.",
        labels=(ENDPOINT,),
    ),
    Declared(
        name="freehold_gateway_endpoint_limit",
        kind="gauge",
        help="Requests that an endpoint may be given at once now.",
        labels=(ENDPOINT,),
        pooled="max",
    ),
    Declared(name="freehold_gateway_connections", kind="gauge", help="Client connections open now."),
    Declared(
        name="freehold_gateway_upload_bytes",
        kind="gauge",
        help="Memory held for large request bodies that are coming in.",
    ),
    Declared(
        name="freehold_gateway_uploads_waiting",
        kind="gauge",
        help="Large request bodies that wait for such memory.",
    ),
    Declared(
        name="freehold_gateway_upstream_connections",
        kind="gauge",
        help="Connections to an endpoint open now, idle ones included.",
        labels=(ENDPOINT,),
    ),
    Declared(
        name="freehold_gateway_keys", kind="gauge", help="API keys that are accepted now.", pooled="max"
    ),
    Declared(
        name="freehold_gateway_keys_trouble",
        kind="gauge",
        help="1 while the keys file or the budgets on disk cannot be used; /health says why.",
        pooled="max",
    ),
    Declared(
        name="freehold_gateway_snapshot_generation",
        kind="gauge",
        help="Generation of the endpoint snapshot in use.",
        pooled="max",
    ),
    Declared(
        name="freehold_gateway_snapshot_age_seconds",
        kind="gauge",
        help="Time since the snapshot in use arrived.",
        pooled="max",
    ),
    Declared(
        name="freehold_replica_state",
        kind="gauge",
        help="1 for the state that a replica is in, 0 for the others.",
        labels=(MODEL, REPLICA, STATE),
        pooled="max",
    ),
    Declared(
        name="freehold_replica_restarts_total",
        kind="counter",
        help="Times a replica's process was started again after a failure.",
        labels=(MODEL, REPLICA),
        pooled="max",
    ),
    Declared(
        name="freehold_replica_tokens_per_second",
        kind="gauge",
        help="Generated tokens per second by the engine's own counter; absent when unknown.",
        labels=(MODEL, REPLICA),
        pooled="max",
    ),
    Declared(
        name="freehold_gateway_fallback_total",
        kind="counter",
        help="Requests sent to an endpoint of others, by what for (queue_full, no_replica, share, shadow) and how they ended.",
        labels=(MODEL, FALLBACK, REASON, OUTCOME),
    ),
    Declared(
        name="freehold_gateway_fallback_skipped_total",
        kind="counter",
        help="Requests not sent to an endpoint of others that were meant for it: no budget, no place, or it just failed.",
        labels=(FALLBACK, REASON),
    ),
    Declared(
        name="freehold_gateway_fallback_cost_usd_total",
        kind="counter",
        help="What an endpoint of others has cost, US dollars, as far as it is known.",
        labels=(FALLBACK,),
    ),
    Declared(
        name="freehold_gateway_fallback_unknown_cost_total",
        kind="counter",
        help="Requests to an endpoint of others whose cost is not known, since it told no usage.",
        labels=(FALLBACK,),
    ),
    Declared(
        name="freehold_gateway_fallback_spent_usd",
        kind="gauge",
        help="What an endpoint of others has cost today (UTC), US dollars, with what requests under way may cost.",
        labels=(FALLBACK,),
    ),
    Declared(
        name="freehold_gateway_fallback_budget_usd",
        kind="gauge",
        help="What an endpoint of others may cost a day, US dollars.",
        labels=(FALLBACK,),
    ),
    Declared(
        name="freehold_gateway_fallback_in_flight",
        kind="gauge",
        help="Requests under way at an endpoint of others now, copies included.",
        labels=(FALLBACK,),
    ),
    Declared(
        name="freehold_ledger_records_total",
        kind="counter",
        help="Requests written to the ledger's spool.",
    ),
    Declared(
        name="freehold_ledger_dropped_total",
        kind="counter",
        help="Requests that could not be written down: the spool was full or failed.",
    ),
    Declared(
        name="freehold_ledger_spool_removed_total",
        kind="counter",
        help="Times that somebody removed a spool file in use; what it held is written again where that can be.",
    ),
    Declared(
        name="freehold_ledger_spool_bytes",
        kind="gauge",
        help="Bytes of records that are not in the ledger file yet.",
        pooled="max",
    ),
    Declared(
        name="freehold_ledger_lag_seconds",
        kind="gauge",
        help="Age of the oldest record that is not in the ledger file yet; 0: none waits.",
        pooled="max",
    ),
    Declared(
        name="freehold_ledger_drain_errors_total",
        kind="counter",
        help="Times that the ledger file could not be written to; the records stay in the spool.",
        pooled="max",
    ),
    Declared(
        name="freehold_health_up",
        kind="gauge",
        help="1 while the other freehold_health_ metrics are the present word of this node's agent, 0 while it is silent.",
        pooled="max",
    ),
    Declared(
        name="freehold_health_snapshot_age_seconds",
        kind="gauge",
        help="Time since this node's agent said last how the node is; absent until it has.",
        pooled="max",
    ),
    Declared(
        name="freehold_log_dropped_total",
        kind="counter",
        help="Log records lost because the log's disk or reader was too slow or failed.",
    ),
    Declared(
        name="freehold_access_log_dropped_total",
        kind="counter",
        help="Lines of the access log lost because its disk was too slow or failed.",
    ),
    Declared(
        name="freehold_bugs_total",
        kind="counter",
        help="Exceptions caught by a guard: mistakes of Freehold's own.",
        labels=(WHERE,),
    ),
    Declared(
        name="freehold_build_info",
        kind="gauge",
        help="Always 1; the label names the running version.",
        labels=(VERSION,),
        pooled="max",
    ),
    Declared(
        name="freehold_metrics_folded_total",
        kind="counter",
        help="Label values folded into `other` because a label was at its bound.",
        labels=(METRIC,),
    ),
)
"""What a gateway exposes of itself and of the stack."""

AGENT: tuple[Declared, ...] = (
    Declared(
        name="freehold_health_verdict",
        kind="gauge",
        help="Worst verdict of a probe on a kind of component: 0 not applicable, 1 healthy, 2 unknown, 3 degraded, 4 "
        "unhealthy.",
        labels=(PROBE, KIND),
    ),
    Declared(
        name="freehold_health_probe_seconds",
        kind="histogram",
        help="How long a probe took to judge what was read.",
        labels=(PROBE,),
        buckets=PROBE_BUCKETS_S,
    ),
    Declared(
        name="freehold_health_findings_total",
        kind="counter",
        help="Times that another verdict or reason was believed of a component, by the new reason.",
        labels=(PROBE, HEALTH_REASON),
    ),
    Declared(
        name="freehold_health_reader_state",
        kind="gauge",
        help="1 for the state that a reader of this node is in (ok, late, failed, waiting), 0 for the others.",
        labels=(READER, STATE),
    ),
    Declared(
        name="freehold_health_incidents",
        kind="gauge",
        help="Incidents of this node that go on, by what caused them and what to do.",
        labels=(HYPOTHESIS, ACTION),
    ),
    Declared(
        name="freehold_health_diagnoses_total",
        kind="counter",
        help="Times that an incident was diagnosed: on a node on which nothing happens, none.",
    ),
    Declared(
        name="freehold_health_log_dropped_total",
        kind="counter",
        help="Log records of the agent lost because the log's disk was too slow or failed.",
    ),
    Declared(
        name="freehold_health_bugs_total",
        kind="counter",
        help="Exceptions caught by a guard of the agent: mistakes of Freehold's own.",
        labels=(WHERE,),
    ),
    Declared(
        name="freehold_health_build_info",
        kind="gauge",
        help="Always 1; the label names the version that the agent runs.",
        labels=(VERSION,),
    ),
    Declared(
        name="freehold_health_metrics_folded_total",
        kind="counter",
        help="Label values of the agent's metrics folded into `other` because a label was at its bound.",
        labels=(METRIC,),
    ),
)
"""What a node's agent exposes, in its file and on the gateway's page, where it stands beside DECLARED: no name is in both."""
