"""The baselines of every method: learning each task by itself, from a fresh start or from one trained on all tasks."""

from typing import ClassVar

import jax.numpy as jnp
from msgspec.structs import replace

from jaxmeta.algorithms.families import ACTION_VALUES, POLICIES, Families
from jaxmeta.core.config import AlgorithmConfig
from jaxmeta.core.rollout import Runner
from jaxmeta.core.spec import hidden, spec_of
from jaxmeta.core.types import MetaLearner, MetaState, StepInfo, TaskDistribution
from jaxmeta.inner.gradient import InnerOptimizerConfig, Variant, gradient_steps
from jaxmeta.inner.optimizers import INNER_OPTIMIZERS
from jaxmeta.outer.pretraining import PretrainingConfig, pretraining
from jaxmeta.rl import ActorCriticConfig, DQNConfig, TabularQConfig, make_agent


class FinetuneConfig(AlgorithmConfig, frozen=True, kw_only=True):
    """Settings of a learner that is trained on all tasks at once."""

    agent: DQNConfig | TabularQConfig | ActorCriticConfig = DQNConfig()
    inner: InnerOptimizerConfig = InnerOptimizerConfig()
    outer: PretrainingConfig = PretrainingConfig()

    families: ClassVar[Families] = ACTION_VALUES
    policy_families: ClassVar[Families] = POLICIES


class ScratchConfig(FinetuneConfig, frozen=True, kw_only=True):
    """Settings of a learner that starts anew in every task."""


def scratch(tasks: TaskDistribution, config: ScratchConfig = ScratchConfig()) -> MetaLearner:
    """Baseline: the same agent from a random start."""
    agent, lifetime = make_agent(spec_of(tasks), config.agent), config.adaptation.within(tasks.horizon)
    rule = INNER_OPTIMIZERS[config.inner.optimizer]
    learner = gradient_steps(agent, lifetime, config.inner, rule, Variant(fresh=True))

    def init(key):
        return MetaState(meta=learner.init(key), optimizer=None, step=jnp.zeros((), jnp.int32), aux_state=None)

    def update(key, state, tasks):
        del key, tasks
        nothing = jnp.zeros(())
        return state.replace(step=state.step + 1), StepInfo({"loss": nothing, "return": nothing})

    return MetaLearner(
        init=init,
        update=update,
        task=hidden,
        adapter=learner,
        meta=lambda state: state.meta,
        lifetime=lifetime,
        tasks_per_batch=config.outer.tasks_per_batch,
        env_steps_per_task=0,
        config=config,
        name=config.algorithm,
    )


def finetune(tasks: TaskDistribution, config: FinetuneConfig = FinetuneConfig()) -> MetaLearner:
    """Baseline: one agent trained on all tasks, then adapted."""
    agent, lifetime = make_agent(spec_of(tasks), config.agent), config.adaptation.within(tasks.horizon)
    batch, rule = config.outer.tasks_per_batch, INNER_OPTIMIZERS[config.inner.optimizer]
    wide = replace(lifetime, num_envs=lifetime.num_envs * batch)
    trained = gradient_steps(agent, wide, config.inner, rule)
    init, update = pretraining(Runner(tasks.env, trained), lifetime)
    return MetaLearner(
        init=init,
        update=update,
        task=hidden,
        adapter=gradient_steps(agent, lifetime, config.inner, rule),
        meta=lambda state: state.meta,
        lifetime=lifetime,
        tasks_per_batch=batch,
        env_steps_per_task=lifetime.num_envs * lifetime.rollout_length,
        config=config,
        name=config.algorithm,
    )
