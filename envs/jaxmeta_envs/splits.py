"""Draws points of the unit cube from the disjoint, interleaved regions of the splits, so that tests interpolate.

Each axis is cut into six equal parts, and the class of a lattice cell is the sum of its indices modulo six:

    class 0: validation      class 3: test      the others: train

All cells beside a held-out one, along every axis, are train cells. A point of a split is a uniform point of the cube
whose last coordinate is moved by whole cells into a class of the split: nothing is rejected, every coordinate stays
uniform on [0, 1), and so do all but one of them jointly. No single factor distinguishes two splits.
"""

import jax
import jax.numpy as jnp

from jaxmeta.core.errors import require_known
from jaxmeta.core.types import Key

CELLS = 6
"""Cells along an axis, and classes of cells."""
CLASSES = {"train": (1, 2, 4, 5), "validation": (0,), "test": (3,)}
"""The classes of each split."""
MARGIN = 1e-4
"""Share of a cell at either side that no point falls in, so that rounding moves none into the next cell."""


def draw(key: Key, split: str, dimension: int) -> jax.Array:
    """Draws a point of the unit cube from the region of a split.

    Args:
      key: a PRNG key.
      split: `train`, `validation` or `test`; static.
      dimension: D, number of coordinates, at least 1; static.

    Returns:
      The point, [D] float32 in [0, 1).

    Raises:
      UsageError: an unknown split.

    >>> int(classify(draw(jax.random.key(0), "test", 5)))
    3
    """
    require_known("split", split, CLASSES)
    classes = jnp.array(CLASSES[split], jnp.int32)
    uniform = jax.random.uniform(key, (dimension + 1,), jnp.float32)
    wanted = classes[jnp.floor(uniform[0] * len(classes)).astype(jnp.int32)]
    cell = jnp.floor(uniform[1:] * CELLS).astype(jnp.int32)
    offset = MARGIN + (1 - 2 * MARGIN) * (uniform[1:] * CELLS - cell)
    cell = cell.at[-1].set((wanted - jnp.sum(cell[:-1], dtype=jnp.int32)) % CELLS)
    return (cell + offset) / CELLS


def classify(point: jax.Array) -> jax.Array:
    """Class of the cell that holds a point.

    Args:
      point: [D] float32 in [0, 1).

    Returns:
      The class, [] int32 in 0 to 5.

    >>> int(classify(jnp.array([0.1, 0.9])))
    5
    """
    cell = jnp.floor(point * CELLS).astype(jnp.int32)
    return jnp.sum(cell) % CELLS


def split_of(point: jax.Array) -> str:
    """Name of the split that a point belongs to. Runs on the host.

    >>> split_of(jnp.array([0.4, 0.2]))
    'test'
    """
    found = int(classify(point))
    return next(split for split, classes in CLASSES.items() if found in classes)


def only_train_seen(splits: tuple[str, ...], split: str) -> bool:
    """Whether tasks of a split also occur in training, where no two of the splits share a task.

    Raises:
      UsageError: an unknown split.

    >>> only_train_seen(("train", "validation", "test"), "test")
    False
    """
    require_known("split", split, splits)
    return split == "train"
