"""The child process that calls NVML, the only file that imports pynvml: a call that never returns hangs this and no more.

Run by path, `python -I -S nvml_child.py FOLDER_OF_PYNVML PROGRESS_FD`, so that it imports nothing of Freehold and stays small. It
speaks JSON lines: the first line in is the program (`nvml.program`), every further one asks for a sweep
(`{"all": true}` with the constant readings); a sweep answers one line on the library, one per GPU as it is done, and
`{"end": true}`. Before each call it writes a count, the GPU and the call's name into shared memory, where the parent
sees that it moves and, when it does not, in which call. It knows no deadline, judges nothing and names no reading:
values go out as NVML gave them, each as `[error code, value]`. End of input ends it.
"""

import ctypes
import json
import mmap
import os
import struct
import sys
from collections.abc import Iterable
from typing import Any

PROGRESS = struct.Struct("<Ih58s")
"""Calls so far, GPU (-1: none), name of the call; one cache line of shared memory, ours on both sides."""
LINKS_MOST = 36
"""NVML_NVLINK_MAX_LINKS of nvidia-ml-py 13.615.71."""
FIELDS_AT_ONCE = 64
"""Field values per call; our own bound, so that one call stays short."""
NEXT_WAY = (3, 13, 25)
"""Not supported, function not found, argument version mismatch: the next, older way is tried (NVML_ERROR_*)."""
MISSING = 13
"""NVML_ERROR_FUNCTION_NOT_FOUND: also for what the binding does not have."""
_FIELD_VALUES = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")
"""Member of the value union by `valueType`: NVML_VALUE_TYPE_* of nvidia-ml-py."""


class Nvml:
    """NVML through pynvml; every call is announced before it is made."""

    def __init__(self, pynvml: Any, progress: mmap.mmap) -> None:
        self._pynvml = pynvml
        self._progress = progress
        self._calls = 0
        self.gpu = -1

    def call(self, name: str, *args: Any) -> tuple[int, Any]:
        """Return the error code and what the function gave; a function that the binding lacks is missing."""
        self._calls += 1
        PROGRESS.pack_into(self._progress, 0, self._calls & 0xFFFFFFFF, self.gpu, name.encode()[:58])
        function = getattr(self._pynvml, name, None)
        if function is None:
            return MISSING, None
        try:
            return 0, function(*args)
        except self._pynvml.NVMLError as exc:
            return int(exc.value), None

    def structure(self, name: str) -> Any:
        """Return an empty structure of that name, or None where the binding lacks it."""
        kind = getattr(self._pynvml, name, None)
        return None if kind is None else kind()


def plain(value: Any) -> Any:
    """Return a ctypes structure as a dict, everything else as JSON can hold it."""
    if isinstance(value, ctypes.Structure):
        return {field[0]: plain(getattr(value, field[0])) for field in value._fields_}
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value if isinstance(value, (int, float, str)) else None


def link_states(nvml: Nvml, handle: Any) -> tuple[int, list[int]]:
    """Return the state of every NVLink; the code is that of the first link, 0 where there is any."""
    states: list[int] = []
    for link in range(LINKS_MOST):
        code, up = nvml.call("nvmlDeviceGetNvLinkState", handle, link)
        if code:
            return (0 if states else code), states
        states.append(int(up))
    return 0, states


def field_values(nvml: Nvml, handle: Any, wanted: list[tuple[int, int]]) -> dict[tuple[int, int], list[Any]]:
    """Return `[code, value]` by (field, scope); when the call as a whole fails, its code for each."""
    found: dict[tuple[int, int], list[Any]] = {}
    for start in range(0, len(wanted), FIELDS_AT_ONCE):
        part = wanted[start : start + FIELDS_AT_ONCE]
        code, values = nvml.call("nvmlDeviceGetFieldValues", handle, part)
        for index, key in enumerate(part):
            found[key] = [code, None] if code else _field(values[index])
    return found


def _field(value: Any) -> list[Any]:
    if value.nvmlReturn:
        return [int(value.nvmlReturn), None]
    if not 0 <= value.valueType < len(_FIELD_VALUES):
        return [MISSING, None]
    return [0, getattr(value.value, _FIELD_VALUES[value.valueType])]


class Sweep:
    """One GPU's answers, in the program's order."""

    def __init__(self, nvml: Nvml, handle: Any, steps: list[Any]) -> None:
        self._nvml = nvml
        self._handle = handle
        code, self._states = link_states(nvml, handle)
        self._links = [code, {"states": self._states}]
        self._fields = field_values(nvml, handle, list(dict.fromkeys(self._wanted(steps))))

    def _wanted(self, steps: list[Any]) -> Iterable[tuple[int, int]]:
        for step in steps:
            for call, args, _ in step["asks"]:
                if call == "nvmlDeviceGetFieldValues":
                    yield from self._scopes(args)

    def _scopes(self, args: list[int]) -> list[tuple[int, int]]:
        if len(args) > 1:
            return [(args[0], link) for link in range(len(self._states))]
        return [(args[0], 0)]

    def answer(self, asks: list[Any]) -> list[Any]:
        """Return `[code, value]` of the first way that this card and driver know."""
        found: list[Any] = [MISSING, None]
        for call, args, structure in asks:
            found = self._ask(call, args, structure)
            if found[0] not in NEXT_WAY:
                break
        return found

    def _ask(self, call: str, args: list[int], structure: str) -> list[Any]:
        if call == "nvmlDeviceGetFieldValues":
            return self._summed([self._fields[key] for key in self._scopes(args)])
        if call == "nvmlDeviceGetNvLinkState":
            return self._links
        if not structure:
            code, value = self._nvml.call(call, self._handle, *args)
            return [code, plain(value)]
        filled = self._nvml.structure(structure)
        if filled is None:
            return [MISSING, None]
        code, _ = self._nvml.call(call, self._handle, ctypes.byref(filled))
        return [code, None if code else plain(filled)]

    def _summed(self, values: list[list[Any]]) -> list[Any]:
        """Return the sum over links; one that failed fails the whole, so that no link goes uncounted."""
        if not values:
            return [3, None]
        bad = next((value for value in values if value[0]), None)
        return bad or [0, sum(value[1] for value in values)]


class QueryServer:
    """Reads requests and answers them until the input ends."""

    def __init__(self, nvml: Nvml) -> None:
        self._nvml = nvml
        self._ready = False
        self._program: dict[str, Any] = {}

    def run(self) -> None:
        """Return when the input ends."""
        self._program = json.loads(sys.stdin.buffer.readline() or b"{}")
        for line in sys.stdin.buffer:
            self._sweep(full=bool(json.loads(line)["all"]))

    def _sweep(self, *, full: bool) -> None:
        self._nvml.gpu = -1
        code = 0 if self._ready else self._nvml.call("nvmlInit")[0]
        self._ready = not code
        count = 0
        if self._ready:
            code, count = self._nvml.call("nvmlDeviceGetCount")
        driver = {name: self._system(call) for name, call in self._program["driver"].items() if self._ready}
        self._write({"code": code, "count": count or 0, "driver": driver})
        for index in range(count or 0):
            self._write(self._gpu(index, full=full))
        self._write({"end": True})

    def _system(self, call: str) -> list[Any]:
        code, value = self._nvml.call(call)
        return [code, plain(value)]

    def _gpu(self, index: int, *, full: bool) -> dict[str, Any]:
        self._nvml.gpu = index
        code, handle = self._nvml.call("nvmlDeviceGetHandleByIndex", index)
        if code:
            return {"gpu": index, "code": code, "values": []}
        steps = [step for step in self._program["steps"] if full or not step["constant"]]
        sweep = Sweep(self._nvml, handle, steps)
        return {"gpu": index, "code": 0, "values": [sweep.answer(step["asks"]) for step in steps]}

    def _write(self, answer: dict[str, Any]) -> None:
        sys.stdout.buffer.write(json.dumps(answer, separators=(",", ":")).encode() + b"\n")
        sys.stdout.buffer.flush()


def main(folder: str, progress_fd: int) -> None:
    """Serve until the input ends. `folder` holds pynvml: without `site` it is not found otherwise."""
    sys.path.append(folder)
    import pynvml  # noqa: PLC0415 -- its folder is known only now

    progress = mmap.mmap(progress_fd, PROGRESS.size)
    os.close(progress_fd)
    QueryServer(Nvml(pynvml, progress)).run()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
