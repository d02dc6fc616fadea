"""How tasks of control look: CartPole, pendulum, acrobot, mountain car, reacher, and a point in the plane."""

from typing import Any

import numpy as np

from jaxmeta.core.scenes import AGENT, EMPTY, GOAL, TRAIL, WALL, Episode, Scene

LINE = 5
"""Width of links and poles, in points."""
FAINT = {"color": "#8a8f98", "alpha": 0.25}
"""Of earlier episodes of the lifetime."""
MOST_POINTS = 2000
"""Earlier positions that are drawn."""


def cartpole_scene(params: Any) -> Scene:
    """The cart on its track, with a pole of the task's length, and the angles at which an episode ends."""
    from matplotlib.patches import Rectangle

    half = 2.4
    length = 2 * float(params.length)

    def background(axes) -> None:
        _plane(axes, (-half, half), (-0.6, 2.4))
        axes.axhline(-0.18, color=WALL, linewidth=1.5)

    def moment(axes, episode: Episode, t: int) -> None:
        state = episode.steps.state
        x, angle = float(state.x[t]), float(state.theta[t])
        axes.add_patch(Rectangle((x - 0.3, -0.18), 0.6, 0.36, facecolor=WALL, zorder=3))
        axes.plot([x, x + length * np.sin(angle)], [0, length * np.cos(angle)], color=AGENT, linewidth=LINE, zorder=4)
        push = np.sign(float(params.force_mag)) * (2 * float(episode.steps.action[t]) - 1)
        axes.annotate("", (x + 0.75 * push, 0), (x + 0.3 * push, 0), arrowprops={"arrowstyle": "->", "color": GOAL})

    return Scene(background, moment, aspect=1.4)


def pendulum_scene(params: Any) -> Scene:
    """The rod, of the task's length, and the upright position that is wanted."""
    length = float(params.l)

    def background(axes) -> None:
        _plane(axes, (-2.2, 2.2), (-2.2, 2.2))
        axes.plot([0, 0], [0, length], color=GOAL, linewidth=LINE, alpha=0.35)
        axes.plot(0, 0, "o", color=WALL, markersize=8)

    def moment(axes, episode: Episode, t: int) -> None:
        angle = float(np.ravel(episode.steps.state.theta[t])[0])
        tip = length * np.sin(angle), length * np.cos(angle)
        axes.plot([0, tip[0]], [0, tip[1]], color=AGENT, linewidth=LINE, zorder=3, solid_capstyle="round")
        axes.plot(*tip, "o", color=AGENT, markersize=9, zorder=3)

    return Scene(background, moment)


def acrobot_scene(params: Any) -> Scene:
    """Two links, of the task's lengths, and the height that the tip has to reach."""
    first, second = float(params.link_length_1), float(params.link_length_2)
    reach = 1.1 * (first + second)

    def background(axes) -> None:
        _plane(axes, (-reach, reach), (-reach, reach))
        axes.axhline(1.0, color=GOAL, linewidth=2, linestyle="--")
        axes.plot(0, 0, "o", color=WALL, markersize=8)

    def moment(axes, episode: Episode, t: int) -> None:
        inner = float(episode.steps.state.joint_angle1[t])
        outer = inner + float(episode.steps.state.joint_angle2[t])
        elbow = first * np.sin(inner), -first * np.cos(inner)
        tip = elbow[0] + second * np.sin(outer), elbow[1] - second * np.cos(outer)
        axes.plot(*zip((0, 0), elbow, strict=True), color=WALL, linewidth=LINE, zorder=3, solid_capstyle="round")
        axes.plot(*zip(elbow, tip, strict=True), color=AGENT, linewidth=LINE, zorder=4, solid_capstyle="round")

    return Scene(background, moment)


def mountain_car_scene(params: Any) -> Scene:
    """The valley, the car, and the flag."""
    low, high = float(params.min_position), float(params.max_position)
    goal = float(params.goal_position)

    def height(x):
        return 0.45 * np.sin(3 * x) + 0.55

    def background(axes) -> None:
        _plane(axes, (low, high), (0, 1.25), equal=False)
        ground = np.linspace(low, high, 100)
        axes.fill_between(ground, height(ground), 0, color=WALL, alpha=0.85)
        axes.plot([goal, goal], [height(goal), height(goal) + 0.18], color=GOAL, linewidth=3)
        axes.plot(goal, height(goal) + 0.18, ">", color=GOAL, markersize=10)

    def moment(axes, episode: Episode, t: int) -> None:
        x = float(episode.steps.state.position[t])
        axes.plot(x, height(x) + 0.05, "o", color=AGENT, markersize=13, zorder=4)

    return Scene(background, moment, aspect=1.4)


def reacher_scene(params: Any, link: float) -> Scene:
    """The arm, its fingertip's trail, and the goal."""
    reach = 2.15 * link

    def background(axes) -> None:
        _plane(axes, (-reach, reach), (-reach, reach))
        axes.plot(*np.asarray(params.goal), "*", color=GOAL, markersize=18)
        axes.plot(0, 0, "o", color=WALL, markersize=8)

    def moment(axes, episode: Episode, t: int) -> None:
        angles = np.asarray(episode.steps.state.angles)[: t + 1]
        elbow = link * _direction(angles[:, 0])
        tip = elbow + link * _direction(angles[:, 0] + angles[:, 1])
        axes.plot(*tip.T, color=TRAIL, linewidth=1.5, zorder=2)
        axes.plot(*np.stack([np.zeros(2), elbow[-1]]).T, color=WALL, linewidth=LINE, zorder=3, solid_capstyle="round")
        axes.plot(*np.stack([elbow[-1], tip[-1]]).T, color=AGENT, linewidth=LINE, zorder=4, solid_capstyle="round")

    return Scene(background, moment)


def point_scene(params: Any, reach: float) -> Scene:
    """The point, its trail, the goal, and where earlier rounds of the lifetime went."""

    def background(axes) -> None:
        _plane(axes, (-reach, reach), (-reach, reach))
        axes.plot(*np.asarray(params.goal), "*", color=GOAL, markersize=18, zorder=3)
        axes.plot(0, 0, "+", color=WALL, markersize=8)

    def moment(axes, episode: Episode, t: int) -> None:
        if episode.earlier is not None:
            before = np.asarray(episode.earlier.state.position)
            axes.plot(*before[:: -(-len(before) // MOST_POINTS)].T, ".", markersize=2, zorder=1, **FAINT)
        walked = np.asarray(episode.steps.state.position)[: t + 1]
        axes.plot(*walked.T, color=TRAIL, linewidth=2, zorder=2)
        axes.plot(*walked[-1], "o", color=AGENT, markersize=8, zorder=4)

    return Scene(background, moment)


def robot_scene(params: Any) -> Scene:
    """Gymnax's PointRobot: a goal on a half circle, by `params.task`."""
    from matplotlib.patches import Circle

    def background(axes) -> None:
        _plane(axes, (-1.3, 1.3), (-1.3, 1.3))
        around = np.linspace(0, np.pi, 100)
        axes.plot(np.cos(around), np.sin(around), color=WALL, linewidth=1)
        axes.add_patch(Circle(tuple(params.task["goal"]), float(params.goal_radius), color=GOAL, alpha=0.6))

    def moment(axes, episode: Episode, t: int) -> None:
        walked = np.asarray(episode.steps.state.pos)[: t + 1]
        axes.plot(*walked.T, color=TRAIL, linewidth=2)
        axes.plot(*walked[-1], "o", color=AGENT, markersize=8)

    return Scene(background, moment)


def _plane(axes, x: tuple[float, float], y: tuple[float, float], equal: bool = True) -> None:
    axes.set_xlim(*x)
    axes.set_ylim(*y)
    axes.set_facecolor(EMPTY)
    if equal:
        axes.set_aspect("equal")


def _direction(angles: np.ndarray) -> np.ndarray:
    return np.stack([np.cos(angles), np.sin(angles)], axis=-1)
