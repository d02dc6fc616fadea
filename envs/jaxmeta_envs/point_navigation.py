"""2-D navigation: a point walks to a hidden goal (Finn, Abbeel and Levine 2017, MAML, arXiv 1703.03400).

The goal is the task. It sits in `EnvParams`, so every episode of a lifetime has the same one, and the observation, the
point's own position, does not show it. Goals lie in a square around the start, those of the splits in the disjoint
cells of `splits`; those of `shifted` lie around the square.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces

from jaxmeta.core.errors import require, require_known
from jaxmeta.core.types import Key, TaskDistribution
from jaxmeta_envs import splits
from jaxmeta_envs.control_rendering import point_scene
from jaxmeta_envs.splits import only_train_seen

SPLITS = ("train", "validation", "test", "shifted")
REACH = 0.5
"""Goals lie at most so far from the start along each axis, and in `shifted` at least so far along one."""
SHIFTED_REACH = 0.75
SPEED = 0.1
"""Length of a step along each axis, at most."""
TOLERANCE = 0.01
"""An episode ends where the point is so close to the goal along both axes."""


@struct.dataclass
class EnvState(environment.EnvState):
    """Where the point is, and how long the episode has lasted."""

    time: Any
    """[] int32, steps taken in this episode."""
    position: jax.Array
    """[2] float32."""


@struct.dataclass
class EnvParams(environment.EnvParams):
    """One task."""

    max_steps_in_episode: Any = 100
    """[] int32, steps after which an episode is truncated."""
    goal: jax.Array = struct.field(default_factory=lambda: jnp.array([0.5, 0.5], jnp.float32))
    """[2] float32."""


class PointNavigation(environment.Environment[EnvState, EnvParams]):
    """A point in the plane, paid minus its distance to the goal after every step.

    Without directions an action is a velocity, [2] float32, whose entries are clipped to `SPEED`; with so many
    directions it is the number of one, counter-clockwise from the positive first axis, in which the point moves by
    `SPEED`.
    """

    def __init__(self, directions: int = 0):
        super().__init__()
        self.directions = directions

    @property
    def default_params(self) -> EnvParams:
        """The goal is in a corner of the square."""
        return EnvParams()

    def step_env(
        self, key: jax.Array, state: EnvState, action: int | float | jax.Array, params: EnvParams
    ) -> tuple[jax.Array, EnvState, jax.Array, jax.Array, dict[Any, Any]]:
        """Moves the point; deterministic."""
        if self.directions:
            angle = 2 * np.pi / self.directions * jnp.asarray(action, jnp.float32)
            velocity = SPEED * jnp.stack([jnp.cos(angle), jnp.sin(angle)])
        else:
            velocity = jnp.clip(jnp.asarray(action, jnp.float32), -SPEED, SPEED)
        state = EnvState(time=state.time + 1, position=state.position + velocity)
        reward = -jnp.linalg.norm(state.position - params.goal)
        info = {"discount": self.discount(state, params)}
        return self.get_obs(state), state, reward, self.is_terminated(state, params), info

    def reset_env(self, key: jax.Array, params: EnvParams) -> tuple[jax.Array, EnvState]:
        """Puts the point on the origin; deterministic."""
        state = EnvState(time=jnp.zeros((), jnp.int32), position=jnp.zeros((2,), jnp.float32))
        return self.get_obs(state), state

    def get_obs(self, state: EnvState, params: EnvParams | None = None, key: jax.Array | None = None) -> jax.Array:
        """The position, [2] float32."""
        return state.position

    def is_terminated(self, state: EnvState, params: EnvParams) -> jax.Array:
        """Whether the goal is reached, [] bool."""
        return jnp.all(jnp.abs(state.position - params.goal) < TOLERANCE)

    @property
    def num_actions(self) -> int:
        """Number of directions, or of dimensions where they are continuous."""
        return self.directions or 2

    def action_space(self, params: EnvParams | None = None) -> spaces.Discrete | spaces.Box:
        """Directions, or velocities."""
        return spaces.Discrete(self.directions) if self.directions else spaces.Box(-SPEED, SPEED, (2,), jnp.float32)

    def observation_space(self, params: EnvParams) -> spaces.Box:
        """The plane."""
        return spaces.Box(-jnp.inf, jnp.inf, (2,), jnp.float32)

    def state_space(self, params: EnvParams) -> spaces.Dict:
        """Time and position."""
        time = spaces.Box(0, params.max_steps_in_episode, (), jnp.int32)
        return spaces.Dict({"time": time, "position": spaces.Box(-jnp.inf, jnp.inf, (2,), jnp.float32)})


environment_of = functools.cache(PointNavigation)
"""The environment of a number of directions: one instance each, since gymnax compiles anew for every instance."""


def best_return(params: EnvParams, horizon: int) -> jax.Array:
    """Return of walking at full speed along both axes until they are done, [] float32: no velocities return more.

    >>> round(float(best_return(EnvParams(goal=jnp.array([0.15, 0.0])), 100)), 3)
    -0.05
    """
    walked = SPEED * jnp.arange(1, horizon + 1, dtype=jnp.float32)
    left = jnp.maximum(jnp.abs(params.goal) - walked[:, None], 0.0)
    return -jnp.sum(jnp.linalg.norm(left, axis=-1))


def point_navigation(horizon: int = 100, directions: int = 0) -> TaskDistribution:
    """Walk to a hidden goal in the plane; the goal is the task (Finn, Abbeel and Levine 2017).

    Args:
      horizon: steps of an episode, at least 1.
      directions: 0, where an action is a velocity as in the paper; or the number of directions to choose from, at least
        3.

    Raises:
      UsageError: an option out of range.

    >>> tasks = point_navigation(directions=8)
    >>> tasks.env.num_actions, tasks.sample(jax.random.key(0), "test").goal.shape
    (8, (2,))
    """
    require(horizon >= 1, "point_navigation:horizon", "be at least 1", horizon)
    rule = "be at least 3, or 0 for any velocity"
    require(directions == 0 or directions >= 3, "point_navigation:directions", rule, directions)

    def sample(key: Key, split: str) -> EnvParams:
        require_known("split", split, SPLITS)
        place_key, shift_key = jax.random.split(key)
        goal = REACH * (2 * splits.draw(place_key, "test" if split == "shifted" else split, 2) - 1)
        if split == "shifted":  # moved outwards along the line from the start
            reach = jax.random.uniform(shift_key, (), jnp.float32, REACH, SHIFTED_REACH)
            goal *= reach / jnp.max(jnp.abs(goal))
        return EnvParams(max_steps_in_episode=jnp.array(horizon, jnp.int32), goal=goal)

    return TaskDistribution(
        name="point_navigation",
        env=environment_of(directions),
        sample=sample,
        splits=SPLITS,
        tasks_seen=functools.partial(only_train_seen, SPLITS),
        horizon=horizon,
        describe=lambda params: params.goal / REACH,
        oracle=None if directions else functools.partial(best_return, horizon=horizon),
        scene=functools.partial(point_scene, reach=1.1 * SHIFTED_REACH),
    )
