"""One NVML child as the parent sees it: started, asked, watched while it answers, and given up without waiting for it.

A call into the driver may never return, and a process in it may not even die of SIGKILL. So nothing here waits for an exit:
an abandoned child is killed, its pipes are closed, its pid is kept, and whether it is gone is asked without blocking. What its
answers mean is not known here.
"""

import asyncio
import importlib.util
import mmap
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from freehold.core import clock
from freehold.health.collectors.child_process import ChildProcess
from freehold.health.collectors.nvml_child import PROGRESS
from freehold.health.gpu_readings.nvml_answers import program

CHILD = Path(__file__).with_name("nvml_child.py")
ANSWER_BYTES_MOST = 4_000_000
"""Longest answer line; 16 GPUs of 120 readings need some 10 kB each. Our own bound on what a child in pieces may send."""
LOOKS_PER_DEADLINE = 5
"""How often the progress is looked at within a deadline, so that a hang is seen at most a fifth late. Our own choice."""


class ChildHung(Exception):
    """The child does not answer; `str()` names the call."""


class ChildEnded(Exception):
    """The child ended, or sent what cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """How long a child may take, seconds.

    Sources: NVML calls were seen to block for more than 45 s under load and for ever on wedged drivers (NVSentinel 1576 and 1748, DCGM 313), while a
    whole sweep of an idle H100 takes milliseconds; without persistence mode nvmlInit loads firmware into every GPU.
    """

    call_s: float = 10.0
    init_s: float = 45.0
    sweep_s: float = 60.0


def pynvml_folder() -> str | None:
    """Return the folder of the installed pynvml, or None where the package nvidia-ml-py is missing."""
    spec = importlib.util.find_spec("pynvml")
    return None if spec is None or spec.origin is None else str(Path(spec.origin).parent)


class NvmlProcess(ChildProcess):
    """A running child; only one question at a time."""

    def __init__(
        self, folder: str, deadlines: Deadlines, *, kill: Callable[[int, int], None] = os.kill
    ) -> None:
        """Start it. `kill` is os.kill, but for a test that needs a process which does not die."""
        self._deadlines = deadlines
        self._buffer = b""
        memory = os.memfd_create("freehold-nvml-progress")
        os.ftruncate(memory, PROGRESS.size)
        self._progress = mmap.mmap(memory, PROGRESS.size)
        command = [sys.executable, "-I", "-S", str(CHILD), folder, str(memory)]
        try:
            super().__init__(command, pass_fds=(memory,), kill=kill)
        finally:
            os.close(memory)
        self._send(program())

    def _send(self, message: dict[str, Any]) -> None:
        try:
            self.write(msgspec.json.encode(message) + b"\n")
        except OSError as exc:
            raise ChildEnded(f"the NVML reader process {self.pid} is gone: {exc}") from exc

    async def sweep(self, answers: list[dict[str, Any]], *, full: bool) -> None:
        """Ask once and append the answers as they come, so that what came before a hang is kept.

        Raises:
            ChildHung: no call returned within its deadline, or the sweep did not end within its own.
            ChildEnded: the child is gone or spoke nonsense.
        """
        self._send({"all": full})
        end_s = clock.monotonic_s() + self._deadlines.sweep_s + self._deadlines.init_s
        while True:
            line = await self._line(end_s)
            try:
                answer = msgspec.json.decode(line, type=dict[str, Any])
            except msgspec.MsgspecError as exc:
                raise ChildEnded(f"the NVML reader process {self.pid} answered no JSON: {exc}") from exc
            if "end" in answer:
                return
            answers.append(answer)

    async def _line(self, end_s: float) -> bytes:
        seen, since_s = self.progress(), clock.monotonic_s()
        while b"\n" not in self._buffer:
            await self._readable(self._deadlines.call_s / LOOKS_PER_DEADLINE)
            self._fill()
            now_s, now = clock.monotonic_s(), self.progress()
            if now != seen:
                seen, since_s = now, now_s
            self._check(seen, now_s - since_s, late=now_s > end_s)
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _check(self, at: tuple[int, int, str], still_s: float, *, late: bool) -> None:
        _, gpu, call = at
        limit_s = self._deadlines.init_s if call in {"", "nvmlInit"} else self._deadlines.call_s
        if b"\n" in self._buffer or not (late or still_s >= limit_s):
            return
        where = f"{call or 'starting'} of GPU {gpu}" if gpu >= 0 else call or "starting"
        raise ChildHung(f"{where} did not return within {still_s:.1f} s (process {self.pid})")

    async def _readable(self, timeout_s: float) -> None:
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_reader(self.out, ready.set)
        try:
            async with asyncio.timeout(timeout_s):
                await ready.wait()
        except TimeoutError:
            pass
        finally:
            loop.remove_reader(self.out)

    def _fill(self) -> None:
        data = self.read()
        if data is None:
            return
        if not data:
            raise ChildEnded(
                f"the NVML reader process {self.pid} ended in {self.progress()[2] or 'starting'}"
            )
        self._buffer += data
        if len(self._buffer) > ANSWER_BYTES_MOST:
            raise ChildEnded(f"the NVML reader process {self.pid} answers without end")

    def progress(self) -> tuple[int, int, str]:
        """Return how many calls it has begun, for which GPU (-1: none) the last, and that call's name."""
        calls, gpu, name = PROGRESS.unpack_from(self._progress, 0)
        return calls, gpu, name.rstrip(b"\0").decode(errors="replace")
