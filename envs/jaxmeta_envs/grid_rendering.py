"""How grids look: cells, walls, the goal, the agent and its trail; action values or a belief over goals as colours."""

from typing import Any

import numpy as np

from jaxmeta.core.scenes import AGENT, EMPTY, GOAL, TRAIL, VALUES, WALL, Episode, Scene

VALUE_ALPHA = 0.75


def grid_scene(params: Any, size: int, goals: np.ndarray | None = None, picture: bool = False) -> Scene:
    """A task on a grid of `size` cells a side.

    Args:
      params: the task, with `goal` and, of a maze, `walls` and `start`.
      size: cells along a side.
      goals: (x, y) of the cells that may be the goal, [goals, 2], of which the belief is drawn: uniform over those that
        were not visited in this lifetime, and certain once the goal was found. None: no belief.
      picture: observations are pictures of the walls and the agent, not positions.
    """
    from matplotlib.patches import Rectangle

    def background(axes) -> None:
        axes.set_xlim(-0.5, size - 0.5)
        axes.set_ylim(-0.5, size - 0.5)
        axes.set_facecolor(EMPTY)
        axes.set_aspect("equal")
        for line in range(size + 1):
            axes.axhline(line - 0.5, color="white", linewidth=1, zorder=1.5)
            axes.axvline(line - 0.5, color="white", linewidth=1, zorder=1.5)
        for y, x in np.argwhere(getattr(params, "walls", np.zeros((size, size), bool))):
            axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=WALL, edgecolor=WALL, zorder=2))
        x, y = params.goal
        axes.add_patch(Rectangle((x - 0.44, y - 0.44), 0.88, 0.88, fill=False, edgecolor=GOAL, linewidth=3, zorder=3))

    def moment(axes, episode: Episode, t: int) -> None:
        if episode.values is not None:
            _heat(axes, _in_cells(episode.values.reshape(size, size), params))
        elif goals is not None:
            _heat(axes, belief(episode, t, params.goal, goals, size))
        walked = np.asarray(episode.steps.state.position)[: t + 1]
        axes.plot(*walked.T, color=TRAIL, linewidth=2.5, solid_joinstyle="round", zorder=4)
        axes.plot(*walked[-1], "o", color=AGENT, markersize=min(16, 75 / size), zorder=5)

    observations = np.eye(size**2, dtype=np.float32)
    if picture:
        agents = observations.reshape(-1, size, size)
        walls = np.broadcast_to(np.asarray(params.walls, np.float32), agents.shape)
        observations = np.stack([walls, agents], axis=-1)
    return Scene(background, moment, observations)


def belief(episode: Episode, t: int, goal: np.ndarray, goals: np.ndarray, size: int) -> np.ndarray:
    """The exact posterior over goals after the lifetime so far and `t` steps of the episode, [size, size] by y and x.

    The prior is uniform, and a goal is known as soon as a step ends on it, so the posterior is uniform over the goals
    that were not visited.
    """
    entered = [episode.steps.next_observation[:t]]
    if episode.earlier is not None:
        entered.append(episode.earlier.next_observation)
    visited = {(int(cell) % size, int(cell) // size) for cell in np.argmax(np.concatenate(entered), axis=-1)}
    candidates = [(x, y) for x, y in np.asarray(goals).tolist() if (x, y) not in visited]
    found = tuple(np.asarray(goal).tolist()) in visited
    probability = np.zeros((size, size))
    for x, y in [tuple(np.asarray(goal).tolist())] if found else candidates:
        probability[y, x] = 1 if found else 1 / len(candidates)
    return probability


def _in_cells(values: np.ndarray, params: Any) -> np.ndarray:
    """Values of the cells that an agent can be in."""
    return np.where(getattr(params, "walls", np.zeros_like(values, bool)), np.nan, values)


def _heat(axes, values: np.ndarray) -> None:
    low, high = np.nanmin(values), np.nanmax(values)
    axes.imshow(
        values,
        cmap=VALUES,
        vmin=low,
        vmax=max(high, low + 1e-6),
        alpha=VALUE_ALPHA,
        origin="lower",
        zorder=1,
    )
