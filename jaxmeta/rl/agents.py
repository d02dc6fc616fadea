"""Agents by their configuration, and where their hyper-parameters start."""

import jax.numpy as jnp
from msgspec import structs

from jaxmeta.core.config import AgentConfig
from jaxmeta.core.errors import UsageError
from jaxmeta.core.types import Agent, Hyperparams, Spec
from jaxmeta.nets.layers import float_dtype
from jaxmeta.rl.actor_critic import ActorCriticConfig, actor_critic
from jaxmeta.rl.q_learning import DQNConfig, QLearningConfig, TabularQConfig, dqn, tabular_q


def make_agent(spec: Spec, config: AgentConfig) -> Agent:
    """The agent that a configuration describes.

    Raises:
      UsageError: it does not suit the action space, or is of a kind that is not known.
    """
    match config:
        case DQNConfig():
            return dqn(spec, config)
        case TabularQConfig():
            return tabular_q(spec, config)
        case ActorCriticConfig():
            return actor_critic(spec, config)
    raise UsageError("agent", "be a DQNConfig, a TabularQConfig or an ActorCriticConfig", config)


def hyperparameters(agent: AgentConfig, learning_rate: float) -> Hyperparams:
    """Where traced hyper-parameters start; those that the agent does not have are as of Q-learning, and not read."""
    values = {**structs.asdict(QLearningConfig()), **structs.asdict(agent), "learning_rate": learning_rate}
    return Hyperparams(**{name: jnp.asarray(values[name], float_dtype()) for name in Hyperparams.__dataclass_fields__})
