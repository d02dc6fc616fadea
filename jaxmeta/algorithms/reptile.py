"""Reptile (Nichol, Achiam and Schulman, 2018): moves the start towards where lifetimes end; no meta-gradient."""

from typing import ClassVar

from jaxmeta.algorithms.families import ACTION_VALUES, POLICIES, Families, over
from jaxmeta.algorithms.maml import require_scorable
from jaxmeta.core.config import AlgorithmConfig
from jaxmeta.core.rollout import Runner
from jaxmeta.core.spec import hidden, spec_of
from jaxmeta.core.types import MetaLearner, TaskDistribution
from jaxmeta.inner.gradient import InnerOptimizerConfig, Variant, gradient_steps
from jaxmeta.inner.optimizers import INNER_OPTIMIZERS
from jaxmeta.outer import reptile as displacement
from jaxmeta.outer.batching import BatchConfig
from jaxmeta.outer.objectives import OUTER_LOSSES, ObjectiveConfig, ScoreConfig, post_adaptation
from jaxmeta.outer.optimizer import outer_optimizer
from jaxmeta.rl import ActorCriticConfig, DQNConfig, TabularQConfig, distributions, make_agent


class ReptileConfig(AlgorithmConfig, frozen=True, kw_only=True):
    """Settings of Reptile. The objective is reported, and not descended on."""

    agent: DQNConfig | TabularQConfig | ActorCriticConfig = DQNConfig()
    inner: InnerOptimizerConfig = InnerOptimizerConfig()
    objective: ScoreConfig = ScoreConfig()
    outer: BatchConfig = BatchConfig()

    families: ClassVar[Families] = over(
        ACTION_VALUES, {name: {"outer.tasks_per_batch": 20} for name in ("grid_navi", "maze", "recommender")}
    )
    policy_families: ClassVar[Families] = POLICIES


def reptile(tasks: TaskDistribution, config: ReptileConfig = ReptileConfig()) -> MetaLearner:
    """Reptile: moves the start towards where lifetimes end; no meta-gradient."""
    require_scorable(config.agent, config.objective)
    agent, lifetime = make_agent(spec_of(tasks), config.agent), config.adaptation.within(tasks.horizon)
    variant = Variant(target_network=config.agent.target_step_size != 1)
    learner = gradient_steps(agent, lifetime, config.inner, INNER_OPTIMIZERS[config.inner.optimizer], variant)
    actions = distributions.of_actions(agent.spec)
    loss = OUTER_LOSSES[config.objective.loss](learner, agent, actions, config.objective)
    score = ObjectiveConfig(**{name: getattr(config.objective, name) for name in ScoreConfig.__struct_fields__})
    objective = post_adaptation(Runner(tasks.env, learner), actions, lifetime, loss, score, tasks.horizon)
    optimizer = outer_optimizer(config.outer, config.meta_steps)
    init, update = displacement(learner, objective, optimizer, config.outer.tasks_per_group)
    queries = config.objective.env_steps(lifetime.num_adaptations, tasks.horizon)
    return MetaLearner(
        init=init,
        update=update,
        task=hidden,
        adapter=learner,
        meta=lambda state: state.meta,
        lifetime=lifetime,
        tasks_per_batch=config.outer.tasks_per_batch,
        env_steps_per_task=lifetime.env_steps + queries,
        config=config,
        name=config.algorithm,
    )
