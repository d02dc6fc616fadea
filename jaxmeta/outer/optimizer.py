"""The outer optimizer: Adam behind a limit on the gradient's norm, and how a step of it is taken."""

import optax

from jaxmeta.core.config import OuterConfig
from jaxmeta.core.types import Metrics, PyTree


def outer_optimizer(outer: OuterConfig, steps_per_meta_step: int = 1) -> optax.GradientTransformation:
    """Adam behind a limit on the gradient's norm, its step size falling along a line where the settings say so."""
    rate = outer.outer_learning_rate
    if outer.learning_rate_left < 1:
        steps = outer.meta_steps * steps_per_meta_step
        rate = optax.linear_schedule(rate, rate * outer.learning_rate_left, steps)
    return optax.chain(optax.clip_by_global_norm(outer.max_gradient_norm), optax.adam(rate))


def take_step(
    optimizer: optax.GradientTransformation, gradient: PyTree, optimizer_state: PyTree, params: PyTree
) -> tuple[PyTree, PyTree, Metrics]:
    """The parameters after one step, the optimizer's state, and the gradient's length as `meta_gradient_norm`."""
    changes, optimizer_state = optimizer.update(gradient, optimizer_state, params)
    norm = optax.tree.norm(gradient)
    return optax.apply_updates(params, changes), optimizer_state, {"meta_gradient_norm": norm}
