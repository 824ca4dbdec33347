"""What a small write says of a volume: slow, busy, hung, full, read-only and failing told apart, and whose volume it is."""

from typing import Any

import pytest

from freehold.core.findings import Action, Finding, Verdict
from freehold.health.checks.storage_write import BAD_S, HUNG_S, PROBE, WARN_S, WRITES_LEAST
from freehold.health.model.probe import Expected
from freehold.health.model.view import Reading, State, View, Volume

H, D, U, N, NA = (
    Verdict.HEALTHY,
    Verdict.DEGRADED,
    Verdict.UNHEALTHY,
    Verdict.UNKNOWN,
    Verdict.NOT_APPLICABLE,
)
NFS = {"user_space": True, "network": True, "file_system": "nfs4", "source": "10.0.0.1:/export"}
FUSE = {"user_space": True, "file_system": "fuse.bindfs", "source": "/srv/raw"}


def look(*writes_s: float, **last: Any) -> Finding:
    """Return the finding after one write per view; `last` is what else the newest volume says."""
    queue = last.pop("queue", None)
    plain: dict[str, Any] = {"path": "/models", "writing": True, "wrote": True}
    if queue is not None:
        plain["device_queue"] = Reading(value=queue)
    plain |= {key: last[key] for key in ("user_space", "network", "file_system", "source") if key in last}
    volumes = [Volume(**{**plain, "writes_s": (took_s,)}) for took_s in writes_s]
    if last or not volumes:
        volumes.append(Volume(**{**plain, **last}))
    views = [View(at_s=10.0 * n, monotonic_s=10.0 * n, volumes=(volume,)) for n, volume in enumerate(volumes)]
    (finding,) = PROBE.check(views, Expected())
    return finding


QUICK = (0.002,) * WRITES_LEAST


@pytest.mark.parametrize(
    ("finding", "verdict", "reason", "action"),
    [
        (look(*QUICK), H, "as_usual", Action.NONE),
        (look(*QUICK[1:]), N, "learning", Action.NONE),
        (look(*QUICK, 9.0, 9.0), H, "as_usual", Action.NONE),  # a hiccup is no sick disk
        (look(*[WARN_S] * 6), D, "slow_write", Action.WATCH),
        (look(*[BAD_S] * 6), U, "slow_write", Action.DRAIN),
        (look(*[BAD_S] * 6, queue=9.0), D, "slow_write_busy", Action.WATCH),
        (look(*[BAD_S] * 6, queue=0.5), U, "slow_write", Action.DRAIN),
        (look(*[BAD_S] * 6, **NFS), U, "slow_write_elsewhere", Action.WATCH),
        (look(*[WARN_S] * 6, **FUSE), D, "slow_write_elsewhere", Action.WATCH),
        (look(*QUICK, write_waits_s=HUNG_S), U, "hung_write", Action.CORDON),
        (look(*QUICK, write_waits_s=HUNG_S, **NFS), U, "hung_write", Action.FIX_CONFIGURATION),
        (look(*QUICK, write_waits_s=HUNG_S - 1), H, "as_usual", Action.NONE),
        (look(*QUICK[1:], write_waits_s=BAD_S + 1), H, "as_usual", Action.NONE),  # it counts, as a sixth
        (look(*QUICK, write_error="ENOSPC"), U, "full", Action.FREE_SPACE),
        (look(*QUICK, write_error="EDQUOT"), U, "full", Action.FREE_SPACE),
        (
            look(*QUICK, write_error="EROFS", read_only="mount"),
            U,
            "read_only",
            Action.CORDON,
        ),  # it could be written
        (look(write_error="EROFS", read_only="file_system", wrote=False), U, "read_only", Action.CORDON),
        (
            look(write_error="EROFS", read_only="mount", wrote=False),
            NA,
            "mounted_read_only",
            Action.NONE,
        ),  # a model's volume often is
        (look(write_error="EROFS", wrote=False), N, "cannot_write", Action.NONE),  # nobody knows why
        (look(*QUICK, write_error="EIO"), U, "write_error", Action.INSPECT_HARDWARE),
        (look(write_error="EACCES", wrote=False), N, "cannot_write", Action.NONE),
        (look(write_error="ENOENT", wrote=False), N, "cannot_write", Action.NONE),
        (look(*QUICK, writing=False), NA, "off", Action.NONE),
        (
            look(*QUICK, state=State.UNSUPPORTED),
            H,
            "as_usual",
            Action.NONE,
        ),  # no O_DIRECT: writes are timed all the same
    ],
)
def test_a_write_says(finding: Finding, verdict: Verdict, reason: str, action: Action) -> None:
    assert (finding.verdict, finding.reason, finding.action) == (verdict, reason, action)
    assert reason in PROBE.reasons


def test_what_is_no_disk_of_this_node_is_not_called_one() -> None:
    disk, nfs, fuse = look(*QUICK), look(*QUICK, **NFS), look(*QUICK, **FUSE)
    assert [each.component for each in (disk, nfs, fuse)] == [
        "disk:/models",
        "storage:/models",
        "storage:/models",
    ]
    assert "/models (network storage: nfs4 of 10.0.0.1:/export)" in nfs.message
    assert "/models (storage behind a program: fuse.bindfs of /srv/raw)" in fuse.message


def test_no_data_is_unknown() -> None:
    (unread,) = PROBE.check([View(at_s=0, monotonic_s=0)], Expected())
    (none,) = PROBE.check([View(at_s=0, monotonic_s=0, volumes=())], Expected())
    assert (unread.verdict, none.verdict) == (N, NA)


def test_a_slow_write_says_what_it_saw() -> None:
    finding = look(*[0.7] * 6, queue=0.3)
    assert [each.what for each in finding.evidence] == [
        "write and fsync of 4 KiB, median of 6",
        "requests under way at the device, mean",
    ]
    assert finding.evidence[0].value == "700 ms, the longest 700 ms"
