"""What the NVML child answers becomes the view's values: error codes become states, raw values named readings.

Pure, so that a recorded answer and a live one go the same way. It starts nothing and judges nothing: an error is never
zero, and a value that no card can have is a driver's blank.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from freehold.health.gpu_readings.table import (
    BY_NAME,
    DRIVER_CALLS,
    IDENTITY,
    LINK_STATE,
    READINGS,
    GpuReading,
)
from freehold.health.model.view import Gpu, Reading, State

BLANK = 1e18
"""Above this a number is a blank sentinel that leaked (2^63 less 16 and the like), no card's value. Source: dcgm_structs.h's DCGM_INT64_BLANK."""

_STATES: Mapping[int, tuple[State, str]] = {
    1: (State.TRANSIENT, "the library was not initialised"),
    2: (State.UNSUPPORTED, "invalid argument"),
    3: (State.UNSUPPORTED, "not supported"),
    4: (State.DENIED, "no permission"),
    6: (State.ABSENT, "not found"),
    7: (State.TRANSIENT, "insufficient size"),
    9: (State.ABSENT, "the driver is not loaded"),
    10: (State.TRANSIENT, "timeout"),
    12: (State.ABSENT, "libnvidia-ml.so.1 was not found"),
    13: (State.UNSUPPORTED, "function not found"),
    15: (State.LOST, "the GPU is lost"),
    16: (State.RESET_REQUIRED, "the GPU requires a reset"),
    18: (State.MISMATCH, "the NVML library and the kernel module have different versions"),
    19: (State.TRANSIENT, "in use"),
    20: (State.TRANSIENT, "insufficient memory"),
    21: (State.TRANSIENT, "no data"),
    22: (State.UNSUPPORTED, "not supported on a vGPU"),
    23: (State.TRANSIENT, "insufficient resources"),
    25: (State.UNSUPPORTED, "argument version mismatch"),
    26: (State.UNSUPPORTED, "deprecated"),
    27: (State.TRANSIENT, "not ready"),
    28: (State.ABSENT, "no such GPU"),
}
"""NVML_ERROR_* of nvidia-ml-py 13.615.71; 2 is what cards without a memory sensor say."""


def state_of(code: int) -> Reading:
    """Return the failed reading that an NVML error code stands for; a code that is not known is UNKNOWN with its number."""
    state, text = _STATES.get(code, (State.UNKNOWN, "unknown error"))
    return Reading(state=state, detail=f"NVML error {code}: {text}")


def program() -> dict[str, Any]:
    """Return what the child is to ask, as JSON: one step per distinct way of asking, constants marked."""
    steps = [
        {
            "asks": [[ask.call, ask.arguments, ask.struct] for ask in asks],
            "constant": all(r.constant for r in rows),
        }
        for asks, rows in _steps()
    ]
    return {"driver": dict(DRIVER_CALLS), "steps": steps}


def _steps() -> list[tuple[tuple[Any, ...], list[GpuReading]]]:
    grouped: dict[tuple[Any, ...], list[GpuReading]] = {}
    for reading in READINGS:
        if reading.asks:
            grouped.setdefault(reading.asks, []).append(reading)
    return list(grouped.items())


_STEPS = _steps()


def readings_of(values: Sequence[Sequence[Any]], *, full: bool) -> dict[str, Reading]:
    """Return the named readings of one GPU's answers, which stand in the program's order (without constants unless `full`)."""
    rows = [rows for _, rows in _STEPS if full or not all(row.constant for row in rows)]
    return {
        row.name: reading_of(row, value) for group, value in zip(rows, values, strict=True) for row in group
    }


def reading_of(row: GpuReading, answer: Sequence[Any]) -> Reading:
    """Return one `[code, value]` as the reading that the row describes."""
    code, raw = answer
    if code:
        return state_of(int(code))
    value = _picked(row, raw)
    if value is None:
        return Reading(state=State.UNSUPPORTED, detail="this driver's answer has no such part")
    return measured(value, row.scale)


def measured(value: float | str, scale: float = 1.0) -> Reading:
    """Return a value that was read, scaled; a blank sentinel is unsupported, never a number."""
    if isinstance(value, str):
        return Reading(value=value)
    if value > BLANK or value != value:  # noqa: PLR0124 -- NaN is the one value that differs from itself
        return Reading(state=State.UNSUPPORTED, detail=f"blank value {value:g}")
    # Rounded: 117615 mW are 117.615 W, not 117.61500000000001.
    return Reading(value=value if scale == 1 else round(value * scale, 6))


def _picked(row: GpuReading, raw: Any) -> float | str | None:
    if row.asks[0].call == LINK_STATE:
        return _links(row.pick, raw["states"])
    if row.pick == "len":
        return len(raw)
    value = raw
    if isinstance(row.pick, int) and isinstance(raw, list):
        value = raw[row.pick] if row.pick < len(raw) else None
    elif isinstance(row.pick, str) and isinstance(raw, Mapping):
        value = raw.get(row.pick)
    return value if isinstance(value, int | float | str) else None


def _links(pick: int | str | None, states: Sequence[int]) -> int | str:
    """Return how many links are up, or which are down: `3,7`, empty for none."""
    if pick == "up":
        return sum(1 for state in states if state)
    return ",".join(str(link) for link, state in enumerate(states) if not state)


def gpu_of(index: int, readings: Mapping[str, Reading], known: Gpu | None) -> Gpu:
    """Return a GPU of its readings; what names it and could not be read now is what it was before."""
    names = {name: _text(readings.get(name)) for name in IDENTITY}
    if known is not None:
        names = {name: text or str(getattr(known, name)) for name, text in names.items()}
    rest = {name: reading for name, reading in readings.items() if name not in IDENTITY}
    return Gpu(index=index, readings=rest, **names)


def _text(reading: Reading | None) -> str:
    return "" if reading is None or reading.value is None else str(reading.value)


def answering(gpus: Sequence[Gpu]) -> int:
    """Return how many of them gave any reading."""
    return sum(1 for gpu in gpus if any(one.state is State.OK for one in gpu.readings.values()))


def unread(index: int, why: Reading, known: Gpu | None) -> Gpu:
    """Return a GPU of which nothing could be read, each reading with the same reason."""
    names = [name for name in BY_NAME if name not in IDENTITY]
    return gpu_of(index, dict.fromkeys(names, why), known)


def with_constants(gpu: Gpu, constants: Mapping[str, Reading]) -> Gpu:
    """Return the GPU with readings that were read earlier and do not change."""
    missing = {name: reading for name, reading in constants.items() if name not in gpu.readings}
    return msgspec.structs.replace(gpu, readings={**gpu.readings, **missing})


def constants_of(gpu: Gpu) -> dict[str, Reading]:
    """Return those of its readings that do not change, the unsupported among them."""
    return {name: reading for name, reading in gpu.readings.items() if BY_NAME[name].constant}


def driver_of(answers: Mapping[str, Sequence[Any]]) -> dict[str, Reading]:
    """Return the driver's readings by name."""
    return {name: state_of(int(code)) if code else measured(value) for name, (code, value) in answers.items()}
