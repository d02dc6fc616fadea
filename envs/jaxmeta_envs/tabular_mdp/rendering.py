"""How a tabular MDP looks: a graph of its states, the current one, and the possible successors of the action."""

from typing import Any

import numpy as np

from jaxmeta.core.scenes import AGENT, EMPTY, TRAIL, VALUES, WALL, Episode, Scene

RADIUS = 0.16
"""Of a state, on a circle of radius 1."""
LEAST = 0.02
"""Probability of a transition that is still drawn."""


def mdp_scene(params: Any) -> Scene:
    """States on a circle, the darker the better the best of their mean rewards."""
    from matplotlib import colormaps
    from matplotlib.patches import Circle

    transitions, best = np.asarray(params.transitions), np.asarray(params.rewards).max(axis=1)
    states = len(best)
    angles = np.pi / 2 - 2 * np.pi * np.arange(states) / states
    places = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    radius = min(RADIUS, 2.4 / states)
    shares = (best - best.min()) / max(np.ptp(best), 1e-6)

    def background(axes) -> None:
        axes.set_xlim(-1.3, 1.3)
        axes.set_ylim(-1.3, 1.3)
        axes.set_aspect("equal")
        axes.set_facecolor(EMPTY)
        for state, (place, share) in enumerate(zip(places, shares, strict=True)):
            color = colormaps[VALUES](0.1 + 0.7 * share)
            axes.add_patch(Circle(tuple(place), radius, facecolor=color, edgecolor=WALL, zorder=3))
            axes.text(*place, str(state), ha="center", va="center", fontsize=8, zorder=5)

    def moment(axes, episode: Episode, t: int) -> None:
        nodes = np.asarray(episode.steps.state.node)[: t + 1]
        axes.plot(*places[nodes].T, color=TRAIL, linewidth=1.5, alpha=0.5, zorder=1)
        here = nodes[-1]
        for after, probability in enumerate(transitions[here, int(episode.steps.action[t])]):
            if probability > LEAST and after != here:
                arrow = {"arrowstyle": "-|>", "color": AGENT, "alpha": float(probability) ** 0.5, "linewidth": 1.5}
                axes.annotate("", places[after], places[here], arrowprops=arrow, zorder=2)
        axes.add_patch(Circle(tuple(places[here]), radius * 1.15, fill=False, edgecolor=AGENT, linewidth=3.5, zorder=4))

    return Scene(background, moment)
