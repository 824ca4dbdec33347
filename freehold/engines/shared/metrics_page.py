"""Reading an engine's page of counters by its metric map.

It knows Prometheus' text as engines write it, and no engine; pages of other kinds an engine file reads itself (`Page`).
"""

import re
from collections.abc import Iterable, Mapping

from freehold.engines.base import Metric


def read_metrics(text: str, metrics: Iterable[Metric]) -> dict[str, float]:
    """Return our names with their values from a page in the Prometheus text format.

    Samples of one name are added up over their labels; of several names of theirs the first that is there counts.
    """
    wanted = tuple(metrics)
    sums = _sums(text, {(theirs, metric.only) for metric in wanted for theirs in metric.theirs})
    found: dict[str, float] = {}
    for metric in wanted:
        sample = next((key for name in metric.theirs if (key := (name, metric.only)) in sums), None)
        if sample is not None:
            found[metric.name] = sums[sample] * metric.scale
    return found


_PROGRESS = ("generated_tokens_total", "decode_steps_total")


def shows_progress(page: Mapping[str, float]) -> bool:
    """Return whether counters by our names have one that moves while requests run."""
    return any(name in page for name in _PROGRESS)


_Only = tuple[str, str] | None


def _sums(text: str, keys: set[tuple[str, _Only]]) -> dict[tuple[str, _Only], float]:
    names: dict[str, list[_Only]] = {}
    for name, only in keys:
        names.setdefault(name, []).append(only)
    sums: dict[tuple[str, _Only], float] = {}
    for line in text.splitlines():
        name = line.partition("{")[0].partition(" ")[0]
        value = _sample(line[len(name) :]) if name in names else None
        if value is not None:
            for only in names[name]:
                if only is None or _label(line, only[0]) in (None, only[1]):
                    sums[name, only] = sums.get((name, only), 0.0) + value
    return sums


def _label(line: str, name: str) -> str | None:
    found = re.search(rf'[{{,]\s*{name}="([^"]*)"', line)
    return found[1] if found else None


def _sample(rest: str) -> float | None:
    """Return the value after a sample's name and labels; None: not a finite number."""
    words = rest[rest.rfind("}") + 1 :].split()
    try:
        value = float(words[0])
    except (IndexError, ValueError):
        return None
    return value if value - value == 0 else None
