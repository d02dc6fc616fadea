"""Several passes of gradient steps over what was collected once, on minibatches of tasks."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from jaxmeta.core import sharding as devices
from jaxmeta.core.config import Config, Count, Positive
from jaxmeta.core.errors import require
from jaxmeta.core.types import Key, MetaState, Metrics, PyTree
from jaxmeta.outer.optimizer import take_step


class TrustRegionConfig(Config, frozen=True, kw_only=True):
    """Several optimizer steps on what was collected once, within a trust region."""

    epochs: Count = 4
    """Passes over what was collected."""
    minibatches: Count = 4
    """Optimizer steps of an epoch, each on its share of the tasks."""
    clip: Positive = 0.2
    """How far the probability of an action may move from what it was, as a ratio, before the gain stops."""

    @property
    def steps(self) -> int:
        """Optimizer steps of a meta-step."""
        return self.epochs * self.minibatches

    def require_even(self, tasks_per_batch: int) -> None:
        """Refuses minibatches that are not of equal size.

        Raises:
          UsageError: they are not.
        """
        divides = tasks_per_batch % self.minibatches == 0
        require(divides, "minibatches", f"divide tasks_per_batch = {tasks_per_batch}", self.minibatches)


Gradient = Callable[[PyTree, PyTree], tuple[PyTree, Metrics]]
"""`gradient(meta, minibatch)`: a tree like `meta`, and metrics."""

LARGEST_LOG_RATIO = 20.0
"""Beyond which an action counts as no more probable: its exponential would overflow, and one action be all there is."""


def clipped_gain(log_ratio: jax.Array, advantage: jax.Array, clip: float) -> tuple[jax.Array, jax.Array]:
    """min(ratio * advantage, clip(ratio, 1 - clip, 1 + clip) * advantage) of each action.

    What is to be gained by moving an action's probability away from what it was when the action was taken, and nothing
    beyond that.

    Args:
      log_ratio: log-probability now minus then, any shape.
      advantage: of the action, a constant, of the same shape.
      clip: how far the ratio may move.

    Returns:
      The gains, and whether a ratio has moved farther, bool, of the same shape.

    Reference: Schulman et al. (2017), equation 7.
    """
    ratio = jnp.exp(jnp.minimum(log_ratio, LARGEST_LOG_RATIO))
    gain = jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - clip, 1 + clip) * advantage)
    return gain, jnp.abs(jnp.expm1(log_ratio)) > clip


def over_epochs(
    gradient: Gradient, optimizer: optax.GradientTransformation, config: TrustRegionConfig
) -> Callable[[Key, MetaState, PyTree], tuple[MetaState, Metrics]]:
    """Takes `config.epochs` times `config.minibatches` optimizer steps, each on its share of the tasks.

    Returns:
      A function of a key, the state and what was collected, leaves [tasks, ...]; the number of tasks must be a multiple
      of the minibatches. It returns the state after one meta-step, and means of the metrics over the steps.
    """

    def descend(key: Key, state: MetaState, collected: PyTree) -> tuple[MetaState, Metrics]:
        def step(carry, chosen):
            meta, optimizer_state = carry
            direction, metrics = gradient(meta, jax.tree.map(lambda leaf: _minibatch(leaf, chosen), collected))
            meta, optimizer_state, norm = take_step(optimizer, direction, optimizer_state, meta)
            return (meta, optimizer_state), metrics | norm

        tasks = jax.tree.leaves(collected)[0].shape[0]
        choices = _choices(key, tasks, config)
        (meta, optimizer_state), metrics = jax.lax.scan(step, (state.meta, state.optimizer), choices)
        state = state.replace(meta=meta, optimizer=optimizer_state, step=state.step + 1)
        return state, jax.tree.map(jnp.mean, metrics)

    return descend


def _choices(key: Key, tasks: int, config: TrustRegionConfig) -> jax.Array:
    """Which tasks make up each minibatch, [epochs * minibatches, tasks of a minibatch] int32.

    Of as many neighbours as there are minibatches each gets one, drawn anew in every epoch. So all devices that tasks
    are spread over have as many of every minibatch, and no task has to go to another.
    """
    rows = tasks // config.minibatches
    count = devices.in_use()
    rule = f"leave each of them a multiple of devices = {count} of the {tasks} tasks"
    require(rows % count == 0, "minibatches", rule, config.minibatches)
    keys = jax.random.split(key, (config.epochs, rows))
    orders = jax.vmap(jax.vmap(lambda key: jax.random.permutation(key, config.minibatches)))(keys)
    return jnp.moveaxis(orders, 2, 1).reshape(-1, rows)


def _minibatch(leaf: jax.Array, chosen: jax.Array) -> jax.Array:
    """Of leaves [tasks, ...] the chosen one of each row of neighbours."""
    rows = leaf.reshape(chosen.shape[0], -1, *leaf.shape[1:])
    return devices.spread(jax.vmap(lambda row, index: row[index])(rows, chosen))
