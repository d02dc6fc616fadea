"""How the tasks of a family look, for `jaxmeta show`.

A family draws its tasks by a `Scene`: functions of matplotlib axes and NumPy arrays, with no JAX and no display. The
axes are in the units of the task; what is drawn once stays, and what a moment adds is removed before the next one.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PyTree = Any

AGENT, GOAL, WALL, TRAIL, EMPTY = "#0072B2", "#009E73", "#3b4048", "#56B4E9", "#f5f5f2"
"""Colours of scenes, distinguishable with every kind of colour vision (Okabe and Ito, 2008)."""
VALUES = "YlOrBr"
"""Matplotlib's colour map of action values and beliefs, light for low ones."""


class Steps(NamedTuple):
    """Steps in one environment, NumPy arrays."""

    state: PyTree
    """[T, ...] the environment's state before each step."""
    action: Any
    """[T, ...]."""
    reward: Any
    """[T] float32, in the environment's units."""
    next_observation: PyTree
    """[T, ...] the true successor's observation, also where an episode ends."""


class Episode(NamedTuple):
    """One episode, or one lifetime where its episodes are single steps."""

    steps: Steps
    values: Any = None
    """[N] float32, the highest action value in each of `Scene.observations`, where the learner has action values."""
    earlier: Steps | None = None
    """The steps of all rounds of the lifetime before, of all its environments, in order of time."""

    @property
    def total(self) -> float:
        """The undiscounted return."""
        return float(np.sum(self.steps.reward))


class Scene(NamedTuple):
    """How one task is drawn."""

    background: Callable[["Axes"], None]
    """`background(axes)` draws what does not move, and sets the limits of the axes."""
    moment: Callable[["Axes", Episode, int], None]
    """`moment(axes, episode, t)` adds what is seen before step t."""
    observations: np.ndarray | None = None
    """[N, ...] the observations whose action values `moment` draws, such as those of every cell of a grid, or None."""
    lifetime: bool = False
    """Whether a lifetime is drawn as one sequence, as where an episode is a single step."""
    aspect: float = 1.0
    """Width of a panel over its height."""


MakeScene = Callable[[PyTree], Scene]
"""`scene(env_params)`: how a task is drawn, from its parameters as NumPy arrays."""
