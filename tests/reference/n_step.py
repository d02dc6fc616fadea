"""n-step transitions in plain Python loops, from the definition."""

import numpy as np


def n_step(reward, terminated, truncated, discount, n, step):
    """Reward sum, weight of the far value and index of the window's last step, of one environment.

    Args:
      reward, terminated, truncated: [T].
      discount: float.
      n: rewards at most; 0 means no limit.
      step: where the window starts.
    """
    total, weight, last = 0.0, 1.0, step
    for now in range(step, len(reward)):
        total += weight * reward[now]
        weight *= discount
        last = now
        if terminated[now]:
            return total, 0.0, last
        if truncated[now] or (n and now - step + 1 == n):
            break
    return total, weight, last


def random_episodes(generator: np.random.Generator, shape):
    """Rewards and episode ends of a random stretch of experience; a step may be both terminated and truncated."""
    return generator.normal(size=shape).astype(np.float32), generator.random(shape) < 0.2, generator.random(shape) < 0.2
