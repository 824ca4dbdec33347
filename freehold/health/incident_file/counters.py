"""Counters of an incident file as changes: what a foreign name measures, by counter_names.yaml, and what a text is as a number.

Values come out in one unit: seconds, watts, per cent. Nothing here judges.
"""

import re
from collections.abc import Iterable
from functools import cache

import msgspec

from freehold.catalog.load_xids import rdma_counters, recovery_actions
from freehold.core.own_files import read_own
from freehold.health.evidence.quantity import MeasuredQuantity, Number, ReadingChange
from freehold.health.incident_file.names import of_counter
from freehold.health.incident_file.schema import CounterEntry, SiblingEntry
from freehold.health.model.view import State

_NONSENSE = 1e18
"""Larger values are not readings. Source: DCGM's blank values are about 9.22e18 and have leaked as counts."""
_MILLIWATTS = 5000.0
"""More power than that is in milliwatts. Source: NVML counts so, and no GPU draws 5,000 W."""
_YES = frozenset({"true", "yes", "on", "enabled", "active", "up", "linkup"})
_NO = frozenset({"false", "no", "off", "disabled", "inactive", "none", "down", "polling", "init"})
_STATES = {
    "lost": State.LOST, "gpu_is_lost": State.LOST, "gpuislost": State.LOST, "reset_required": State.RESET_REQUIRED,
    "mismatch": State.MISMATCH, "librmversionmismatch": State.MISMATCH, "lib_mismatch": State.MISMATCH,
    "hung": State.HUNG, "driver_absent": State.ABSENT, "drivernotloaded": State.ABSENT,
}  # fmt: skip
"""Texts for the state of a reading. Source: model/view.py, and the names of NVML's errors."""
_UNREGISTERED = re.compile(r"not.?started|in.?progress|fail|not.?config", re.IGNORECASE)
"""Source: nvidia-smi's `fabric.state`."""
_SCALES = ((r"_ms|msec|milli|await", 1e-3), (r"_us|usec|micro", 1e-6))
"""Units of a time, by its name."""
_TIMES = frozenset({MeasuredQuantity.READ_TIME, MeasuredQuantity.DEVICE_TIME})
_POWERS = frozenset(
    {MeasuredQuantity.POWER, MeasuredQuantity.POWER_LIMIT, MeasuredQuantity.POWER_LIMIT_DEFAULT}
)
_DISKS = frozenset({"disk", "volume", "storage"})


class _NameRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A row of counter_names.yaml: of which kind of component, which names, and what they measure."""

    of: str = ""
    name: str
    quantity: MeasuredQuantity


@cache
def _rows() -> tuple[tuple[str, re.Pattern[str], MeasuredQuantity], ...]:
    rows = read_own(__package__, "counter_names.yaml", tuple[_NameRow, ...])
    return tuple((row.of, re.compile(row.name), row.quantity) for row in rows)


def change_of(counter: CounterEntry) -> ReadingChange:
    """Return what a counter was before and after."""
    siblings = (one if isinstance(one, SiblingEntry) else SiblingEntry(after=one) for one in counter.siblings)
    name = _with_unit(counter)
    quantity = quantity_of(of_counter(counter), name)
    if quantity is MeasuredQuantity.FABRIC_REGISTERED and not isinstance(counter.after, str):
        quantity = MeasuredQuantity.OTHER
    return ReadingChange(
        component=of_counter(counter),
        name=plain(name) if quantity is MeasuredQuantity.RDMA_COUNTER else name,
        quantity=quantity,
        before=_number(counter.before, name, quantity),
        after=_state(counter.after) or _number(counter.after, name, quantity),
        siblings=tuple(
            (_number(one.before, name, quantity), _number(one.after, name, quantity)) for one in siblings
        ),
        source=counter.source or "incident file",
        written=(_written(counter.before), _written(counter.after)),
    )


def quantity_of(component: str, name: str) -> MeasuredQuantity:
    """Return what a reading of that name measures."""
    kind, word = component.partition(":")[0], plain(name)
    kind = "disk" if kind in _DISKS else kind if kind in {"gpu", "engine"} else "host"
    if word in rdma_counters():
        return MeasuredQuantity.RDMA_COUNTER
    return next(
        (quantity for of, pattern, quantity in _rows() if of in {"", kind} and pattern.search(word)),
        MeasuredQuantity.OTHER,
    )


def plain(name: str) -> str:
    """Return a reading's name as counter_names.yaml has it: lower case, words joined by `_`, no vendor's prefix."""
    word = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    word = re.sub(r"[^a-z0-9]+", "_", word.lower()).strip("_")
    return re.sub(
        r"^(dcgm_(fi|exp)_(dev_|prof_)?|nvml_(fi_dev_|device_get_)?|nvidia_smi_)?(nvidia_)?(gpu_(?!max_))?",
        "",
        word,
    )


def _with_unit(counter: CounterEntry) -> str:
    """Return the name with its unit, which may be named by itself or with the value: `82 ms` makes it `…_ms`."""
    beside = re.search(r"\d\s*(ms|us|µs)$", counter.after) if isinstance(counter.after, str) else None
    unit = counter.unit if counter.unit in {"ms", "us", "s"} else beside[1] if beside else ""
    has_one = re.search(r"_(ms|us|s)$", counter.name)
    return counter.name if has_one or not unit else f"{counter.name}_{unit.replace('µ', 'u')}"


def _number(value: float | str | bool | None, name: str, quantity: MeasuredQuantity) -> Number:  # noqa: FBT001 -- a reading may be yes or no
    if (
        isinstance(value, str)
        and quantity is MeasuredQuantity.RECOVERY_ACTION
        and (code := _recovery_action(value))
    ):
        return code
    if isinstance(value, str) and quantity is MeasuredQuantity.FABRIC_REGISTERED:
        return 0.0 if _UNREGISTERED.search(value) else 1.0
    found, word = number(value), plain(name)
    if found is None:
        return None
    if quantity in _TIMES:
        return found * next((scale for unit, scale in _SCALES if re.search(unit, word)), 1.0)
    if quantity in _POWERS:
        return found / 1000 if found > _MILLIWATTS else found
    if quantity is MeasuredQuantity.UTILISATION and "ratio" in word:
        return found * 100
    if quantity is MeasuredQuantity.LOSS_SHARE:
        return found / 100 if re.search(r"pct|percent", word) or found > 1 else found
    return found


def number(value: float | str | bool | None) -> Number:  # noqa: FBT001 -- a reading may be yes or no
    """Return a reading as a number: also from text with a unit, `true`, hexadecimal; None where it is not one."""
    if isinstance(value, str):
        return _text_number(value)
    if value is None or abs(value) > _NONSENSE or value != value:  # noqa: PLR0124 -- not a number
        return None
    return float(value)


def _text_number(text: str) -> Number:
    word = re.sub(r"^\d: ?(?=[a-z])", "", text.strip().lower())  # sysfs of RDMA: `4: ACTIVE`
    if word in _YES | _NO:
        return float(word in _YES)
    if re.fullmatch(r"0x[0-9a-f]{1,16}", word):
        return float(int(word, 16))
    match = re.fullmatch(r"([-+]?\d{1,18}(?:\.\d{1,9})?)\s?[a-zµ%°/]{0,8}", word.replace(",", ""))
    return float(match[1]) if match else None


def _state(value: object) -> State | None:
    if not isinstance(value, str):
        return None
    word = value.lower().replace(" ", "_").replace("nvmlerror_", "").replace("err!_", "")
    word = re.sub(r"[^a-z_]", "", word)
    inside = (state for text, state in _STATES.items() if len(text) > 4 and text in word)
    return _STATES.get(word) or next(inside, None)


def _recovery_action(text: str) -> float | None:
    """Return the recovery action that a word of nvidia-smi means (`Reset`, `Drain and Reset`); None: it is none of them."""
    word = _words(text)
    for code, known in recovery_actions().items():
        name = _words(known.name)
        if word in {name, f"gpu {name}", name.removeprefix("gpu "), name.removeprefix("node ")}:
            return float(code)
    return None


def _words(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", " ", text.lower()).strip()


def _written(value: float | str | bool | None) -> str:  # noqa: FBT001 -- a reading may be yes or no
    if isinstance(value, str) or value is None:
        return value or ""
    return str(int(value)) if float(value).is_integer() else f"{value:g}"


def last_xids(changes: Iterable[ReadingChange]) -> list[tuple[ReadingChange, int]]:
    """Return the XIDs that a gauge of the last one has now and had not before."""
    gauges = (
        one for one in changes if one.quantity is MeasuredQuantity.LAST_XID and one.number != one.before
    )
    return [(one, int(one.number)) for one in gauges if one.number and 0 < one.number < _XID_MOST]


_XID_MOST = 1000
"""XIDs are below this. Source: NVIDIA's catalogue ends at 173."""
