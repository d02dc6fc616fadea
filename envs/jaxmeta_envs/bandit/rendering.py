"""How bandits look: what each arm pays on average, the posterior of each after the pulls so far, and how often it was
pulled.
"""

from typing import Any

import numpy as np

from jaxmeta.core.scenes import AGENT, EMPTY, GOAL, WALL, Episode, Scene

COVERED = 0.9
"""Probability of the interval that is drawn of a posterior."""


def posterior(actions: np.ndarray, rewards: np.ndarray, arms: int, gaussian: bool) -> tuple[np.ndarray, np.ndarray]:
    """The posterior of each arm's mean: its mean, [arms], and its interval, [2, arms].

    Priors are those that tasks are drawn from: uniform on [0, 1], or standard normal with noise of variance 1.

    >>> mean, _ = posterior(np.array([0, 0, 1]), np.array([1.0, 1.0, 0.0]), 3, gaussian=False)
    >>> mean.round(2).tolist()
    [0.75, 0.33, 0.5]
    """
    from scipy import stats

    pulls = np.bincount(actions, minlength=arms)
    earned = np.bincount(actions, rewards, minlength=arms)
    beliefs = (
        stats.norm(earned / (1 + pulls), 1 / np.sqrt(1 + pulls))
        if gaussian
        else stats.beta(1 + earned, 1 + pulls - earned)
    )
    return beliefs.mean(), np.stack(beliefs.interval(COVERED))


def bandit_scene(params: Any, gaussian: bool) -> Scene:
    """A whole lifetime: pulls, and the posterior beside the true means."""
    means = np.asarray(params.means)
    arms = len(means)
    low, high = (min(-2.5, means.min() - 0.5), max(2.5, means.max() + 0.5)) if gaussian else (0.0, 1.0)
    room = 0.14 * (high - low)

    def background(axes) -> None:
        axes.set_xlim(-0.6, arms - 0.4)
        axes.set_ylim(low - room, high + 0.05 * (high - low))
        axes.set_facecolor(EMPTY)
        axes.hlines(means, np.arange(arms) - 0.35, np.arange(arms) + 0.35, color=GOAL, linewidth=3, zorder=3)
        axes.set_xticks(range(arms), [f"arm {arm + 1}" for arm in range(arms)] if arms <= 6 else range(1, arms + 1))
        axes.set_ylabel("mean reward: true (green), posterior", fontsize=8)

    def moment(axes, episode: Episode, t: int) -> None:
        actions, rewards = episode.steps.action[: t + 1].astype(int), episode.steps.reward[: t + 1]
        mean, (bottom, top) = posterior(actions, rewards, arms, gaussian)
        for arm in range(arms):
            color = AGENT if arm == actions[-1] else WALL
            axes.vlines(arm, bottom[arm], top[arm], color=color, linewidth=4, alpha=0.75, zorder=2)
            axes.plot(arm, mean[arm], "o", color=color, markersize=8, zorder=4)
            pulls = int(np.sum(actions == arm))
            axes.text(arm, low - 0.5 * room, f"{pulls}", ha="center", va="center", fontsize=9, color=color)

    return Scene(background, moment, lifetime=True, aspect=max(1.6, 0.35 * arms))
