import random
from dataclasses import replace
from pathlib import Path

import pytest

from freehold.core.events import ReplicaState as State
from freehold.engines.base import ExitCause, ExitKind
from freehold.fleet.decisions.decide import NEVER_S, all_stopped, backoff_s, decide, next_due_s
from freehold.fleet.decisions.events import (
    Abandon,
    Action,
    Answered,
    AskReady,
    Cordon,
    CountersRead,
    Exited,
    Fact,
    GiveUp,
    Kill,
    Launch,
    ReadCounters,
    Recovered,
    RestartAsked,
    Schedule,
    Settle,
    Stalled,
    Started,
    StopAsked,
    Terminate,
    Unanswered,
)
from freehold.fleet.decisions.plan import FleetSettings
from freehold.fleet.decisions.state import FleetView, Replica, apply

SETTINGS = FleetSettings(log_dir=Path("/nowhere"))
CRASH = ExitCause(kind=ExitKind.CRASHED, summary="it crashed", hint="mend it")
RNG = random.Random(1)


class Story:
    """One replica's view with a clock that the test moves; orders are applied as they are given."""

    def __init__(
        self, *, managed: bool = True, metered: bool = True, settings: FleetSettings = SETTINGS
    ) -> None:
        url = "" if managed else "http://elsewhere"
        self.view = FleetView(
            settings=settings, replicas=(Replica(id="m-0", managed=managed, metered=metered, url=url),)
        )
        self.now_s = 0.0

    @property
    def replica(self) -> Replica:
        return self.view.replicas[0]

    def orders(self, fact: Fact | None = None) -> list[Action]:
        """Return what is ordered after a fact, one order at a time, until there is rest."""
        if fact is not None:
            self.view = apply(self.view, fact, self.now_s)
        given: list[Action] = []
        while orders := decide(self.view, self.now_s, RNG):
            given += orders
            for order in orders:
                self.view = apply(self.view, order, self.now_s)
        return given

    def wait(self) -> list[Action]:
        """Move on to the next due time and return the orders there."""
        self.now_s = max(self.now_s, next_due_s(self.view))
        return self.orders()

    def exit(self, cause: ExitCause = CRASH) -> list[Action]:
        return self.orders(Exited(id="m-0", incarnation=self.replica.incarnation, cause=cause))

    def start(self) -> list[Action]:
        return self.orders(Started(id="m-0", incarnation=self.replica.incarnation, pid=7, url="http://x"))

    def answer(self) -> list[Action]:
        return self.orders(Answered(id="m-0", incarnation=self.replica.incarnation))

    def become_ready(self) -> None:
        self.orders()
        self.start()
        self.answer()
        assert self.replica.state is State.READY

    def measure(self, running: float | None) -> list[Action]:
        incarnation = self.replica.incarnation
        return self.orders(CountersRead(id="m-0", incarnation=incarnation, tokens_total=1.0, running=running))


def kinds(orders: list[Action]) -> list[type]:
    return [type(order) for order in orders]


def test_a_wanted_replica_is_launched_then_asked_then_measured() -> None:
    story = Story()
    assert story.orders() == [Launch(id="m-0", incarnation=1)]
    assert story.orders() == []
    assert kinds(story.start()) == [AskReady]
    assert kinds(story.answer()) == [ReadCounters]
    assert story.replica.state is State.READY


def test_one_question_at_a_time_and_a_pause_after_a_miss() -> None:
    story = Story()
    story.orders()
    story.start()
    assert next_due_s(story.view) == SETTINGS.ready_timeout_s
    assert story.orders(Unanswered(id="m-0", incarnation=1, reason="loading")) == []
    assert next_due_s(story.view) == SETTINGS.ready_poll_s
    assert kinds(story.wait()) == [AskReady]


@pytest.mark.parametrize(("failures", "full_s"), [(1, 0.5), (2, 1.0), (5, 8.0), (7, 30.0), (10_000, 30.0)])
def test_back_off_doubles_to_its_limit_and_half_is_chance(failures: int, full_s: float) -> None:
    delays_s = [backoff_s(SETTINGS, failures, random.Random(seed)) for seed in range(200)]
    assert full_s / 2 <= min(delays_s) < full_s * 0.52
    assert full_s * 0.98 < max(delays_s) <= full_s


def test_five_failures_before_it_was_ever_ready_are_a_crash_loop() -> None:
    story = Story()
    story.orders()
    for _ in range(SETTINGS.unready_failures_max - 1):
        assert kinds(story.exit()) == [Schedule]
        assert kinds(story.wait()) == [Launch]
    (given_up,) = story.exit()
    assert isinstance(given_up, GiveUp)
    assert (story.replica.state, story.replica.hint) == (State.CRASH_LOOP, "mend it")
    assert story.replica.reason == "failed 5 times in a row before it was ready; last: it crashed"


def test_a_crash_loop_is_tried_again_slowly_until_it_serves_or_at_once_by_an_operator() -> None:
    story = Story()
    while story.replica.state is not State.CRASH_LOOP:
        story.wait()
        story.exit(replace(CRASH, hint=""))
    assert story.replica.hint.startswith("it is tried again every 5 min; see `freehold logs m-0`")
    assert kinds(story.orders(RestartAsked(id="m-0"))) == [Launch]
    while kinds(story.exit()) != [GiveUp]:
        story.wait()
    assert next_due_s(story.view) == story.now_s + SETTINGS.crash_loop_retry_s
    for _ in range(3):
        assert kinds(story.wait()) == [Launch]
        assert kinds(story.exit()) == [GiveUp]
    story.wait()
    story.become_ready()
    story.now_s += SETTINGS.stable_s + 1
    (soon,) = story.exit()
    assert isinstance(soon, Schedule)


def test_slow_failures_before_ready_are_a_crash_loop_too() -> None:
    story = Story()
    story.orders()
    for _ in range(SETTINGS.unready_failures_max - 1):
        story.now_s += SETTINGS.failure_window_s + 1
        story.exit()
        story.wait()
    assert kinds(story.exit()) == [GiveUp]


def test_five_exits_of_a_replica_that_was_ready_within_the_window_are_a_crash_loop() -> None:
    story = Story()
    for _ in range(SETTINGS.window_failures_max - 1):
        story.become_ready()
        story.now_s += 30
        assert kinds(story.exit()) == [Schedule]
        story.now_s = next_due_s(story.view)
    story.become_ready()
    assert kinds(story.exit()) == [GiveUp]
    assert story.replica.reason.startswith("failed 5 times within 9")


def test_a_stable_while_forgives() -> None:
    story = Story()
    for _ in range(4 * SETTINGS.window_failures_max):
        story.become_ready()
        story.now_s += SETTINGS.stable_s + 1
        (schedule,) = story.exit()
        assert isinstance(schedule, Schedule)
        assert schedule.delay_s <= SETTINGS.backoff_base_s
        story.now_s = next_due_s(story.view)


def test_an_exit_that_must_repeat_itself_is_not_repeated() -> None:
    story = Story()
    story.orders()
    orders = story.exit(ExitCause(kind=ExitKind.BAD_WEIGHTS, summary="bad weights", restart=False))
    assert kinds(orders) == [GiveUp]
    assert story.replica.reason == "bad weights"
    assert next_due_s(story.view) == NEVER_S
    assert "freehold logs m-0" in story.replica.hint


def test_a_taken_port_costs_no_failure_until_it_happens_too_often() -> None:
    story = Story()
    taken = ExitCause(kind=ExitKind.PORT_IN_USE, summary="port in use")
    story.orders()
    for _ in range(SETTINGS.port_retries_max):
        assert kinds(story.exit(taken)) == [Launch]
    assert story.now_s == 0.0
    assert kinds(story.exit(taken)) == [Schedule]


def test_not_ready_in_time_is_ended_and_counts_whatever_its_exit_code_says() -> None:
    story = Story()
    story.orders()
    story.start()
    orders = story.wait()
    assert kinds(orders) == [Terminate]
    assert story.now_s == SETTINGS.ready_timeout_s
    story.exit(ExitCause(kind=ExitKind.STOPPED, summary="stopped", restart=False))
    assert story.replica.state is State.BACKOFF
    assert story.replica.reason.startswith("not ready within 900 s")
    assert "fleet.ready_timeout" in story.replica.hint
    assert story.replica.trouble.unready_row == 1


def test_restart_wakes_a_crash_loop_with_a_clean_slate() -> None:
    story = Story()
    story.orders()
    story.exit(ExitCause(kind=ExitKind.BAD_OPTION, summary="bad option", restart=False))
    assert kinds(story.orders(RestartAsked(id="m-0"))) == [Launch]
    assert kinds(story.exit()) == [Schedule]
    assert story.replica.trouble.row == 1


def test_restart_of_a_ready_replica_drains_it_and_is_no_failure() -> None:
    story = Story()
    story.become_ready()
    story.measure(running=1.0)
    assert kinds(story.orders(RestartAsked(id="m-0"))) == [Cordon]
    assert kinds(story.wait()) == [ReadCounters]
    assert story.measure(running=1.0) == []
    assert kinds(story.wait()) == [ReadCounters]
    assert kinds(story.measure(running=0.0)) == [Terminate]
    assert kinds(story.exit()) == [Launch]
    assert story.replica.trouble.row == 0


def test_an_idle_reading_from_before_the_cordon_ends_no_stream() -> None:
    story = Story()
    story.become_ready()  # a reading is under way
    assert kinds(story.orders(StopAsked())) == [Cordon]
    assert story.measure(running=0.0) == []
    assert story.replica.state is State.DRAINING


def test_without_counters_a_drain_takes_its_full_time() -> None:
    story = Story(metered=False)
    story.become_ready()
    assert kinds(story.orders(StopAsked())) == [Cordon]
    assert kinds(story.wait()) == [Terminate]
    assert story.now_s == SETTINGS.drain_s


def test_a_stop_with_nothing_running_waits_for_nothing() -> None:
    story = Story()
    story.become_ready()
    assert kinds(story.orders(StopAsked(drained=True))) == [Cordon, Terminate]
    assert not all_stopped(story.view)
    assert story.exit() == []
    assert all_stopped(story.view)


def test_a_silent_minder_is_killed_after_the_grace_and_more_haste_kills_at_once() -> None:
    story = Story()
    story.become_ready()
    story.orders(StopAsked(drained=True))
    patient = replace(story.view)
    assert kinds(story.wait()) == [Kill]
    assert story.now_s == SETTINGS.stop_grace_s + SETTINGS.kill_margin_s
    story.view, story.now_s = patient, 1.0
    assert kinds(story.orders(StopAsked(hurry=True))) == [Kill]


def test_what_survives_sigkill_is_named_and_never_replaced() -> None:
    story = Story()
    story.become_ready()
    story.orders(RestartAsked(id="m-0"))
    while story.replica.state is not State.CRASH_LOOP:
        story.wait()
    assert story.replica.reason == "process 7 survives SIGKILL: it hangs in the kernel"
    assert story.orders(RestartAsked(id="m-0")) == []
    assert story.orders(StopAsked()) != []
    assert all_stopped(story.view)


def test_stopping_settles_what_waits_for_its_restart() -> None:
    story = Story()
    story.orders()
    story.exit()
    assert story.replica.state is State.BACKOFF
    assert kinds(story.orders(StopAsked())) == [Settle]
    assert all_stopped(story.view)
    assert story.orders(RestartAsked(id="m-0")) == []


def test_an_external_endpoint_is_asked_and_never_started() -> None:
    story = Story(managed=False, metered=False)
    assert kinds(story.orders()) == [AskReady]
    assert (story.replica.state, story.replica.reason) == (State.STARTING, "no answer yet")
    story.orders(Unanswered(id="m-0", incarnation=0, reason="no connection", hint="is it up?"))
    assert (story.replica.state, story.replica.reason) == (State.STARTING, "no connection")
    assert kinds(story.wait()) == [AskReady]
    story.answer()
    assert story.replica.state is State.READY
    for misses in range(1, SETTINGS.external_misses_max + 1):
        assert story.replica.state is State.READY, misses
        assert kinds(story.wait()) == [AskReady]
        story.orders(Unanswered(id="m-0", incarnation=0, reason="no connection"))
    assert story.replica.state is State.BACKOFF
    story.wait()
    story.answer()
    assert story.replica.state is State.READY
    assert kinds(story.orders(StopAsked())) == [Cordon, Settle]
    assert all_stopped(story.view)


def test_an_engine_that_hangs_is_ended_at_once_and_started_again_as_after_a_failure() -> None:
    story = Story()
    story.become_ready()
    incarnation = story.replica.incarnation
    stalled = Stalled(id="m-0", incarnation=incarnation, reason="1 request under way, nothing moves")
    (order,) = story.orders(stalled)
    assert order == Terminate(
        id="m-0", incarnation=incarnation, grace_s=1.0, blame="it hung: 1 request under way, nothing moves"
    )
    assert story.replica.state is State.STOPPING
    story.exit(ExitCause(kind=ExitKind.KILLED, summary="killed"))
    assert story.replica.state is State.BACKOFF
    assert story.replica.reason == "it hung: 1 request under way, nothing moves"
    launches = [order for order in story.wait() if isinstance(order, Launch)]
    assert [order.incarnation for order in launches] == [incarnation + 1]
    assert story.replica.stalled == ""


def test_a_hang_of_a_process_before_or_of_one_that_does_not_serve_changes_nothing() -> None:
    story = Story()
    story.orders()
    story.start()
    assert story.orders(Stalled(id="m-0", incarnation=1, reason="x")) == []  # it is loading
    story.answer()
    assert story.replica.state is State.READY
    assert story.orders(Stalled(id="m-0", incarnation=0, reason="x")) == []
    assert story.replica.stalled == ""


def test_an_engine_of_others_is_never_ended_for_hanging() -> None:
    story = Story(managed=False)
    story.orders()
    story.answer()
    story.orders(Stalled(id="m-0", incarnation=story.replica.incarnation, reason="x"))
    assert story.replica.stalled == ""


class Several:
    """Several ready replicas of one model or more; orders are applied as they are given."""

    def __init__(self, *models: str) -> None:
        self.now_s = 100.0
        self.view = FleetView(
            settings=SETTINGS,
            replicas=tuple(Replica(id=f"{model}-{n}", model=model) for n, model in enumerate(models)),
        )
        self.tell()
        for replica in self.view.replicas:
            self.come_up(replica.id)
        assert {replica.state for replica in self.view.replicas} == {State.READY}

    def __getitem__(self, replica_id: str) -> Replica:
        found = self.view.find(replica_id)
        assert found is not None
        return found

    def tell(self, *facts: Fact) -> list[Action]:
        for fact in facts:
            self.view = apply(self.view, fact, self.now_s)
        given: list[Action] = []
        while orders := decide(self.view, self.now_s, RNG):
            given += orders
            for order in orders:
                self.view = apply(self.view, order, self.now_s)
        return given

    def come_up(self, replica_id: str) -> list[Action]:
        incarnation = self[replica_id].incarnation
        started = Started(id=replica_id, incarnation=incarnation, pid=7, url="http://x")
        return self.tell(started, Answered(id=replica_id, incarnation=incarnation))

    def stall(self, *ids: str) -> list[str]:
        """Return whom it ends."""
        facts = [Stalled(id=each, incarnation=self[each].incarnation, reason="hangs") for each in ids]
        return ended(self.tell(*facts))

    def exit(self, replica_id: str, cause: ExitCause = CRASH) -> list[Action]:
        return self.tell(Exited(id=replica_id, incarnation=self[replica_id].incarnation, cause=cause))

    def relaunch(self, replica_id: str) -> None:
        """Let the process that hung end, and the next one be launched."""
        self.exit(replica_id)
        due_s = self[replica_id].due_s
        assert due_s is not None
        self.now_s = due_s
        assert [o.id for o in self.tell() if isinstance(o, Launch)] == [replica_id]


def ended(orders: list[Action]) -> list[str]:
    return [order.id for order in orders if isinstance(order, Terminate)]


def test_of_several_that_hang_at_once_one_is_replaced_and_the_others_wait_until_it_is_ready() -> None:
    fleet = Several("m", "m", "m")
    assert fleet.stall("m-0", "m-1", "m-2") == ["m-0"]
    assert next_due_s(fleet.view) > fleet.now_s  # it does not spin meanwhile
    fleet.relaunch("m-0")
    assert [fleet[each].state for each in ("m-1", "m-2")] == [State.READY] * 2
    assert ended(fleet.come_up("m-0")) == ["m-1"]
    fleet.relaunch("m-1")
    assert ended(fleet.come_up("m-1")) == ["m-2"]


@pytest.mark.parametrize("later", [False, True])
def test_one_that_hangs_while_another_is_replaced_waits_too(*, later: bool) -> None:
    fleet = Several("m", "m")
    assert fleet.stall("m-1") == ["m-1"]
    if later:
        fleet.relaunch("m-1")
    assert fleet.stall("m-0") == []
    if not later:
        fleet.relaunch("m-1")
    assert ended(fleet.come_up("m-1")) == ["m-0"]


def test_when_the_next_process_fails_before_it_is_ready_the_others_wait_no_longer() -> None:
    fleet = Several("m", "m")
    fleet.stall("m-0", "m-1")
    fleet.relaunch("m-0")
    assert ended(fleet.exit("m-0")) == ["m-1"]


def test_a_taken_port_is_no_failure_and_is_waited_for() -> None:
    fleet = Several("m", "m")
    fleet.stall("m-0", "m-1")
    fleet.relaunch("m-0")
    taken = ExitCause(kind=ExitKind.PORT_IN_USE, summary="its port was taken")
    assert kinds(fleet.exit("m-0", taken)) == [Launch]
    assert fleet["m-1"].state is State.READY


def test_a_process_that_survives_sigkill_is_not_waited_for() -> None:
    fleet = Several("m", "m")
    fleet.stall("m-0", "m-1")
    assert ended(fleet.tell()) == []
    given: list[Action] = []
    while not given or not isinstance(given[-1], Terminate):
        fleet.now_s = next_due_s(fleet.view)
        given += [order for order in fleet.tell() if not isinstance(order, ReadCounters)]
    assert kinds(given) == [Kill, Abandon, Terminate]
    assert fleet["m-0"].state is State.CRASH_LOOP
    assert given[-1].id == "m-1"


def test_a_replica_given_up_after_its_hang_is_not_waited_for() -> None:
    fleet = Several("m", "m")
    for _ in range(SETTINGS.window_failures_max - 1):
        fleet.stall("m-0")
        fleet.relaunch("m-0")
        fleet.come_up("m-0")
    fleet.stall("m-0", "m-1")
    orders = fleet.exit("m-0")
    assert kinds(orders) == [GiveUp, Terminate]
    assert ended(orders) == ["m-1"]


def test_models_do_not_wait_for_each_other() -> None:
    fleet = Several("a", "b", "a")
    assert fleet.stall("a-0", "b-1", "a-2") == ["a-0", "b-1"]


def test_one_that_works_again_before_its_turn_is_left_alone() -> None:
    fleet = Several("m", "m")
    fleet.stall("m-0", "m-1")
    fleet.tell(Recovered(id="m-1", incarnation=fleet["m-1"].incarnation))
    assert fleet["m-1"].stalled == ""
    fleet.tell(Recovered(id="m-0", incarnation=fleet["m-0"].incarnation))
    assert fleet["m-0"].state is State.STOPPING  # too late for this one
    fleet.relaunch("m-0")
    assert ended(fleet.come_up("m-0")) == []


def test_a_stop_and_a_person_s_restart_wait_for_nobody() -> None:
    fleet = Several("m", "m", "m")
    fleet.stall("m-0", "m-1", "m-2")
    assert ended(fleet.tell(RestartAsked(id="m-1"))) == ["m-1"]
    assert set(ended(fleet.tell(StopAsked()))) == {"m-2"}
