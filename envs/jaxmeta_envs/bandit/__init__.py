"""Bandits: what each arm pays is the task."""

from jaxmeta_envs.bandit.family import bandit, gaussian_bandit

__all__ = ["bandit", "gaussian_bandit"]
