"""Where a figure comes from: which published measurements its correction rests on, and how far each of them was off.

It measures nothing; the corrections are fitted by benchmarks/sizing.py.
"""

from dataclasses import dataclass

from freehold.catalog.facts import Catalog, Measurement
from freehold.sizing.model.from_catalog import shape_of
from freehold.sizing.replica.answer import SizeAsk, Sized
from freehold.sizing.replica.replica import size
from freehold.sizing.replica.vector import Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Rests:
    """A published measurement, and what sizing says of the same replica today."""

    row: Measurement
    said_tokens_per_s: float
    """The middle; 0: sizing says that it does not fit."""
    inside: bool
    """Whether the measured figure lies in the range."""


def ask_of(row: Measurement, catalog: Catalog) -> SizeAsk:
    """Return what sizing is asked for a measurement; the catalog's words are sizing's."""
    return SizeAsk(
        shape=shape_of(catalog.models[row.model]),
        gpu=catalog.gpus[row.gpu],
        gpus=row.gpus,
        engine=row.engine,  # type: ignore[arg-type]
        quant=row.quant,  # type: ignore[arg-type]
        kv_bits=row.kv_bits,
        input_tokens=row.input_tokens,
        output_tokens=row.output_tokens,
        concurrency=row.concurrency,
    )


def kind_of(ask: SizeAsk) -> Kind:
    """Return what a correction may depend on."""
    return Kind(engine=ask.engine, shape=ask.shape, gpu=ask.gpu, quant=ask.quant)


def rests_on(sized: Sized, catalog: Catalog) -> tuple[Rests, ...]:
    """Return the measurements that the correction rests on, those of the same GPU, model and quantisation first."""
    used = sized.correction
    if used is None:
        return ()
    key = (used.engine, used.card, used.family, used.bits)
    asks = [(row, ask_of(row, catalog)) for row in catalog.measurements.values()]
    rests = [_rests(row, ask, catalog) for row, ask in asks if key in kind_of(ask).keys]
    ask = sized.ask

    def far(each: Rests) -> tuple[bool, bool, bool]:
        row = each.row
        return row.gpu != ask.gpu.id, row.model != ask.shape.name, row.quant != ask.quant

    return tuple(sorted(rests, key=far))


def _rests(row: Measurement, ask: SizeAsk, catalog: Catalog) -> Rests:
    said = size(ask, catalog.calibrations, catalog.corrections).output_tokens_per_s
    return Rests(row=row, said_tokens_per_s=said.mid, inside=said.low <= row.output_tokens_per_s <= said.high)
