"""XLand: goals and rules of a grid world are the task."""

from jaxmeta_envs.xland.family import xland

__all__ = ["xland"]
