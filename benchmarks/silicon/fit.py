"""Fit a calibration vector to measured rows: mean absolute log error, every group counting alike, by Nelder and Mead.

The same roofline that sizing uses is called, for all rows of one setting at once.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from freehold.catalog.facts import Calibration
from freehold.sizing.replica.replica import size
from freehold.sizing.replica.roofline import RooflineSetting, output_per_s
from freehold.sizing.replica.split import split
from silicon.rows import Row

Array = NDArray[np.float64]
FIELDS = ("hbm_efficiency", "flops_efficiency", "fixed_ms_per_step", "allreduce_us", "per_sequence_us")
START = {"dense": (0.8, 0.5, 3.0, 6.0, 40.0), "moe": (0.6, 0.3, 3.0, 6.0, 40.0)}
"""Where the search begins and where it is drawn to; from published roofline fits (research 3.4)."""
PULL = 1e-3
"""How strongly, per squared log unit: the five are not separately identifiable, so without it they wander off."""
ROUNDS = 500


@dataclass(frozen=True)
class _Pack:
    setting: RooflineSetting
    concurrency: Array
    input_tokens: float
    output_tokens: float
    measured: Array


def fit(rows: Sequence[Row], start: Calibration) -> Calibration:
    """Return `start` with the vector that fits these rows best."""
    groups = defaultdict(list)
    for row in rows:
        groups[row.group].append(row)
    packed = [_pack(group, start) for group in groups.values()]
    origin = np.log(np.array(START[start.family]))

    def loss(point: Array) -> float:
        if point[0] > 0 or point[1] > 0:  # an efficiency above 1
            return 9.0
        vector = _with(start, np.exp(point))
        errors = [
            np.mean(np.abs(np.concatenate([_log_errors(pack, vector) for pack in packs]))) for packs in packed
        ]
        return float(np.mean(errors) + PULL * np.sum((point - origin) ** 2))

    found = min((_descend(loss, origin + shift) for shift in (0.0, -0.4)), key=loss)
    return replace(_with(start, np.exp(found)), fit_rows=len(rows))


def _with(start: Calibration, values: Array) -> Calibration:
    return replace(start, **dict(zip(FIELDS, map(float, values), strict=True)))


def _pack(rows: Sequence[Row], calibration: Calibration) -> list[_Pack]:
    settings = defaultdict(list)
    for row in rows:
        settings[(row.ask.gpus, row.ask.kv_bits, row.ask.input_tokens, row.ask.output_tokens)].append(row)
    return [_one_pack(alike, calibration) for alike in settings.values()]


def _one_pack(rows: Sequence[Row], calibration: Calibration) -> _Pack:
    ask = rows[0].ask
    tensor, pipeline = split(ask)
    setting = RooflineSetting(
        shape=ask.shape,
        gpu=ask.gpu,
        quant=ask.quant,
        kv_bits=ask.kv_bits,
        tensor_parallel=tensor,
        pipeline_parallel=pipeline,
        calibration=calibration,
    )
    return _Pack(
        setting,
        np.array([float(row.ask.concurrency) for row in rows]),
        ask.input_tokens,
        ask.output_tokens,
        np.array([row.output_tokens_per_s for row in rows]),
    )


def _log_errors(pack: _Pack, calibration: Calibration) -> Array:
    said = output_per_s(
        replace(pack.setting, calibration=calibration),
        pack.concurrency,
        input_tokens=pack.input_tokens,
        output_tokens=pack.output_tokens,
    )
    return np.asarray(np.log(said / pack.measured))


def fits_cache(row: Row, calibration: Calibration) -> bool:
    """Return whether all of the row's sequences have room at once: rows that queue for room would teach a fit nothing."""
    return size(row.ask, {calibration.id: calibration}).concurrency_max >= row.ask.concurrency


def _descend(loss: Callable[[Array], float], start: Array) -> Array:
    """Return the lowest point that the simplex of Nelder and Mead (1965) comes to."""
    points = [start, *[start + 0.3 * unit for unit in np.eye(len(start))]]
    values = [loss(point) for point in points]
    for _ in range(ROUNDS):
        order = np.argsort(values)
        points, values = [points[i] for i in order], [values[i] for i in order]
        middle = np.mean(points[:-1], axis=0)
        worst = points[-1]
        mirrored = middle + (middle - worst)
        value = loss(mirrored)
        if value < values[0]:
            further = middle + 2 * (middle - worst)
            far = loss(further)
            points[-1], values[-1] = (further, far) if far < value else (mirrored, value)
        elif value < values[-2]:
            points[-1], values[-1] = mirrored, value
        else:
            inner = middle + 0.5 * (worst - middle)
            near = loss(inner)
            if near < values[-1]:
                points[-1], values[-1] = inner, near
            else:
                points = [points[0], *[points[0] + 0.5 * (point - points[0]) for point in points[1:]]]
                values = [values[0], *[loss(point) for point in points[1:]]]
    return points[int(np.argmin(values))]
