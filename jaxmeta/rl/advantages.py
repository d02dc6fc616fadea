"""Advantages: how much better an action was than what was to be expected. Everything is of one environment, [T]."""

import chex
import jax
import jax.numpy as jnp

from jaxmeta.rl.losses import episode_starts, returns_to_go

RIDGE = 1e-6
"""Mean square that the linear baseline's normal equations are raised by, so that collinear regressors do no harm."""


def generalised_advantage(reward, terminated, ended, value, next_value, discount, gae_lambda):
    """A[t] = delta[t] + discount * gae_lambda * A[t + 1] within an episode.

    delta[t] = reward[t] + discount * next_value[t] - value[t], without the second term where the episode terminated. An
    episode that was cut short, and the rollout's end, bootstrap from the value of what would have come next.

    Args:
      reward: [T] float32.
      terminated: [T] bool, the episode ended and nothing follows.
      ended: [T] bool, the episode ended or was cut short.
      value: of what was observed before each step, [T] float32.
      next_value: of what was observed after it, [T] float32.
      discount: [] float32.
      gae_lambda: weight of later surprises, in [0, 1]; 1 is the return to go minus the value.

    Returns:
      [T] float32.

    Reference: Schulman et al. (2016).

    >>> nothing, never = jnp.zeros(2), jnp.zeros(2, bool)
    >>> generalised_advantage(jnp.array([1.0, 1.0]), never, never, nothing, nothing, 0.5, 1.0).tolist()
    [1.5, 1.0]
    """
    chex.assert_rank([reward, terminated, ended, value, next_value], 1)
    surprise = reward + discount * ~terminated * next_value - value
    return returns_to_go(surprise, discount * gae_lambda * ~ended)


def normalised(advantage, where=None):
    """Advantages of any shape, moved and scaled to mean 0 and variance 1 over those that count, `where` if given."""
    return (advantage - jnp.mean(advantage, where=where)) / (jnp.std(advantage, where=where) + 1e-8)


def linear_baseline(features, first, returns):
    """Values by ridge regression of returns to go on observations and time, fitted to many environments at once.

    The regressors are o, o^2, and the polynomials of degree 0 to 3 in the time since the episode's start, written as
    Legendre's, which float32 can distinguish.

    Args:
      features: observations as numbers, [T, E, D] float32.
      first: [T, E] bool, the first step of an episode.
      returns: [T, E] float32.

    Returns:
      The fitted values, [T, E] float32.

    Reference: Duan et al. (2016), benchmarking deep reinforcement learning, section 5.
    """
    chex.assert_rank([features, first, returns], [3, 2, 2])
    steps = jnp.arange(len(first))[:, None] - jax.vmap(episode_starts, 1, 1)(first)
    time = (2 * steps / len(first) - 1).astype(features.dtype)[..., None]
    curves = [jnp.ones_like(time), time, 1.5 * time**2 - 0.5, 2.5 * time**3 - 1.5 * time]
    regressors = jnp.concatenate([features, features**2, *curves], axis=-1)
    rows = regressors.reshape(-1, regressors.shape[-1])
    normal = rows.T @ rows + RIDGE * len(rows) * jnp.eye(rows.shape[1], dtype=rows.dtype)
    weights = jax.scipy.linalg.solve(normal, rows.T @ returns.ravel(), assume_a="pos")
    return regressors @ weights
