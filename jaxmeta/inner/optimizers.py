"""How a gradient becomes new parameters: rules made by hand, which learned ones (`learned_optimizers`) stand beside.

A rule may have weights, which are learned across tasks, and a state, which lasts as long as the parameters that it
changes.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta.core.types import Key, Params, PyTree


class UpdateContext(NamedTuple):
    """What a rule may know beside gradient and parameters, [] float32 each."""

    learning_rate: jax.Array
    value: jax.Array
    """The loss whose gradient this is."""
    progress: jax.Array
    """Share of the learner's lifetime that has passed, from 0 to 1."""


class UpdateRule(NamedTuple):
    """How a gradient becomes new parameters."""

    init: Callable[[Key, Params], PyTree]
    """`init(key, params)`: weights for parameters of this shape, or None where there is nothing to learn."""
    init_state: Callable[[Params], PyTree]
    """`init_state(params)`: the state at a learner's start."""
    update: Callable[[PyTree, Params, PyTree, Params, UpdateContext], tuple[Params, PyTree]]
    """`update(weights, gradient, state, params, seen)`: what to add to the parameters, and the state."""


def from_optax(direction: optax.GradientTransformation) -> UpdateRule:
    """A rule without weights: `-learning_rate` times what an optax transformation makes of the gradient."""

    def update(weights: None, gradient: Params, state: PyTree, params: Params, seen: UpdateContext):
        del weights
        step, state = direction.update(gradient, state, params)
        return jax.tree.map(lambda leaf: -seen.learning_rate * leaf, step), state

    return UpdateRule(lambda key, params: None, direction.init, update)


INNER_OPTIMIZERS = {
    "sgd": from_optax(optax.identity()),
    "rmsprop": from_optax(optax.scale_by_rms(decay=0.99)),
    "adam": from_optax(optax.scale_by_adam()),
}
"""By name. All but `sgd` divide by what may be zero: do not differentiate through them."""


def learned_step_sizes(learning_rate: float) -> UpdateRule:
    """Gradient descent with one learned step size per parameter, whose logarithms are the weights.

    Reference: Li et al. (2017), Meta-SGD.
    """

    def init(key: Key, params: Params):
        del key
        return jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.log(learning_rate)), params)

    def update(weights: Params, gradient: Params, state: None, params: Params, seen: UpdateContext):
        del params, seen
        return jax.tree.map(lambda log_size, leaf: -jnp.exp(log_size) * leaf, weights, gradient), state

    return UpdateRule(init, lambda params: None, update)
