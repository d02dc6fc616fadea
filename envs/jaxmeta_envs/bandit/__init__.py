"""Bandits: what each arm pays is the task."""

from jaxmeta_envs.bandit.family import bandit, gaussian_bandit
from jaxmeta_envs.bandit.planning import bayes_optimal_return

__all__ = ["bandit", "bayes_optimal_return", "gaussian_bandit"]
