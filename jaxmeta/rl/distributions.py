"""Distributions over actions, given by the numbers that a network puts out."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.core.types import Key, Spec

LOG_SCALES = -5.0, 2.0
"""Within which the logarithm of a Gaussian's standard deviation is kept, in units of half the range of actions: nothing
else keeps a network from putting out deviations whose densities overflow, in states that it seldom comes to."""


class ActionDistribution(NamedTuple):
    """How a policy's numbers become actions."""

    size: int
    """N, how many numbers say what is drawn."""
    noise: Callable[[Key], jax.Array]
    """`noise(key)`, all that a draw leaves to chance, float32."""
    draw: Callable[[jax.Array, jax.Array], jax.Array]
    """`draw(noise, numbers)`, an action."""
    log_prob: Callable[[jax.Array, jax.Array], jax.Array]
    """`log_prob(numbers, action)`, its log-probability or log-density, [...] float32; both may have leading axes."""
    entropy: Callable[[jax.Array], jax.Array]
    """`entropy(numbers)` in nats, [...] float32; leading axes as of `log_prob`."""


def of_actions(spec: Spec) -> ActionDistribution:
    """Categorical over discrete actions, a diagonal Gaussian over continuous ones.

    The numbers of a Gaussian count from the middle of the range of actions, in units of half its width, where there is
    one: a unit that suits a network. What is drawn is neither clipped nor squashed: the environment may clip it, the
    log-density is that of the drawn action.
    """
    if spec.num_actions is not None:
        return _categorical(spec.num_actions, spec.action.dtype)
    low, high = (-1.0, 1.0) if spec.action_range is None else spec.action_range
    middle, unit = (np.broadcast_to(x, spec.action.shape).ravel() for x in ((low + high) / 2, (high - low) / 2))
    return _diagonal_gaussian(spec.action, middle.astype(np.float32), unit.astype(np.float32))


def _categorical(num_actions: int, dtype) -> ActionDistribution:
    """Its numbers are logits; the largest of them plus Gumbel noise is drawn (Gumbel, 1954)."""

    def entropy(logits: jax.Array) -> jax.Array:
        log_probs = jax.nn.log_softmax(logits)
        return -jnp.sum(jnp.exp(log_probs) * log_probs)

    return ActionDistribution(
        size=num_actions,
        noise=lambda key: jax.random.gumbel(key, (num_actions,)),
        draw=lambda noise, logits: jnp.argmax(logits + noise).astype(dtype),
        log_prob=jnp.vectorize(lambda logits, action: jax.nn.log_softmax(logits)[action], signature="(n),()->()"),
        entropy=jnp.vectorize(entropy, signature="(n)->()"),
    )


def _diagonal_gaussian(action: jax.ShapeDtypeStruct, middle: np.ndarray, unit: np.ndarray) -> ActionDistribution:
    """Its numbers are the means, then the logarithms of the standard deviations, from `middle` in units of `unit`."""
    size = middle.size
    log_of_unit = np.log(unit) + 0.5 * np.log(2 * np.pi)

    def parts(numbers: jax.Array) -> tuple[jax.Array, jax.Array]:
        mean, log_scale = jnp.split(numbers, 2)
        return mean, jnp.clip(log_scale, *LOG_SCALES)

    def draw(noise: jax.Array, numbers: jax.Array) -> jax.Array:
        mean, log_scale = parts(numbers)
        drawn = (mean + jnp.exp(log_scale) * noise) * unit + middle
        return drawn.reshape(action.shape).astype(action.dtype)

    def log_prob(numbers: jax.Array, action: jax.Array) -> jax.Array:
        mean, log_scale = parts(numbers)
        distance = ((jnp.ravel(action) - middle) / unit - mean) * jnp.exp(-log_scale)
        return -jnp.sum(0.5 * distance**2 + log_scale + log_of_unit)

    def entropy(numbers: jax.Array) -> jax.Array:
        return jnp.sum(parts(numbers)[1] + log_of_unit + 0.5)

    axes = ",".join(f"a{axis}" for axis in range(len(action.shape)))
    return ActionDistribution(
        size=2 * size,
        noise=lambda key: jax.random.normal(key, (size,)),
        draw=draw,
        log_prob=jnp.vectorize(log_prob, signature=f"(n),({axes})->()"),
        entropy=jnp.vectorize(entropy, signature="(n)->()"),
    )
