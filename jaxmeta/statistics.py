"""Point estimates and intervals for scores over seeds and tasks."""

from collections.abc import Callable

import numpy as np
from scipy import stats

RESAMPLES = 2000


def interquartile_mean(scores: np.ndarray) -> float:
    """Mean of the middle half of all scores (Agarwal et al., 2021), of an array of any shape.

    >>> interquartile_mean(np.array([0.0, 1.0, 2.0, 99.0]))
    1.5
    """
    return float(stats.trim_mean(np.ravel(scores), 0.25))


def mean(scores: np.ndarray) -> float:
    """Mean of all scores, of an array of any shape."""
    return float(np.mean(scores))


def standard_error(values: np.ndarray) -> float:
    """Of the mean over seeds and tasks, [seeds, tasks]: what comes of the choice of tasks, and of that of seeds.

    >>> round(standard_error(np.array([[1.0, 3.0]])), 6), round(standard_error(np.array([[1.0, 3.0], [3.0, 5.0]])), 6)
    (1.0, 1.414214)
    """
    means = [values.mean(axis=axis) for axis in (0, 1)]
    return float(np.sqrt(sum(mean.var(ddof=1) / len(mean) for mean in means if len(mean) > 1)))


def bootstrap_interval(
    scores: np.ndarray, statistic: Callable[[np.ndarray], float] = interquartile_mean, seed: int = 0
) -> list[float]:
    """95 % percentile interval of a statistic, resampling seeds and then tasks within each.

    Args:
      scores: [seeds, tasks] float.
      statistic: of an array of that shape.
      seed: of the resampling.

    Returns:
      [low, high]. With a single seed the interval speaks of tasks alone.
    """
    scores = np.atleast_2d(scores)
    seeds, tasks = scores.shape
    generator = np.random.default_rng(seed)
    values = []
    for _ in range(RESAMPLES):
        chosen = generator.integers(seeds, size=(seeds, 1))
        values.append(statistic(scores[chosen, generator.integers(tasks, size=(seeds, tasks))]))
    low, high = np.quantile(values, [0.025, 0.975])
    return [float(low), float(high)]
