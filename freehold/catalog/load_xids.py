"""Reads the facts on GPU and fabric faults out of catalog/data/health, each file once and when first asked for.

Each file holds its source, its date and one table in a block of text, a row a line: a hundred times fewer YAML values
than a map per number, so that reading all of them takes milliseconds. A row that does not fit is our own mistake and
an AssertionError with file and row. Nothing here judges, and nothing is taken from the user.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cache
from types import MappingProxyType
from typing import Any, TypeVar, get_type_hints

from freehold.catalog import xid_facts
from freehold.catalog.xid_facts import Xid, XidClass
from freehold.core.findings import Action, Verdict
from freehold.core.own_files import read_own

_T = TypeVar("_T")
_TRUTH = {
    "yes": True,
    "always": True,
    "hardware": True,
    "no": False,
    "software": False,
    "depends": None,
    "": None,
}
_READERS: Mapping[Any, Callable[[str], Any]] = {
    int: lambda cell: int(cell, 0),
    float | None: lambda cell: float(cell) if cell else None,
    bool: _TRUTH.__getitem__,
    bool | None: _TRUTH.__getitem__,
    Verdict | None: lambda cell: Verdict(cell) if cell else None,
    frozenset[int]: lambda cell: frozenset(_numbers(cell)),
    frozenset[int] | None: lambda cell: None if cell == "any" else frozenset(_numbers(cell)),
    frozenset[str]: lambda cell: frozenset(cell.split()),
}
"""How a cell is read for a field of that type; any other type is made of the text itself."""
_COUNT = re.compile(r"\{(?:\+(\d+))?\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class FactFile:
    """One data file: where its facts come from, and its rows."""

    name: str
    as_of: str
    """ISO date of the sources."""
    verified: str
    sources: MappingProxyType[str, str]
    rows: tuple[tuple[str, ...], ...]


@cache
def fact_file(name: str) -> FactFile:
    """Return catalog/data/health/NAME.yaml, cells stripped, `-` as an empty cell."""
    data = read_own("freehold.catalog", f"data/health/{name}.yaml", dict[str, Any])
    rows = tuple(_cells(line) for line in data["table"].splitlines() if line.strip())
    assert len({len(row) for row in rows}) == 1, f"{name}.yaml: rows of different lengths"
    return FactFile(
        name=name,
        as_of=data["as_of"],
        verified=data["verified"],
        sources=MappingProxyType(data["sources"]),
        rows=rows,
    )


def _cells(line: str) -> tuple[str, ...]:
    return tuple("" if cell.strip() == "-" else cell.strip() for cell in line.split("|"))


def _numbers(cell: str) -> Iterator[int]:
    for part in cell.split(","):
        first, _, last = part.strip().partition("-")
        yield from range(int(first, 0), int(last or first, 0) + 1)


def _facts(file: str, kind: Callable[..., _T]) -> Iterator[_T]:
    """Yield a fact per row, its cells in the order of the fields; a list of numbers in front is a fact for each."""
    hints = get_type_hints(kind)
    readers = {each.name: _READERS.get(hints[each.name], hints[each.name]) for each in fields(kind)}  # type: ignore[arg-type]
    for row in fact_file(file).rows:
        numbers = _numbers(row[0]) if "number" in readers else [row[0]]
        for index, first in enumerate(numbers):
            cells = {"mnemonic": _name(row[1], index)} if "mnemonic" in readers else {}
            named = {**dict(zip(readers, (str(first), *row[1:]), strict=True)), **cells}
            yield kind(**{name: read(named[name]) for name, read in readers.items()})


def _name(names: str, index: int) -> str:
    """Return the name of the number at `index` of a row: counted through, or the one in turn."""
    count = _COUNT.search(names)
    if count:
        return _COUNT.sub(str(int(count[1] or 0) + index), names)
    in_turn = names.split(",")
    return in_turn[index if len(in_turn) > 1 else 0].strip()


@cache
def xids() -> MappingProxyType[int, Xid]:
    """Return every known XID by number."""
    found = {fact.number: fact for fact in _facts("xids", Xid)}
    return MappingProxyType(dict(sorted(found.items())))


def xid(number: int) -> Xid:
    """Return what is known of an XID; one that no catalogue has is UNKNOWN and never acted on alone."""
    known = xids().get(number)
    return known or Xid(
        number=number,
        mnemonic="",
        nvidia="",
        causes="",
        gpud="",
        peers="",
        kind=XidClass.UNKNOWN,
        action=Action.NONE,
        repeated=Action.WATCH,
        sign="unknown_xid",
        note="in no catalogue that Freehold knows",
    )


@cache
def xid_classes() -> MappingProxyType[XidClass, xid_facts.XidClassRule]:
    """Return what an XID of each class is on its own."""
    return MappingProxyType({rule.kind: rule for rule in _facts("xid_classes", xid_facts.XidClassRule)})


@cache
def sxids() -> MappingProxyType[int, xid_facts.Sxid]:
    """Return every known SXid by number."""
    found = {fact.number: fact for fact in _facts("sxids", xid_facts.Sxid)}
    return MappingProxyType(dict(sorted(found.items())))


@cache
def throttle_bits() -> tuple[xid_facts.ThrottleBit, ...]:
    """Return the reasons for reduced clocks, lowest bit first."""
    return tuple(_facts("throttle_bits", xid_facts.ThrottleBit))


@cache
def recovery_actions() -> MappingProxyType[int, xid_facts.RecoveryAction]:
    """Return the driver's recovery verdicts by code; a code that is not here still means trouble."""
    return MappingProxyType(
        {each.code: each for each in _facts("recovery_actions", xid_facts.RecoveryAction)}
    )


@cache
def rdma_counters() -> MappingProxyType[str, xid_facts.RdmaCounter]:
    """Return the limits of RDMA counters by the counter's name in sysfs."""
    return MappingProxyType({each.name: each for each in _facts("rdma_counters", xid_facts.RdmaCounter)})


@cache
def pcie_replays() -> MappingProxyType[int, xid_facts.PcieReplay]:
    """Return the allowed PCIe replays by link generation."""
    return MappingProxyType({each.generation: each for each in _facts("pcie_replay", xid_facts.PcieReplay)})


@cache
def nvlink_bits() -> tuple[xid_facts.NvlinkBits, ...]:
    """Return what the register bits of an XID 74 line lead to."""
    return tuple(_facts("nvlink_registers", xid_facts.NvlinkBits))


@cache
def nvlink5_rules() -> MappingProxyType[int, tuple[xid_facts.Nvlink5Rule, ...]]:
    """Return what the words of XIDs 144 to 150 mean, by XID."""
    found: dict[int, list[xid_facts.Nvlink5Rule]] = {}
    for rule in _facts("nvlink5", xid_facts.Nvlink5Rule):
        found.setdefault(rule.number, []).append(rule)
    return MappingProxyType({number: tuple(rules) for number, rules in found.items()})
