from pathlib import Path
from random import Random

from freehold.core.events import ReplicaState as State
from freehold.engines.base import ExitCause, ExitKind
from freehold.fleet.decisions.decide import decide
from freehold.fleet.decisions.events import (
    Answered,
    Cordon,
    CountersRead,
    Exited,
    Fact,
    Launch,
    RestartAsked,
    Stalled,
    Started,
    StopAsked,
    Terminate,
)
from freehold.fleet.decisions.meter import tokens_per_s
from freehold.fleet.decisions.plan import FleetSettings
from freehold.fleet.decisions.state import FleetView, Replica, apply

SETTINGS = FleetSettings(log_dir=Path("/nowhere"))


def ready_view() -> FleetView:
    view = FleetView(settings=SETTINGS, replicas=(Replica(id="m-0"), Replica(id="m-1")))
    for event in (
        Launch(id="m-0", incarnation=1),
        Started(id="m-0", incarnation=1, pid=7, url="http://x"),
        Answered(id="m-0", incarnation=1),
    ):
        view = apply(view, event, 0.0)
    return view


def measured(*readings: tuple[float, float | None]) -> FleetView:
    view = ready_view()
    for now_s, total in readings:
        view = apply(view, CountersRead(id="m-0", incarnation=1, tokens_total=total, running=0.0), now_s)
    return view


def rate(*readings: tuple[float, float | None]) -> float | None:
    return tokens_per_s(measured(*readings).replicas[0].meter)


def test_a_rate_needs_two_readings_and_nought_is_a_real_rate() -> None:
    assert rate((0, 10.0)) is None
    assert rate((0, 10.0), (2, 50.0)) == 20.0
    assert rate((0, 10.0), (2, 10.0)) == 0.0


def test_a_failed_reading_makes_the_rate_unknown_and_never_nought() -> None:
    assert rate((0, 10.0), (2, 50.0), (4, None)) is None
    assert rate((0, 10.0), (2, 50.0), (4, None), (6, 90.0)) is None
    assert rate((0, 10.0), (2, None), (4, 20.0), (6, 40.0)) == 10.0


def test_a_count_that_falls_begins_anew() -> None:
    assert rate((0, 1000.0), (2, 5.0)) is None
    assert rate((0, 1000.0), (2, 5.0), (4, 25.0)) == 10.0


def test_the_rate_forgets_what_is_older_than_its_window() -> None:
    burst = [(0.0, 0.0), (2.0, 1000.0), *((2.0 * i, 1000.0) for i in range(2, 9))]
    assert rate(*burst) == 0.0
    assert rate((0, 0.0), (60, 600.0)) == 10.0


def test_facts_about_an_older_or_unknown_incarnation_change_nothing() -> None:
    view = ready_view()
    cause = ExitCause(kind=ExitKind.CRASHED, summary="x")
    strangers: list[Fact] = [
        Exited(id="m-0", incarnation=0, cause=cause),
        Exited(id="m-0", incarnation=2, cause=cause),
        Answered(id="m-1", incarnation=1),
        Started(id="no-such", incarnation=1, pid=1, url=""),
    ]
    for fact in strangers:
        assert apply(view, fact, 1.0) == view


def test_an_exit_takes_the_address_and_the_readings_with_it() -> None:
    view = apply(measured((0, 1.0), (2, 2.0)), _exit(), 3.0)
    replica = view.replicas[0]
    assert (replica.state, replica.url, replica.process) == (State.BACKOFF, "", None)
    assert tokens_per_s(replica.meter) is None
    late = CountersRead(id="m-0", incarnation=1, tokens_total=5.0, running=0.0)
    assert apply(view, late, 4.0) == view


def asleep(view: FleetView, *, asleep: bool | None, now_s: float) -> FleetView:
    return apply(
        view, CountersRead(id="m-0", incarnation=1, tokens_total=1.0, running=0.0, asleep=asleep), now_s
    )


def test_an_engine_that_says_that_it_sleeps_serves_no_more_until_it_says_that_it_is_awake() -> None:
    view = asleep(ready_view(), asleep=True, now_s=5.0)
    assert (view.replicas[0].state, view.replicas[0].since_s) == (State.ASLEEP, 5.0)
    assert asleep(view, asleep=None, now_s=6.0).replicas[0].state is State.ASLEEP
    view = asleep(view, asleep=False, now_s=7.0)
    assert (view.replicas[0].state, view.replicas[0].reason) == (State.READY, "")
    assert asleep(view, asleep=None, now_s=8.0).replicas[0].state is State.READY


def test_an_engine_that_sleeps_is_not_called_stalled_neither_before_nor_after() -> None:
    stalled = Stalled(id="m-0", incarnation=1, reason="it hangs")
    view = asleep(apply(ready_view(), stalled, 1.0), asleep=True, now_s=2.0)
    assert apply(view, stalled, 3.0).replicas[0].stalled == ""
    assert not [a for a in decide(view, 3.0, Random(1)) if isinstance(a, Terminate)]


def test_an_engine_that_sleeps_is_restarted_and_stopped_like_one_that_serves() -> None:
    view = asleep(ready_view(), asleep=True, now_s=2.0)
    for wish in (RestartAsked(id="m-0"), StopAsked()):
        orders = [each for each in decide(apply(view, wish, 3.0), 3.0, Random(1)) if each.id == "m-0"]
        assert [type(each) for each in orders] == [Cordon]


def _exit() -> Exited:
    return Exited(id="m-0", incarnation=1, cause=ExitCause(kind=ExitKind.CRASHED, summary="x"))


def test_who_has_served_is_started_again_whatever_its_last_lines_say() -> None:
    """A client's words in a log can look like a mistake in the options; those were right a minute ago."""
    told = ExitCause(kind=ExitKind.BAD_OPTION, summary="it refused an option", restart=False)
    served = apply(ready_view(), Exited(id="m-0", incarnation=1, cause=told), 9.0)
    assert not served.replicas[0].trouble.final
    started = apply(ready_view(), Launch(id="m-1", incarnation=1), 1.0)
    never = apply(started, Exited(id="m-1", incarnation=1, cause=told), 9.0)
    assert never.replicas[1].trouble.final
