"""Check whether metrics text of another process may be appended to a scrape's page: its grammar, its names, its size.

Stricter than Prometheus' own parsers, since one bad line costs a scraper the whole page: exactly what our renderer writes
(HELP, TYPE, samples without a time), each family once and whole, each series once. What the numbers mean, and whether a
histogram's buckets add up, is not checked.
"""

import re
from collections.abc import Collection

TEXT_BYTES_MOST = 256 * 1024
"""Longest text. Source: our own bound; the agent of a node with eight GPUs, twenty probes and all their reasons has some 40 kB."""
_NAME = r"[a-zA-Z_][a-zA-Z0-9_]*"
_NEVER = r"\x00-\x1f\x7f\ud800-\udfff"  # Not in any text: a scraper may stumble over them.
_QUOTED = rf'"(?:[^"\\{_NEVER}]|\\[\\"n])*"'
_LABEL = re.compile(rf"({_NAME})=({_QUOTED})")
_HELP = re.compile(rf"# HELP ({_NAME}) (?:[^\\{_NEVER}]|\\[\\n])*")
_TYPE = re.compile(rf"# TYPE ({_NAME}) (counter|gauge|histogram)")
_SAMPLE = re.compile(
    rf"({_NAME})(?:\{{((?:{_NAME}={_QUOTED},)*{_NAME}={_QUOTED})\}})? "
    r"([+-]?(?:[0-9]+(?:\.[0-9]*)?(?:e[+-]?[0-9]+)?|Inf)|NaN)"
)
"""Source of the grammar: prometheus.io/docs/instrumenting/exposition_formats, text-based format."""
_SUFFIXES = {"counter": ("",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}


def why_not(text: str, *, prefix: str, taken: Collection[str] = ()) -> str:
    """Return why the text must not be appended, or an empty text; an empty input is valid.

    Every family's name begins with `prefix` and is none of `taken`, those that the page has already.
    """
    if len(text.encode("utf-8", "surrogatepass")) > TEXT_BYTES_MOST:
        return f"it is longer than {TEXT_BYTES_MOST} bytes"
    if text and not text.endswith("\n"):
        return "its last line is not whole"
    page = _AppendedPage(prefix, taken)
    for number, line in enumerate(text.split("\n")[:-1], start=1):
        if why := page.take(line):
            return f"line {number} {why}"
    return ""


class _AppendedPage:
    """The part of the page that has been read."""

    def __init__(self, prefix: str, taken: Collection[str]) -> None:
        self._prefix = prefix
        self._taken = set(taken)
        self._family = ""
        self._helped = ""
        self._names: tuple[str, ...] = ()
        self._seen: set[tuple[str, tuple[str, ...]]] = set()

    def take(self, line: str) -> str:
        """Return why a line does not belong here, or an empty text."""
        if found := _HELP.fullmatch(line):
            return self._begin(found[1], helped=True)
        if found := _TYPE.fullmatch(line):
            why = "" if found[1] == self._helped else self._begin(found[1], helped=False)
            self._helped = ""
            self._names = tuple(self._family + suffix for suffix in _SUFFIXES[found[2]])
            return why
        found = _SAMPLE.fullmatch(line)
        return "is not a line of a metric" if found is None else self._sample(found[1], found[2] or "")

    def _begin(self, name: str, *, helped: bool) -> str:
        if not name.startswith(self._prefix):
            return f"is of a metric whose name does not begin with {self._prefix}"
        if name in self._taken:
            return f"begins {name}, which is there already"
        self._taken.add(name)
        self._family, self._helped, self._names = name, name if helped else "", ()
        return ""

    def _sample(self, name: str, labels: str) -> str:
        if name not in self._names:
            return "is a sample of another metric than the one above it"
        pairs = _LABEL.findall(labels)
        keys = {label for label, _ in pairs}
        if len(keys) < len(pairs):
            return "has a label twice"
        if ("le" in keys) != name.endswith("_bucket"):
            return "has a bound and is not a bucket, or is a bucket without a bound"
        series = (name, tuple(sorted(f"{label}={value}" for label, value in pairs)))
        if series in self._seen:
            return "repeats a series"
        self._seen.add(series)
        return ""
