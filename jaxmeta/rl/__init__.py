"""Reinforcement learning in one task.

`losses` and `advantages` are formulas on one transition or one trajectory, `distributions` turns a policy's numbers
into actions, `replay` holds rollouts, and `q_learning` and `actor_critic` are agents: parameters, a way to act, a loss;
`agents` makes one of its configuration.
"""

from jaxmeta.rl.actor_critic import ActorCriticConfig, actor_critic
from jaxmeta.rl.advantages import generalised_advantage, linear_baseline, normalised
from jaxmeta.rl.agents import hyperparameters, make_agent
from jaxmeta.rl.distributions import ActionDistribution, of_actions
from jaxmeta.rl.losses import (
    dice_surrogate,
    leave_one_out_advantage,
    lvc_surrogate,
    naive_surrogate,
    returns_to_go,
    td_error,
)
from jaxmeta.rl.q_learning import DQNConfig, TabularQConfig, dqn, q_learner, tabular_q
from jaxmeta.rl.replay import Replay

__all__ = [
    "ActionDistribution",
    "ActorCriticConfig",
    "DQNConfig",
    "Replay",
    "TabularQConfig",
    "actor_critic",
    "dice_surrogate",
    "dqn",
    "generalised_advantage",
    "hyperparameters",
    "leave_one_out_advantage",
    "linear_baseline",
    "lvc_surrogate",
    "make_agent",
    "naive_surrogate",
    "normalised",
    "of_actions",
    "q_learner",
    "returns_to_go",
    "tabular_q",
    "td_error",
]
