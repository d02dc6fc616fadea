"""GridNavi: a hidden goal on a grid is the task."""

from jaxmeta_envs.grid_navi.family import grid_navi

__all__ = ["grid_navi"]
