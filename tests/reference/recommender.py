"""Recommendations in plain Python: chances of a click from the history of a session, and the best session."""

import itertools
import math

import numpy as np


def preference(first, later, drift, time, session):
    """Where interests point after so many steps."""
    share = drift * time / session
    between = [(1 - share) * one + share * other for one, other in zip(first, later, strict=True)]
    length = math.sqrt(sum(entry**2 for entry in between))
    return [entry / length for entry in between]


def factor(history, item, window):
    """What is left of the interest in an item after those in the history, the last one last."""
    for ago in range(1, window + 1):
        if ago <= len(history) and history[-ago] == item:
            return 1 - 0.9 * 0.5 ** (ago - 1)
    return 1.0


def fresh_chances(features, offsets, strength, taste):
    """Chance of a click on every item that was not shown of late."""
    logits = np.asarray(offsets, float) + float(strength) * (np.asarray(features, float) @ np.asarray(taste, float))
    return [1 / (1 + math.exp(-logit)) for logit in logits]


def expected_return(chances, shown, window):
    """Expected clicks of a session that shows these items; `chances[time][item]` are fresh."""
    return sum(
        chances[time][item] * factor(shown[max(time - window, 0) : time], item, window)
        for time, item in enumerate(shown)
    )


def best_return(chances, window):
    """The best over all sessions: what is clicked changes nothing, so nothing is gained by waiting for it."""
    items = range(len(chances[0]))
    return max(expected_return(chances, shown, window) for shown in itertools.product(items, repeat=len(chances)))
