"""What is said of an engine: from counters, CPU time and processes, over scripted looks two seconds apart."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from freehold.core.findings import Action, Finding, Verdict
from freehold.health.checks.engine_progress import NO_PROGRESS_S, PROBE
from freehold.health.model.probe import Expected
from freehold.health.model.view import EngineView, Gpu, Gpus, Reading, State, View

STEP_S = 2.0
BASE: dict[str, Any] = {
    "replica": "m-0", "engine": "llama-cpp", "pid": 7, "gateway_running": 0, "gateway_progress": 0,
    "running": Reading(value=0), "tokens_total": Reading(value=100), "cpu_s": Reading(value=5.0), "process_state": "S",
}  # fmt: skip
HUNG: dict[str, Any] = {
    "state": State.HUNG,
    "running": Reading(state=State.HUNG),
    "tokens_total": Reading(state=State.HUNG),
}
LEFT: dict[str, Any] = {"running": Reading(value=1)}
"""It has a request, and the gateway has none there."""
WORK: dict[str, Any] = {"gateway_running": 1, "running": Reading(value=1)}


def looks(
    count: int, *changes: dict[str, Any], cpu: float = 0.0, tokens: float = 0.0, first: int = 0
) -> list[View]:
    """Return `count` looks in which CPU seconds and tokens grow by so much a look."""
    views = []
    for number in range(first, first + count):
        engine = EngineView(
            **{
                **BASE,
                "cpu_s": Reading(value=5.0 + cpu * number),
                "tokens_total": Reading(value=100 + tokens * number),
                **{name: value for change in changes for name, value in change.items()},
            }
        )
        at_s = number * STEP_S
        views.append(View(at_s=1e9 + at_s, monotonic_s=at_s, engines=(engine,)))
    return views


def said(views: Sequence[View]) -> Finding:
    (finding,) = PROBE.check(views, Expected())
    return finding


@pytest.mark.parametrize(
    ("views", "verdict", "reason"),
    [
        (looks(6), Verdict.HEALTHY, "idle"),
        (looks(6, WORK, tokens=3), Verdict.HEALTHY, "progressing"),
        (looks(2, WORK), Verdict.HEALTHY, "progressing"),  # not still for long enough
        (looks(6, WORK), Verdict.UNHEALTHY, "stalled"),
        (looks(6, WORK, HUNG), Verdict.UNHEALTHY, "stalled"),
        (looks(6, WORK, HUNG, cpu=1.0), Verdict.HEALTHY, "busy"),
        (looks(6, WORK, cpu=1.0), Verdict.HEALTHY, "busy"),
        (looks(6, WORK, HUNG, {"process_state": "R"}), Verdict.HEALTHY, "busy"),  # it would run if it could
        (looks(6, WORK, HUNG, {"process_state": "t"}), Verdict.HEALTHY, "busy"),  # a debugger holds it
        (looks(6, WORK, {"process_state": "D"}), Verdict.UNHEALTHY, "blocked"),
        (looks(1, {"process_state": "T"}), Verdict.UNHEALTHY, "stalled"),
        (looks(1, {"process_state": "X", "cpu_s": Reading(state=State.ABSENT)}), Verdict.UNHEALTHY, "dead"),
        (looks(1, {"pid": 0, "exit_text": "it crashed", "serves": "backoff"}), Verdict.UNHEALTHY, "dead"),
        (looks(1, {"serves": "starting", "state": State.ABSENT}), Verdict.NOT_APPLICABLE, "not_serving"),
        (looks(6, WORK, {"serves": "asleep"}), Verdict.NOT_APPLICABLE, "not_serving"),
        (looks(20, HUNG, {"running": Reading(state=State.HUNG)}), Verdict.DEGRADED, "unresponsive"),
        (looks(20, HUNG, cpu=1.0), Verdict.HEALTHY, "busy"),
        (looks(6, {"canary": Reading(state=State.HUNG)}), Verdict.UNHEALTHY, "canary_failed"),
        (looks(6, {"canary_waits_s": 9.0}, HUNG), Verdict.UNHEALTHY, "stalled"),
        (looks(400, WORK, HUNG, cpu=1.0), Verdict.DEGRADED, "no_progress"),
        (looks(62, LEFT, cpu=1.0), Verdict.UNHEALTHY, "no_client"),
        (looks(62, LEFT, cpu=1.0, tokens=3), Verdict.UNHEALTHY, "no_client"),  # it writes to nobody
        (looks(62, HUNG, cpu=1.0), Verdict.UNHEALTHY, "no_client"),
        (looks(59, LEFT, cpu=1.0), Verdict.HEALTHY, "busy"),
        (looks(17, LEFT, {"stall_s": 5.0}, cpu=1.0), Verdict.UNHEALTHY, "no_client"),
        (looks(15, LEFT, {"stall_s": 5.0}, cpu=1.0), Verdict.HEALTHY, "busy"),
        (looks(62, LEFT, {"pid": 0}, cpu=1.0), Verdict.HEALTHY, "busy"),  # external: it may serve others
        (looks(62, LEFT, {"gateway_running": None}, cpu=1.0), Verdict.HEALTHY, "busy"),
        (looks(62, LEFT, {"canary_waits_s": 1.0}, cpu=1.0), Verdict.HEALTHY, "busy"),
        (looks(62), Verdict.HEALTHY, "idle"),
        # Requests that came since wait behind it.
        (looks(5, LEFT, cpu=1.0) + looks(57, WORK, HUNG, cpu=1.0, first=5), Verdict.UNHEALTHY, "no_client"),
        (
            looks(5, LEFT, cpu=1.0) + looks(57, WORK, cpu=1.0, tokens=3, first=5),
            Verdict.HEALTHY,
            "progressing",
        ),
        # One look may have missed a request that had just come.
        (looks(1, LEFT, cpu=1.0) + looks(61, WORK, HUNG, cpu=1.0, first=1), Verdict.HEALTHY, "busy"),
        (looks(int(NO_PROGRESS_S / STEP_S) - 1, WORK, HUNG, cpu=1.0), Verdict.HEALTHY, "busy"),
    ],
)
def test_one_engine(views: list[View], verdict: Verdict, reason: str) -> None:
    finding = said(views)
    assert (finding.verdict, finding.reason) == (verdict, reason), finding.message
    assert finding.component == "engine:m-0"
    assert finding.reason in PROBE.reasons


def test_a_hang_in_the_middle_of_an_answer_is_found_at_the_fourth_still_look() -> None:
    before = looks(10, WORK, tokens=5)
    still = before[-1].engines
    assert still is not None
    found = []
    views = list(before)
    for number in range(10, 16):
        views.append(View(at_s=1e9, monotonic_s=number * STEP_S, engines=still))
        found.append(said(views).reason)
    assert found == ["progressing", "progressing", "progressing", "stalled", "stalled", "stalled"]


def test_a_long_prompt_between_two_words_is_busy_and_then_progressing() -> None:
    views = looks(5, WORK, tokens=5, cpu=1.9)
    views += looks(30, WORK, HUNG, cpu=1.9, first=5)
    assert said(views).reason == "busy"
    views += looks(1, WORK, {"tokens_total": Reading(value=7000)}, cpu=1.9, first=35)
    assert said(views).reason == "progressing"


def test_progress_counts_over_looks_that_got_no_answer() -> None:
    views = looks(3, WORK, tokens=5)
    views += looks(2, WORK, HUNG, first=3)
    views += looks(1, WORK, tokens=5, first=5)
    assert said(views).reason == "progressing"


def test_requests_that_only_the_gateway_knows_of_are_no_stall() -> None:
    """A client that reads slowly keeps its request open long after the engine has finished it."""
    assert said(looks(20, {"gateway_running": 1})).reason == "idle"
    finding = said(looks(100, {"gateway_running": 1}))
    assert (finding.reason, finding.verdict) == ("no_progress", Verdict.DEGRADED)


def test_work_that_just_began_starts_the_count_anew() -> None:
    views = looks(30) + looks(2, WORK, HUNG, first=30)
    assert said(views).reason == "progressing"


def test_the_last_word_counts_where_no_gateway_is_there_to_ask() -> None:
    alone = {"gateway_running": None, "gateway_progress": None}
    views = looks(3, alone, {"running": Reading(value=1)}, tokens=4) + looks(6, alone, HUNG, first=3)
    assert said(views).reason == "stalled"


def test_another_process_begins_anew() -> None:
    views = looks(10, WORK) + looks(2, WORK, {"pid": 8}, first=10)
    assert said(views).reason == "progressing"


def test_an_engine_of_others_is_never_called_stalled() -> None:
    remote = {
        "pid": 0, "process_state": "", "engine": "external", "gateway_running": 2,
        "running": Reading(state=State.UNSUPPORTED), "tokens_total": Reading(state=State.UNSUPPORTED),
        "cpu_s": Reading(state=State.UNKNOWN),
    }  # fmt: skip
    assert said(looks(50, remote)).reason == "busy"
    finding = said(looks(80, remote))
    assert (finding.reason, finding.verdict, finding.action) == (
        "no_progress",
        Verdict.DEGRADED,
        Action.WATCH,
    )
    assert said(looks(9, remote, {"gateway_running": None})).verdict is Verdict.UNKNOWN


def test_a_gpu_at_work_excuses_an_engine_that_sleeps_for_a_while() -> None:
    gpus = Gpus(gpus=(Gpu(index=0, readings={"utilisation_percent": Reading(value=97)}),))
    views = [msgspec.structs.replace(view, gpus=gpus) for view in looks(100, WORK)]
    assert said(views[:20]).reason == "busy"
    assert said(views).reason == "stalled"


def test_no_engines_are_none() -> None:
    assert said([View(at_s=0, monotonic_s=0, engines=())]).verdict is Verdict.NOT_APPLICABLE
    assert said([View(at_s=0, monotonic_s=0)]).verdict is Verdict.UNKNOWN


def test_the_evidence_says_where_it_was_read() -> None:
    evidence = {each.what: (each.value, each.source) for each in said(looks(6, WORK)).evidence}
    assert evidence == {
        "counters": ("100", "engine metrics"),
        "requests running": ("1", "engine metrics"),
        "requests under way": ("1", "gateway"),
        "CPU time": ("0.000 cores over 7 s", "/proc/PID/stat"),
        "process state": ("S", "/proc/PID/stat"),
    }
