"""storage_latency on scripted views: when it speaks, whom it blames, and when it does not know."""

from collections.abc import Sequence

import pytest

from freehold.core.findings import Action, Finding, Verdict
from freehold.health.checks.storage_latency import PROBE
from freehold.health.model.probe import Expected
from freehold.health.model.view import Reading, State, View, Volume

NONE = Reading(state=State.UNSUPPORTED)


def volume(
    *reads_s: float,
    ticks_s: float | None = 0.0003,
    stalled_s: float | None = 0.0,
    usual_s: float = 0.0003,
    **more: object,
) -> Volume:
    fields: dict[str, object] = {
        "path": "/models",
        "reads_s": reads_s,
        "device": "nvme0n1",
        "rotational": False,
        "device_ticks_s": NONE if ticks_s is None else Reading(value=ticks_s),
        "pressure_some_s": NONE if stalled_s is None else Reading(value=stalled_s),
        "device_queue": NONE if ticks_s is None else Reading(value=0.1),
        "device_in_flight": NONE if ticks_s is None else Reading(value=0),
        "usual_read_s": Reading(value=usual_s),
    }
    return Volume(**{**fields, **more})  # type: ignore[arg-type]


def look(*volumes: Volume) -> Finding:
    (finding,) = PROBE.check(views(volumes), Expected())
    return finding


def views(volumes: Sequence[Volume]) -> list[View]:
    return [
        View(at_s=1000.0 + i, monotonic_s=float(i), node="a", volumes=(each,))
        for i, each in enumerate(volumes)
    ]


QUICK = [volume(0.0003)] * 30


def slow(took_s: float = 0.08, **more: object) -> list[Volume]:
    return [volume(took_s, **more)] * 30  # type: ignore[arg-type]


def test_quick_reads_are_healthy_and_say_how_quick() -> None:
    finding = look(*QUICK)
    assert (finding.verdict, finding.reason) == (Verdict.HEALTHY, "as_usual")
    assert finding.component == "disk:/models"
    assert "0.3 ms" in finding.message
    assert finding.node == "a"


def test_too_few_reads_are_not_judged() -> None:
    assert look(*QUICK[:29]).verdict is Verdict.UNKNOWN


def test_nothing_read_is_unknown_and_no_volume_is_not_applicable() -> None:
    (unread,) = PROBE.check([View(at_s=0, monotonic_s=0)], Expected())
    (none,) = PROBE.check([View(at_s=0, monotonic_s=0, volumes=())], Expected())
    assert (unread.verdict, unread.reason) == (Verdict.UNKNOWN, "not_read")
    assert none.verdict is Verdict.NOT_APPLICABLE


@pytest.mark.parametrize("state", [State.UNSUPPORTED, State.DENIED, State.ABSENT, State.UNKNOWN, State.LOST])
def test_what_cannot_be_read_is_unknown_with_its_reason(state: State) -> None:
    finding = look(*QUICK[:5], volume(state=state, detail="tmpfs is memory, not a disk"))
    assert (finding.verdict, finding.reason) == (Verdict.UNKNOWN, "cannot_read")
    assert "tmpfs" in finding.message


def test_80_ms_with_ticks_that_agree_is_the_disk() -> None:
    finding = look(*slow(ticks_s=0.079, stalled_s=0.08))
    assert (finding.verdict, finding.reason) == (Verdict.DEGRADED, "slow_disk")
    assert [evidence.source for evidence in finding.evidence] == [
        "own read",
        "/sys/dev/block",
        "/proc/pressure/io",
        "/sys/dev/block",
    ]


def test_the_disk_is_blamed_on_a_file_system_without_pressure_too() -> None:
    assert look(*slow(ticks_s=0.079, stalled_s=None)).reason == "slow_disk"


def test_a_long_queue_is_load_and_not_a_sick_disk() -> None:
    finding = look(*slow(ticks_s=0.079, stalled_s=0.08, device_queue=Reading(value=32.0)))
    assert (finding.verdict, finding.reason, finding.action) == (
        Verdict.DEGRADED,
        "slow_busy",
        Action.WATCH,
    )


def test_flat_ticks_and_pressure_are_a_limit_where_there_is_one() -> None:
    limited = slow(ticks_s=0.0003, stalled_s=0.08, limits=("read_iops 5 (blkio:/serving, 259:0)",))
    finding = look(*limited)
    assert (finding.reason, finding.action) == ("slow_throttled", Action.FIX_CONFIGURATION)
    assert any("read_iops 5" in evidence.value for evidence in finding.evidence)
    assert look(*slow(ticks_s=0.0003, stalled_s=0.08)).reason == "slow_throttled_or_neighbour"


def test_flat_pressure_without_a_device_is_the_file_systems_server() -> None:
    assert look(*slow(ticks_s=None, stalled_s=0.0, user_space=True)).reason == "slow_user_space"
    assert look(*slow(ticks_s=None, stalled_s=0.5, user_space=True)).reason == "slow_user_space"


def test_without_witnesses_nobody_is_blamed() -> None:
    finding = look(*slow(ticks_s=None, stalled_s=None))
    assert (finding.verdict, finding.reason) == (Verdict.DEGRADED, "slow")


@pytest.mark.parametrize(
    ("took_s", "usual_s", "rotational", "verdict"),
    [
        (0.019, 0.0001, False, Verdict.HEALTHY),  # below 20 ms nobody waits, however quick it was
        (0.021, 0.0001, False, Verdict.DEGRADED),
        (0.199, 0.0001, False, Verdict.DEGRADED),
        (0.201, 0.0001, False, Verdict.UNHEALTHY),
        (0.080, 0.080, False, Verdict.DEGRADED),  # always slow is no excuse
        (0.060, 0.008, True, Verdict.HEALTHY),  # a turning disk under load
        (0.090, 0.008, True, Verdict.DEGRADED),
        (0.900, 0.008, True, Verdict.UNHEALTHY),
        (0.990, 0.080, True, Verdict.DEGRADED),
        (1.010, 0.080, True, Verdict.UNHEALTHY),  # a second is bad on anything
        (0.090, 0.080, None, Verdict.HEALTHY),
    ],
)
def test_limits_follow_what_is_usual_within_bounds(
    took_s: float, usual_s: float, *, rotational: bool | None, verdict: Verdict
) -> None:
    assert look(*slow(took_s, usual_s=usual_s, rotational=rotational)).verdict is verdict


def test_it_is_found_when_most_of_the_newest_thirty_are_slow() -> None:
    changed = [*QUICK, *slow(ticks_s=0.08, stalled_s=0.08)[:16]]
    assert look(*changed).reason == "slow_disk"
    assert look(*changed[:-2]).verdict is Verdict.HEALTHY


def test_two_long_reads_are_hiccups_and_three_are_not() -> None:
    assert look(*QUICK, volume(0.5), volume(0.5)).verdict is Verdict.HEALTHY
    finding = look(*QUICK, volume(0.5), volume(0.5), volume(0.5))
    assert (finding.verdict, finding.reason) == (Verdict.DEGRADED, "slow_at_times")


def test_long_reads_while_others_load_the_device_are_no_sign_below_a_second() -> None:
    loaded = {"device_queue": Reading(value=8.0)}
    assert look(*QUICK, *[volume(0.5, **loaded)] * 4).verdict is Verdict.HEALTHY  # type: ignore[arg-type]
    assert look(*QUICK, *[volume(1.2, **loaded)] * 3).reason == "slow_at_times"  # type: ignore[arg-type]


def test_one_failed_read_degrades_and_three_condemn() -> None:
    failed = volume(errors=("EIO",))
    assert look(*QUICK, failed).reason == "read_error"
    finding = look(failed, *QUICK, failed, failed)
    assert (finding.verdict, finding.reason, finding.action) == (
        Verdict.UNHEALTHY,
        "read_errors",
        Action.INSPECT_HARDWARE,
    )


def test_a_read_without_end_is_the_disks_when_the_request_is_with_it() -> None:
    hung = volume(
        5.1, timeouts=1, state=State.HUNG, detail="no answer for 5.1 s", device_in_flight=Reading(value=1)
    )
    finding = look(hung)
    assert (finding.verdict, finding.reason, finding.action) == (Verdict.UNHEALTHY, "hung", Action.CORDON)
    assert "5.1 s" in finding.message


def test_a_read_without_end_above_an_idle_device_is_not_the_disks() -> None:
    held = volume(state=State.HUNG, detail="no answer for 9 s", limits=("read_iops 1 (blkio:/a, 7:0)",))
    assert look(held).reason == "hung_throttled"
    away = volume(state=State.HUNG, detail="no answer for 9 s", ticks_s=None, user_space=True)
    assert look(away).reason == "hung_user_space"
    server = volume(state=State.HUNG, detail="no answer for 9 s", ticks_s=None, user_space=True, network=True)
    finding = look(server)
    assert (finding.reason, finding.action) == (
        "hung_network",
        Action.FIX_CONFIGURATION,
    )  # no disk to cordon for


def test_network_storage_is_named_as_such_and_not_as_a_disk() -> None:
    nfs = {"user_space": True, "network": True, "file_system": "nfs4", "source": "10.0.0.1:/export"}
    # Whatever the local witnesses say: its waits are in none of them.
    for stalled_s in (0.0, 0.5):
        finding = look(*slow(ticks_s=None, stalled_s=stalled_s, **nfs))
        assert finding.reason == "slow_network"
        assert finding.component == "storage:/models"
        assert "network storage: nfs4 of 10.0.0.1:/export" in finding.message


def test_every_reason_it_gives_is_in_its_list() -> None:
    said = {look(*slow()).reason, look(*QUICK).reason, look(*QUICK[:3]).reason}
    assert said <= PROBE.reasons.keys()


def test_volumes_are_judged_apart() -> None:
    both = [
        View(at_s=i, monotonic_s=i, volumes=(volume(0.0003), volume(0.08, ticks_s=0.08, path="/other")))
        for i in range(30)
    ]
    found = {finding.component: finding.reason for finding in PROBE.check(both, Expected())}
    assert found == {"disk:/models": "as_usual", "disk:/other": "slow_disk"}
