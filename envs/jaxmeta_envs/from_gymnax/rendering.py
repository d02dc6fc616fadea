"""How gymnax environments look: drawings of our own for classic control, gymnax's own for MinAtar and mazes."""

import functools
from collections.abc import Callable
from typing import Any

import jax

from jaxmeta.core.scenes import Episode, MakeScene, Scene
from jaxmeta_envs import control_rendering as control

OURS: dict[str, Callable[[Any], Scene]] = {
    "CartPole-v1": control.cartpole_scene,
    "Pendulum-v1": control.pendulum_scene,
    "Acrobot-v1": control.acrobot_scene,
    "MountainCar-v0": control.mountain_car_scene,
    "MountainCarContinuous-v0": control.mountain_car_scene,
    "PointRobot-misc": control.robot_scene,
}
THEIRS = {
    **dict.fromkeys(("Asterix-MinAtar", "Freeway-MinAtar", "Seaquest-MinAtar"), "init_minatar"),
    **dict.fromkeys(("SpaceInvaders-MinAtar", "Pong-misc"), "init_minatar"),
    **dict.fromkeys(("MetaMaze-misc", "FourRooms-misc"), "init_maze"),
}
"""The function of gymnax that draws each environment."""


def scene_of(env_id: str, env: Any) -> MakeScene | None:
    """How tasks of a gymnax environment are drawn, or None where nobody draws it.

    Args:
      env_id: its id.
      env: gymnax's environment, with the attributes that a task sets.
    """
    if env_id in OURS:
        return OURS[env_id]
    return functools.partial(_by_gymnax, env=env, name=THEIRS[env_id]) if env_id in THEIRS else None


def _by_gymnax(params: Any, env: Any, name: str) -> Scene:
    def moment(axes, episode: Episode, t: int) -> None:
        from gymnax import visualize

        module = getattr(visualize, f"vis_{name.removeprefix('init_')}")
        state = jax.tree.map(lambda leaf: leaf[t], episode.steps.state)
        getattr(module, name)(axes, env(params), state, params)

    return Scene(lambda axes: None, moment)
