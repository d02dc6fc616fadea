"""Exact plans for Bernoulli bandits whose arms pay with probabilities drawn uniformly from 0 to 1, in NumPy.

All that can be known of an arm is how often it was `pulled` and how often it `paid`; the belief about its probability
is then Beta(1 + paid, 1 + pulled - paid). The two counts are one number, their `code`.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

CELLS = 128
"""Cells of the grid of known arms that `gittins_indices` calibrates against."""


def code(pulled: Any, paid: Any) -> Any:
    """One number for how often an arm was pulled and how often it paid; at most n (n + 3) / 2 after n pulls."""
    return pulled * (pulled + 1) // 2 + paid


def counts(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The inverse of `code`: how often pulled, and how often it paid."""
    pulled = ((np.sqrt(8 * codes + 1) - 1) / 2).astype(np.int64)
    return pulled, codes - code(pulled, 0)


class Worth(NamedTuple):
    """What each arm is worth in the beliefs that are possible after some number of pulls."""

    beliefs: np.ndarray
    """[beliefs, arms] int64, codes of the arms in rising order."""
    values: np.ndarray
    """[beliefs, arms] float64, expected reward of pulling an arm now and the best ones afterwards."""


def bayes_optimal_worth(arms: int, pulls: int) -> Iterator[Worth]:
    """Worth of every arm in every belief, by dynamic programming, from before the last pull back to before the first.

    Beliefs that differ by the order of the arms are worth the same, and are kept once.

    Args:
      arms: number of arms, at least 1.
      pulls: pulls of a trial, at least 0. About `number_of_beliefs(arms, pulls)` beliefs are held in memory.
    """
    codes = np.zeros((1, arms), np.int64)
    layers = []
    for _ in range(pulls):
        pulled, paid = counts(codes)
        after = np.stack([code(pulled + 1, paid), code(pulled + 1, paid + 1)])  # [unpaid or paid, beliefs, arms]
        successors = np.where(np.eye(arms, dtype=bool), after[..., None], codes[:, None])  # pulled arm before last axis
        successors = np.sort(successors, axis=-1).reshape(-1, arms)
        chance = (paid + 1) / (pulled + 2)
        beliefs, (codes, following) = codes, np.unique(successors, axis=0, return_inverse=True)
        layers.append((beliefs, chance, following.reshape(after.shape)))
    best = np.zeros(len(codes))
    for beliefs, chance, following in reversed(layers):
        values = chance * (1 + best[following[1]]) + (1 - chance) * best[following[0]]
        yield Worth(beliefs, values)
        best = np.max(values, axis=-1)


def bayes_optimal_return(arms: int, pulls: int) -> float:
    """Expected return of the best policy for `bandit` that does not know the task, by dynamic programming.

    Args:
      arms: number of arms, at least 1.
      pulls: pulls of a trial, at least 0.

    Returns:
      The expected number of successes in a trial.

    >>> round(bayes_optimal_return(2, 10), 4)
    6.0218
    """
    best = 0.0
    for worth in bayes_optimal_worth(arms, pulls):
        best = np.max(worth.values)  # the last to come is that of the single belief before the first pull
    return float(best)


def number_of_beliefs(arms: int, pulls: int) -> int:
    """About how many beliefs a trial can pass through, the order of the arms aside: C(pulls + 2 arms, 2 arms) / arms!.

    >>> number_of_beliefs(2, 10)
    500
    """
    return math.comb(pulls + 2 * arms, 2 * arms) // math.factorial(arms)


def gittins_indices(pulls: int) -> np.ndarray:
    """Finite-horizon Gittins indices of an arm, by calibration against arms that are known.

    The index of an arm with n pulls left is the highest probability c such that a player who may go on pulling it for
    up to n times, and stop at any time, still gains by starting if every pull costs c:

        sup over stopping times 1 <= tau <= n of E[sum of tau rewards - c tau] = 0.

    It is its expected reward plus a bonus for what a pull may teach, which falls as the pulls run out; with one left it
    is the expected reward. For every c of a grid the optimal stopping problem is solved by backward induction, and the
    index is where the line between two neighbours crosses zero.

    Args:
      pulls: pulls of a trial, n. Memory is about n^3 / 6 float32, time that times `CELLS`.

    Returns:
      [n (n + 1) (n + 2) / 6] float32; the index after t pulls in all, of an arm with some code (which was pulled at
      most t times and can be pulled n - t times more), is at `first_index(t) + code`. The grid makes it too large by
      0.0004 on average and by at most 0.005 (100 pulls).

    References: Bradt, Johnson and Karlin (1956); Gittins (1979); Lattimore (2016), who bounds its regret.
    """
    pulled, paid = counts(np.arange(code(pulls, 0)))
    chance = ((paid + 1) / (pulled + 2)).astype(np.float32)
    after = code(pulled + 1, paid)
    gains = np.empty(first_index(pulls), np.float32)
    indices = np.empty_like(gains)
    for cost in np.linspace(0, 1, CELLS + 1, dtype=np.float32):
        value = np.zeros(code(pulls + 1, 0), np.float32)
        for time in reversed(range(pulls)):
            at = slice(first_index(time), first_index(time + 1))
            known = code(time + 1, 0)
            if_unpaid, if_paid = value[after[:known]], value[after[:known] + 1]
            gain = if_unpaid + chance[:known] * (1 + if_paid - if_unpaid) - cost
            if cost > 0:
                before = gains[at]
                crossed = np.flatnonzero((before > 0) & (gain <= 0))
                indices[at][crossed] = cost + gain[crossed] / ((before[crossed] - gain[crossed]) * CELLS)
            gains[at] = gain
            value = np.maximum(gain, 0)
    return indices


def first_index(time: Any) -> Any:
    """Where the indices after `time` pulls start in `gittins_indices`."""
    return time * (time + 1) * (time + 2) // 6
