"""An agent on a square grid, paid for being on a goal that it does not see: what GridNavi and Maze have in common."""

from typing import Any, ClassVar, Generic, TypeVar

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces

GOAL_REWARD = 1.0
STEP_REWARD = -0.1


@struct.dataclass
class EnvState(environment.EnvState):
    """Where the agent is, and how long the episode has lasted."""

    time: Any
    """[] int32, steps taken in this episode."""
    position: jax.Array
    """[2] int32, (x, y) in 0 to size - 1."""


@struct.dataclass
class EnvParams(environment.EnvParams):
    """What every task on a grid says; a family adds what else its tasks differ in."""

    max_steps_in_episode: Any = 15
    """[] int32, steps after which an episode is truncated."""
    goal: jax.Array = struct.field(default_factory=lambda: jnp.array([4, 4], jnp.int32))
    """[2] int32, (x, y) of the goal."""


P = TypeVar("P", bound=EnvParams)


class Grid(environment.Environment[EnvState, P], Generic[P]):
    """A square of cells. The observation is the agent's own position, one-hot: neither the task nor the time.

    The reward of a step is 1 if it ends on the goal and -0.1 if not. No state is terminal: an episode is truncated
    after `max_steps_in_episode` steps. A subclass has `moves` and
    says where an episode starts, and, where there is more than the border to hold the agent, where a move leads.
    """

    moves: ClassVar[tuple[tuple[int, int], ...]]
    """(x, y) displacement of every action."""

    def __init__(self, size: int):
        super().__init__()
        self.size = size

    def start(self, params: P) -> jax.Array:
        """Where an episode starts, [2] int32."""
        raise NotImplementedError

    def move(self, position: jax.Array, action: jax.Array | int | float, params: P) -> jax.Array:
        """Where an action leads to, [2] int32, from a position, [2] int32; the border holds the agent."""
        return jnp.clip(position + jnp.array(self.moves, jnp.int32)[action], 0, self.size - 1)

    def reward(self, position: jax.Array, params: P) -> jax.Array:
        """Reward of a step that ends at a position, [2] int32; [] float32."""
        on_goal = jnp.all(position == params.goal)
        return jnp.where(on_goal, GOAL_REWARD, STEP_REWARD).astype(jnp.float32)

    def step_env(
        self, key: jax.Array, state: EnvState, action: int | float | jax.Array, params: P
    ) -> tuple[jax.Array, EnvState, jax.Array, jax.Array, dict[Any, Any]]:
        """Moves the agent; deterministic."""
        state = EnvState(time=state.time + 1, position=self.move(state.position, action, params))
        reward, terminated = self.reward(state.position, params), self.is_terminated(state, params)
        return self.get_obs(state, params), state, reward, terminated, {"discount": self.discount(state, params)}

    def reset_env(self, key: jax.Array, params: P) -> tuple[jax.Array, EnvState]:
        """Puts the agent on the start; deterministic."""
        state = EnvState(time=jnp.zeros((), jnp.int32), position=self.start(params))
        return self.get_obs(state, params), state

    def get_obs(self, state: EnvState, params: P | None = None, key: jax.Array | None = None) -> jax.Array:
        """One-hot of the position, [size * size] float32, row by row."""
        return jax.nn.one_hot(_index(self, state.position), self.size**2, dtype=jnp.float32)

    def is_terminated(self, state: EnvState, params: P) -> jax.Array:
        """Never, [] bool."""
        return jnp.zeros((), bool)

    @property
    def num_actions(self) -> int:
        """One a move."""
        return len(self.moves)

    def action_space(self, params: P | None = None) -> spaces.Discrete:
        """Indices of `moves`."""
        return spaces.Discrete(len(self.moves))

    def observation_space(self, params: P) -> spaces.Box:
        """One entry a cell."""
        return spaces.Box(0.0, 1.0, (self.size**2,), jnp.float32)

    def state_space(self, params: P) -> spaces.Dict:
        """Time and position."""
        time = spaces.Box(0, params.max_steps_in_episode, (), jnp.int32)
        return spaces.Dict({"time": time, "position": spaces.Box(0, self.size - 1, (2,), jnp.int32)})


def best_return(env: Grid[P], params: P) -> jax.Array:
    """Best return of an episode for an agent that knows the task, by value iteration over the steps left.

    Args:
      env: the grid.
      params: the task.

    Returns:
      The undiscounted return, [] float32.

    >>> from jaxmeta_envs.grid_navi.environment import GridNavi
    >>> round(float(best_return(GridNavi(), EnvParams(goal=jnp.array([0, 2])))), 3)
    13.9
    """
    index = jnp.arange(env.size**2)
    cells = jnp.stack([index % env.size, index // env.size], axis=-1)
    move = jax.vmap(jax.vmap(env.move, (None, 0, None)), (0, None, None))
    arrivals = move(cells, jnp.arange(env.num_actions), params)  # [cells, actions, 2]
    rewards = jax.vmap(jax.vmap(env.reward, (0, None)), (0, None))(arrivals, params)
    successors = _index(env, arrivals)

    def backup(_: jax.Array, values: jax.Array) -> jax.Array:
        return jnp.max(rewards + values[successors], axis=-1)

    values = jax.lax.fori_loop(0, params.max_steps_in_episode, backup, jnp.zeros(env.size**2, jnp.float32))
    return values[_index(env, env.start(params))]


def _index(env: Grid[P], position: jax.Array) -> jax.Array:
    """The number of a cell, [...] int32, from its position, [..., 2] int32."""
    return position[..., 1] * env.size + position[..., 0]
