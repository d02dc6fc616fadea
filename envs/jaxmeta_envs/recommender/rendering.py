"""How a recommendation session looks: each item's chance of a click from this user, the item shown, and the clicks."""

from collections.abc import Callable
from typing import Any

import numpy as np

from jaxmeta.core.scenes import AGENT, EMPTY, GOAL, WALL, Episode, Scene


def session_scene(params: Any, chances: Callable[[Any, Any], Any]) -> Scene:
    """Items from the most to the least liked one at the start of a session.

    Args:
      params: the user.
      chances: `chances(time, params)`, the chance of a click on each item that was not shown of late, [items].
    """
    at_start = np.asarray(chances(0, params))
    order = np.argsort(-at_start)
    places = np.empty_like(order)
    places[order] = np.arange(len(order))

    def background(axes) -> None:
        axes.set_xlim(-0.8, len(order) - 0.2)
        axes.set_ylim(0, 1.12)
        axes.set_facecolor(EMPTY)
        axes.bar(np.arange(len(order)), at_start[order], color=WALL, alpha=0.3, zorder=1)
        axes.set_ylabel("chance of a click", fontsize=8)
        axes.set_xlabel("items, best liked first", fontsize=8)

    def moment(axes, episode: Episode, t: int) -> None:
        shown, clicked = episode.steps.action[: t + 1].astype(int), episode.steps.reward[: t + 1] > 0
        now = np.asarray(chances(t, params))
        axes.bar(places[shown[-1]], now[shown[-1]], color=GOAL if clicked[-1] else AGENT, zorder=2)
        for item in np.unique(shown):
            clicks, times = int(np.sum(clicked[shown == item])), int(np.sum(shown == item))
            axes.text(places[item], 1.05, f"{clicks}/{times}", ha="center", va="center", fontsize=6)

    return Scene(background, moment, aspect=1.5)
