"""disk_space, memory_pressure, clock and blocked_processes on scripted views."""

from collections.abc import Iterable, Mapping

import pytest

from freehold.core.findings import Action, Finding, Verdict
from freehold.health.checks import blocked_processes, clock, disk_space, memory_pressure
from freehold.health.model.probe import Expected
from freehold.health.model.view import Host, Reading, State, View, Volume

GB = 1e9


def readings(values: Mapping[str, float | None]) -> dict[str, Reading]:
    return {
        name: Reading(state=State.UNSUPPORTED) if value is None else Reading(value=value)
        for name, value in values.items()
    }


def volume(free: float, total: float, *, inodes: float = 50, path: str = "/models") -> Volume:
    counts = readings({"free_bytes": free, "total_bytes": total, "free_inodes": inodes, "total_inodes": 100})
    return Volume(path=path, **counts)


def space(frees: Iterable[float], *, total: float, step_s: float = 60.0, inodes: float = 50) -> Finding:
    views = [
        View(at_s=i * step_s, monotonic_s=i * step_s, volumes=(volume(free, total, inodes=inodes),))
        for i, free in enumerate(frees)
    ]
    (finding,) = disk_space.PROBE.check(views, Expected())
    return finding


@pytest.mark.parametrize(
    ("free", "total", "verdict", "reason"),
    [
        (500 * GB, 1000 * GB, Verdict.HEALTHY, "enough"),
        (90 * GB, 1000 * GB, Verdict.DEGRADED, "low"),
        (900 * GB, 10_000 * GB, Verdict.HEALTHY, "enough"),  # 9 % of much is much
        (19 * GB, 1000 * GB, Verdict.UNHEALTHY, "almost_full"),
        (30 * GB, 10_000 * GB, Verdict.DEGRADED, "low"),
        (0.9 * GB, 2 * GB, Verdict.UNHEALTHY, "almost_full"),
        (5 * GB, 30 * GB, Verdict.HEALTHY, "enough"),
    ],
)
def test_space_is_judged_by_share_and_by_size(
    free: float, total: float, verdict: Verdict, reason: str
) -> None:
    finding = space([free], total=total)
    assert (finding.verdict, finding.reason) == (verdict, reason)
    assert (finding.action is Action.FREE_SPACE) == (verdict is not Verdict.HEALTHY)


def test_inodes_run_out_too() -> None:
    assert space([500 * GB], total=1000 * GB, inodes=4).reason == "inodes_low"
    assert space([500 * GB], total=1000 * GB, inodes=0.5).reason == "inodes_almost_gone"


def test_a_volume_that_fills_all_the_time_is_told_when_it_is_full() -> None:
    finding = space([500 * GB - i * 5 * GB for i in range(11)], total=1000 * GB)
    assert (finding.verdict, finding.reason) == (Verdict.DEGRADED, "filling")
    assert "1h30m" in finding.message


def test_one_download_is_no_forecast() -> None:
    frees = [500 * GB] * 6 + [500 * GB - i * 20 * GB for i in range(5)]
    assert space(frees, total=1000 * GB).verdict is Verdict.HEALTHY
    assert space([500 * GB, 400 * GB, 300 * GB], total=1000 * GB, step_s=100).verdict is Verdict.HEALTHY


def test_a_file_system_without_inodes_is_judged_by_bytes() -> None:
    unread = Reading(state=State.UNSUPPORTED)
    bytes_only = Volume(
        path="/b",
        free_bytes=Reading(value=5e11),
        total_bytes=Reading(value=1e12),
        free_inodes=unread,
        total_inodes=unread,
    )
    (finding,) = disk_space.PROBE.check([View(at_s=0, monotonic_s=0, volumes=(bytes_only,))], Expected())
    assert finding.verdict is Verdict.HEALTHY


def test_space_that_was_not_read_is_unknown() -> None:
    hung = Volume(path="/b", state=State.HUNG, detail="no answer")
    found = [
        disk_space.PROBE.check([View(at_s=0, monotonic_s=0, volumes=volumes)], Expected())[0].verdict
        for volumes in ((hung,), None, ())
    ]
    assert found == [Verdict.UNKNOWN, Verdict.UNKNOWN, Verdict.NOT_APPLICABLE]


def memory(*each: Mapping[str, float | None], edac: Iterable[int] = (), step_s: float = 30.0) -> Finding:
    errors = list(edac) or [-1] * len(each)
    views = [
        View(
            at_s=i * step_s,
            monotonic_s=i * step_s,
            host=Host(
                memory=readings({"total_bytes": 64e9, "available_bytes": 32e9} | dict(values)),
                edac={} if count < 0 else {"ue_count": count, "ce_count": 5},
            ),
        )
        for i, (values, count) in enumerate(zip(each, errors, strict=True))
    ]
    (finding,) = memory_pressure.PROBE.check(views, Expected())
    return finding


def test_half_free_memory_is_healthy() -> None:
    assert memory({}, {}).verdict is Verdict.HEALTHY


def test_little_and_next_to_no_memory() -> None:
    assert memory({"available_bytes": 5e9}).reason == "low"
    assert memory({"available_bytes": 5e7}).verdict is Verdict.UNHEALTHY


def test_waiting_for_memory_counts_by_its_share_of_the_time() -> None:
    found = [memory({"pressure_full_s": 100}, {"pressure_full_s": 100 + s}) for s in (2, 4, 20)]
    assert [finding.verdict for finding in found] == [Verdict.HEALTHY, Verdict.DEGRADED, Verdict.UNHEALTHY]
    assert found[1].reason == "stalled"
    short = memory({"pressure_full_s": 0}, {"pressure_full_s": 5}, step_s=5)
    assert short.verdict is Verdict.HEALTHY


def test_a_process_that_was_killed_long_ago_is_no_news() -> None:
    assert memory({"oom_kills": 3}, {"oom_kills": 3}).verdict is Verdict.HEALTHY
    finding = memory({"oom_kills": 3}, {"oom_kills": 4})
    assert (finding.verdict, finding.reason) == (Verdict.DEGRADED, "oom_kill")


def test_memory_errors_count_when_they_cannot_be_corrected() -> None:
    assert memory({}, {}, edac=[0, 0]).verdict is Verdict.HEALTHY
    assert memory({}, {}, edac=[2, 2]).reason == "uncorrected_error_before"
    finding = memory({}, {}, edac=[2, 3])
    assert (finding.verdict, finding.action) == (Verdict.UNHEALTHY, Action.REPLACE_HARDWARE)


def test_memory_that_was_not_read_is_unknown() -> None:
    assert memory({"available_bytes": None}).verdict is Verdict.UNKNOWN
    (finding,) = memory_pressure.PROBE.check([View(at_s=0, monotonic_s=0)], Expected())
    assert finding.verdict is Verdict.UNKNOWN


def test_a_container_that_is_full_on_a_machine_that_is_not_is_seen() -> None:
    assert memory({"limit_bytes": 8e9, "limit_available_bytes": 4e9}).verdict is Verdict.HEALTHY
    low = memory({"limit_bytes": 8e9, "limit_available_bytes": 0.7e9})
    assert (low.verdict, low.reason) == (Verdict.DEGRADED, "low")
    assert "cgroup" in low.message
    assert memory({"limit_bytes": 8e9, "limit_available_bytes": 5e7}).reason == "almost_gone"


RIGHT = {"wall_minus_monotonic_s": 1e6, "synchronised": 1, "estimated_error_s": 1e-4, "maximum_error_s": 0.1}


def time(*each: Mapping[str, float | None]) -> Finding:
    views = [
        View(at_s=i, monotonic_s=i, host=Host(clock=readings(RIGHT | dict(values))))
        for i, values in enumerate(each)
    ]
    (finding,) = clock.PROBE.check(views, Expected())
    return finding


def test_a_clock_that_is_kept_right_is_healthy() -> None:
    assert time({}, {"wall_minus_monotonic_s": 1e6 + 0.4}).verdict is Verdict.HEALTHY


@pytest.mark.parametrize("jump_s", [-3600.0, 2.0])
def test_a_jump_is_told_with_its_size(jump_s: float) -> None:
    finding = time({}, {"wall_minus_monotonic_s": 1e6 + jump_s}, {"wall_minus_monotonic_s": 1e6 + jump_s})
    assert (finding.verdict, finding.reason) == (Verdict.DEGRADED, "jumped")
    assert f"{jump_s:+.1f} s" in finding.message


def test_a_clock_that_nobody_keeps_right() -> None:
    assert time({"synchronised": 0, "maximum_error_s": 16.0}).reason == "not_synchronised"
    assert time({"synchronised": 0, "maximum_error_s": 2.0}).verdict is Verdict.HEALTHY  # lost a moment ago
    assert time({"estimated_error_s": 3.0}).reason == "uncertain"


def test_a_clock_that_says_nothing_is_unknown() -> None:
    assert time({"synchronised": None}).verdict is Verdict.UNKNOWN
    (finding,) = clock.PROBE.check([View(at_s=0, monotonic_s=0)], Expected())
    assert finding.verdict is Verdict.UNKNOWN


def blocked(*each: Mapping[str, str], step_s: float = 20.0) -> Finding:
    views = [
        View(at_s=i * step_s, monotonic_s=i * step_s, host=Host(blocked=dict(names)))
        for i, names in enumerate(each)
    ]
    (finding,) = blocked_processes.PROBE.check(views, Expected())
    return finding


def test_a_process_that_hangs_for_a_minute_is_told_with_its_place() -> None:
    cp = {"7 cp": "submit_bio_wait"}
    assert blocked(cp, cp, cp).verdict is Verdict.HEALTHY
    finding = blocked(cp, cp, cp, cp)
    assert (finding.verdict, finding.reason) == (Verdict.DEGRADED, "blocked")
    assert "submit_bio_wait" in finding.evidence[0].value


def test_a_process_that_moves_on_does_not_hang() -> None:
    here, there = {"7 cp": "submit_bio_wait"}, {"7 cp": "folio_wait"}
    assert blocked(here, here, there, there, there).verdict is Verdict.HEALTHY
    assert blocked(here, here, {}, here, here).verdict is Verdict.HEALTHY


def test_a_process_of_nvidias_asks_for_a_reboot() -> None:
    both = {"9 nvidia-smi": "rwsem", "7 cp": "x"}
    finding = blocked(both, both, both, both)
    assert (finding.verdict, finding.reason, finding.action) == (
        Verdict.UNHEALTHY,
        "nvidia_blocked",
        Action.REBOOT,
    )
    assert "nvidia-smi" in finding.message


def test_processes_that_were_not_read_are_unknown() -> None:
    (finding,) = blocked_processes.PROBE.check([View(at_s=0, monotonic_s=0)], Expected())
    assert finding.verdict is Verdict.UNKNOWN
