"""A map between tasks: Q-parameters of known tasks, kept in a bank, are mapped to the initialisation of a new one.

The sources learn beside the map, from one initialisation; a new task's learner starts from mapped parameters.
"""

from typing import Annotated, ClassVar, Literal

import jax
import jax.numpy as jnp
from msgspec import Meta
from msgspec.structs import replace

from jaxmeta.algorithms.families import ACTION_VALUES, Families, over
from jaxmeta.core.config import AdaptationConfig, AlgorithmConfig, Config, Count, Fraction, NonNegative
from jaxmeta.core.errors import require
from jaxmeta.core.rollout import Runner
from jaxmeta.core.spec import described, description_size, hidden, spec_of
from jaxmeta.core.types import Adapter, Agent, Key, MetaLearner, PyTree, TaskDistribution
from jaxmeta.inner import generated
from jaxmeta.inner import mapping as carriers
from jaxmeta.inner.gradient import GradientConfig, InnerOptimizerConfig, gradient_steps
from jaxmeta.inner.mapping import BankLossConfig
from jaxmeta.inner.optimizers import INNER_OPTIMIZERS
from jaxmeta.inner.parameter_maps import MapConfig, make_map
from jaxmeta.nets.encoders import EncoderConfig, SetEncoder
from jaxmeta.nets.layers import float_dtype
from jaxmeta.outer.optimizer import OptimizerConfig, outer_optimizer
from jaxmeta.outer.transfer import SourceBank, transfer_between_tasks
from jaxmeta.rl import DQNConfig, TabularQConfig, make_agent

OF_GRADIENTS = (
    *("adaptation.num_adaptations", "agent.batch_size", "agent.replay_capacity", "agent.n_step", "agent.temperature"),
    *("agent.epsilon", "agent.epsilon_decay", "inner.num_steps", "inner.learning_rate", "inner.max_gradient_norm"),
)
"""Settings that suit a family only where a few gradient steps are meta-learned."""

OWN: Families = {
    "bandit": {"adaptation.num_adaptations": 4},
    "gaussian_bandit": {"adaptation.num_adaptations": 4},
    "tabular_mdp": {
        "adaptation.num_adaptations": 4,
        "adaptation.num_envs": 16,
        "agent.discount": 0.95,
        "outer.learning_rate": 1e-3,
    },
    "grid_navi": {
        "adaptation.num_envs": 8,
        "inner.learning_rate": 3e-3,
        "sources.epsilon": 0.5,
        "outer.learning_rate": 1e-3,
        "meta_steps": 1000,
    },
    "recommender": {
        "agent.epsilon": 1.0,
        "agent.epsilon_decay": 0.3,
        "source_selection": "attention",
        "task_embedding": "inferred",
        "num_sources": 32,
        "sources.epsilon": 0.5,
        "sources.num_steps": 20,
        "sources.replay_capacity": 800,
        "outer.learning_rate": 2e-3,
        "outer.final_learning_rate_fraction": 1.0,
        "meta_steps": 600,
    },
}
"""Settings by task family, found on validation tasks; docs/experiments says how."""


class SourcesConfig(Config, frozen=True, kw_only=True):
    """How sources learn, by Adam."""

    num_steps: Count = 10
    """Gradient steps of each in a meta-step."""
    learning_rate: NonNegative = 1e-3
    """Step size."""
    replay_capacity: Count = 50
    """Rollouts that the replay of each holds."""
    epsilon: Fraction = 0.3
    """Probability of an exploring action."""


class MapUpdatesConfig(OptimizerConfig, frozen=True, kw_only=True):
    """How the map is trained."""

    num_updates: Count = 10
    """Steps of the optimizer in a meta-step, after one rollout of every source."""


class MappingConfig(AlgorithmConfig, frozen=True, kw_only=True):
    """Settings of the map between tasks."""

    adaptation: AdaptationConfig = AdaptationConfig(num_adaptations=4)
    agent: DQNConfig | TabularQConfig = DQNConfig(
        batch_size=64, replay_capacity=4, n_step=1, temperature=0.0, target_step_size=0.05, epsilon=0.3
    )
    inner: InnerOptimizerConfig = InnerOptimizerConfig(num_steps=20, optimizer="adam", learning_rate=1e-4)
    map: MapConfig = MapConfig()
    num_sources: Annotated[int, Meta(ge=2)] = 14
    """Tasks of the bank."""
    source_selection: Literal["random", "nearest", "average", "attention"] = "random"
    """Which sources are read: a `random` one, the `nearest`, the `average` of all, or what `attention` says."""
    task_embedding: Literal["described", "inferred"] = "described"
    """What tasks are known by: `described`, their description, which is privileged; or `inferred` from transitions."""
    encoder: EncoderConfig = EncoderConfig()
    """What infers embeddings."""
    regenerate: Literal["every", "first"] = "every"
    """After which rollouts parameters are mapped anew, where embeddings are inferred."""
    sources: SourcesConfig = SourcesConfig()
    loss: BankLossConfig = BankLossConfig()
    outer: MapUpdatesConfig = MapUpdatesConfig(final_learning_rate_fraction=0.0)

    families: ClassVar[Families] = over(ACTION_VALUES, OWN, but=OF_GRADIENTS)


def mapping(tasks: TaskDistribution, config: MappingConfig = MappingConfig()) -> MetaLearner:
    """A learned map from the Q-parameters of known tasks to a new task's initialisation."""
    agent, lifetime = make_agent(spec_of(tasks), config.agent), config.adaptation.within(tasks.horizon)
    privileged, size = config.task_embedding == "described", description_size(tasks)
    rule = f"be 'inferred' for {tasks.name}, whose tasks have no description"
    require(not privileged or size > 0, "task_embedding", rule, config.task_embedding)
    encoder = None if privileged else SetEncoder(config.encoder.width, config.encoder.pooling)
    parameter_map = carriers.mapping(
        agent.spec, make_map(config.map), config.source_selection, config.num_sources, size, encoder, config.map.width
    )
    learner = gradient_steps(agent, lifetime, config.inner, INNER_OPTIMIZERS[config.inner.optimizer])
    adapter = generated(learner, parameter_map.source, "never" if privileged else config.regenerate, steps=True)

    one_rollout = replace(lifetime, num_adaptations=1)
    reads_one = config.source_selection in ("nearest", "random")
    bank = SourceBank(
        draw=lambda key: carriers.drawn_apart(key, tasks, config.num_sources, privileged),
        bank_of=lambda bank, fast, env_params: carriers.bank_of(bank, fast, jax.vmap(tasks.describe)(env_params)),
        loss=carriers.bank_loss(parameter_map, agent, config.loss, config.inner.max_gradient_norm, reads_one),
    )
    updates = config.outer.num_updates
    optimizer = outer_optimizer(config.outer, config.meta_steps * updates)
    source = _source(agent, one_rollout, config)
    init, update = transfer_between_tasks(Runner(tasks.env, adapter), source, bank, optimizer, updates, one_rollout)
    return MetaLearner(
        init=init,
        update=update,
        task=described(tasks) if privileged else hidden,
        adapter=adapter,
        meta=lambda state: state.meta,
        lifetime=lifetime,
        tasks_per_batch=1,  # a bank's tasks are drawn once, and those of a batch are not used
        env_steps_per_task=one_rollout.env_steps * config.num_sources * (1 if privileged else 2),
        config=config,
        name=config.algorithm,
    )


def _source(agent: Agent, lifetime: AdaptationConfig, config: MappingConfig) -> Adapter:
    """How a source learns, from the start that it shares with others."""
    how = config.sources
    keeps = replace(config.agent, replay_capacity=how.replay_capacity)
    inner = GradientConfig(num_steps=how.num_steps, max_gradient_norm=config.inner.max_gradient_norm)
    learner = gradient_steps(agent._replace(config=keeps), lifetime, inner, INNER_OPTIMIZERS["adam"])

    def reset(key: Key, start: PyTree, context: PyTree):
        own = {"learning_rate": how.learning_rate, "epsilon": how.epsilon, "epsilon_decay": 1.0}
        hyperparams = start.hyperparams.replace(
            **{name: jnp.asarray(value, float_dtype()) for name, value in own.items()}
        )
        return learner.reset(key, start.replace(hyperparams=hyperparams), context)

    return learner._replace(reset=reset)
