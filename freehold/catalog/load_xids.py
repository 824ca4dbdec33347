"""Reads the facts on GPU and fabric faults out of catalog/data/health, each file once and when first asked for.

Each file holds its source, its date and one table in a block of text, a row a line: a hundred times fewer YAML values
than a map per number, so that reading all of them takes milliseconds. A row that does not fit is our own mistake and
an AssertionError with file and row. Nothing here judges, and nothing is taken from the user.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any

from freehold.catalog.xid_facts import (
    Nvlink5Rule,
    NvlinkBits,
    PcieReplay,
    RdmaCounter,
    RecoveryAction,
    Sxid,
    ThrottleBit,
    Xid,
    XidClass,
    XidClassRule,
)
from freehold.core.findings import Action, Verdict
from freehold.core.own_files import read_own

_FATAL = {"yes": True, "always": True, "no": False, "depends": None}
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
        yield from range(int(first), int(last or first) + 1)


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
    found = {fact.number: fact for row in fact_file("xids").rows for fact in _xids_of(row)}
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


def _xids_of(row: tuple[str, ...]) -> Iterator[Xid]:
    numbers, names, nvidia, causes, gpud, peers, kind, action, repeated, sign, disagreement, note = row
    for index, number in enumerate(_numbers(numbers)):
        yield Xid(
            number=number,
            mnemonic=_name(names, index),
            nvidia=nvidia,
            causes=causes,
            gpud=gpud,
            peers=peers,
            kind=XidClass(kind),
            action=Action(action),
            repeated=Action(repeated),
            sign=sign,
            disagreement=disagreement,
            note=note,
        )


@cache
def xid_classes() -> MappingProxyType[XidClass, XidClassRule]:
    """Return what an XID of each class is on its own."""
    rules = (
        XidClassRule(
            kind=XidClass(kind), reason=reason, verdict=Verdict(verdict) if verdict else None, says=says
        )
        for kind, reason, verdict, says in fact_file("xid_classes").rows
    )
    return MappingProxyType({rule.kind: rule for rule in rules})


@cache
def sxids() -> MappingProxyType[int, Sxid]:
    """Return every known SXid by number."""
    found = {
        number: Sxid(number=number, name=name, fatal=_FATAL[fatal], note=note)
        for numbers, name, fatal, note in fact_file("sxids").rows
        for number in _numbers(numbers)
    }
    return MappingProxyType(dict(sorted(found.items())))


@cache
def throttle_bits() -> tuple[ThrottleBit, ...]:
    """Return the reasons for reduced clocks, lowest bit first."""
    return tuple(
        ThrottleBit(
            bit=int(bit, 16), name=name, hardware=by == "hardware", normal=normal == "yes", meaning=meaning
        )
        for bit, name, by, normal, meaning in fact_file("throttle_bits").rows
    )


@cache
def recovery_actions() -> MappingProxyType[int, RecoveryAction]:
    """Return the driver's recovery verdicts by code; a code that is not here still means trouble."""
    return MappingProxyType(
        {
            int(code): RecoveryAction(code=int(code), name=name, action=Action(action), note=note)
            for code, name, action, note in fact_file("recovery_actions").rows
        }
    )


@cache
def rdma_counters() -> MappingProxyType[str, RdmaCounter]:
    """Return the limits of RDMA counters by the counter's name in sysfs."""
    return MappingProxyType(
        {
            name: RdmaCounter(name=name, fatal_per_s=_optional(fatal), warn_per_s=_optional(warn), note=note)
            for name, fatal, warn, note in fact_file("rdma_counters").rows
        }
    )


@cache
def pcie_replays() -> MappingProxyType[int, PcieReplay]:
    """Return the allowed PCIe replays by link generation."""
    return MappingProxyType(
        {
            int(generation): PcieReplay(generation=int(generation), per_lane_per_minute=float(rate))
            for generation, rate in fact_file("pcie_replay").rows
        }
    )


@cache
def nvlink_bits() -> tuple[NvlinkBits, ...]:
    """Return what the register bits of an XID 74 line lead to."""
    return tuple(
        NvlinkBits(
            register=int(register),
            bits=frozenset(_numbers(bits)),
            times_per_day=int(times),
            leads_to=leads_to,
            note=note,
        )
        for register, bits, times, leads_to, note in fact_file("nvlink_registers").rows
    )


@cache
def nvlink5_rules() -> MappingProxyType[int, tuple[Nvlink5Rule, ...]]:
    """Return what the words of XIDs 144 to 150 mean, by XID."""
    found: dict[int, list[Nvlink5Rule]] = {}
    for row in fact_file("nvlink5").rows:
        rule = _nvlink5(row)
        found.setdefault(rule.number, []).append(rule)
    return MappingProxyType({number: tuple(rules) for number, rules in found.items()})


def _nvlink5(row: tuple[str, ...]) -> Nvlink5Rule:
    number, subcode, v1, v2, down, promoted, status, immediate, investigatory, severity, blames = row
    return Nvlink5Rule(
        number=int(number),
        subcode=subcode,
        v1=int(v1, 16),
        v2=int(v2, 16),
        down=frozenset(_numbers(down)),
        promoted=promoted == "yes" if promoted else None,
        status=None if status == "any" else frozenset(int(each, 16) for each in status.split(",")),
        immediate=immediate,
        investigatory=investigatory,
        severity=severity,
        blames=frozenset(blames.split()),
    )


def _optional(cell: str) -> float | None:
    return float(cell) if cell else None
