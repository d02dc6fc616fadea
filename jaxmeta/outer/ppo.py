"""Proximal policy optimisation over whole lifetimes: the outer rule of learners whose memory does the learning.

A lifetime is one long episode, in which nothing is discounted away where an episode of the task ends: what is found out
in one episode pays in the next. As many of the task's episodes count as a lifetime has time for: whoever lets a pole
fall early has used one up, and what comes after the last of them is left out, of the loss as well. Memories are run
anew along what was perceived, so that gradients flow through all of a lifetime.

References: Schulman et al. (2017), PPO; Duan et al. (2016) for lifetimes as episodes.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from msgspec.structs import replace

from jaxmeta.core import sharding as devices
from jaxmeta.core.config import AdaptationConfig, Count, Fraction, Natural, NonNegative
from jaxmeta.core.errors import require
from jaxmeta.core.rollout import Runner
from jaxmeta.core.types import (
    Key,
    MetaState,
    Metrics,
    PyTree,
    Rollout,
    StepInfo,
    Task,
)
from jaxmeta.outer.batching import each_is_finite, mean_over_shares, num_tasks
from jaxmeta.outer.epochs import TrustRegionConfig, clipped_gain, over_epochs
from jaxmeta.outer.meta_gradient import Init, Update, starting
from jaxmeta.outer.optimizer import OptimizerConfig, outer_optimizer
from jaxmeta.rl.advantages import generalised_advantage, normalised
from jaxmeta.rl.distributions import ActionDistribution


class PPOConfig(OptimizerConfig, frozen=True, kw_only=True):
    """How policies with a memory are trained on whole trials."""

    tasks_per_batch: Count = 256
    """Tasks of a meta-step."""
    trust_region: TrustRegionConfig = TrustRegionConfig()
    trial_rollouts: Natural = 0
    """Rollouts of a trial in training, at least as many as a lifetime has adaptations; 0: as many. With one more than
    these, a memory is trained on what it is scored by, the episode after its last rollout."""
    discount: Fraction = 0.99
    """Weight of the next step's value, across the episodes of a trial."""
    gae_lambda: Fraction = 0.95
    """Weight of later surprises in an advantage."""
    value_weight: NonNegative = 0.5
    """Weight of the value's squared error."""
    entropy: NonNegative = 0.01
    """Weight of the policy's entropy."""
    final_entropy_fraction: Fraction = 1.0
    """Share of that weight that is left after `meta_steps`; it falls along a line."""

    def trial(self, lifetime: AdaptationConfig) -> AdaptationConfig:
        """What a memory is trained on: a lifetime, or more rollouts than that.

        Raises:
          UsageError: fewer are given.
        """
        adaptations, rollouts = lifetime.num_adaptations, self.trial_rollouts
        rule = f"be 0 or at least num_adaptations = {adaptations}, which a lifetime has"
        require(rollouts == 0 or rollouts >= adaptations, "trial_rollouts", rule, rollouts)
        return replace(lifetime, num_adaptations=rollouts or adaptations)


class Collected(NamedTuple):
    """One task's lifetime, and what its steps are judged by: leaves [T, E, ...]."""

    key: Key
    """What the lifetime began with, a single key."""
    task: Task
    """The task alone, without T and E."""
    rollout: Rollout
    counts: jax.Array
    """bool, whether the step belongs to an episode that counts."""
    log_prob: jax.Array
    """float32, of the action when it was taken."""
    advantage: jax.Array
    """float32."""
    target: jax.Array
    """float32, what the value should have been."""


def policy_optimisation(
    runner: Runner,
    actions: ActionDistribution,
    lifetime: AdaptationConfig,
    config: PPOConfig,
    meta_steps: int,
    horizon: int,
) -> tuple[Init, Update]:
    """Builds the rule: collect one lifetime of every task, then several epochs over minibatches of tasks.

    Args:
      runner: the environment, and an adapter that has `unroll`; its `act` must report the numbers of `actions` as
        `logits`, and `value`; `fast` must not change.
      actions: how numbers become actions.
      lifetime: how long a trial is; its rollouts are run as one.
      config: optimizer, epochs, and what actions are judged by.
      meta_steps: of a whole run.
      horizon: steps of the longest episode; as many episodes count as a trial has time for.

    Raises:
      UsageError: the tasks of a batch do not fall into minibatches of equal size.
    """
    config.trust_region.require_even(config.tasks_per_batch)
    optimizer = outer_optimizer(config, meta_steps * config.trust_region.steps)
    entropy = optax.linear_schedule(config.entropy, config.entropy * config.final_entropy_fraction, meta_steps)
    # Of the task in each environment of a trial, which count.
    episodes = lifetime.num_adaptations * math.ceil(lifetime.rollout_length / horizon)
    steps, along = lifetime.num_adaptations * lifetime.rollout_length, runner.adapter.unroll
    assert along is not None, "the adapter must say how its memory is run along percepts"

    def reset(key: Key, meta: PyTree, task: Task):
        return runner.reset(key, meta, task, lifetime.num_envs)

    def collect(key: Key, meta: PyTree, task: Task) -> Collected:
        reset_key, rollout_key = jax.random.split(key)
        _, rollout = runner.rollout(rollout_key, meta, task, reset(reset_key, meta, task), steps)
        counts = in_first(rollout, episodes)
        rollout = rollout._replace(reward=jnp.where(counts, rollout.reward, 0.0))
        value = rollout.extras["value"]
        next_value = jnp.concatenate([value[1:], jnp.zeros_like(value[:1])])
        last = counts & ~jnp.concatenate([counts[1:], jnp.zeros_like(counts[:1])])
        advantage = jax.vmap(generalised_advantage, (1, 1, 1, 1, 1, None, None), 1)(
            rollout.reward, last, last, value, next_value, config.discount, config.gae_lambda
        )
        log_prob = actions.log_prob(rollout.extras["logits"], rollout.action)
        return Collected(reset_key, task, rollout, counts, log_prob, advantage, advantage + value)

    def rerun(meta: PyTree, trials: Collected):
        """What the network puts out along lifetimes: numbers [tasks, T, E, N] and values [tasks, T, E].

        The environments of all tasks are rows of one batch: as [tasks, E], with an E of 1, their matrix products and
        the derivatives of these take longer.
        """
        tasks, _, num_envs = trials.rollout.reward.shape
        initial = jax.vmap(reset, (0, None, 0))(trials.key, meta, trials.task)
        memory = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), initial.memory)
        fast = jax.tree.map(lambda leaf: jnp.repeat(leaf, num_envs, axis=0), initial.fast)
        percepts = jax.tree.map(
            lambda leaf: jnp.moveaxis(leaf, 1, 2).reshape(-1, steps, *leaf.shape[3:]), trials.rollout.percept
        )
        reported = jax.vmap(along, (None, 0, 0, 0))(meta, fast, memory, percepts)
        reported = jax.tree.map(
            lambda leaf: jnp.moveaxis(leaf.reshape(tasks, num_envs, *leaf.shape[1:]), 1, 2), reported
        )
        return reported["logits"], reported["value"]

    def loss(
        meta: PyTree,
        trials: Collected,
        weight: jax.Array,
        spread_of_targets: jax.Array,
        entropy_weight: jax.typing.ArrayLike,
    ):
        numbers, value = rerun(meta, trials)
        log_prob = actions.log_prob(numbers, trials.rollout.action)
        gain, clipped = clipped_gain(log_prob - trials.log_prob, trials.advantage, config.trust_region.clip)
        entropy = actions.entropy(numbers)
        by_step = {"entropy": entropy, "value_loss": 0.5 * (value - trials.target) ** 2, "clipped": clipped}
        gain, metrics = jax.tree.map(lambda leaf: jnp.mean(weight * leaf), (gain, by_step))
        # In units of the targets' variance: a gradient as large as returns are would leave the policy no say.
        metrics["value_loss"] /= spread_of_targets + 1e-8
        return config.value_weight * metrics["value_loss"] - gain - entropy_weight * metrics["entropy"], metrics

    def update(key: Key, state: MetaState, tasks: Task) -> tuple[MetaState, StepInfo]:
        collect_key, epoch_key = jax.random.split(key)
        keys, tasks = devices.spread((jax.random.split(collect_key, num_tasks(tasks)), tasks))
        trials = jax.vmap(collect, (0, None, 0))(keys, state.meta, tasks)
        batch = trials._replace(advantage=normalised(trials.advantage, trials.counts))
        entropy_weight = entropy(state.step)

        def gradient(meta: PyTree, trials: Collected) -> tuple[PyTree, Metrics]:
            spread_of_targets = jnp.var(trials.target, where=trials.counts)
            weight = trials.counts / jnp.mean(trials.counts)

            def of_share(trials: Collected, weight: jax.Array) -> tuple[PyTree, Metrics]:
                slope = jax.value_and_grad(loss, has_aux=True)
                (value, metrics), direction = slope(meta, trials, weight, spread_of_targets, entropy_weight)
                return direction, {"loss": value, **metrics}

            return mean_over_shares(of_share)(trials, weight)

        descend = over_epochs(gradient, optimizer, config.trust_region)
        state, metrics = descend(epoch_key, state, batch)
        trial = jnp.mean(jnp.sum(trials.rollout.reward, axis=1))
        metrics |= {"return": trial / episodes, "trial_return": trial}
        return state, StepInfo(metrics, each_is_finite(trials.rollout))

    return starting(runner.adapter, optimizer), update


def in_first(rollout: Rollout, episodes: int) -> jax.Array:
    """Whether a step belongs to one of a rollout's first episodes, [T, E] bool."""
    ended = jnp.asarray(rollout.done, jnp.int32)
    return jnp.cumsum(ended, axis=0) - ended < episodes
