from freehold.engines.base import Metric
from freehold.engines.shared.metrics_page import read_metrics

TOKENS = Metric(name="generated_tokens_total", theirs=("new:tokens_total", "old:tokens_total"))
RUNNING = Metric(name="running_requests", theirs=("eng:running",))

PAGE = """\
# HELP old:tokens_total Tokens {of} 7
# TYPE old:tokens_total counter
old:tokens_total 12
old:tokens_total_created 1.7e9
eng:running{model="a } b 5",engine="0"} 2 1700000000000
eng:running{model="b",engine="1"} 3
"""


def test_samples_are_found_by_their_whole_name_and_added_over_labels() -> None:
    assert read_metrics(PAGE, [TOKENS, RUNNING]) == {"generated_tokens_total": 12.0, "running_requests": 5.0}


def test_the_newest_name_that_is_there_counts() -> None:
    assert read_metrics(PAGE + "new:tokens_total 99\n", [TOKENS]) == {"generated_tokens_total": 99.0}


def test_scale_turns_their_unit_into_ours() -> None:
    metric = Metric(name="busy_s", theirs=("busy_ms",), scale=0.001)
    assert read_metrics("busy_ms 1500\n", [metric]) == {"busy_s": 1.5}


def test_what_is_no_number_is_unknown_and_not_nought() -> None:
    for value in ("NaN", "+Inf", "-Inf", "", "many"):
        assert read_metrics(f"eng:running {value}\n", [RUNNING]) == {}
    assert read_metrics("", [RUNNING]) == {}
    assert read_metrics("eng:running 0\n", [RUNNING]) == {"running_requests": 0.0}


def test_of_samples_with_a_label_only_those_with_the_value_count() -> None:
    page = 'eng:running{model="a",priority=""} 5\neng:running{model="a",priority="1"} 3\neng:running{model="b"} 2\n'
    total = Metric(name="running_requests", theirs=("eng:running",), only=("priority", ""))
    assert read_metrics(page, [total, TOKENS]) == {"running_requests": 7.0}
    everything = Metric(name="decode_steps_total", theirs=("eng:running",))
    assert read_metrics(page, [total, everything]) == {"running_requests": 7.0, "decode_steps_total": 10.0}
