"""A trust region for meta-gradients: several steps on the same rollouts while adapted policies stay close.

The rollouts of each lifetime are kept, before adaptation and after. At new meta-parameters the adaptation is recomputed
on them; inner and outer surrogates weight each action by its probability ratio, and the outer one is clipped where
the ratio has moved by more than `clip`.

Reference: Rothfuss et al. (2019), ProMP; Schulman et al. (2017), PPO.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta.core import sharding as devices
from jaxmeta.core.config import AdaptationConfig
from jaxmeta.core.rollout import Round, Runner
from jaxmeta.core.types import (
    Key,
    LearnerState,
    MetaState,
    Metrics,
    PyTree,
    Rollout,
    StepInfo,
    Task,
)
from jaxmeta.outer.batching import each_is_finite, mean_over_tasks, num_tasks
from jaxmeta.outer.epochs import clipped_gain, over_epochs
from jaxmeta.outer.meta_gradient import Init, MetaGradientConfig, Update, starting
from jaxmeta.outer.objectives import ScoreConfig, advantage_of, policy_outputs, round_weights
from jaxmeta.rl.distributions import ActionDistribution


class Collected(NamedTuple):
    """One task's lifetime, and what its adapted policies did."""

    key: Key
    """What the lifetime began with, a single key."""
    task: Task
    rollouts: Rollout
    """Of the rounds, leaves [rounds, T, E, ...]."""
    queries: Rollout
    """Of fresh environments after each round, leaves [rounds, T, Q, ...]."""
    before: Rollout
    """The same before the first round, leaves [T, Q, ...]."""


def proximal(
    runner: Runner,
    actions: ActionDistribution,
    lifetime: AdaptationConfig,
    objective: ScoreConfig,
    outer: MetaGradientConfig,
    optimizer: optax.GradientTransformation,
    steps: int,
) -> tuple[Init, Update]:
    """Builds the rule.

    Args:
      runner: the environment, and an adapter of an on-policy agent without memory, so that adaptation draws nothing and
        can be run anew.
      actions: how the numbers that it reports become actions.
      lifetime: how long a lifetime is.
      objective: how adapted policies are scored, by `objectives.policy_gradient`.
      outer: its trust region says how far a policy may move.
      optimizer: of every minibatch of tasks.
      steps: length of a query rollout.
    """
    assert outer.trust_region is not None, "a trust region"
    trust_region = outer.trust_region
    adapter, weights = runner.adapter, round_weights(lifetime.num_adaptations, objective)

    def collect(key: Key, meta: PyTree, task: Task) -> Collected:
        reset_key, before_key, adapt_key = jax.random.split(key, 3)

        def query(key: Key, learner_state: LearnerState) -> Rollout:
            return runner.evaluate_policy(key, meta, task, learner_state, objective.num_query_envs, steps)

        def observe(key: Key, round_: Round):
            return round_.rollout, query(key, round_.after)

        learner_state = runner.reset(reset_key, meta, task, lifetime.num_envs)
        before = query(before_key, learner_state)
        _, (rollouts, queries) = runner.adapt_for(adapt_key, meta, task, learner_state, lifetime, observe)
        return Collected(reset_key, task, rollouts, queries, before)

    def score(meta: PyTree, fast: PyTree, query: Rollout) -> tuple[jax.Array, Metrics]:
        """Minus what a policy gains over the one that acted, and how far it has moved."""
        learner_state = LearnerState(fast=fast, memory=None, env_state=None, percept=query.percept)
        numbers = policy_outputs(adapter, meta, learner_state, query, eval_policy=True)
        log_ratio = actions.log_prob(numbers, query.action) - actions.log_prob(query.extras["logits"], query.action)
        entropy = jnp.mean(actions.entropy(numbers))
        gain, clipped = clipped_gain(log_ratio, advantage_of(query, objective.outer_discount), trust_region.clip)
        metrics = {"entropy": entropy, "clipped": jnp.mean(clipped)}
        return -steps * (jnp.mean(gain) + objective.entropy * entropy), metrics

    def loss(meta: PyTree, collected: Collected) -> tuple[jax.Array, Metrics]:
        fast, _ = adapter.reset(collected.key, meta, collected.task.context)

        def rescore(fast: PyTree, collected_round: tuple[Rollout, Rollout]):
            rollout, query = collected_round
            fast, _ = adapter.adapt(collected.key, meta, fast, rollout)
            return fast, score(meta, fast, query)

        value = (
            score(meta, fast, collected.before)[0] / (lifetime.num_adaptations + 1) if objective.scores_before else 0.0
        )
        _, (values, metrics) = jax.lax.scan(rescore, fast, (collected.rollouts, collected.queries))
        return value + values @ weights, jax.tree.map(lambda leaf: leaf[-1], metrics)

    def one_gradient(meta: PyTree, collected: Collected) -> tuple[PyTree, Metrics]:
        (value, metrics), direction = jax.value_and_grad(loss, has_aux=True)(meta, collected)
        return direction, {"loss": value, **metrics}

    def gradient(meta: PyTree, lifetimes: Collected) -> tuple[PyTree, Metrics]:
        return mean_over_tasks(lambda collected: (one_gradient(meta, collected), None), outer.tasks_per_group)(
            lifetimes
        )[0]

    descend = over_epochs(gradient, optimizer, trust_region)

    def update(key: Key, state: MetaState, tasks: Task) -> tuple[MetaState, StepInfo]:
        collect_key, epoch_key = jax.random.split(key)
        keys, tasks = devices.spread((jax.random.split(collect_key, num_tasks(tasks)), tasks))
        lifetimes = jax.vmap(collect, (0, None, 0))(keys, state.meta, tasks)
        returns = jax.vmap(lambda queries: _last(queries).episode_return)(lifetimes.queries)
        state, metrics = descend(epoch_key, state, lifetimes)
        finite = each_is_finite((lifetimes.rollouts, lifetimes.queries))
        return state, StepInfo({**metrics, "return": jnp.mean(returns)}, finite)

    return starting(adapter, optimizer), update


def _last(queries: Rollout) -> Rollout:
    """What was played after the last round, leaves [T, Q, ...]."""
    return jax.tree.map(lambda leaf: leaf[-1], queries)
