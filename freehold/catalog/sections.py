"""The sections of a file of facts: which kind of fact each holds and by what its rows are identified.

Shipped files and users' files have the same sections. Nothing is read or checked here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from freehold.catalog import facts
from freehold.catalog.facts import Fact, RentalKind


@dataclass(frozen=True, slots=True, kw_only=True)
class FactSection:
    """One section: `rows` of `kind`."""

    name: str
    kind: type[Fact]
    key: tuple[str, ...]
    """A later file's row replaces the fields of those rows whose key fields equal the ones that it has."""
    identity: tuple[str, ...] = ()
    """What distinguishes two rows of one file, where that is more than the key."""
    fill: Mapping[str, object] = field(default_factory=dict)
    """What a key field is where a row leaves it out."""
    by_id: bool = True
    """The catalog has a mapping by the first key field; else a tuple."""
    closed: bool = False
    """Rows may be replaced, not added: an unknown one would have no effect."""


_RENTED: Mapping[str, object] = {"kind": RentalKind.ON_DEMAND, "term_months": 0}
_LIST = (
    FactSection(name="gpus", kind=facts.GpuFacts, key=("id",)),
    FactSection(name="models", kind=facts.ModelFacts, key=("id",)),
    FactSection(name="links", kind=facts.Link, key=("id",)),
    FactSection(name="storage", kind=facts.Storage, key=("id",)),
    FactSection(
        name="rentals",
        kind=facts.RentalPrice,
        key=("provider", "gpu", "kind", "term_months"),
        identity=("provider", "gpu", "kind", "term_months", "terms", "as_of"),
        fill=_RENTED,
        by_id=False,
    ),
    FactSection(name="apis", kind=facts.ApiPrice, key=("provider", "model"), by_id=False),
    FactSection(name="electricity", kind=facts.PowerPrice, key=("region", "kind"), by_id=False),
    FactSection(name="pue", kind=facts.Pue, key=("id",)),
    FactSection(name="colocation", kind=facts.Colocation, key=("id",)),
    FactSection(name="failures", kind=facts.FailureRate, key=("cause",), by_id=False),
    FactSection(name="nodes", kind=facts.Node, key=("id",)),
    FactSection(
        name="published_tco", kind=facts.PublishedTco, key=("gpu",), identity=("gpu", "source"), by_id=False
    ),
    FactSection(name="calibrations", kind=facts.Calibration, key=("id",)),
    FactSection(name="measurements", kind=facts.Measurement, key=("id",)),
    FactSection(name="corrections", kind=facts.Correction, key=("id",)),
    FactSection(name="engine_ratios", kind=facts.EngineRatio, key=("id",)),
    FactSection(name="defaults", kind=facts.Default, key=("name",), closed=True),
    FactSection(name="figures", kind=facts.Figure, key=("id",)),
    FactSection(name="price_databases", kind=facts.PriceDatabase, key=("id",), closed=True),
)
SECTIONS: Mapping[str, FactSection] = {section.name: section for section in _LIST}
"""By name; a file of facts is a map of these to lists of rows."""

PRICE_FIELDS = ("source", "as_of", "verified")
"""What a GPU's row says of its price, each with `price_` before it, besides `price_new_usd`."""
REFERENCES = (
    ("rentals", "gpu", "gpus"),
    ("apis", "same_as", "models"),
    ("measurements", "gpu", "gpus"),
    ("measurements", "model", "models"),
)
"""Section, field, and the section whose ids that field must name."""
