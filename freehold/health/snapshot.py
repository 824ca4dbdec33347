"""What the agent of a node says last: what is believed of each component, and how reading went. A value, and its file.

The file is replaced whole, so nobody reads half of it; whoever reads it looks at `at_s`, for an agent that has died writes
nothing. Nothing here judges.
"""

import contextlib
import os
from pathlib import Path

import msgspec

from freehold.core.findings import Finding, Verdict, worst

FILE_NAME = "health.json"
"""In the state folder."""
METRICS_NAME = "health.prom"
"""The same folder: the agent's metrics in Prometheus' text format, as node_exporter's textfile collector reads them."""
PERIOD_S = 10.0
"""Between two snapshots at least. Source: our own choice: the time of a look at GPUs and disks; engines are told sooner."""
STALE_PERIODS = 3
"""A snapshot older than this many periods says nothing of now. Source: our own choice, as `settle.STALE_LOOKS`."""


class Believed(msgspec.Struct, frozen=True, kw_only=True):
    """A finding after hysteresis."""

    finding: Finding
    since_s: float
    """Unix seconds since when the verdict is this one."""


class ReaderState(msgspec.Struct, frozen=True, kw_only=True):
    """How one reader is doing."""

    name: str
    state: str
    """`ok`, `late` (no answer within its deadline), `failed` (a mistake of our own), `waiting` (not read yet)."""
    detail: str = ""
    read_s: float = 0.0
    """Unix seconds of its last answer; 0: there was none."""
    took_s: float = 0.0
    """How long that took."""


class HealthSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """All that is believed of one node at one moment."""

    at_s: float
    """Unix seconds."""
    node: str = ""
    pid: int = 0
    """The agent's; 0: no agent runs, somebody looked once."""
    started_s: float = 0.0
    woke_s: float = 0.0
    """Unix seconds when the agent last went on after it had stood still itself, as when its machine is suspended; 0: it never did."""
    findings: tuple[Believed, ...] = ()
    """Worst first, then by probe and component."""
    readers: tuple[ReaderState, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """Return the worst verdict of all; of none at all UNKNOWN."""
        return worst(each.finding.verdict for each in self.findings)

    def is_stale(self, now_s: float) -> bool:
        """Return whether it is too old to speak for now."""
        return not -PERIOD_S <= now_s - self.at_s <= PERIOD_S * STALE_PERIODS


_DECODER = msgspec.json.Decoder(HealthSnapshot)
_ORDER = {verdict: index for index, verdict in enumerate(Verdict)}


def sorted_findings(found: list[Believed]) -> tuple[Believed, ...]:
    """Return the findings worst first, then by probe and component."""
    return tuple(
        sorted(found, key=lambda b: (-_ORDER[b.finding.verdict], b.finding.probe, b.finding.component))
    )


def encode(snapshot: HealthSnapshot) -> bytes:
    """Return it as one line of JSON, without the end of line."""
    return msgspec.json.encode(snapshot)


def decode(data: bytes) -> HealthSnapshot | None:
    """Return the snapshot; None for anything else."""
    try:
        return _DECODER.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def read_file(folder: Path) -> HealthSnapshot | None:
    """Return the snapshot in a state folder; None: there is none that can be read."""
    with contextlib.suppress(OSError):
        return decode((folder / FILE_NAME).read_bytes())
    return None


def replace_file(path: Path, content: bytes) -> None:
    """Write a file whole (mode 0600); raises OSError where the disk takes nothing."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 (a descriptor)
            file.write(content)
        fresh.replace(path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
