"""Reinforcement learning in one task.

`losses` and `advantages` are formulas on one transition or one trajectory, `distributions` turns a policy's numbers
into actions, `replay` holds rounds of experience, and `q_learning` and `actor_critic` are agents: parameters, a way to
act, a loss.
"""

from jaxmeta.rl.actor_critic import actor_critic
from jaxmeta.rl.q_learning import dqn, q_learner, tabular_q

__all__ = ["actor_critic", "dqn", "q_learner", "tabular_q"]
