"""GridNavi: find a hidden goal on a grid, and stay there (Zintgraf et al. 2020, VariBAD, arXiv 1910.08348).

The goal is the task. It sits in `EnvParams`, so every episode of a lifetime has the same one, and the observation does
not show it.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces

from jaxmeta.base import Key, TaskDistribution
from jaxmeta.errors import require, require_known

MOVES = ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0))
"""(x, y) displacement of the actions stay, up, right, down, left."""
GOAL_REWARD = 1.0
STEP_REWARD = -0.1
SPLITS = ("train", "validation", "test")


@struct.dataclass
class EnvState(environment.EnvState):
    """Where the agent is, and how long the episode has lasted."""

    time: Any
    """[] int32, steps taken in this episode."""
    position: jax.Array
    """[2] int32, (x, y) in 0 to size - 1."""


@struct.dataclass
class EnvParams(environment.EnvParams):
    """One task."""

    max_steps_in_episode: Any = 15
    """[] int32, steps after which an episode is truncated."""
    goal: jax.Array = struct.field(default_factory=lambda: jnp.array([4, 4], jnp.int32))
    """[2] int32, (x, y) of the goal."""


class GridNavi(environment.Environment[EnvState, EnvParams]):
    """A square grid, entered at (0, 0). A move into a wall leaves the agent where it is.

    The reward of a step is 1 if it ends on the goal and -0.1 if not, so a goal d moves away is worth at most
    (16 - d) - 0.1 (d - 1) in 15 steps, 11.071 on average over the paper's 21 goals. No state is terminal: an episode is
    truncated after `max_steps_in_episode` steps.
    """

    def __init__(self, size: int = 5):
        super().__init__()
        self.size = size

    @property
    def default_params(self) -> EnvParams:
        """The episode of the paper, with the goal in the far corner."""
        return EnvParams(goal=jnp.full((2,), self.size - 1, jnp.int32))

    def move(self, position: jax.Array, action: jax.Array | int | float) -> jax.Array:
        """Where an action leads to, [2] int32, from a position, [2] int32."""
        return jnp.clip(position + jnp.array(MOVES, jnp.int32)[action], 0, self.size - 1)

    def reward(self, position: jax.Array, params: EnvParams) -> jax.Array:
        """Reward of a step that ends at a position, [2] int32; [] float32."""
        on_goal = jnp.all(position == params.goal)
        return jnp.where(on_goal, GOAL_REWARD, STEP_REWARD).astype(jnp.float32)

    def step_env(
        self, key: jax.Array, state: EnvState, action: int | float | jax.Array, params: EnvParams
    ) -> tuple[jax.Array, EnvState, jax.Array, jax.Array, dict[Any, Any]]:
        """Moves the agent; deterministic."""
        state = EnvState(time=state.time + 1, position=self.move(state.position, action))
        info = {"discount": self.discount(state, params)}
        return (
            self.get_obs(state),
            state,
            self.reward(state.position, params),
            self.is_terminated(state, params),
            info,
        )

    def reset_env(self, key: jax.Array, params: EnvParams) -> tuple[jax.Array, EnvState]:
        """Puts the agent on (0, 0); deterministic."""
        state = EnvState(time=jnp.zeros((), jnp.int32), position=jnp.zeros((2,), jnp.int32))
        return self.get_obs(state), state

    def get_obs(self, state: EnvState, params: EnvParams | None = None, key: jax.Array | None = None) -> jax.Array:
        """One-hot of the position, [size * size] float32: neither the goal nor the time."""
        x, y = state.position
        return jax.nn.one_hot(y * self.size + x, self.size**2, dtype=jnp.float32)

    def is_terminated(self, state: EnvState, params: EnvParams) -> jax.Array:
        """Never, [] bool."""
        return jnp.zeros((), bool)

    @property
    def num_actions(self) -> int:
        """Stay, up, right, down, left."""
        return len(MOVES)

    def action_space(self, params: EnvParams | None = None) -> spaces.Discrete:
        """Indices of `MOVES`."""
        return spaces.Discrete(len(MOVES))

    def observation_space(self, params: EnvParams) -> spaces.Box:
        """One entry a cell."""
        return spaces.Box(0.0, 1.0, (self.size**2,), jnp.float32)

    def state_space(self, params: EnvParams) -> spaces.Dict:
        """Time and position."""
        return spaces.Dict(
            {
                "time": spaces.Box(0, params.max_steps_in_episode, (), jnp.int32),
                "position": spaces.Box(0, self.size - 1, (2,), jnp.int32),
            }
        )


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


def best_return(env: GridNavi, params: EnvParams) -> jax.Array:
    """Best return of an episode for an agent that knows the goal, by value iteration over the steps left.

    Args:
      env: the grid.
      params: the task.

    Returns:
      The undiscounted return, [] float32.

    >>> round(float(best_return(GridNavi(), EnvParams(goal=jnp.array([0, 2])))), 3)
    13.9
    """
    index = jnp.arange(env.size**2)
    cells = jnp.stack([index % env.size, index // env.size], axis=-1)
    arrivals = jax.vmap(jax.vmap(env.move, (None, 0)), (0, None))(cells, jnp.arange(len(MOVES)))  # [cells, actions, 2]
    rewards = jax.vmap(jax.vmap(env.reward, (0, None)), (0, None))(arrivals, params)
    successors = arrivals[..., 1] * env.size + arrivals[..., 0]

    def backup(_: jax.Array, values: jax.Array) -> jax.Array:
        return jnp.max(rewards + values[successors], axis=-1)

    values = jax.lax.fori_loop(0, params.max_steps_in_episode, backup, jnp.zeros(env.size**2, jnp.float32))
    return values[0]


def grid_navi(size: int = 5, horizon: int = 15, goals: str = "all", holdout: int = 7) -> TaskDistribution:
    """Find a hidden goal on a grid and stay there; the goal is the task (Zintgraf et al. 2020).

    Args:
      size: cells along a side, at least 3.
      horizon: steps of an episode, at least 1.
      goals: `all`, where every split draws from all goals, as in the paper; or `split`, where the first `holdout` of
        `goal_cells(size)` are the test goals and train and validation share the rest.
      holdout: number of test goals under `goals=split`, from 1 to one less than there are goals.

    Raises:
      UsageError: an option out of range.

    >>> tasks = grid_navi(goals="split")
    >>> tasks.sample(jax.random.key(0), "test").goal.shape, tasks.tasks_seen("test")
    ((2,), False)
    """
    require(size >= 3, "grid_navi:size", "be at least 3", size)
    require(horizon >= 1, "grid_navi:horizon", "be at least 1", horizon)
    require_known("grid_navi:goals", goals, ("all", "split"))
    cells = goal_cells(size)
    pools: dict[str, np.ndarray] = dict.fromkeys(SPLITS, cells)
    if goals == "split":
        rule = f"be from 1 to {len(cells) - 1}, one less than there are goals"
        require(1 <= holdout < len(cells), "grid_navi:holdout", rule, holdout)
        pools = {"train": cells[holdout:], "validation": cells[holdout:], "test": cells[:holdout]}

    def sample(key: Key, split: str) -> EnvParams:
        require_known("split", split, SPLITS)
        goal = jax.random.choice(key, jnp.asarray(pools[split]))
        return EnvParams(max_steps_in_episode=jnp.array(horizon, jnp.int32), goal=goal)

    def tasks_seen(split: str) -> bool:
        require_known("split", split, SPLITS)
        return goals == "all" or split != "test"

    def describe(params: EnvParams) -> jax.Array:
        return 2 * params.goal.astype(jnp.float32) / (size - 1) - 1

    env = environment_of(size)
    return TaskDistribution(
        name="grid_navi",
        env=env,
        sample=sample,
        splits=SPLITS,
        tasks_seen=tasks_seen,
        horizon=horizon,
        describe=describe,
        oracle=functools.partial(best_return, env),
        suggested={"discount": 0.9},
    )
