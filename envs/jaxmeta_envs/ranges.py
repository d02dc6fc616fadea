"""Ranges that constants of an environment are drawn from, inside for the splits and outside for shifted tasks.

A place in a range is 0 at its lowest value and 1 at its highest. Where both ends have the same sign, places are even in
the logarithm, so that a mass half as large is as likely as one twice as large and no shifted mass is negative; else
they are even in the value. A point of the unit cube of places is drawn from the disjoint cells of `splits`.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.core.errors import as_kind, require, require_finite
from jaxmeta.core.types import Key
from jaxmeta_envs import splits

SHIFT = 0.25
"""How far outside its range a shifted constant lies at most, as a share of the range."""


class Range(NamedTuple):
    """Lowest and highest value of a constant."""

    low: float
    high: float

    @property
    def logarithmic(self) -> bool:
        """Whether places are even in the logarithm."""
        return self.low * self.high > 0

    def value(self, place: jax.Array) -> jax.Array:
        """The value at a place, [] float32.

        >>> round(float(Range(0.5, 2.0).value(jnp.array(0.5))), 4), float(Range(0.0, 2.0).value(jnp.array(0.5)))
        (1.0, 1.0)
        """
        place = jnp.asarray(place, jnp.float32)
        if not self.logarithmic:
            return self.low + (self.high - self.low) * place
        return math.copysign(1.0, self.low) * abs(self.low) * jnp.exp(math.log(self.high / self.low) * place)

    def place(self, value: jax.Array) -> jax.Array:
        """The place of a value, [] float32: the inverse of `value`."""
        value = jnp.asarray(value, jnp.float32)
        if not self.logarithmic:
            return (value - self.low) / (self.high - self.low)
        return jnp.log(value / self.low) / math.log(self.high / self.low)


def read_range(name: str, bounds: Any) -> Range:
    """Checks a pair of numbers, and returns it as a range.

    Raises:
      UsageError: it is no pair of finite numbers whose first is below the second in single precision.

    >>> read_range("gravity", (5, 15.0))
    Range(low=5.0, high=15.0)
    """
    pair = isinstance(bounds, tuple | list) and len(bounds) == 2
    require(pair, name, "be a pair of numbers, the lowest and the highest", bounds)
    low, high = (as_kind(name, bound, float) for bound in bounds)
    for bound in (low, high):
        require_finite(name, bound)
    require(bool(np.float32(low) < np.float32(high)), name, "have its lowest value below its highest", (low, high))
    return Range(low, high)


def draw(key: Key, split: str, ranges: Mapping[str, Range]) -> dict[str, jax.Array]:
    """Draws a value for every range.

    Args:
      key: a PRNG key.
      split: `train`, `validation` or `test`, whose values come from disjoint cells of the cube of places; or `shifted`,
        where every value lies outside its range, by up to `SHIFT` of it at either end, though never beyond a zero that
        the range ends in. Static.
      ranges: by name, at least one.

    Returns:
      The values, [] float32 each.
    """
    places = _outside(key, ranges) if split == "shifted" else splits.draw(key, split, len(ranges))
    return {name: bounds.value(place) for (name, bounds), place in zip(ranges.items(), places, strict=True)}


def _outside(key: Key, ranges: Mapping[str, Range]) -> jax.Array:
    """Places outside 0 to 1, [D] float32."""
    key_side, key_excess = jax.random.split(key)
    above = jax.random.bernoulli(key_side, shape=(len(ranges),))
    above |= jnp.array([bounds.low == 0 for bounds in ranges.values()])
    above &= jnp.array([bounds.high != 0 for bounds in ranges.values()])
    excess = SHIFT * jax.random.uniform(key_excess, (len(ranges),), jnp.float32, minval=splits.MARGIN)
    return jnp.where(above, 1 + excess, -excess)
