"""MAML and variants: learn an initialisation that a few gradient steps adapt to a task.

- `maml` (Finn, Abbeel and Levine, 2017) differentiates through the adaptation;
- `fomaml` holds the inner gradients constant;
- `anil` (Raghu et al., 2020) adapts the last layer alone;
- `meta_sgd` (Li et al., 2017) also learns a step size for every parameter.

`meta_trained` is their outer loop, which trains other inner loops too.
"""

from typing import Any, ClassVar

import jax
from msgspec.structs import replace

from jaxmeta.algorithms.families import ACTION_VALUES, POLICIES, Families, over
from jaxmeta.core.config import AlgorithmConfig, Positive
from jaxmeta.core.errors import require
from jaxmeta.core.rollout import Runner
from jaxmeta.core.scans import scan_of
from jaxmeta.core.spec import MakeTask, hidden, spec_of
from jaxmeta.core.types import Adapter, Agent, Key, MetaLearner, Task, TaskDistribution
from jaxmeta.inner.gradient import GradientConfig, InnerOptimizerConfig, Variant, gradient_steps, in_head
from jaxmeta.inner.optimizers import INNER_OPTIMIZERS, learned_step_sizes
from jaxmeta.outer import meta_gradient, proximal, truncated_unrolls
from jaxmeta.outer.gradient_estimators import ESTIMATORS, Learned
from jaxmeta.outer.meta_gradient import MetaGradientConfig
from jaxmeta.outer.objectives import OUTER_LOSSES, ObjectiveConfig, ScoreConfig, post_adaptation
from jaxmeta.outer.optimizer import outer_optimizer
from jaxmeta.rl import ActorCriticConfig, DQNConfig, TabularQConfig, distributions, make_agent
from jaxmeta.rl.q_learning import QLearningConfig


class MetaTrainedConfig(AlgorithmConfig, frozen=True, kw_only=True):
    """What all have that are trained by how well parameters do once they have adapted."""

    agent: DQNConfig | TabularQConfig | ActorCriticConfig = DQNConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    outer: MetaGradientConfig = MetaGradientConfig()

    families: ClassVar[Families] = ACTION_VALUES
    policy_families: ClassVar[Families] = POLICIES


class MAMLConfig(MetaTrainedConfig, frozen=True, kw_only=True):
    """Settings of MAML."""

    inner: InnerOptimizerConfig = InnerOptimizerConfig()


class FOMAMLConfig(MAMLConfig, frozen=True, kw_only=True):
    """Settings of first-order MAML."""

    families: ClassVar[Families] = over(
        ACTION_VALUES, {"grid_navi": {"inner.num_steps": 10, "inner.learning_rate": 0.3, "outer.learning_rate": 1e-3}}
    )


class ANILConfig(MAMLConfig, frozen=True, kw_only=True):
    """Settings of ANIL."""


class StepSizesConfig(GradientConfig, frozen=True, kw_only=True):
    """How parameters adapt that have a step size each."""

    learning_rate: Positive = 0.1
    """Every step size at first."""


class MetaSGDConfig(MetaTrainedConfig, frozen=True, kw_only=True):
    """Settings of Meta-SGD."""

    inner: StepSizesConfig = StepSizesConfig()


def maml(tasks: TaskDistribution, config: MAMLConfig = MAMLConfig()) -> MetaLearner:
    """MAML: learns where gradient steps start from."""
    agent = make_agent(spec_of(tasks), config.agent)
    return meta_trained(tasks, inner_loop(tasks, agent, config), agent, config)


def fomaml(tasks: TaskDistribution, config: FOMAMLConfig = FOMAMLConfig()) -> MetaLearner:
    """First-order MAML: MAML with the inner gradients held constant."""
    agent = make_agent(spec_of(tasks), config.agent)
    return meta_trained(tasks, inner_loop(tasks, agent, config, first_order=True), agent, config)


def anil(tasks: TaskDistribution, config: ANILConfig = ANILConfig()) -> MetaLearner:
    """ANIL: MAML whose inner loop changes the last layer alone."""
    agent = make_agent(spec_of(tasks), config.agent)
    return meta_trained(tasks, inner_loop(tasks, agent, config, adapts=in_head), agent, config)


def meta_sgd(tasks: TaskDistribution, config: MetaSGDConfig = MetaSGDConfig()) -> MetaLearner:
    """Meta-SGD: MAML with one learned step size per parameter."""
    agent, lifetime = make_agent(spec_of(tasks), config.agent), config.adaptation.within(tasks.horizon)
    rule = learned_step_sizes(config.inner.learning_rate)
    learner = gradient_steps(agent, lifetime, config.inner, rule, variant_of(config))
    return meta_trained(tasks, learner, agent, config)


def inner_loop(tasks: TaskDistribution, agent: Agent, config: MAMLConfig, **how: Any) -> Adapter:
    """Gradient steps by the inner optimizer; `how` are fields of `Variant`.

    Raises:
      UsageError: back-propagation goes through the optimizer, and it divides by what may be zero.
    """
    optimizer, lifetime = config.inner.optimizer, config.adaptation.within(tasks.horizon)
    differentiable = optimizer == "sgd" or config.outer.gradient_estimator != "backpropagation"
    require(differentiable, "inner.optimizer", "be 'sgd' where parameters are meta-learned by gradient", optimizer)
    return gradient_steps(agent, lifetime, config.inner, INNER_OPTIMIZERS[optimizer], variant_of(config, **how))


def variant_of(config: MetaTrainedConfig, **how: Any) -> Variant:
    """How parameters adapt; `how` is what sets an algorithm apart."""
    follows = config.agent.target_step_size != 1
    return Variant(**{"target_network": follows, "scan": scan_of(config.outer.remat)} | how)


def meta_trained(
    tasks: TaskDistribution,
    learner: Adapter,
    agent: Agent,
    config: MetaTrainedConfig,
    learned: Learned = lambda path: path[0].name != "hyperparams",
    make_task: MakeTask = hidden,
) -> MetaLearner:
    """Trains an inner loop by how well the parameters do that its lifetimes arrive at.

    Args:
      tasks: what it is trained on.
      learner: the inner loop.
      agent: what it adapts.
      config: objective and outer loop.
      learned: which leaves of `meta`, by their tree paths, evolution strategies perturb.
      make_task: what of a task the learner may see; by default nothing but what it perceives.

    Raises:
      UsageError: settings do not suit one another.
    """
    _require_fitting(config)
    outer, lifetime = config.outer, config.adaptation.within(tasks.horizon)
    runner, actions = Runner(tasks.env, learner), distributions.of_actions(agent.spec)
    length = outer.truncation_length or lifetime.num_adaptations
    complete, lifetimes = length == lifetime.num_adaptations, config.objective.lifetimes_per_task
    unroll = replace(lifetime, num_adaptations=length)
    loss = OUTER_LOSSES[config.objective.loss](learner, agent, actions, config.objective)
    objective = post_adaptation(runner, actions, unroll, loss, config.objective, tasks.horizon, scan_of(outer.remat))
    if outer.trust_region is not None:
        optimizer = outer_optimizer(outer, config.meta_steps * outer.trust_region.steps)
        init, update = proximal(runner, actions, lifetime, config.objective, outer, optimizer, tasks.horizon)
    elif outer.gradient_estimator == "backpropagation" and complete:
        optimizer = outer_optimizer(outer, config.meta_steps)
        init, update = meta_gradient(learner, objective, optimizer, outer.tasks_per_group)
    else:
        optimizer = outer_optimizer(outer, config.meta_steps)
        estimator = ESTIMATORS[outer.gradient_estimator](
            lambda key, meta, task: runner.reset(key, meta, task, lifetime.num_envs), objective, outer, learned
        )
        lifetimes *= estimator.lifetimes_per_task(complete)
        num_unrolls = lifetime.num_adaptations // length
        init, update = truncated_unrolls(
            learner, estimator, lambda key: _training_task(key, tasks, make_task), optimizer, num_unrolls, outer
        )
    return MetaLearner(
        init=init,
        update=update,
        task=make_task,
        adapter=learner,
        meta=lambda state: state.meta,
        lifetime=lifetime,
        tasks_per_batch=outer.tasks_per_batch,
        env_steps_per_task=lifetimes * (unroll.env_steps + config.objective.env_steps(length, tasks.horizon)),
        config=config,
        name=config.algorithm,
    )


def _training_task(key: Key, tasks: TaskDistribution, make_task: MakeTask) -> Task:
    sample_key, pose_key = jax.random.split(key)
    return make_task(pose_key, tasks.sample(sample_key, "train"))


def _require_fitting(config: MetaTrainedConfig) -> None:
    """Refuses settings that do not suit one another."""
    agent, objective, outer = config.agent, config.objective, config.outer
    on_policy, by_policy = isinstance(agent, ActorCriticConfig), objective.loss == "policy_gradient"
    estimator, length, adaptations = (
        outer.gradient_estimator,
        outer.truncation_length,
        config.adaptation.num_adaptations,
    )
    if outer.trust_region is not None:
        rule = "be given for agent 'actor_critic' and lifetimes_per_task 1 alone"
        suits = on_policy and objective.lifetimes_per_task == 1
        require(suits, "outer.trust_region", rule, outer.trust_region)
        outer.trust_region.require_even(outer.tasks_per_batch)
        rule = "be 'backpropagation' within a trust region"
        require(estimator == "backpropagation", "gradient_estimator", rule, estimator)
        complete = length in (0, adaptations)
        require(complete, "truncation_length", "be 0, a whole lifetime, within a trust region", length)
    divides = length == 0 or adaptations % length == 0
    require(divides, "truncation_length", f"divide num_adaptations = {adaptations}", length)
    if estimator == "backpropagation":
        rule = "be 'es' or 'pes' under objective.loss 'return', which has no gradient"
        require(objective.loss != "return", "gradient_estimator", rule, estimator)
    else:
        rule = "have a value that is to be lowered under gradient_estimator 'es' or 'pes', such as 'return'"
        require(not by_policy, "objective.loss", rule, objective.loss)
        lifetimes_per_task = objective.lifetimes_per_task
        require(
            lifetimes_per_task == 1,
            "lifetimes_per_task",
            "be 1 under gradient_estimator 'es' or 'pes'",
            lifetimes_per_task,
        )
    require_scorable(agent, objective)


def require_scorable(agent: QLearningConfig | ActorCriticConfig, objective: ScoreConfig) -> None:
    """Refuses a score that an agent's parameters cannot be given."""
    by_policy = objective.loss == "policy_gradient"
    if isinstance(agent, ActorCriticConfig):
        rule = "be 'policy_gradient' or 'return' for agent 'actor_critic', which has no action values"
        require(by_policy or objective.loss == "return", "objective.loss", rule, objective.loss)
    elif by_policy:
        rule = "be above 0 under objective.loss 'policy_gradient', which scores a softmax policy"
        require(agent.temperature > 0, "temperature", rule, agent.temperature)
