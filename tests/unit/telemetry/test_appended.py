"""Whether another process's metrics may stand on a page as they are."""

import random

import pytest
from prometheus_client.parser import text_string_to_metric_families

from freehold.telemetry.appended import TEXT_BYTES_MOST, why_not
from freehold.telemetry.declared import AGENT, DECLARED
from freehold.telemetry.metrics import Metrics

PREFIX = "freehold_health_"
TAKEN = frozenset(row.name for row in DECLARED)
ROW = f"# TYPE {PREFIX}a gauge\n{PREFIX}a"


def rendered() -> str:
    metrics = Metrics(AGENT, namespace="freehold_health")
    metrics.gauge("freehold_health_verdict").set("gpu_xid", "gpu", to=4)
    metrics.gauge("freehold_health_verdict").set('a"b\\c\nd', "é", to=float("inf"))
    metrics.histogram("freehold_health_probe_seconds").observe("clock", value=1e-9)
    metrics.counter("freehold_health_findings_total").add("clock", "jumped")
    metrics.gauge("freehold_health_reader_state").set("host", "ok", to=float("nan"))
    return metrics.render()[0].decode()


def test_what_our_own_renderer_writes_is_fit_and_so_is_nothing() -> None:
    assert why_not(rendered(), prefix=PREFIX, taken=TAKEN) == ""
    assert why_not("", prefix=PREFIX) == ""


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("garbage\n", "not a line of a metric"),
        ("\n", "not a line of a metric"),
        (f"{ROW} 1", "last line is not whole"),
        (f"{ROW} 1\n# EOF\n", "not a line of a metric"),
        (f"{ROW} 1 1700000000000\n", "not a line of a metric"),
        (f"{ROW} one\n", "not a line of a metric"),
        (f"{ROW}{{b=1}} 1\n", "not a line of a metric"),
        (f'{ROW}{{b="1}} 1\n', "not a line of a metric"),
        (f'{ROW}{{b="\\x"}} 1\n', "not a line of a metric"),
        (f'{ROW}{{b="\ud800"}} 1\n', "not a line of a metric"),
        (f'{ROW}{{b="1",b="2"}} 1\n', "a label twice"),
        (f'{ROW}{{le="1"}} 1\n', "is not a bucket"),
        (f"# TYPE {PREFIX}a histogram\n{PREFIX}a_bucket 1\n", "without a bound"),
        (f"{ROW} 1\n{PREFIX}a 2\n", "repeats a series"),
        (f'{ROW}{{b="1",c="2"}} 1\n{PREFIX}a{{c="2",b="1"}} 2\n', "repeats a series"),
        (f"{ROW} 1\n{ROW} 2\n", "there already"),
        (f"{ROW} 1\n{PREFIX}b 2\n", "another metric"),
        (f"# HELP {PREFIX}a A.\n{PREFIX}a 1\n", "another metric"),
        (f"{PREFIX}a 1\n", "another metric"),
        (f"# TYPE {PREFIX}a summary\n{PREFIX}a 1\n", "not a line of a metric"),
        ("# TYPE freehold_bugs_total counter\nfreehold_bugs_total 1\n", "does not begin with"),
        (f"# TYPE {PREFIX}up gauge\n{PREFIX}up 1\n", "there already"),
        (f"# HELP {PREFIX}a A \\b.\n", "not a line of a metric"),
        (f"# HELP {PREFIX}a {'x' * TEXT_BYTES_MOST}\n", "longer than"),
    ],
)
def test_what_might_cost_a_scraper_the_page_is_refused(text: str, why: str) -> None:
    assert why in why_not(text, prefix=PREFIX, taken=TAKEN)


def test_whatever_is_spoilt_is_refused_or_still_read_by_prometheus_own_parser() -> None:
    rng = random.Random(5)  # the same spoiling on each run
    good = rendered()
    refused = 0
    for _ in range(200):
        at = rng.randrange(len(good))
        spoilt = (
            good[:at] + rng.choice(["", "\n", '"', "{", "x", " ", "#", "\\", "\x00", "1"]) + good[at + 1 :]
        )
        if why_not(spoilt, prefix=PREFIX, taken=TAKEN):
            refused += 1
        else:
            names = [family.name for family in text_string_to_metric_families(spoilt)]
            assert len(names) == len(set(names))
    assert refused > 50
