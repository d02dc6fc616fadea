"""Puts learners together: an agent, an adapter, an objective and an outer rule, as the settings ask for them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from msgspec.structs import asdict, replace

from jaxmeta.algorithms.settings import Settings
from jaxmeta.core.config import OuterConfig, ProximalConfig
from jaxmeta.core.errors import require
from jaxmeta.core.rollout import Runner
from jaxmeta.core.scans import scan_of
from jaxmeta.core.types import (
    Adapter,
    Agent,
    Hypers,
    Life,
    MetaLearner,
    Objective,
    PyTree,
    Spec,
    Task,
    TaskDistribution,
)
from jaxmeta.inner.gradient import gradient_steps
from jaxmeta.inner.optimizers import BY_HAND, UpdateRule
from jaxmeta.outer import by_stretches, meta_gradient
from jaxmeta.outer.gradient_estimators import (
    Estimator,
    Learned,
    backpropagation,
    evolution_strategies,
    persistent_evolution_strategies,
)
from jaxmeta.outer.meta_gradient import Init, Pose, Update
from jaxmeta.outer.objectives import OUTER_LOSSES, post_adaptation
from jaxmeta.outer.optimizer import outer_optimizer
from jaxmeta.outer.promp import proximal
from jaxmeta.rl import actor_critic, distributions, dqn, tabular_q

AGENTS: dict[str, Callable[[Spec, Settings], Agent]] = {
    "dqn": lambda spec, settings: dqn(spec, settings.agent),
    "tabular_q": lambda spec, settings: tabular_q(spec, settings.agent),
    "actor_critic": lambda spec, settings: actor_critic(spec, settings.agent, settings.policy),
}


@dataclass(frozen=True, eq=False)
class Parts:
    """What every recipe is composed of. Agent and optimizer are built when a recipe first asks for them, so that their
    settings are read by those recipes alone that use them.
    """

    tasks: TaskDistribution
    spec: Spec
    settings: Settings
    hypers: Hypers

    @cached_property
    def agent(self) -> Agent:
        """What learns one task."""
        return AGENTS[self.settings.agent.agent](self.spec, self.settings)

    @cached_property
    def optimizer(self) -> optax.GradientTransformation:
        """Of meta-parameters, one step a meta-step."""
        return outer_optimizer(self.settings.outer)


def make_parts(tasks: TaskDistribution, settings: Mapping[str, Any]) -> Parts:
    """Builds what recipes share, from complete settings."""
    grouped = Settings.from_flat(settings)
    hypers = Hypers(**{name: jnp.asarray(value, jnp.float32) for name, value in asdict(grouped.hypers).items()})
    return Parts(tasks, spec_of(tasks), grouped, hypers)


def spec_of(tasks: TaskDistribution) -> Spec:
    """Reads shapes and dtypes off one task of a distribution by tracing; the range of continuous actions off two."""
    sizes = []

    def look(key):
        env_params = tasks.sample(key, "train")
        observations, actions = tasks.env.observation_space(env_params), tasks.env.action_space(env_params)
        sizes.extend([getattr(observations, "n", None), getattr(actions, "n", None)])
        return tasks.env.reset(key, env_params)[0], actions.sample(key)

    observation, action = jax.eval_shape(look, jax.random.key(0))
    num_observations, num_actions = sizes
    action_range = None if num_actions is not None else _range_of_actions(tasks, action.shape)
    return Spec(observation, action, num_observations, num_actions, action_range)


def _range_of_actions(tasks: TaskDistribution, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray] | None:
    def bounds(key):
        space = tasks.env.action_space(tasks.sample(key, "train"))
        return jnp.broadcast_to(space.low, shape), jnp.broadcast_to(space.high, shape)

    (low, other_low), (high, other_high) = map(
        np.asarray, jax.jit(jax.vmap(bounds))(jax.random.split(jax.random.key(0)))
    )
    shared = np.array_equal(low, other_low) and np.array_equal(high, other_high)
    return (low, high) if shared and np.all(np.isfinite(high - low)) else None


def learner_by_gradient(parts: Parts, rule: UpdateRule | None = None, **options: Any) -> Adapter:
    """The adapter of MAML and its kin; the options are those of `inner.gradient_steps`.

    Where no update rule is given it is that of `inner_optimizer`.
    """
    settings = parts.settings
    options = {
        "rule": _rule_by_hand(settings) if rule is None else rule,
        "slow_targets": settings.hypers.target_step_size != 1,
        "scan": scan_of(settings.inner.remat, settings.inner.nested_remat),
    } | options
    return gradient_steps(parts.agent, parts.spec, settings.lifetime, settings.inner, parts.hypers, **options)


def _rule_by_hand(settings: Settings) -> UpdateRule:
    optimizer = settings.inner.inner_optimizer
    differentiable = optimizer == "sgd" or settings.estimation.outer_gradient != "backpropagation"
    rule = "be 'sgd' where parameters are meta-learned by gradient"
    require(differentiable, "inner_optimizer", rule, optimizer)
    return BY_HAND[optimizer]


def no_context(key: jax.Array, env_params: PyTree) -> Task:
    """A task of which a learner sees nothing but what it perceives."""
    del key
    return Task(env_params, None)


def size_of_description(tasks: TaskDistribution) -> int:
    """How many numbers describe a task, 0 where nothing does."""
    return jax.eval_shape(lambda key: tasks.describe(tasks.sample(key, "train")), jax.random.key(0)).size


def posing(tasks: TaskDistribution, described: bool) -> Pose:
    """How tasks are posed to a learner that may see their description, or may not."""
    return (lambda key, env_params: Task(env_params, tasks.describe(env_params))) if described else no_context


def compose(
    parts: Parts,
    adapter: Adapter,
    rule: Callable = meta_gradient,
    learned: Learned = lambda path: path[0].name != "hypers",
    pose: Pose = no_context,
) -> MetaLearner:
    """Joins an adapter, the objective that the settings ask for, and an outer rule.

    Args:
      parts: what the recipe was given.
      adapter: how the learner lives.
      rule: one of `outer`, such as `meta_gradient` or `reptile`.
      learned: which leaves of `meta`, by their tree paths, evolution strategies perturb.
      pose: what of a task the learner may see; by default nothing but what it perceives.

    Raises:
      UsageError: the settings do not suit the outer loss.
    """
    lifetime, outer, estimation = parts.settings.lifetime, parts.settings.outer, parts.settings.estimation
    objective = scored(parts, adapter)
    lives, stretch = 1, estimation.stretch or lifetime.rounds
    if outer.outer_update == "proximal":
        require_whole_lifetimes(parts, "outer_update 'proximal'")
        init, update = _within_a_trust_region(parts, adapter, rule)
    elif rule is not meta_gradient:
        require_whole_lifetimes(parts, rule.__name__)
        init, update = rule(adapter, objective, pose, parts.optimizer, outer.tasks_per_group)
    elif estimation.outer_gradient == "backpropagation" and stretch == lifetime.rounds:
        init, update = meta_gradient(adapter, objective, pose, parts.optimizer, outer.tasks_per_group)
    else:
        estimator = estimated(parts, adapter, objective, learned)
        lives = estimator.lives(stretch == lifetime.rounds)
        init, update = by_stretches(
            adapter,
            estimator,
            pose,
            lambda key: parts.tasks.sample(key, "train"),
            parts.optimizer,
            lifetime.rounds // stretch,
            outer.tasks_per_batch,
            outer.tasks_per_group,
        )
    queries = stretch + outer.scores_before
    env_steps_of_life = stretch * lifetime.envs * lifetime.steps
    env_steps_of_queries = queries * outer.query_envs * parts.tasks.horizon
    env_steps = lives * outer.lives_per_task * (env_steps_of_life + env_steps_of_queries)
    return learner_of(parts, adapter, init, update, env_steps, pose)


def scored(parts: Parts, adapter: Adapter) -> Objective:
    """The objective that the settings ask for: what each round arrives at, scored on fresh episodes.

    Raises:
      UsageError: the settings do not suit the outer loss.
    """
    tasks, settings = parts.tasks, parts.settings
    actions = distributions.of_actions(parts.spec)
    lifetime, estimation = settings.lifetime, settings.estimation
    stretch = estimation.stretch or lifetime.rounds
    require(lifetime.rounds % stretch == 0, "stretch", f"divide rounds = {lifetime.rounds}", stretch)
    by_backpropagation = estimation.outer_gradient == "backpropagation"
    by_policy = settings.outer.outer_loss == "policy_gradient"
    if by_backpropagation:
        rule = "be 'es' or 'pes' under outer_loss 'return', which has no gradient"
        require(settings.outer.outer_loss != "return", "outer_gradient", rule, estimation.outer_gradient)
    else:
        rule = "have a value that is to be lowered under outer_gradient 'es' or 'pes', such as 'return'"
        require(not by_policy, "outer_loss", rule, settings.outer.outer_loss)
        lives = settings.outer.lives_per_task
        require(lives == 1, "lives_per_task", "be 1 under outer_gradient 'es' or 'pes'", lives)
    if parts.agent.on_policy:
        rule = f"be 'policy_gradient' or 'return' for agent {settings.agent.agent!r}, which has no action values"
        require(by_policy or settings.outer.outer_loss == "return", "outer_loss", rule, settings.outer.outer_loss)
    elif by_policy:
        rule = "be above 0 under outer_loss 'policy_gradient', which scores a softmax policy"
        require(settings.hypers.temperature > 0, "temperature", rule, settings.hypers.temperature)
    outer_loss = OUTER_LOSSES[settings.outer.outer_loss](adapter, parts.agent, actions, settings.outer)
    return post_adaptation(
        Runner(tasks.env, adapter),
        actions,
        replace(lifetime, rounds=stretch),
        outer_loss,
        settings.outer,
        tasks.horizon,
        scan_of(settings.inner.remat, settings.inner.nested_remat),
    )


def estimated(parts: Parts, adapter: Adapter, objective: Objective, learned: Learned) -> Estimator:
    """The estimator that the settings ask for, of one stretch of an objective.

    Raises:
      UsageError: the settings do not suit it.
    """
    lifetime, estimation = parts.settings.lifetime, parts.settings.estimation
    runner = Runner(parts.tasks.env, adapter)

    def begin(key: jax.Array, meta: PyTree, task: Task) -> Life:
        return runner.begin(key, meta, task, lifetime.envs)

    if estimation.outer_gradient == "backpropagation":
        return backpropagation(begin, objective)
    estimators = {"es": evolution_strategies, "pes": persistent_evolution_strategies}
    return estimators[estimation.outer_gradient](
        begin, objective, estimation.population, estimation.perturbation, learned
    )


def _within_a_trust_region(parts: Parts, adapter: Adapter, rule: Callable) -> tuple[Init, Update]:
    """The outer rule `proximal` in place of `meta_gradient`."""
    tasks, lifetime, outer, config = parts.tasks, parts.settings.lifetime, parts.settings.outer, parts.settings.proximal
    suits = rule is meta_gradient and parts.agent.on_policy and outer.lives_per_task == 1
    rule_of_use = "be 'descent' but for a meta-gradient, agent 'actor_critic' and lives_per_task 1"
    require(suits, "outer_update", rule_of_use, outer.outer_update)
    require_minibatches(outer, config)
    optimizer = outer_optimizer(outer, config.epochs * config.minibatches)
    actions = distributions.of_actions(parts.spec)
    return proximal(Runner(tasks.env, adapter), actions, no_context, optimizer, lifetime, outer, config, tasks.horizon)


def require_whole_lifetimes(parts: Parts, user: str) -> None:
    """Refuses estimates of a meta-gradient, and of parts of lifetimes, where there is no meta-gradient to estimate."""
    estimation, rounds = parts.settings.estimation, parts.settings.lifetime.rounds
    plain = estimation.outer_gradient == "backpropagation"
    require(plain, "outer_gradient", f"be 'backpropagation' under {user}", estimation.outer_gradient)
    whole = estimation.stretch in (0, rounds)
    require(whole, "stretch", f"be 0, a whole lifetime, under {user}", estimation.stretch)


def require_minibatches(outer: OuterConfig, config: ProximalConfig) -> None:
    """Refuses minibatches that are not of equal size."""
    divides = outer.tasks_per_batch % config.minibatches == 0
    require(divides, "minibatches", f"divide tasks_per_batch = {outer.tasks_per_batch}", config.minibatches)


def learner_of(
    parts: Parts,
    adapter: Adapter,
    init: Init,
    update: Update,
    env_steps_per_task: int,
    pose: Pose = no_context,
    tasks_per_batch: int | None = None,
) -> MetaLearner:
    """What the recipes here have in common: they adapt with all that they have learned.

    Where no number of tasks is given it is that of the settings.
    """
    return MetaLearner(
        init=init,
        update=update,
        task=pose,
        adapter=adapter,
        meta=lambda state: state.meta,
        lifetime=parts.settings.lifetime,
        tasks_per_batch=tasks_per_batch or parts.settings.outer.tasks_per_batch,
        env_steps_per_task=env_steps_per_task,
    )
