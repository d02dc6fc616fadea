"""Acrobot, MountainCar and Pendulum with unknown physics, and a control that may be mirrored.

The dynamics are gymnax's. What varies is the task: constants drawn from ranges around the standard ones, train,
validation and test tasks from disjoint cells of the space of constants (`splits`), `shifted` ones outside it. What
makes adaptation matter most is the sign of the control, which no single observation shows: whoever drives the wrong way
never arrives. The constants then change how many swings it takes, by a factor of four and more, and when to stop.

The ranges were chosen so that every task can be solved by one who knows the sign, within the horizon, and nearly every
shifted one: Acrobot by torque against the velocity of the first joint, MountainCar by driving along with the velocity,
Pendulum by pumping energy and then by linear feedback. `tests/envs/test_classic_control.py` does so.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import spaces
from gymnax.environments.classic_control import pendulum as standard_pendulum

from jaxmeta.core.errors import require, require_known
from jaxmeta.core.scenes import MakeScene
from jaxmeta.core.types import Key, PyTree, TaskDistribution
from jaxmeta_envs import control_rendering as rendering
from jaxmeta_envs import ranges
from jaxmeta_envs.from_gymnax.family import FromGymnax, environment_of
from jaxmeta_envs.ranges import Range
from jaxmeta_envs.splits import CLASSES, only_train_seen

SPLITS = (*CLASSES, "shifted")
MOST_STEPS = 1000
MOST_TORQUES = 101

ACROBOT = {
    "link_length_1": Range(0.8, 1.25),
    "link_mass_1": Range(0.8, 1.25),
    "link_mass_2": Range(0.8, 1.25),
    "link_com_pos_2": Range(0.4, 0.6),
    "link_moi": Range(0.8, 1.25),
    "torque": Range(1.0, 1.6),
}
"""In metres, kilograms, kilogram square metres and newton metres; the standard ones are 1, and 0.5 for the centre."""
MOUNTAIN_CAR = {"force": Range(0.001, 0.0018), "gravity": Range(0.0019, 0.0027)}
"""In lengths of the track's unit per square step; the standard ones are 0.001 and 0.0025."""
PENDULUM = {"g": Range(7.0, 11.0), "m": Range(0.7, 1.4), "l": Range(0.8, 1.25)}
"""In metres per square second, kilograms and metres; the standard ones are 10, 1 and 1."""


@struct.dataclass
class PendulumParams(standard_pendulum.EnvParams):
    """gymnax's constants, and which way the torque turns."""

    sign: Any = 1.0
    """[] float32, 1, or -1 where the control is mirrored."""


class Pendulum(FromGymnax):
    """gymnax's Pendulum, with torques to choose from."""

    def __init__(self, torques: int):
        super().__init__("Pendulum-v1")
        self.torques = torques
        self.params_class = PendulumParams

    def step_env(
        self, key: jax.Array, state: Any, action: int | float | jax.Array, params: PendulumParams
    ) -> tuple[Any, Any, jax.Array, jax.Array, dict[Any, Any]]:
        """One step of `params.dt` seconds.

        The action is the index of a torque, from the largest clockwise to the largest anticlockwise; or, where there
        are none to choose from, a torque itself, [1] float32 in newton metres. `params.sign` mirrors it.
        """
        if self.torques:
            action = (params.max_torque * jnp.linspace(-1, 1, self.torques, dtype=jnp.float32))[action]
        torque = jnp.asarray(params.sign * action, jnp.result_type(state.theta))
        return super().step_env(key, state, torque, params)

    @property
    def num_actions(self) -> int:
        """Number of torques, or of dimensions where they are continuous."""
        return self.torques or 1

    def action_space(self, params: PendulumParams | None = None) -> spaces.Discrete | spaces.Box:
        """Torques to choose from, or all of them."""
        return spaces.Discrete(self.torques) if self.torques else super().action_space(params)


@functools.cache
def pendulum_with(torques: int) -> Pendulum:
    """The pendulum with so many torques: one instance each, as in `environment_of`."""
    with jax.ensure_compile_time_eval():
        return Pendulum(torques)


class Physics(NamedTuple):
    """How a family turns constants into parameters, and back."""

    ranges: dict[str, Range]
    parameters: Callable[[PyTree, dict[str, jax.Array], jax.Array], PyTree]
    """`parameters(standard, constants, sign)` sets what varies, and derived fields."""
    read: Callable[[PyTree], tuple[dict[str, jax.Array], jax.Array]]
    """`read(params)` gives the constants and the sign."""
    scene: MakeScene
    """How a task is drawn."""


def _acrobot_params(params: PyTree, constants: dict[str, jax.Array], sign: jax.Array) -> PyTree:
    others = {name: constants[name] for name in constants if name != "torque"}
    torques = sign * constants["torque"] * jnp.array([-1.0, 0.0, 1.0], jnp.float32)
    return params.replace(**others, link_com_pos_1=constants["link_length_1"] / 2, available_torque=torques)


def _read_acrobot(params: PyTree) -> tuple[dict[str, jax.Array], jax.Array]:
    torque = params.available_torque[2]
    others = {name: getattr(params, name) for name in ACROBOT if name != "torque"}
    return others | {"torque": jnp.abs(torque)}, jnp.sign(torque)


def _mountain_car_params(params: PyTree, constants: dict[str, jax.Array], sign: jax.Array) -> PyTree:
    return params.replace(force=sign * constants["force"], gravity=constants["gravity"])


def _read_mountain_car(params: PyTree) -> tuple[dict[str, jax.Array], jax.Array]:
    return {"force": jnp.abs(params.force), "gravity": params.gravity}, jnp.sign(params.force)


def _pendulum_params(params: PyTree, constants: dict[str, jax.Array], sign: jax.Array) -> PyTree:
    return params.replace(**constants, sign=sign)


def _read_pendulum(params: PyTree) -> tuple[dict[str, jax.Array], jax.Array]:
    return {name: getattr(params, name) for name in PENDULUM}, params.sign


PHYSICS = {
    "acrobot": Physics(ACROBOT, _acrobot_params, _read_acrobot, rendering.acrobot_scene),
    "mountain_car": Physics(MOUNTAIN_CAR, _mountain_car_params, _read_mountain_car, rendering.mountain_car_scene),
    "pendulum": Physics(PENDULUM, _pendulum_params, _read_pendulum, rendering.pendulum_scene),
}


def acrobot(horizon: int = 500, signs: str = "both") -> TaskDistribution:
    """Swing up two links by the joint between them; lengths, masses and torque vary, and its sign.

    The centre of the first link stays in its middle. The second link's length has no effect in gymnax and does not
    vary, nor does gravity, which gymnax fixes.

    Args:
      horizon: steps of an episode, from 1 to 1000.
      signs: `both`, where the torques are mirrored in one half of the tasks, in every split; or `plain`.

    Raises:
      UsageError: an option out of range.

    >>> acrobot(horizon=200).horizon
    200
    """
    return _family("acrobot", environment_of("Acrobot-v1"), horizon, signs, 0.99)


def mountain_car(horizon: int = 200, signs: str = "both") -> TaskDistribution:
    """Drive out of a valley that is too steep to climb at once; engine and gravity vary, and which way is forward.

    Args:
      horizon: steps of an episode, from 1 to 1000.
      signs: `both`, where forward and backward are swapped in one half of the tasks, in every split; or `plain`.

    Raises:
      UsageError: an option out of range.

    >>> bool(mountain_car(signs="plain").sample(jax.random.key(0), "test").force > 0)
    True
    """
    return _family("mountain_car", environment_of("MountainCar-v0"), horizon, signs, 0.99)


def pendulum(horizon: int = 200, torques: int = 5, signs: str = "both") -> TaskDistribution:
    """Swing a pendulum up and hold it; gravity, mass and length vary, and which way the torque turns.

    Args:
      horizon: steps of an episode, from 1 to 1000.
      torques: number of torques to choose from, evenly spaced over the range; 0 makes the action continuous.
      signs: `both`, where the torque is mirrored in one half of the tasks, in every split; or `plain`.

    Raises:
      UsageError: an option out of range.

    >>> tasks = pendulum(torques=3)
    >>> tasks.env.action_space(tasks.sample(jax.random.key(0), "train"))
    Discrete(3, dtype=int32)
    """
    possible = torques == 0 or 2 <= torques <= MOST_TORQUES
    require(possible, "pendulum:torques", f"be from 2 to {MOST_TORQUES}, or 0 for any torque", torques)
    return _family("pendulum", pendulum_with(torques), horizon, signs, 0.97)


def _family(name: str, env: FromGymnax, horizon: int, signs: str, discount: float) -> TaskDistribution:
    require(1 <= horizon <= MOST_STEPS, f"{name}:horizon", f"be from 1 to {MOST_STEPS}", horizon)
    require_known(f"{name}:signs", signs, ("both", "plain"))
    physics = PHYSICS[name]

    def sample(key: Key, split: str) -> PyTree:
        require_known("split", split, SPLITS)
        key_constants, key_sign = jax.random.split(key)
        constants = ranges.draw(key_constants, split, physics.ranges)
        sign = jax.random.rademacher(key_sign, (), jnp.float32) if signs == "both" else jnp.ones((), jnp.float32)
        params = env.standard_params.replace(max_steps_in_episode=jnp.array(horizon, jnp.int32))
        return physics.parameters(params, constants, sign)

    def describe(params: PyTree) -> jax.Array:
        constants, sign = physics.read(params)
        places = [bounds.place(constants[name]) for name, bounds in physics.ranges.items()]
        return jnp.stack([sign, *places]).astype(jnp.float32)

    return TaskDistribution(
        name=name,
        env=env,
        sample=sample,
        splits=SPLITS,
        tasks_seen=functools.partial(only_train_seen, SPLITS),
        horizon=horizon,
        describe=describe,
        oracle=None,
        suggested={"agent.discount": discount},
        scene=physics.scene,
    )
