"""The views that probes look back on: each part as long as some probe wants it, and never more than a declared bound.

Old GPU and disk readings are thinned (their counters still show how they rose), kernel lines that are not events are dropped after a
minute, readings that did not change are shared between views. It knows no probe and judges nothing.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from freehold.health.kernel_log.events import may_be_event
from freehold.health.model.probe import Part, Probe
from freehold.health.model.view import Gpus, Kernel, State, View

PARTS: tuple[Part, ...] = ("gpus", "kernel", "volumes", "network", "engines", "host")
VIEWS_MOST = 6_000
"""Views kept at most. Source: our own bound, above what a sick node keeps for a day: a view a telling kernel line (`LINES_MOST`),
one a minute of thinned disk readings (1,440), and what the last ten minutes and hour hold (some 700)."""
QUIET_KERNEL_S = 60.0
"""How long a reading of the kernel's log without an event is kept: as `judge.kernel_window`, after which it says nothing."""
DENSE_S = 600.0
"""How far back every GPU and disk reading is kept: the longest window of a probe that looks at values and not at counters."""
SPARSE_S = 60.0
"""Between two such readings that are older. Source: our own choice: counters over an hour or a day need no more."""
_THINNED: tuple[Part, ...] = ("gpus", "volumes")
TIDY_S = 30.0
"""Between two times of tidying. Source: our own choice: going through all views costs a millisecond."""
LINES_AT_ONCE = 100
"""Kernel lines in one view that are tidied at once: a flood. Source: our own choice."""
LINES_MOST = 2_000
"""Telling kernel lines kept at most, the newest. Source: our own bound: a sick node has some hundreds a day."""


def windows_of(probes: Iterable[Probe]) -> dict[Part, float]:
    """Return how long each part is wanted by some probe, seconds; the newest reading alone stays for the time that it is thinned."""
    windows: dict[Part, float] = {}
    for probe in probes:
        for part in probe.reads:
            wanted_s = min(probe.window_s, DENSE_S) if part in probe.newest else probe.window_s
            windows[part] = max(windows.get(part, 0.0), wanted_s)
    return windows


class ViewWindow:
    """Views by age. `windows` says how long each part is wanted, seconds; a part without one is not kept at all."""

    def __init__(self, windows: Mapping[Part, float]) -> None:
        self._windows = dict(windows)
        self._views: list[View] = []
        self._tidied_s = float("-inf")

    def __len__(self) -> int:
        """Return how many views are kept."""
        return len(self._views)

    def add(self, view: View) -> View:
        """Keep a view, which is newer than all before; return it with readings shared where they did not change."""
        before = next((old.gpus for old in reversed(self._views) if old.gpus is not None), None)
        if view.gpus is not None and before is not None:
            view = msgspec.structs.replace(view, gpus=share(before, view.gpus))
        self._views.append(view)
        flood = view.kernel is not None and len(view.kernel.lines) > LINES_AT_ONCE
        if flood or view.monotonic_s - self._tidied_s >= TIDY_S:
            self._tidy(view.monotonic_s)
            self._tidied_s = view.monotonic_s
        return view

    def revise(self, change: Callable[[View], View]) -> None:
        """Put what `change` returns of each view in its place."""
        self._views = [change(view) for view in self._views]

    def window(self, parts: Sequence[Part], window_s: float) -> list[View]:
        """Return the views, oldest first, that have any of `parts`, not older than `window_s` before the newest."""
        if not self._views:
            return []
        since_s = self._views[-1].monotonic_s - window_s
        recent = (view for view in self._views if view.monotonic_s >= since_s)
        return [view for view in recent if any(getattr(view, part) is not None for part in parts)]

    def _tidy(self, now_s: float) -> None:
        last_s = dict.fromkeys(_THINNED, float("-inf"))
        kept: list[View] = []
        for view in self._views:
            gone = self._gone(view, now_s)
            if now_s - view.monotonic_s > DENSE_S:
                gone |= dict.fromkeys(_too_many(view, last_s))
            rest = msgspec.structs.replace(view, **gone) if gone else view
            if view is self._views[-1] or any(getattr(rest, part) is not None for part in PARTS):
                kept.append(rest)
        self._views = _few_lines(kept[-VIEWS_MOST:])

    def _gone(self, view: View, now_s: float) -> dict[str, Any]:
        """Return what changes of a view by its age: parts that no probe wants any more, and kernel lines that are not events."""
        age_s = now_s - view.monotonic_s
        gone: dict[str, Any] = {
            part: None
            for part in PARTS
            if getattr(view, part) is not None and age_s > self._windows.get(part, -1.0)
        }
        looked_at = self._tidied_s - view.monotonic_s > QUIET_KERNEL_S
        if view.kernel is not None and "kernel" not in gone and age_s > QUIET_KERNEL_S and not looked_at:
            telling = _telling(view.kernel)
            if telling is not view.kernel:
                gone["kernel"] = telling
        return gone


def _too_many(view: View, last_s: dict[Part, float]) -> list[Part]:
    """Return which parts of an old view stand too close to the ones kept before; `last_s` is when those were, and goes on."""
    there = [part for part in _THINNED if getattr(view, part) is not None]
    close = [part for part in there if view.monotonic_s - last_s[part] < SPARSE_S]
    last_s.update({part: view.monotonic_s for part in there if part not in close})
    return close


def _telling(kernel: Kernel) -> Kernel | None:
    """Return a reading with those lines alone that are events; None: it is not worth keeping."""
    lines = tuple(line for line in kernel.lines if may_be_event(line))
    if not lines and not kernel.lost and kernel.state is State.OK:
        return None
    return kernel if len(lines) == len(kernel.lines) else msgspec.structs.replace(kernel, lines=lines)


def _few_lines(views: list[View]) -> list[View]:
    total = sum(len(view.kernel.lines) for view in views if view.kernel)
    while total > LINES_MOST:
        index = next(i for i, view in enumerate(views) if view.kernel and view.kernel.lines)
        kernel = views[index].kernel
        assert kernel is not None
        fewer = msgspec.structs.replace(kernel, lines=kernel.lines[total - LINES_MOST :])
        total -= len(kernel.lines) - len(fewer.lines)
        views[index] = msgspec.structs.replace(views[index], kernel=fewer)
    return views


def share(before: Gpus, now: Gpus) -> Gpus:
    """Return `now` with each reading that is as it was taken from `before`, so that it takes its memory once."""
    known = {gpu.uuid: gpu.readings for gpu in before.gpus}
    shared = []
    for gpu in now.gpus:
        old = known.get(gpu.uuid, {})
        readings = {
            name: old[name] if name in old and old[name] == reading else reading
            for name, reading in gpu.readings.items()
        }
        shared.append(msgspec.structs.replace(gpu, readings=old if readings == old else readings))
    return msgspec.structs.replace(now, gpus=tuple(shared))
