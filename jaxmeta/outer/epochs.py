"""Several passes of gradient steps over what was collected once, on minibatches of tasks."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from jaxmeta.base import Key, MetaState, Metrics, PyTree
from jaxmeta.config import ProximalConfig

Gradient = Callable[[PyTree, PyTree], tuple[PyTree, Metrics]]
"""`gradient(meta, minibatch)`: a tree like `meta`, and metrics."""


def clipped_gain(log_ratio: jax.Array, advantage: jax.Array, clip: float) -> tuple[jax.Array, jax.Array]:
    """Mean of min(ratio * advantage, clip(ratio, 1 - clip, 1 + clip) * advantage).

    What is to be gained by moving an action's probability away from what it was when the action was taken, and nothing
    beyond that.

    Args:
      log_ratio: log-probability now minus then, any shape.
      advantage: of the action, a constant, of the same shape.
      clip: how far the ratio may move.

    Returns:
      The mean, and the share of ratios that have moved farther, [] float32 each.

    Reference: Schulman et al. (2017), equation 7.
    """
    ratio = jnp.exp(log_ratio)
    gain = jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - clip, 1 + clip) * advantage)
    return jnp.mean(gain), jnp.mean(jnp.abs(jnp.expm1(log_ratio)) > clip)


def over_epochs(
    gradient: Gradient, optimizer: optax.GradientTransformation, config: ProximalConfig
) -> Callable[[Key, MetaState, PyTree], tuple[MetaState, Metrics]]:
    """Takes `config.epochs` times `config.minibatches` optimizer steps, each on its share of the tasks.

    Returns:
      A function of a key, the state and what was collected, leaves [tasks, ...]; the number of tasks must be a multiple
      of the minibatches. It returns the state after one meta-step, and means of the metrics over the steps.
    """

    def descend(key: Key, state: MetaState, collected: PyTree) -> tuple[MetaState, Metrics]:
        def step(carry, chosen):
            meta, optimizer_state = carry
            direction, metrics = gradient(meta, jax.tree.map(lambda leaf: leaf[chosen], collected))
            changes, optimizer_state = optimizer.update(direction, optimizer_state, meta)
            metrics = {**metrics, "meta_gradient_norm": optax.tree.norm(direction)}
            return (optax.apply_updates(meta, changes), optimizer_state), metrics

        tasks = jax.tree.leaves(collected)[0].shape[0]
        orders = jax.vmap(lambda key: jax.random.permutation(key, tasks))(jax.random.split(key, config.epochs))
        orders = orders.reshape(config.epochs * config.minibatches, -1)
        (meta, optimizer_state), metrics = jax.lax.scan(step, (state.meta, state.optimizer), orders)
        state = state.replace(meta=meta, optimizer=optimizer_state, step=state.step + 1)
        return state, jax.tree.map(jnp.mean, metrics)

    return descend
