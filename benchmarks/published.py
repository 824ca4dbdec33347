"""How far sizing is from what others published, leaving out one of those who measured at a time; corrections; the page on it.

The rows are freehold/catalog/data/measurements.yaml. A row whose `constant` is set taught the roofline a constant and tests nothing.
Used by sizing.py.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
from stack import Bar

from freehold.catalog.facts import Catalog, Correction, Measurement, Verified
from freehold.sizing.replica.answer import SizeAsk, Sized
from freehold.sizing.replica.explain import ask_of, kind_of
from freehold.sizing.replica.replica import size
from freehold.sizing.replica.vector import SOURCES_MIN, Kind, card_of

AGREE = 0.75
"""Of the sources, so many must be on one side of the roofline before its middle is moved."""
MOVED_MIN = 0.05
"""Smaller moves of a middle are left out: they are within what runs of the same load differ by."""
NINETY = 1.645
"""Standard deviations to each side that hold nine in ten of a normal spread."""
INSIDE_MIN, INSIDE_EACH_MIN = 0.8, 0.6
ERROR_MAX, DENSE_MAX = 0.25, 0.12
PAGE = "docs/how-far-off.md"


@dataclass(frozen=True, kw_only=True)
class Case:
    """A measurement and what sizing is asked for it."""

    row: Measurement
    ask: SizeAsk

    @property
    def kind(self) -> Kind:
        """What a correction may depend on."""
        return kind_of(self.ask)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A case and what sizing says of it without its source."""

    case: Case
    said: Sized

    @property
    def error(self) -> float:
        """Said over measured, less one; a refusal is wholly wrong."""
        return self.said.output_tokens_per_s.mid / self.case.row.output_tokens_per_s - 1

    @property
    def inside(self) -> bool:
        """Whether the measured figure lies in the printed range."""
        spread = self.said.output_tokens_per_s
        return spread.low <= self.case.row.output_tokens_per_s <= spread.high


def cases(catalog: Catalog) -> list[Case]:
    """Return all measurements as asks."""
    return [Case(row=row, ask=ask_of(row, catalog)) for row in catalog.measurements.values()]


def fit_corrections(rows: Iterable[Case], catalog: Catalog) -> dict[str, Correction]:
    """Return a correction per region that somebody measured in, dated as the newest row."""
    rows = list(rows)
    newest = max(case.row.as_of for case in rows)
    logs: dict[tuple[str, str, str, int], dict[str, list[float]]] = {}
    for case in rows:
        said = size(case.ask, catalog.calibrations).output_tokens_per_s.mid
        if said > 0:
            for key in case.kind.keys:
                log = math.log(case.row.output_tokens_per_s / said)
                logs.setdefault(key, {}).setdefault(case.row.measured_by, []).append(log)
    found = [_correction(key, by_source, newest) for key, by_source in sorted(logs.items())]
    return {each.id: each for each in found}


def _correction(
    key: tuple[str, str, str, int], by_source: Mapping[str, list[float]], newest: date
) -> Correction:
    """Return a region's correction: each source counts alike, however many rows it has."""
    engine, card, family, bits = key
    middles = [float(np.median(values)) for values in by_source.values()]
    below = float(np.mean([middle < 0 for middle in middles]))
    agreed = len(middles) >= SOURCES_MIN and max(below, 1 - below) >= AGREE
    median = float(np.median(middles))
    middle = median if agreed and abs(median) >= MOVED_MIN else 0.0
    variance = float(np.mean([np.mean((np.array(values) - middle) ** 2) for values in by_source.values()]))
    width = NINETY * math.sqrt(variance * (1 + 1 / len(middles)))
    return Correction(
        id="-".join(str(part) for part in (engine, card, family, bits) if part),
        engine=engine,
        card=card,
        family=family,
        bits=bits,
        ratio=round(math.exp(middle), 3),
        part=round(math.exp(width) - 1, 3),
        rows=sum(map(len, by_source.values())),
        sources=len(middles),
        source=f"measurements.yaml, {', '.join(sorted(by_source))}",
        as_of=newest,
        verified=Verified.RAN,
    )


def left_out(catalog: Catalog) -> list[Seen]:
    """Return what sizing says of each row with corrections that its source had no part in."""
    every = cases(catalog)
    seen = []
    for source in sorted({case.row.measured_by for case in every}):
        others = [case for case in every if case.row.measured_by != source]
        corrections = fit_corrections(others, catalog)
        seen += [
            Seen(case=case, said=size(case.ask, catalog.calibrations, corrections))
            for case in every
            if case.row.measured_by == source and not case.row.constant
        ]
    return seen


def card_words(seen: Seen) -> str:
    return card_of(seen.case.ask.gpu)


GROUPINGS: Mapping[str, Callable[[Seen], str]] = {
    "card": card_words,
    "card and family": lambda each: f"{card_words(each)}, {each.case.ask.shape.family}",
    "engine": lambda each: each.case.row.engine,
    "source": lambda each: each.case.row.measured_by,
}


def tables(seen: Sequence[Seen]) -> list[str]:
    """Return Markdown tables of error and share inside, by what rows can be grouped by."""
    lines = []
    for name, group_of in {"": lambda _: "all", **GROUPINGS}.items():
        if name:
            lines += [
                "",
                f"| by {name} | rows | inside the range | mean error | median said over measured |",
                "|---|---|---|---|---|",
            ]
        else:
            lines += [
                "| | rows | inside the range | mean error | median said over measured |",
                "|---|---|---|---|---|",
            ]
        for group in sorted({group_of(each) for each in seen}):
            mine = [each for each in seen if group_of(each) == group]
            inside, error = _share(mine), _mean(mine)
            bias = np.median([each.error + 1 for each in mine])
            lines.append(f"| {group} | {len(mine)} | {inside:.0%} | {error:.0%} | {bias:.2f} |")
    return lines


def _share(seen: Sequence[Seen]) -> float:
    return float(np.mean([each.inside for each in seen]))


def _mean(seen: Sequence[Seen]) -> float:
    return float(np.mean([abs(each.error) for each in seen]))


def bars(seen: Sequence[Seen]) -> list[Bar]:
    """Return the demands on published rows."""
    found = [
        Bar(name="published, share inside the range", value=_share(seen), limit=INSIDE_MIN, at_least=True),
        Bar(name="published, mean absolute error", value=_mean(seen), limit=ERROR_MAX),
    ]
    vendors = {"NVIDIA": ("nvidia", "consumer"), "AMD": ("amd", "amd-fp4"), "consumer cards": ("consumer",)}
    for vendor, cards in vendors.items():
        mine = [each for each in seen if card_words(each) in cards]
        name = f"published, {vendor}, share inside the range"
        found.append(Bar(name=name, value=_share(mine), limit=INSIDE_EACH_MIN, at_least=True))
    dense = [each for each in seen if (card_words(each), each.case.ask.shape.family) == ("nvidia", "dense")]
    name = "published, dense on NVIDIA's data-centre cards, mean absolute error"
    return [*found, Bar(name=name, value=_mean(dense), limit=DENSE_MAX)]


def page(seen: Sequence[Seen], checked: Sequence[Bar], *, today: date) -> str:
    """Return docs/how-far-off.md."""
    sources = len({each.case.row.measured_by for each in seen})
    head = f"""# How far off

Written by `python benchmarks/sizing.py --page` on {today}: how far `freehold size` is from what {sources} others published, on rows that it was
not fitted on. Each source is left out in turn: its rows are compared with figures whose corrections its rows had no part in.
Rows that a constant was set with are not counted. A range promises to hold nine rows in ten. Others' runs are partly untuned, and their lengths and
concurrency are sometimes inferred. The rows with their addresses are in `freehold/catalog/data/measurements.yaml`.

"""
    rows = [
        f"| {each.case.row.id} | {each.case.row.output_tokens_per_s:,.0f} | {_range(each.said)} | {'yes' if each.inside else 'no'} |"
        for each in seen
    ]
    held = [
        f"| {bar.name} | {bar.value:.0%} | {'≥' if bar.at_least else '≤'} {bar.limit:.0%} | {'yes' if bar.holds else 'no'} |"
        for bar in checked
    ]
    parts = [
        *tables(seen),
        "",
        "## Demands",
        "",
        "| demand | is | limit | holds |",
        "|---|---|---|---|",
        *held,
        "",
        "## Every row",
        "",
        "Output tokens/s of the whole replica.",
        "",
        "| row | measured | said, with its range | inside |",
        "|---|---|---|---|",
        *rows,
    ]
    return head + "\n".join(parts) + "\n"


def _range(said: Sized) -> str:
    spread = said.output_tokens_per_s
    return f"{spread.mid:,.0f} ({spread.low:,.0f} to {spread.high:,.0f})" if spread.mid else "does not fit"


def corrections_yaml(found: Mapping[str, Correction]) -> str:
    """Return freehold/catalog/data/corrections.yaml."""
    lines = [
        "# How far the roofline is off per region, from measurements.yaml. Written with `python benchmarks/sizing.py --fit`; the narrowest region that",
        "# at least three sources measured in holds. ratio: measured over calculated, 1 where sources are on both sides. part: nine in ten are inside.",
        "# Every row has source, as_of and verified: ran (a tool was run), read (in the named source), secondary (in a page",
        "# that quotes the source), memory (check before relying on it). Edit this file, then `python -m freehold.catalog.rows`.",
        "corrections:",
    ]
    for each in found.values():
        fields = {
            "id": each.id,
            "engine": each.engine,
            "card": each.card,
            "family": each.family,
            "bits": each.bits,
        }
        fields |= {"ratio": each.ratio, "part": each.part, "rows": each.rows, "sources": each.sources}
        fields |= {"source": f'"{each.source}"', "as_of": each.as_of, "verified": each.verified.value}
        kept = [f"{name}: {value}" for name, value in fields.items() if value not in ("", 0)]
        lines.append(f"  - {{{', '.join(kept)}}}")
    return "\n".join(lines) + "\n"
