"""Tabular decision processes: transitions and rewards are the task."""

from jaxmeta_envs.tabular_mdp.family import tabular_mdp

__all__ = ["tabular_mdp"]
