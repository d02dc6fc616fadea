"""What is known of gymnax's environments: tasks kept outside the parameters, and parameters that depend on others.

Goals and arms gymnax draws anew whenever an episode ends, layouts it fixes when an environment is built. As a task they
are drawn once, and stay. What an episode shows the learner and asks back, such as the bit of MemoryChain, the need
of UmbrellaChain or the digit of MNISTBandit, is no task and stays with the episode.
"""

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from gymnax.environments.misc import frozen_lake

from jaxmeta.core.types import Key, PyTree
from jaxmeta_envs.splits import CELLS

HOLES = 0.4
"""Probability that a tile off the safe path of a frozen lake is a hole."""
SECTORS = 2 * CELLS
"""Parts that the half circle of PointRobot's goals is cut into."""
BINS_PER_DEVIATION = 3
"""Parts that a standard deviation of GaussianBandit's mean reward is cut into."""

Fields = dict[str, jax.Array]


class Kept(NamedTuple):
    """What an environment keeps outside its parameters, and how a task draws it."""

    fields: tuple[str, ...]
    """Names of fields of the state, or of attributes of the environment."""
    label: Callable[[Fields, PyTree], jax.Array] | None = None
    """`label(kept, params)`, [] int32; modulo six it is the class that decides the split. None: too few."""
    draw: Callable[[Any, Key, PyTree], Fields] | None = None
    """`draw(env, key, params)` draws attributes of the environment. None: the fields are those of a reset's state."""
    switches: tuple[str, ...] = ()
    """Flags among the parameters that a reset must find set to draw the fields."""


def _lattice(point: jax.Array, reach: float) -> jax.Array:
    """Sum of the indices of a point's cell, in a cube from -reach to reach that is cut in six along each axis."""
    return jnp.sum(jnp.floor((point / reach + 1) / 2 * CELLS)).astype(jnp.int32)


def _sector(kept: Fields, params: PyTree) -> jax.Array:
    x, y = kept["goal"]
    return jnp.floor(SECTORS * jnp.arctan2(y, x) / jnp.pi).astype(jnp.int32)


def _deviation(kept: Fields, params: PyTree) -> jax.Array:
    return jnp.floor(BINS_PER_DEVIATION * (kept["mu"] - params.mean_mu) / params.sigma_p).astype(jnp.int32)


def _order_of_arms(kept: Fields, params: PyTree) -> jax.Array:
    ranks = jnp.argsort(jnp.argsort(kept["rewards"]))
    return jnp.sum(ranks * jnp.arange(len(ranks))).astype(jnp.int32)


def _way_down(kept: Fields, params: PyTree) -> jax.Array:
    """The number that the actions along the diagonal spell, the only ones that reach the treasure."""
    actions = jnp.diagonal(kept["action_mapping"])
    return jnp.sum(actions << jnp.arange(len(actions))).astype(jnp.int32)


def _holes(kept: Fields, params: PyTree) -> jax.Array:
    return jnp.sum(jnp.flatnonzero(kept["desc"] == frozen_lake.HOLE, size=kept["desc"].size, fill_value=0))


def _draw_lake(env: Any, key: Key, params: PyTree) -> Fields:
    """A map of the same size, start in the first corner and goal in the last, with a path between them."""
    key_tiles, key_path = jax.random.split(key)
    rows, columns = env.desc.shape
    tiles = jnp.where(jax.random.bernoulli(key_tiles, HOLES, (rows, columns)), frozen_lake.HOLE, frozen_lake.FROZEN)
    down = jax.random.permutation(key_path, jnp.arange(rows + columns - 2) < rows - 1).astype(jnp.int32)
    tiles = tiles.at[jnp.cumsum(down), jnp.cumsum(1 - down)].set(frozen_lake.FROZEN)
    tiles = tiles.at[0, 0].set(frozen_lake.START).at[-1, -1].set(frozen_lake.GOAL)
    return {"desc": tiles.astype(jnp.int32)}


def _draw_bonus(env: Any, key: Key, params: PyTree) -> Fields:
    return {"mapping_seed": jax.random.randint(key, (), 0, env.num_actions, jnp.int32)}


KEPT: dict[str, Kept] = {
    "PointRobot-misc": Kept(("goal",), _sector),
    "Reacher-misc": Kept(("goal_xy",), lambda kept, params: _lattice(kept["goal_xy"], 2.0)),
    "Swimmer-misc": Kept(("goal_xy", "urchin_xys"), lambda kept, params: _lattice(kept["goal_xy"], 1.0)),
    "MetaMaze-misc": Kept(("goal",), lambda kept, params: jnp.sum(kept["goal"])),
    "FourRooms-misc": Kept(("goal",), lambda kept, params: jnp.sum(kept["goal"]), switches=("resample_goal_pos",)),
    "BernoulliBandit-misc": Kept(("reward_probs", "exp_reward_best")),
    "GaussianBandit-misc": Kept(("mu",), _deviation),
    "SimpleBandit-bsuite": Kept(("rewards",), _order_of_arms),
    "DeepSea-bsuite": Kept(("action_mapping",), _way_down, switches=("sample_action_map",)),
    "FrozenLake-misc": Kept(("desc",), _holes, _draw_lake),
    "DiscountingChain-bsuite": Kept(("mapping_seed",), None, _draw_bonus),
}
"""By environment: where the goal is, how the arms pay, what an action does, where the holes are, which chain pays."""


class Derived(NamedTuple):
    """A parameter that follows from others."""

    sources: tuple[str, ...]
    compute: Callable[..., Any]


DERIVED: dict[str, dict[str, Derived]] = {
    "CartPole-v1": {
        "total_mass": Derived(("masscart", "masspole"), operator.add),
        "polemass_length": Derived(("masspole", "length"), operator.mul),
    },
}
"""By environment, the parameters that gymnax does not compute anew when those that they follow from change."""

PROBABILITIES = {"reward_prob": 0.5, "fail_prob": 0.75}
"""Parameters that are probabilities, and the highest value of each; nothing is drawn outside their range.

BernoulliBandit's arms pay with `reward_prob` and its complement, so more than a half gives the same tasks again.
FourRooms draws any direction with 4/3 of `fail_prob`."""

REFUSED = {"MNISTBandit-bsuite": "downloads its images when it is built, and has a single task"}
"""Environments that are not built, and why."""


def with_derived(env_id: str, params: PyTree) -> PyTree:
    """The parameters with those computed anew that follow from others."""
    derived = DERIVED.get(env_id, {})
    computed = {
        name: rule.compute(*(getattr(params, source) for source in rule.sources)) for name, rule in derived.items()
    }
    return params.replace(**computed) if computed else params
