"""Draws of uncertain quantities: seeded, and one draw per input, whoever asks for it.

A `Spread` becomes a vector. What is known for certain stays one number (a vector of length 1, which numpy broadcasts).
Inputs are drawn by name: all options see the same electricity price in the same draw, so that differences between
options are not blurred by what they share. A name's draws depend on the seed and the name only, never on the order of
asking. `Middle` has the same face and gives middle values, with some inputs held at an end or at a value: thresholds
and tornados are worked out with the very code that is drawn. Nothing here knows what the quantities mean.
"""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from freehold.core.spread import Spread

Vector = NDArray[Any]
"""One value per draw, or one value for all draws (length 1)."""
Kept = TypeVar("Kept")
End = Literal["low", "mid", "high"]

_NORMAL_95 = 1.6448536
"""The standard normal's 95th percentile, which `Spread.high` is. Source: its quantile function."""


class Sampler(Protocol):
    """Where the lines take their numbers from."""

    def take(self, name: str, spread: Spread) -> Vector:
        """Return the values of one input: the same for the same name, whoever asks."""

    def keep(self, key: object, make: Callable[[], Kept]) -> Kept:
        """Return what was made for this key before, or make it: for what several lines work out alike."""


@dataclass(frozen=True, slots=True)
class Keeper:
    """Keeps what several lines work out alike."""

    _kept: dict[object, Any] = field(default_factory=dict, compare=False, kw_only=True)

    def keep(self, key: object, make: Callable[[], Kept]) -> Kept:
        """Return what was made for this key before, or make it."""
        if key not in self._kept:
            self._kept[key] = make()
        found: Kept = self._kept[key]
        return found


@dataclass(frozen=True, slots=True)
class Draws(Keeper):
    """Seeded draws in single precision: seven digits are more than any price has, at half the memory."""

    size: int
    seed: int
    _normals: dict[str, Vector] = field(default_factory=dict)
    _taken: dict[tuple[str, Spread], Vector] = field(default_factory=dict)

    def take(self, name: str, spread: Spread) -> Vector:
        """Return `size` draws of the input, or one value where it is exact.

        Two inputs of one name and different spreads move together (the same normal draw shapes both).
        """
        if spread.low == spread.high:
            return np.array([spread.mid], dtype=np.float32)
        if (name, spread) not in self._taken:
            self._taken[name, spread] = shaped(self._normal(name), spread)
        return self._taken[name, spread]

    def _normal(self, name: str) -> Vector:
        if name not in self._normals:
            generator = np.random.Generator(np.random.PCG64([self.seed, zlib.crc32(name.encode())]))
            self._normals[name] = generator.standard_normal(self.size, dtype=np.float32)
        return self._normals[name]


@dataclass(frozen=True, slots=True)
class Middle(Keeper):
    """Middle values in double precision, but for the inputs that are held at an end of their spread or at a value."""

    ends: Mapping[str, End] = field(default_factory=dict)
    values: Mapping[str, float] = field(default_factory=dict)

    def take(self, name: str, spread: Spread) -> Vector:
        """Return one value."""
        held = self.values.get(name)
        return np.array([held if held is not None else getattr(spread, self.ends.get(name, "mid"))])


@dataclass(frozen=True, slots=True)
class HeldDraws(Keeper):
    """Draws of which some inputs are held at a value: what if. The other inputs are drawn as ever."""

    draws: Draws
    values: Mapping[str, float]

    def take(self, name: str, spread: Spread) -> Vector:
        """Return the draws of the input, or the one value that it is held at."""
        held = self.values.get(name)
        return self.draws.take(name, spread) if held is None else np.array([held], dtype=np.float32)


def shaped(normal: Vector, spread: Spread) -> Vector:
    """Return standard normal draws bent to a spread's 5th, 50th and 95th percentile.

    Lognormal where low is positive, as prices and speeds vary (both arms have their own width); else normal, cut at
    0 if low is not below it: what cannot be negative is not drawn negative.
    """
    if spread.low > 0:
        down, up = (float(np.log(spread.mid / spread.low)), float(np.log(spread.high / spread.mid)))
        bent: Vector = np.exp(_two_armed(normal, down, up))
        bent *= np.float32(spread.mid)
        return bent
    straight = _two_armed(normal, spread.mid - spread.low, spread.high - spread.mid) + np.float32(spread.mid)
    return np.maximum(straight, 0) if spread.low >= 0 else straight


def _two_armed(normal: Vector, down: float, up: float) -> Vector:
    """Return the draws times the width of the arm that they fall on."""
    half = np.float32((up + down) / 2 / _NORMAL_95)
    bent = normal * half
    if not np.isclose(up, down):
        bent += np.abs(normal) * np.float32((up - down) / 2 / _NORMAL_95)
    return bent
