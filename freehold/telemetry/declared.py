"""Every metric that Freehold itself exposes, as two tables (the gateway's, the agent's): name, kind, meaning, labels with their bounds.

The tables are data, `declared.toml` beside this file. A metric that is not in them cannot be written. This file counts
nothing; `freehold.telemetry.metrics` does.
"""

import tomllib
from importlib.resources import files
from typing import Any, Literal

import msgspec

Kind = Literal["counter", "gauge", "histogram"]


class Label(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A label and the most values it may have; further values fold into `other` and are counted."""

    at_most: int
    name: str = ""


class Declared(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One metric."""

    name: str
    """`freehold_*` in base units: `_seconds`, `_bytes`, and `_total` for every counter."""
    kind: Kind
    help: str
    labels: tuple[Label, ...] = ()
    buckets: tuple[float, ...] = ()
    """Upper bounds of a histogram's buckets in the metric's unit, rising, without `+Inf`."""
    pooled: Literal["sum", "max"] = "sum"
    """How the numbers of several processes combine: most are parts of a whole, some are each process's view of it."""


_MetricRow = dict[str, Any]
"""One `Declared` as the file has it: labels and buckets by their keys."""


class _MetricFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    labels: dict[str, Label]
    buckets: dict[str, tuple[float, ...]]
    gateway: tuple[_MetricRow, ...]
    agent: tuple[_MetricRow, ...]

    def metrics(self, rows: tuple[_MetricRow, ...]) -> tuple[Declared, ...]:
        """Return rows with their labels and buckets; raises KeyError for one that is not in the file."""
        return tuple(msgspec.convert(self._whole(row), Declared) for row in rows)

    def _whole(self, row: _MetricRow) -> _MetricRow:
        labels = [self._label(key) for key in row.get("labels", ())]
        return {**row, "labels": labels, "buckets": self.buckets[row["buckets"]] if "buckets" in row else ()}

    def _label(self, key: str) -> Label:
        label = self.labels[key]
        return Label(name=label.name or key, at_most=label.at_most)


_FILE = msgspec.convert(
    tomllib.loads(files("freehold.telemetry").joinpath("declared.toml").read_text("utf-8")), _MetricFile
)
DECLARED = _FILE.metrics(_FILE.gateway)
"""What a gateway exposes of itself and of the stack."""
AGENT = _FILE.metrics(_FILE.agent)
"""What a node's agent exposes, in its file and on the gateway's page, where it stands beside DECLARED: no name is in both."""
