"""Agents: what learns one task."""

from jaxmeta.agents.actor_critic import actor_critic
from jaxmeta.agents.q_learning import dqn, q_learner, tabular_q

__all__ = ["actor_critic", "dqn", "q_learner", "tabular_q"]
