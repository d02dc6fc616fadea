"""A trust region for meta-gradients: several steps on what was lived once, as long as the adapted policies stay near.

What each task's lifetime collected is kept, before adaptation and after. At new meta-parameters the adaptation is run
anew along it; the surrogates of the inner loss and of the outer one count each action by how much more probable it has
become, and the outer one stops to gain where that has moved by more than `clip`.

Reference: Rothfuss et al. (2019), ProMP; Schulman et al. (2017), PPO.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta.core import sharding as devices
from jaxmeta.core.config import OuterConfig, ProximalConfig
from jaxmeta.core.rollout import Round, Runner
from jaxmeta.core.types import (
    TASK_IS_FINITE,
    Key,
    Life,
    Lifetime,
    MetaState,
    Metrics,
    PyTree,
    Rollout,
    Task,
)
from jaxmeta.outer.batching import each_is_finite, mean_over_tasks
from jaxmeta.outer.epochs import clipped_gain, over_epochs
from jaxmeta.outer.meta_gradient import Init, Pose, Update, starting
from jaxmeta.outer.objectives import advantage_of, numbers_along, round_weights
from jaxmeta.rl.distributions import ActionDistribution


class Lived(NamedTuple):
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
    pose: Pose,
    optimizer: optax.GradientTransformation,
    lifetime: Lifetime,
    outer: OuterConfig,
    config: ProximalConfig,
    steps: int,
) -> tuple[Init, Update]:
    """Builds the rule.

    Args:
      runner: the environment, and an adapter of an on-policy agent without memory, so that adaptation draws nothing and
        can be run anew.
      actions: how the numbers that it reports become actions.
      pose: what of a task the learner may see.
      optimizer: of every minibatch of tasks.
      lifetime: how long a lifetime is.
      outer: query environments, scored rounds, discount and entropy, as in `objectives.policy_gradient`.
      config: epochs, minibatches and how far a policy may move.
      steps: length of a query rollout.
    """
    adapter, weights = runner.adapter, round_weights(lifetime.rounds, outer)

    def collect(key: Key, meta: PyTree, env_params: PyTree) -> Lived:
        pose_key, begin_key, before_key, live_key = jax.random.split(key, 4)
        task = pose(pose_key, env_params)

        def query(key: Key, life: Life) -> Rollout:
            return runner.play(key, meta, task, life, outer.query_envs, steps)

        def observe(key: Key, lived: Round):
            return lived.rollout, query(key, lived.after)

        life = runner.begin(begin_key, meta, task, lifetime.envs)
        before = query(before_key, life)
        _, (rollouts, queries) = runner.live(live_key, meta, task, life, lifetime, observe)
        return Lived(begin_key, task, rollouts, queries, before)

    def score(meta: PyTree, fast: PyTree, query: Rollout) -> tuple[jax.Array, Metrics]:
        """Minus what a policy gains over the one that acted, and how far it has moved."""
        life = Life(fast=fast, memory=None, env_state=None, percept=query.percept)
        numbers = numbers_along(adapter, meta, life, query, exploit=True)
        log_ratio = actions.log_prob(numbers, query.action) - actions.log_prob(query.extras["logits"], query.action)
        entropy = jnp.mean(actions.entropy(numbers))
        gain, clipped = clipped_gain(log_ratio, advantage_of(query, outer.outer_discount), config.clip)
        metrics = {"entropy": entropy, "clipped": jnp.mean(clipped)}
        return -steps * (jnp.mean(gain) + outer.entropy * entropy), metrics

    def loss(meta: PyTree, lived: Lived) -> tuple[jax.Array, Metrics]:
        fast, _ = adapter.begin(lived.key, meta, lived.task.context)

        def relive(fast: PyTree, lived_round: tuple[Rollout, Rollout]):
            rollout, query = lived_round
            fast, _ = adapter.adapt(lived.key, meta, fast, rollout)
            return fast, score(meta, fast, query)

        value = score(meta, fast, lived.before)[0] / (lifetime.rounds + 1) if outer.scores_before else 0.0
        _, (values, metrics) = jax.lax.scan(relive, fast, (lived.rollouts, lived.queries))
        return value + values @ weights, jax.tree.map(lambda leaf: leaf[-1], metrics)

    def one_gradient(meta: PyTree, lived: Lived) -> tuple[PyTree, Metrics]:
        (value, metrics), direction = jax.value_and_grad(loss, has_aux=True)(meta, lived)
        return direction, {"loss": value, **metrics}

    def gradient(meta: PyTree, lives: Lived) -> tuple[PyTree, Metrics]:
        return mean_over_tasks(lambda lived: (one_gradient(meta, lived), None), outer.tasks_per_group)(lives)[0]

    descend = over_epochs(gradient, optimizer, config)

    def update(key: Key, state: MetaState, env_params: PyTree) -> tuple[MetaState, Metrics]:
        collect_key, epoch_key = jax.random.split(key)
        keys = jax.random.split(collect_key, jax.tree.leaves(env_params)[0].shape[0])
        keys, env_params = devices.spread((keys, env_params))
        lives = jax.vmap(collect, (0, None, 0))(keys, state.meta, env_params)
        returns = jax.vmap(lambda queries: _last(queries).episode_return)(lives.queries)
        state, metrics = descend(epoch_key, state, lives)
        finite = each_is_finite((lives.rollouts, lives.queries))
        return state, {**metrics, "return": jnp.mean(returns), TASK_IS_FINITE: finite}

    return starting(adapter, optimizer), update


def _last(queries: Rollout) -> Rollout:
    """What was played after the last round, leaves [T, Q, ...]."""
    return jax.tree.map(lambda leaf: leaf[-1], queries)
