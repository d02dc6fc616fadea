"""Agents: what learns one task."""

from jaxmeta.agents.q_learning import dqn, q_learner, tabular_q

AGENTS = {"dqn": dqn, "tabular_q": tabular_q}

__all__ = ["AGENTS", "dqn", "q_learner", "tabular_q"]
