"""All of `recommender` but the user: the catalogue, how interest fades, and the best session for known chances.

A user clicks on an item with the chance sigmoid(offset + strength preference . features), times a factor below 1 while
the item is among the last ones shown. What was shown is all that an action changes, so a session is planned for
exactly, by dynamic programming over time and the last items shown.

A state stands for these: the number whose digits, to the base items + 1, are the items, the one shown last first, and
`items` where fewer were shown.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import expit, roots_jacobi

CATALOGUE_SEED = 0
OFFSET_MEAN, OFFSET_SPREAD = -2.0, 0.5
"""Mean and standard deviation of the offsets, in logits: how popular an item is."""
STRENGTH = 3.0
"""Logits by which an item that points where the preference does is above one at a right angle to it."""
FATIGUE, RECOVERY = 0.9, 0.5
"""Share of the interest that is gone one step after an item was shown, and what is left of that with every step."""


class Catalogue(NamedTuple):
    """What everybody knows of the items."""

    features: np.ndarray
    """[items, features] float32, of length 1."""
    offsets: np.ndarray
    """[items] float32, in logits."""

    def chances(self, preference: jax.Array, strength: jax.Array) -> jax.Array:
        """Chance of a click on each item that was not shown of late, [items] float32.

        Args:
          preference: [features] float32, of length 1.
          strength: [] float32, in logits.
        """
        return jax.nn.sigmoid(self.offsets + strength * (self.features @ preference))

    def average_chances(self, strength: float) -> np.ndarray:
        """`chances`, averaged over preferences that are uniform on the unit sphere, [items] float32.

        On the sphere of d dimensions the cosine u of the angle to any direction has a density in proportion to
        (1 - u^2)^((d - 3) / 2), for which Gauss-Jacobi quadrature is made. So the average depends on the offset alone.
        """
        exponent = (self.features.shape[1] - 3) / 2
        cosines, weights = roots_jacobi(64, exponent, exponent)
        chances = expit(self.offsets[:, None] + strength * cosines)
        return (chances @ weights / weights.sum()).astype(np.float32)


def make_catalogue(items: int, features: int) -> Catalogue:
    """The catalogue of a size, which is always the same."""
    rng = np.random.default_rng(CATALOGUE_SEED)
    directions = rng.normal(size=(items, features))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    offsets = OFFSET_MEAN + OFFSET_SPREAD * rng.normal(size=items)
    return Catalogue(directions.astype(np.float32), offsets.astype(np.float32))


def interest(seen: jax.Array) -> jax.Array:
    """The factor of each item's chance that is left after the last ones shown.

    Args:
      seen: [window, items] float32, one-hot, the item shown last first; zeros where fewer were shown.

    Returns:
      [items] float32: 1 - FATIGUE RECOVERY^(n - 1) if an item was shown last n steps ago, 1 if not in the window.

    >>> print(interest(jnp.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])))
    [0.55 0.1  1.  ]
    """
    return jnp.min(jnp.where(seen > 0, jnp.asarray(_recovered(len(seen)))[:, None], 1.0), axis=0)


def best_return(chances: jax.Array, window: int) -> jax.Array:
    """Expected clicks of the best session, by dynamic programming.

    Args:
      chances: [session, items] float32, of a click at every step, before interest fades.
      window: steps until interest is whole again.

    Returns:
      [] float32.

    >>> float(best_return(jnp.array([[0.5, 0.25], [0.5, 0.25]]), 1))
    0.75
    """
    left = _interest_of_states(chances.shape[1], window)

    def backup(values: jax.Array, chance: jax.Array):
        return jnp.max(_worth(left, chance, values), axis=-1), None

    return jax.lax.scan(backup, jnp.zeros(len(left), jnp.float32), chances, reverse=True)[0][-1]


def best_session(chances: jax.Array, window: int) -> jax.Array:
    """The items of a session that is worth `best_return`, for the same arguments, [session] int32.

    >>> best_session(jnp.array([[0.5, 0.25], [0.5, 0.25]]), 1).tolist()
    [0, 1]
    """
    items = chances.shape[1]
    left = _interest_of_states(items, window)

    def backup(values: jax.Array, chance: jax.Array):
        worth = _worth(left, chance, values)
        return jnp.max(worth, axis=-1), jnp.argmax(worth, axis=-1).astype(jnp.int32)

    def follow(state: jax.Array, best: jax.Array):
        item = best[state]
        return item * (items + 1) ** (window - 1) + state // (items + 1), item

    plan = jax.lax.scan(backup, jnp.zeros(len(left), jnp.float32), chances, reverse=True)[1]
    return jax.lax.scan(follow, jnp.array(len(left) - 1, jnp.int32), plan)[1]


def _recovered(window: int) -> np.ndarray:
    """Interest that is left in an item 1, 2, ... steps after it was shown, [window] float32."""
    return (1 - FATIGUE * RECOVERY ** np.arange(window)).astype(np.float32)


def _interest_of_states(items: int, window: int) -> jax.Array:
    """`interest` in every state, [states, items] float32; in the last one nothing was shown yet."""
    shown = np.indices((items + 1,) * window).reshape(window, -1, 1)
    left = np.where(shown == np.arange(items), _recovered(window)[:, None, None], np.float32(1))
    return jnp.asarray(left.min(axis=0))


def _worth(left: jax.Array, chance: jax.Array, values: jax.Array) -> jax.Array:
    """Of showing each item in each state, [states, items] float32; values are those of the states one step later.

    The state that follows has the item for its first digit and drops the last one.
    """
    base = left.shape[1] + 1
    return left * chance[None] + jnp.repeat(values.reshape(base, -1)[:-1].T, base, axis=0)
