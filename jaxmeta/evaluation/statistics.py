"""Point estimates and intervals for scores over seeds and tasks."""

from collections.abc import Sequence

import numpy as np
from scipy import stats

RESAMPLES = 2000
AT_ONCE = 100
"""Of them, held in memory together."""
QUARTER = 0.25
"""Of all values, what an interquartile mean leaves out at each end."""


def interquartile_mean(scores: np.ndarray) -> float:
    """Mean of the middle half of all scores (Agarwal et al., 2021), of an array of any shape.

    >>> interquartile_mean(np.array([0.0, 1.0, 2.0, 99.0]))
    1.5
    """
    return float(stats.trim_mean(np.ravel(scores), QUARTER))


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
    scores: np.ndarray, trim: float = QUARTER, seed: int = 0, same_tasks: bool = True
) -> list[float]:
    """95 % percentile interval of the interquartile mean or another trimmed one, resampling seeds and tasks.

    Args:
      scores: [seeds, tasks] float.
      trim: share of the values that is left out at each end; 0 for the plain mean.
      seed: of the resampling.
      same_tasks: whether a column is one task, in which all seeds were evaluated. Then tasks are resampled together:
        five seeds in the same tasks know no more of other tasks than one. Else each seed has tasks of its own.

    Returns:
      [low, high]. With a single seed the interval covers tasks alone.
    """
    scores = np.atleast_2d(scores)
    seeds, tasks = scores.shape
    generator = np.random.default_rng(seed)
    means = []
    for count in _batches():
        chosen = generator.integers(seeds, size=(count, seeds, 1))
        drawn = generator.integers(tasks, size=(count, 1 if same_tasks else seeds, tasks))
        means.append(_trimmed_means(scores[chosen, drawn], trim))
    return _percentiles(means)


def stratified_interval(strata: Sequence[np.ndarray]) -> list[float]:
    """95 % percentile interval of the interquartile mean over several families, resampling seeds within each.

    Args:
      strata: for each family, what each seed scored, [seeds] float; at least two seeds.

    Returns:
      [low, high], after Agarwal et al. (2021).
    """

    def pooled(*samples: np.ndarray, axis: int) -> np.ndarray:
        return stats.trim_mean(np.concatenate(samples, axis=axis), QUARTER, axis=axis)

    found = stats.bootstrap(
        tuple(strata), pooled, n_resamples=RESAMPLES, vectorized=True, method="percentile", rng=np.random.default_rng(0)
    )
    return [float(found.confidence_interval.low), float(found.confidence_interval.high)]


def probability_of_improvement(scores: np.ndarray, others: np.ndarray) -> float:
    """How likely one training does better than one of the other method, in a task drawn at random; a tie counts half.

    Args:
      scores: [seeds, tasks] float.
      others: of the other method in the same tasks, [its seeds, tasks] float.

    >>> probability_of_improvement(np.array([[1.0, 0.0], [3.0, 0.0]]), np.array([[2.0, 0.0]]))
    0.5
    """
    pairs = len(scores) * len(others)
    return float(np.mean(stats.mannwhitneyu(scores, others, axis=0, method="asymptotic").statistic) / pairs)


def difference_interval(scores: np.ndarray, others: np.ndarray, trim: float = QUARTER, seed: int = 0) -> list[float]:
    """95 % percentile interval of how far one method's trimmed mean lies above another's, in the same tasks.

    Seeds are resampled on both sides, tasks together.

    Args:
      scores: [seeds, tasks] float.
      others: of the other method in the same tasks, [its seeds, tasks] float.
      trim: as in `bootstrap_interval`.
      seed: of the resampling.

    Returns:
      [low, high].
    """
    generator, tasks = np.random.default_rng(seed), scores.shape[1]
    differences = []
    for count in _batches():
        chosen = generator.integers(tasks, size=(count, 1, tasks))
        ours, theirs = (
            _trimmed_means(array[generator.integers(len(array), size=(count, len(array), 1)), chosen], trim)
            for array in (scores, others)
        )
        differences.append(ours - theirs)
    return _percentiles(differences)


def prediction_interval(values: Sequence[float], level: float = 0.99) -> list[float]:
    """Where the next value lies with that probability, if all are drawn from one normal distribution.

    Args:
      values: at least two.
      level: the probability.

    Returns:
      [low, high].

    >>> [round(bound, 3) for bound in prediction_interval([-1.0, 0.0, 1.0], 0.95)]
    [-4.968, 4.968]
    """
    array = np.asarray(values, float)
    half = stats.t.ppf((1 + level) / 2, len(array) - 1) * array.std(ddof=1) * np.sqrt(1 + 1 / len(array))
    return [float(array.mean() - half), float(array.mean() + half)]


def _batches() -> list[int]:
    """How many resamples are drawn at a time."""
    return [min(AT_ONCE, RESAMPLES - done) for done in range(0, RESAMPLES, AT_ONCE)]


def _trimmed_means(samples: np.ndarray, trim: float) -> np.ndarray:
    """Of each of several [seeds, tasks]: `stats.trim_mean` by a sort, in a third of the time of its partition."""
    flat = samples.reshape(len(samples), -1)
    cut = int(trim * flat.shape[1])
    return np.mean(np.sort(flat, axis=1)[:, cut : flat.shape[1] - cut], axis=1)


def _percentiles(values: Sequence[np.ndarray]) -> list[float]:
    low, high = np.quantile(values, [0.025, 0.975])
    return [float(low), float(high)]
