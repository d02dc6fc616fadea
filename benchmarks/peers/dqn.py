"""How a training is timed and told of, the same for every contender."""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from wire import peak_megabytes


def timed_training(seed: int, train: Callable, returns_of: Callable, counts: Callable) -> dict[str, Any]:
    """A whole training, timed, and the greedy returns of what it arrives at, not timed.

    Args:
      seed: of both.
      train: `train(key)`, compiled, gives what training arrives at.
      returns_of: `returns_of(key, arrived)`, compiled, gives the returns of its episodes.
      counts: `counts(arrived)`, its `updates` and `env_steps`.
    """
    train_key, test_key = jax.random.split(jax.random.key(seed))
    start = time.perf_counter()
    arrived = jax.block_until_ready(train(train_key))
    seconds = time.perf_counter() - start
    returns = returns_of(test_key, arrived)
    told = {"seconds": seconds, "return": float(jnp.mean(returns)), **counts(arrived)}
    return {**told, "peak_megabytes": peak_megabytes()}
