"""Reacher: an arm of two links brings its fingertip to a hidden goal (after Brockman et al. 2016, arXiv 1606.01540).

The goal is the task. It sits in `EnvParams`, so every episode of a lifetime has the same one, and the observation, the
arm's own angles and velocities, does not show it. As in gymnax, each joint is turned by its own torque and neither link
feels the other; a joint's friction, which gymnax leaves out, bounds its speed. Goals lie in a disc around the shoulder,
those of the splits in the disjoint cells of `splits`, with radius and direction as axes; those of `shifted` lie in the
ring around the disc, as far as the arm can reach.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces

from jaxmeta.core.errors import require, require_known
from jaxmeta.core.types import Key, TaskDistribution
from jaxmeta_envs import splits
from jaxmeta_envs.control_rendering import reacher_scene
from jaxmeta_envs.splits import only_train_seen

SPLITS = ("train", "validation", "test", "shifted")
LINK = 0.5
"""Length of a link, in metres: the fingertip reaches all points of the unit disc."""
REACH = 0.75
"""Goals lie at most so far from the shoulder, and in `shifted` at least so far; metres."""
TIME_STEP = 0.05
"""Seconds."""
GAIN = 10.0
"""Acceleration by a torque of 1, in radians per square second: half a turn from rest to rest takes 23 steps."""
FRICTION = 1.0
"""Deceleration per velocity, per second."""
CONTROL_COST = 0.01
"""Cost of a step per squared torque."""


@struct.dataclass
class EnvState(environment.EnvState):
    """How the arm is bent, how fast it moves, and how long the episode has lasted."""

    time: Any
    """[] int32, steps taken in this episode."""
    angles: jax.Array
    """[2] float32, radians: of the first link to the first axis, and of the second link to the first."""
    velocities: jax.Array
    """[2] float32, radians per second."""


@struct.dataclass
class EnvParams(environment.EnvParams):
    """One task."""

    max_steps_in_episode: Any = 50
    """[] int32, steps after which an episode is truncated."""
    goal: jax.Array = struct.field(default_factory=lambda: jnp.array([0.0, REACH], jnp.float32))
    """[2] float32, metres from the shoulder."""


class Reacher(environment.Environment[EnvState, EnvParams]):
    """An arm in the plane, paid minus the distance of its fingertip to the goal, and minus a small cost of control.

    It starts stretched out along the first axis, at rest. An action is the torque at either joint, [2] float32, whose
    entries are clipped to [-1, 1]. No state is terminal.
    """

    @property
    def default_params(self) -> EnvParams:
        """The goal is a quarter of a turn away."""
        return EnvParams()

    def step_env(
        self, key: jax.Array, state: EnvState, action: int | float | jax.Array, params: EnvParams
    ) -> tuple[jax.Array, EnvState, jax.Array, jax.Array, dict[Any, Any]]:
        """Moves the arm by a semi-implicit Euler step; deterministic."""
        torques = jnp.clip(jnp.asarray(action, jnp.float32), -1.0, 1.0)
        velocities = state.velocities + TIME_STEP * (GAIN * torques - FRICTION * state.velocities)
        state = EnvState(time=state.time + 1, angles=state.angles + TIME_STEP * velocities, velocities=velocities)
        distance = jnp.linalg.norm(fingertip(state.angles) - params.goal)
        reward = -distance - CONTROL_COST * jnp.sum(torques**2)
        info = {"discount": self.discount(state, params)}
        return self.get_obs(state), state, reward, self.is_terminated(state, params), info

    def reset_env(self, key: jax.Array, params: EnvParams) -> tuple[jax.Array, EnvState]:
        """Stretches the arm out, at rest; deterministic."""
        still = jnp.zeros((2,), jnp.float32)
        state = EnvState(time=jnp.zeros((), jnp.int32), angles=still, velocities=still)
        return self.get_obs(state), state

    def get_obs(self, state: EnvState, params: EnvParams | None = None, key: jax.Array | None = None) -> jax.Array:
        """Cosines and sines of the angles, and the velocities, [6] float32."""
        return jnp.concatenate([jnp.cos(state.angles), jnp.sin(state.angles), state.velocities])

    def is_terminated(self, state: EnvState, params: EnvParams) -> jax.Array:
        """Never, [] bool."""
        return jnp.zeros((), bool)

    @property
    def num_actions(self) -> int:
        """Number of joints."""
        return 2

    def action_space(self, params: EnvParams | None = None) -> spaces.Box:
        """Torques."""
        return spaces.Box(-1.0, 1.0, (2,), jnp.float32)

    def observation_space(self, params: EnvParams) -> spaces.Box:
        """Velocities stay below that at which friction holds the largest torque."""
        bounds = jnp.array([1.0] * 4 + [GAIN / FRICTION] * 2, jnp.float32)
        return spaces.Box(-bounds, bounds, (6,), jnp.float32)

    def state_space(self, params: EnvParams) -> spaces.Dict:
        """Time, angles and velocities."""
        return spaces.Dict(
            {
                "time": spaces.Box(0, params.max_steps_in_episode, (), jnp.int32),
                "angles": spaces.Box(-jnp.inf, jnp.inf, (2,), jnp.float32),
                "velocities": spaces.Box(-GAIN / FRICTION, GAIN / FRICTION, (2,), jnp.float32),
            }
        )


def fingertip(angles: jax.Array) -> jax.Array:
    """Where the second link ends, [2] float32 in metres, given the angles of the joints, [2] float32 in radians.

    >>> fingertip(jnp.array([0.0, 0.0])).tolist()
    [1.0, 0.0]
    """
    directions = jnp.cumsum(angles)
    return LINK * jnp.stack([jnp.sum(jnp.cos(directions)), jnp.sum(jnp.sin(directions))])


@functools.cache
def environment_of() -> Reacher:
    """The environment: one instance, since gymnax compiles anew for every instance."""
    return Reacher()


def reacher(horizon: int = 50) -> TaskDistribution:
    """Bring the fingertip of a two-link arm to a hidden goal, by continuous torques; the goal is the task.

    Args:
      horizon: steps of an episode, at least 1.

    Raises:
      UsageError: an option out of range.

    >>> tasks = reacher()
    >>> tasks.sample(jax.random.key(0), "test").goal.shape, tasks.oracle
    ((2,), None)
    """
    require(horizon >= 1, "reacher:horizon", "be at least 1", horizon)

    def sample(key: Key, split: str) -> EnvParams:
        require_known("split", split, SPLITS)
        area, turn = splits.draw(key, "test" if split == "shifted" else split, 2)
        inner, outer = (REACH, 2 * LINK) if split == "shifted" else (0.0, REACH)
        radius = jnp.sqrt(inner**2 + (outer**2 - inner**2) * area)  # uniform on the disc, or on the ring
        angle = 2 * jnp.pi * turn
        goal = radius * jnp.stack([jnp.cos(angle), jnp.sin(angle)])
        return EnvParams(max_steps_in_episode=jnp.array(horizon, jnp.int32), goal=goal)

    return TaskDistribution(
        name="reacher",
        env=environment_of(),
        sample=sample,
        splits=SPLITS,
        tasks_seen=functools.partial(only_train_seen, SPLITS),
        horizon=horizon,
        describe=lambda params: params.goal / REACH,
        suggested={"agent.discount": 0.97},
        scene=functools.partial(reacher_scene, link=LINK),
    )
