"""A square grid with a hidden goal, as an environment."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta_envs.grid import EnvParams, Grid


class GridNavi(Grid[EnvParams]):
    """A square grid, entered at (0, 0). A move into a wall leaves the agent where it is.

    A goal d moves away is worth at most (16 - d) - 0.1 (d - 1) in 15 steps, 11.071 on average over the paper's 21
    goals.
    """

    moves = ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0))
    """(x, y) displacement of the actions stay, up, right, down, left."""

    def __init__(self, size: int = 5):
        super().__init__(size)

    @property
    def default_params(self) -> EnvParams:
        """The episode of the paper, with the goal in the far corner."""
        return EnvParams(goal=jnp.full((2,), self.size - 1, jnp.int32))

    def start(self, params: EnvParams) -> jax.Array:
        """The corner (0, 0), [2] int32."""
        return jnp.zeros((2,), jnp.int32)


environment_of = functools.cache(GridNavi)
"""The environment of a size: one instance each, since gymnax compiles anew for every instance."""


def goal_cells(size: int) -> np.ndarray:
    """Cells that can be the goal: all but the start, its neighbours and the cell diagonal to it.

    They come in the order of an additive recurrence on the plastic number, whose every prefix is spread evenly over the
    grid (Roberts 2018, "The unreasonable effectiveness of quasirandom sequences"): the first n make a hold-out set.

    Args:
      size: cells along a side, at least 3.

    Returns:
      (x, y) of the goals, [size * size - 4, 2] int32.

    >>> goal_cells(3).tolist()
    [[2, 0], [2, 2], [1, 2], [2, 1], [0, 2]]
    """
    x, y = np.meshgrid(np.arange(size), np.arange(size), indexing="ij")
    cells = np.stack([x.ravel(), y.ravel()], axis=-1).astype(np.int32)
    cells = cells[cells.max(axis=-1) > 1]
    plastic = 1.324717957244746
    order = (0.5 + cells @ np.array([1 / plastic, 1 / plastic**2])) % 1
    return cells[np.argsort(order)]
