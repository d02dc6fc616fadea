"""Reinforcement learning in one task.

`losses` and `advantages` are formulas on one transition or one trajectory, `distributions` turns a policy's numbers
into actions, `replay` holds rollouts, and `q_learning` and `actor_critic` are agents: parameters, a way to act, a loss;
`agents` makes one of its configuration.
"""

from jaxmeta.rl.actor_critic import ActorCriticConfig, actor_critic
from jaxmeta.rl.agents import hyperparameters, make_agent
from jaxmeta.rl.q_learning import DQNConfig, TabularQConfig, dqn, q_learner, tabular_q

__all__ = [
    "ActorCriticConfig",
    "DQNConfig",
    "TabularQConfig",
    "actor_critic",
    "dqn",
    "hyperparameters",
    "make_agent",
    "q_learner",
    "tabular_q",
]
