"""How long views are kept, what is thinned and dropped, and that all of it has a bound."""

from collections.abc import Sequence
from itertools import pairwise

import pytest

from freehold.health.agent import view_window
from freehold.health.agent.view_window import (
    DENSE_S,
    LINES_MOST,
    QUIET_KERNEL_S,
    SPARSE_S,
    TIDY_S,
    VIEWS_MOST,
    ViewWindow,
    share,
    windows_of,
)
from freehold.health.model.probe import Expected
from freehold.health.model.view import Gpu, Gpus, Host, Kernel, KernelLine, Reading, State, View, Volume
from freehold.health.registry import all_probes

XID = "NVRM: Xid (PCI:0000:00:06): 79, pid=1, name=x, GPU has fallen off the bus."


def view(at_s: float, **parts: object) -> View:
    return View(at_s=1e9 + at_s, monotonic_s=at_s, **parts)  # type: ignore[arg-type]


def gpus(power: float) -> Gpus:
    steady = {f"steady_{number}": Reading(value=number) for number in range(5)}
    return Gpus(gpus=(Gpu(index=0, uuid="GPU-1", readings={**steady, "power_w": Reading(value=power)}),))


def lines(*texts: str) -> Kernel:
    return Kernel(lines=tuple(KernelLine(at_s=1e9, text=text) for text in texts))


def filled(kept: ViewWindow, views: Sequence[View]) -> ViewWindow:
    for each in views:
        kept.add(each)
    return kept


def test_a_window_has_the_views_with_any_of_the_parts() -> None:
    kept = filled(
        ViewWindow({"host": 60.0, "gpus": 60.0}),
        [view(0, host=Host()), view(10, gpus=gpus(1)), view(20, kernel=Kernel()), view(30, host=Host())],
    )
    assert [each.monotonic_s for each in kept.window(("host",), 60)] == [0, 30]
    assert [each.monotonic_s for each in kept.window(("host", "gpus"), 60)] == [0, 10, 30]
    assert [each.monotonic_s for each in kept.window(("host",), 5)] == [30]
    assert ViewWindow({}).window(("host",), 60) == []


def test_parts_that_nobody_wants_any_more_go_and_views_without_parts_too() -> None:
    kept = filled(
        ViewWindow({"host": 100.0}), [view(n * 10.0, host=Host(), network=None) for n in range(200)]
    )
    assert len(kept) <= (100 + TIDY_S) / 10 + 2


def test_kernel_lines_that_tell_nothing_go_and_those_that_do_stay() -> None:
    quiet, told = lines("eth0: link becomes ready"), lines("usb 1-1: new device", XID)
    kept = ViewWindow({"kernel": 86_400.0})
    kept.add(view(0, kernel=told))
    for number in range(1, 2000):
        kept.add(view(number * 2.0, kernel=quiet if number % 50 == 0 else Kernel()))
    found = kept.window(("kernel",), 86_400)
    texts = [line.text for each in found if each.kernel for line in each.kernel.lines]
    assert texts[0] == XID
    assert "usb 1-1: new device" not in texts
    assert len(found) <= (QUIET_KERNEL_S + TIDY_S) / 2 + 3


def test_that_the_log_could_not_be_read_is_kept() -> None:
    kept = ViewWindow({"kernel": 86_400.0})
    kept.add(view(0, kernel=Kernel(state=State.DENIED)))
    kept.add(view(1, kernel=Kernel(lost=3)))
    for number in range(1, 100):
        kept.add(view(number * 10.0, kernel=Kernel()))
    states = [
        (each.kernel.state, each.kernel.lost) for each in kept.window(("kernel",), 86_400) if each.kernel
    ]
    assert states[:2] == [(State.DENIED, 0), (State.OK, 3)]


def test_a_flood_of_telling_lines_has_a_bound_and_the_newest_stay() -> None:
    kept = ViewWindow({"kernel": 86_400.0})
    for number in range(60):
        kept.add(view(number * 100.0, kernel=lines(*[f"{XID} {number}"] * 100)))
    texts = [
        line.text for each in kept.window(("kernel",), 86_400) if each.kernel for line in each.kernel.lines
    ]
    assert LINES_MOST <= len(texts) <= LINES_MOST + 100
    assert texts[-1].endswith("59")


def test_old_gpu_readings_are_thinned_and_young_ones_are_not() -> None:
    kept = filled(ViewWindow({"gpus": 3600.0}), [view(n * 10.0, gpus=gpus(n)) for n in range(400)])
    times = [each.monotonic_s for each in kept.window(("gpus",), 3600)]
    young = [at_s for at_s in times if at_s >= 3990 - DENSE_S]
    old = [at_s for at_s in times if at_s < 3990 - DENSE_S - TIDY_S]
    assert len(young) == DENSE_S / 10 + 1
    assert all(after - before >= SPARSE_S for before, after in pairwise(old))
    assert len(old) >= (3600 - DENSE_S - TIDY_S) / SPARSE_S - 5


def test_readings_that_did_not_change_are_kept_once() -> None:
    before, now = gpus(1.0), gpus(2.0)
    shared = share(before, now)
    assert shared == now
    assert shared.gpus[0].readings["steady_3"] is before.gpus[0].readings["steady_3"]
    assert share(before, gpus(1.0)).gpus[0].readings is before.gpus[0].readings
    other = Gpus(gpus=(Gpu(index=0, uuid="GPU-2", readings={"power_w": Reading(value=1.0)}),))
    assert share(before, other) == other


def test_what_the_log_said_outlasts_the_disk_readings_that_are_kept_as_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A fifteenth of a day and of the bound: without thinning, disk readings pushed a lost GPU out after ten hours."""
    monkeypatch.setattr(view_window, "VIEWS_MOST", VIEWS_MOST // 15)
    probe = all_probes()["gpu_xid"]
    kept = ViewWindow(windows_of(all_probes().values()))
    told = Kernel(lines=(KernelLine(at_s=1e9, text=XID),))
    volumes = (Volume(path="/models", reads_s=(0.001,)),)
    for number in range(580):
        kept.add(view(number * 10.0, kernel=told if number == 0 else Kernel(), volumes=volumes))
    found = probe.check(kept.window(probe.reads, probe.window_s), Expected())
    assert "off_bus" in {finding.reason for finding in found}


def test_a_part_of_which_a_probe_wants_the_newest_alone_is_not_kept_for_its_window() -> None:
    windows = windows_of(all_probes().values())
    assert windows["kernel"] == windows["volumes"] == 86_400.0
    assert windows["gpus"] == 3_600.0
