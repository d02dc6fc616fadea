"""How XLand looks: xminigrid's own picture of the room, with what the agent sees made brighter."""

from typing import Any

import jax
import numpy as np

from jaxmeta.core.scenes import Episode, Scene


def room_scene(params: Any, view: int) -> Scene:
    """The room as xminigrid draws it; `view` is the side of what the agent sees, in cells."""
    del params  # rules and goal have no picture

    def background(axes) -> None:
        axes.set_facecolor("black")

    def moment(axes, episode: Episode, t: int) -> None:
        from xminigrid.rendering.rgb_render import render

        state = jax.tree.map(lambda leaf: leaf[t], episode.steps.state)
        picture = render(np.asarray(state.grid), state.agent, view)
        axes.imshow(picture)

    return Scene(background, moment)
