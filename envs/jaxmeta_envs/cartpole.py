"""CartPole with unknown physics: gravity, masses, length and force vary, and the control may be mirrored.

The dynamics are gymnax's (Barto, Sutton and Anderson 1983). What varies is the task, drawn as factors of the standard
constants: train, validation and test tasks come from disjoint cells of the space of factors (`splits`), `shifted` ones
from outside it.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments.classic_control import cartpole as standard

from jaxmeta.core.errors import require, require_known
from jaxmeta.core.types import Key, TaskDistribution
from jaxmeta_envs.control_rendering import cartpole_scene
from jaxmeta_envs.splits import CLASSES, draw, only_train_seen

FACTORS = {
    "gravity": (0.7, 1.4),
    "masscart": (0.5, 2.0),
    "masspole": (0.5, 2.0),
    "length": (0.5, 2.0),
    "force_mag": (0.8, 1.6),
}
"""Lowest and highest factor of each constant in train, validation and test tasks; log-uniform between."""
SHIFT = 1.5
"""How far beyond either end of its range, as a factor, a shifted task's factors reach."""
SPLITS = (*CLASSES, "shifted")
STANDARD = standard.EnvParams()
"""The constants of CartPole-v1."""

_LOG_LOW, _LOG_HIGH = np.log(np.array(list(FACTORS.values()), np.float32)).T


class CartPole(standard.CartPole):
    """gymnax's CartPole, with rewards of float32 whatever the default precision."""

    def step_env(
        self, key: jax.Array, state: standard.EnvState, action: int | float | jax.Array, params: standard.EnvParams
    ) -> tuple[jax.Array, standard.EnvState, jax.Array, jax.Array, dict[Any, Any]]:
        """One Euler step of `params.tau` seconds."""
        observation, state, reward, terminated, info = super().step_env(key, state, action, params)
        return observation, state, reward.astype(jnp.float32), terminated, info


ENVIRONMENT = CartPole()
"""The only instance: gymnax compiles anew for every other."""


def physics(log_factors: jax.Array, sign: jax.Array, horizon: int) -> standard.EnvParams:
    """The one place that makes a task's constants, the derived ones included.

    gymnax's dynamics read `total_mass` and `polemass_length` and never `masscart`, so both are computed here.

    Args:
      log_factors: [5] float32, in the order of `FACTORS`; zeros are CartPole-v1.
      sign: [] float32, 1 where action 1 pushes right, -1 where it pushes left.
      horizon: steps after which an episode is truncated.

    Returns:
      The constants, [] float32 each, in SI units.

    >>> heavy_cart = jnp.log(jnp.array([1.0, 2.0, 1.0, 1.0, 1.0]))
    >>> round(float(physics(heavy_cart, jnp.array(1.0), 200).total_mass), 4)
    2.1
    """
    factors = dict(zip(FACTORS, jnp.exp(log_factors), strict=True))
    varied = {name: getattr(STANDARD, name) * factor for name, factor in factors.items()}
    varied["force_mag"] *= sign
    params = dataclasses.replace(
        STANDARD,
        **varied,
        total_mass=varied["masscart"] + varied["masspole"],
        polemass_length=varied["masspole"] * varied["length"],
    )
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)
    return params.replace(max_steps_in_episode=jnp.array(horizon, jnp.int32))


def describe(params: standard.EnvParams) -> jax.Array:
    """The control's sign and the log-factors in the order of `FACTORS`, [6] float32."""
    ratios = [jnp.abs(getattr(params, name)) / getattr(STANDARD, name) for name in FACTORS]
    return jnp.stack([jnp.sign(params.force_mag), *map(jnp.log, ratios)]).astype(jnp.float32)


def best_return(params: standard.EnvParams) -> jax.Array:
    """Best return of an episode, [] float32: its full length, one a step.

    No policy can have more, and one that knows the constants has as much: pushing with full force to the side that
    linear-quadratic feedback points to balances the pole for 1000 steps, from the extreme resets too, at every corner
    of the box that `FACTORS` spans and of the wider box that `SHIFT` spans. The ranges were chosen for that.
    """
    return jnp.asarray(params.max_steps_in_episode, jnp.float32)


def cartpole(horizon: int = 200, signs: str = "both") -> TaskDistribution:
    """Balance a pole under unknown physics, with a control that may be mirrored; the constants are the task.

    Args:
      horizon: steps of an episode, from 1 to 1000.
      signs: `both`, where action 1 pushes right in one half of the tasks and left in the other, in every split; or
        `plain`, where it always pushes right.

    Raises:
      UsageError: an option out of range.

    >>> tasks = cartpole(signs="plain")
    >>> bool(tasks.sample(jax.random.key(0), "train").force_mag > 0)
    True
    """
    require(1 <= horizon <= 1000, "cartpole:horizon", "be from 1 to 1000", horizon)
    require_known("cartpole:signs", signs, ("both", "plain"))

    def sample(key: Key, split: str) -> standard.EnvParams:
        require_known("split", split, SPLITS)
        key_factors, key_sign = jax.random.split(key)
        log_factors = _shifted(key_factors) if split == "shifted" else _within(key_factors, split)
        sign = jax.random.rademacher(key_sign, (), jnp.float32) if signs == "both" else jnp.ones((), jnp.float32)
        return physics(log_factors, sign, horizon)

    return TaskDistribution(
        name="cartpole",
        env=ENVIRONMENT,
        sample=sample,
        splits=SPLITS,
        tasks_seen=functools.partial(only_train_seen, SPLITS),
        horizon=horizon,
        describe=describe,
        oracle=best_return,
        suggested={"agent.discount": 0.97},
        scene=cartpole_scene,
    )


def _within(key: Key, split: str) -> jax.Array:
    """Log-factors of a task from the split's cells, [5] float32."""
    return _LOG_LOW + (_LOG_HIGH - _LOG_LOW) * draw(key, split, len(FACTORS))


def _shifted(key: Key) -> jax.Array:
    """Log-factors of a task all of whose factors lie outside the range, each beyond either end, [5] float32."""
    key_side, key_excess = jax.random.split(key)
    above = jax.random.bernoulli(key_side, shape=(len(FACTORS),))
    excess = math.log(SHIFT) * jax.random.uniform(key_excess, (len(FACTORS),), jnp.float32)
    return jnp.where(above, _LOG_HIGH + excess, _LOG_LOW - excess)
