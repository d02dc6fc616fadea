"""The outer optimizer: Adam behind a limit on the gradient's norm, and how a step of it is taken."""

import optax

from jaxmeta.core.config import Config, Fraction, NonNegative, Positive
from jaxmeta.core.types import Metrics, PyTree


class OptimizerConfig(Config, frozen=True, kw_only=True):
    """The outer optimizer."""

    learning_rate: NonNegative = 1e-3
    """Step size of Adam."""
    final_learning_rate_fraction: Fraction = 1.0
    """Share of the step size that is left after `meta_steps`; it falls along a line, 1 keeps it as it is."""
    max_gradient_norm: Positive = 1.0
    """Meta-gradients are scaled down to this global norm."""


def outer_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """Adam behind a limit on the gradient's norm.

    Args:
      config: its settings.
      steps: of the optimizer in a whole run, over which the step size falls where the settings say so.
    """
    rate = config.learning_rate
    if config.final_learning_rate_fraction < 1:
        rate = optax.linear_schedule(rate, rate * config.final_learning_rate_fraction, steps)
    return optax.chain(optax.clip_by_global_norm(config.max_gradient_norm), optax.adam(rate))


def take_step(
    optimizer: optax.GradientTransformation, gradient: PyTree, optimizer_state: PyTree, params: PyTree
) -> tuple[PyTree, PyTree, Metrics]:
    """The parameters after one step, the optimizer's state, and the gradient's length as `meta_gradient_norm`."""
    changes, optimizer_state = optimizer.update(gradient, optimizer_state, params)
    norm = optax.tree.norm(gradient)
    return optax.apply_updates(params, changes), optimizer_state, {"meta_gradient_norm": norm}
