"""A learned optimizer for Q-learning: a network sets how far, and along which mix of momenta, parameters move.

References: Andrychowicz et al. (2016); Metz et al. (2022), VeLO; Lan et al. (2023), Optim4RL; Goldie et al. (2024),
OPEN.
"""

from typing import ClassVar

from jaxmeta.algorithms.families import ACTION_VALUES, LONG_LIFETIMES, POLICIES, Families, over
from jaxmeta.algorithms.maml import MetaTrainedConfig, meta_trained, variant_of
from jaxmeta.core.spec import spec_of
from jaxmeta.core.types import MetaLearner, TaskDistribution
from jaxmeta.inner.gradient import GradientConfig, gradient_steps
from jaxmeta.inner.learned_optimizers import UpdateRuleConfig, make_update_rule
from jaxmeta.outer.meta_gradient import MetaGradientConfig
from jaxmeta.outer.objectives import ObjectiveConfig
from jaxmeta.rl import make_agent

OF_BACKPROPAGATION = ("objective.lifetimes_per_task", "outer.final_learning_rate_fraction")
"""Settings that suit a family only where gradients are back-propagated."""


class LearnedOptimizerConfig(MetaTrainedConfig, frozen=True, kw_only=True):
    """Settings of the learned optimizer."""

    inner: GradientConfig = GradientConfig()
    rule: UpdateRuleConfig = UpdateRuleConfig()
    objective: ObjectiveConfig = ObjectiveConfig(loss="return")
    outer: MetaGradientConfig = MetaGradientConfig(gradient_estimator="es", final_learning_rate_fraction=0.0)

    families: ClassVar[Families] = over(ACTION_VALUES, LONG_LIFETIMES, but=OF_BACKPROPAGATION)
    policy_families: ClassVar[Families] = over(POLICIES, {}, but=OF_BACKPROPAGATION)


def learned_optimizer(
    tasks: TaskDistribution, config: LearnedOptimizerConfig = LearnedOptimizerConfig()
) -> MetaLearner:
    """A learned optimizer: a network sets how far and along which mix of momenta parameters move."""
    agent, lifetime = make_agent(spec_of(tasks), config.agent), config.adaptation.within(tasks.horizon)
    rule = make_update_rule(config.rule)
    learner = gradient_steps(agent, lifetime, config.inner, rule, variant_of(config, fresh=True))
    return meta_trained(tasks, learner, agent, config, learned=lambda path: path[0].name == "rule")
