"""Reads every GPU through NVML without ever hanging itself: one child process, and at most one more in its place.

A child that does not answer is abandoned; the next sweep starts one replacement. While two do not end, no third is
started: processes stuck in the driver must not pile up. The view then says HUNG, with the call, until the kernel lets one go. While
a child lives the driver cannot be unloaded nor a GPU reset: call `close` before that. It judges
nothing; a reading that fails is a state, never a number.
"""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from freehold.core import clock
from freehold.health.collectors.child_process import ChildSlot
from freehold.health.collectors.driver_files import with_files
from freehold.health.collectors.nvml_process import (
    ChildEnded,
    ChildHung,
    Deadlines,
    NvmlProcess,
    pynvml_folder,
)
from freehold.health.gpu_readings.nvml_answers import (
    answering,
    constants_of,
    driver_of,
    gpu_of,
    readings_of,
    state_of,
    unread,
    with_constants,
)
from freehold.health.model.view import Gpu, Gpus, Reading, State

ALIVE_MOST = 2
"""A child that hangs and one replacement. Source: docs/decisions/0012-health.md."""
FULL_EVERY = 60
"""Sweeps between two that ask for the constants again: ten minutes at one sweep in 10 s. Our own choice: they cost and do not change."""
RETRY_S = 30.0
"""After the library refused (another version, broken) a new process may load another; not each sweep, for that costs a start. Our own choice."""
NO_LIBRARY = frozenset({9, 12})
"""Driver not loaded, library not found (NVML_ERROR_*): the same child can try again, nothing is loaded yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NvmlOptions:
    """Where and how to read."""

    deadlines: Deadlines = field(default_factory=Deadlines)
    root: Path = Path("/")
    """Where /proc and /sys hang; a test brings its own."""
    retry_s: float = RETRY_S
    kill: Callable[[int, int], None] = os.kill
    """A test of a process that does not die gives one that does nothing."""


class NvmlReader:
    """Gives the view's `Gpus`; one `read` at a time."""

    def __init__(self, options: NvmlOptions | None = None) -> None:
        self._options = options or NvmlOptions()
        self._children = ChildSlot[NvmlProcess]()
        self._known: dict[int, Gpu] = {}
        self._constants: dict[str, dict[str, Reading]] = {}
        self._sweeps = self._most = 0
        self._wait_until_s = 0.0
        self._last = Gpus(state=State.UNKNOWN, detail="not read yet")
        self._lock = asyncio.Lock()

    @property
    def pids(self) -> tuple[int, ...]:
        """Return the processes that are alive: the current child's and those abandoned."""
        return self._children.pids

    async def read(self) -> Gpus:
        """Return what every GPU says; takes at most the deadlines, and is never an exception of the driver's making."""
        async with self._lock:
            gpus = await self._read()
        self._most = max(self._most, answering(gpus.gpus))
        return with_files(gpus, self._most, self._options.root)

    async def close(self) -> None:
        """End the child, so that the driver can be unloaded or a GPU reset; a later `read` starts a new one."""
        self._children.abandon()
        self._children.reap()

    async def _read(self) -> Gpus:
        self._children.reap()
        if self._children.now is None and clock.monotonic_s() < self._wait_until_s:
            return self._last
        if self._children.now is None and len(stuck := self._children.stuck) >= ALIVE_MOST:
            pids = ", ".join(str(child.pid) for child in stuck)
            detail = f"the processes {pids} hang in the driver; no further one is started"
            return self._nothing(Reading(state=State.HUNG, detail=detail))
        self._last = await self._ask()
        return self._last

    async def _ask(self) -> Gpus:
        folder = pynvml_folder()
        if folder is None:
            return self._nothing(
                Reading(state=State.UNKNOWN, detail="the Python package nvidia-ml-py is not installed")
            )
        answers: list[dict[str, Any]] = []
        full = self._children.now is None or self._sweeps % FULL_EVERY == 0
        self._sweeps += 1
        try:
            if self._children.now is None:
                self._children.now = NvmlProcess(folder, self._options.deadlines, kill=self._options.kill)
            await self._children.now.sweep(answers, full=full)
        except ChildHung as exc:
            self._children.abandon()
            return self._gpus(answers, full=full, broken=Reading(state=State.HUNG, detail=str(exc)))
        except ChildEnded as exc:
            self._children.abandon()
            self._wait_until_s = clock.monotonic_s() + self._options.retry_s
            return self._gpus(answers, full=full, broken=Reading(state=State.UNKNOWN, detail=str(exc)))
        except asyncio.CancelledError:
            self._children.abandon()  # its answer would be taken for that to the next question
            raise
        return self._gpus(answers, full=full)

    def _gpus(self, answers: list[dict[str, Any]], *, full: bool, broken: Reading | None = None) -> Gpus:
        """Return the view of the answers that came; with `broken`, what did not come has its state."""
        if not answers:
            return self._nothing(broken or Reading(state=State.UNKNOWN, detail="no answer"))
        head, answered = answers[0], answers[1:]
        if head["code"]:
            return self._refused(int(head["code"]))
        gpus = [self._gpu(answer, full=full) for answer in answered]
        if broken is not None:
            gpus += [self._unread(index, broken) for index in range(len(answered), head["count"])]
        return Gpus(
            state=broken.state if broken else State.OK,
            detail=broken.detail if broken else "",
            driver=driver_of(head["driver"]),
            gpus=tuple(gpus),
        )

    def _refused(self, code: int) -> Gpus:
        if code not in NO_LIBRARY:
            self._children.abandon()
            self._wait_until_s = clock.monotonic_s() + self._options.retry_s
        return self._nothing(state_of(code))

    def _nothing(self, why: Reading) -> Gpus:
        """Return the GPUs that were known, all unread for the same reason."""
        return Gpus(
            state=why.state,
            detail=why.detail,
            gpus=tuple(self._unread(index, why) for index in sorted(self._known)),
        )

    def _unread(self, index: int, why: Reading) -> Gpu:
        return unread(index, why, self._known.get(index))

    def _gpu(self, answer: dict[str, Any], *, full: bool) -> Gpu:
        index = int(answer["gpu"])
        if answer["code"]:
            return self._unread(index, state_of(int(answer["code"])))
        readings = readings_of(answer["values"], full=full)
        gpu = gpu_of(index, readings, self._same(index, readings.get("uuid")))
        if full:
            self._constants[gpu.uuid] = constants_of(gpu)
        self._known[index] = msgspec.structs.replace(gpu, readings={})
        return with_constants(gpu, self._constants.get(gpu.uuid, {}))

    def _same(self, index: int, uuid: Reading | None) -> Gpu | None:
        """Return what was known of the GPU at that index, unless another one sits there now."""
        known = self._known.get(index)
        if known is None or uuid is None or uuid.value is None or uuid.value == known.uuid:
            return known
        self._sweeps = 0  # the next sweep asks for its constants
        return None
