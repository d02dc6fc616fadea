"""Proximal policy optimisation over whole lifetimes: the outer rule of learners whose memory does the learning.

A lifetime is one long episode, in which nothing is discounted away where an episode of the task ends: what is found out
in one episode pays in the next. As many of the task's episodes count as a lifetime has time for: whoever lets a pole
fall early has used one up, and what comes after the last of them is left out, of the loss as well. Memories are run
anew along what was perceived, so that gradients flow through all of a lifetime.

References: Schulman et al. (2017), PPO; Duan et al. (2016) for lifetimes as episodes.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta.core import sharding as devices
from jaxmeta.core.config import PolicyConfig, ProximalConfig
from jaxmeta.core.rollout import Runner
from jaxmeta.core.types import (
    TASK_IS_FINITE,
    Key,
    Lifetime,
    MetaState,
    Metrics,
    PyTree,
    Rollout,
    Task,
)
from jaxmeta.outer.batching import each_is_finite, mean_over_shares
from jaxmeta.outer.epochs import clipped_gain, over_epochs
from jaxmeta.outer.meta_gradient import Init, Pose, Update, starting
from jaxmeta.rl.advantages import generalised_advantage, normalised
from jaxmeta.rl.distributions import ActionDistribution


class Lived(NamedTuple):
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
    pose: Pose,
    optimizer: optax.GradientTransformation,
    lifetime: Lifetime,
    episodes: int,
    config: ProximalConfig,
    policy: PolicyConfig,
    discount: float,
    entropy: optax.Schedule,
) -> tuple[Init, Update]:
    """Builds the rule: collect one lifetime of every task, then several epochs over minibatches of tasks.

    Args:
      runner: the environment, and an adapter that has `along`; its `act` must report the numbers of `actions` as
        `logits`, and `value`; `fast` must not change.
      actions: how numbers become actions.
      pose: what of a task the learner may see.
      optimizer: of every minibatch.
      lifetime: how long a lifetime is; its rounds are run as one.
      episodes: of the task in each environment of a lifetime, which count.
      config: epochs, minibatches and how far a step may go.
      policy: what actions are judged by.
      discount: of a lifetime's rewards.
      entropy: weight of the policy's entropy, by meta-step.
    """
    steps, along = lifetime.rounds * lifetime.steps, runner.adapter.along
    assert along is not None, "the adapter must say how its memory is run along percepts"

    def begin(key: Key, meta: PyTree, task: Task):
        return runner.begin(key, meta, task, lifetime.envs)

    def collect(key: Key, meta: PyTree, env_params: PyTree) -> Lived:
        pose_key, begin_key, rollout_key = jax.random.split(key, 3)
        task = pose(pose_key, env_params)
        _, rollout = runner.rollout(rollout_key, meta, task, begin(begin_key, meta, task), steps)
        counts = in_first(rollout, episodes)
        rollout = rollout._replace(reward=jnp.where(counts, rollout.reward, 0.0))
        value = rollout.extras["value"]
        next_value = jnp.concatenate([value[1:], jnp.zeros_like(value[:1])])
        last = counts & ~jnp.concatenate([counts[1:], jnp.zeros_like(counts[:1])])
        advantage = jax.vmap(generalised_advantage, (1, 1, 1, 1, 1, None, None), 1)(
            rollout.reward, last, last, value, next_value, discount, policy.gae_lambda
        )
        log_prob = actions.log_prob(rollout.extras["logits"], rollout.action)
        return Lived(begin_key, task, rollout, counts, log_prob, advantage, advantage + value)

    def rerun(meta: PyTree, lives: Lived):
        """What the network puts out along lifetimes: numbers [tasks, T, E, N] and values [tasks, T, E].

        The environments of all tasks are rows of one batch: as [tasks, E], with an E of 1, their matrix products and
        the derivatives of these take longer.
        """
        tasks, _, envs = lives.rollout.reward.shape
        begun = jax.vmap(begin, (0, None, 0))(lives.key, meta, lives.task)
        memory = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), begun.memory)
        fast = jax.tree.map(lambda leaf: jnp.repeat(leaf, envs, axis=0), begun.fast)
        percepts = jax.tree.map(
            lambda leaf: jnp.moveaxis(leaf, 1, 2).reshape(-1, steps, *leaf.shape[3:]), lives.rollout.percept
        )
        reported = jax.vmap(along, (None, 0, 0, 0))(meta, fast, memory, percepts)
        reported = jax.tree.map(lambda leaf: jnp.moveaxis(leaf.reshape(tasks, envs, *leaf.shape[1:]), 1, 2), reported)
        return reported["logits"], reported["value"]

    def loss(
        meta: PyTree,
        lives: Lived,
        weight: jax.Array,
        spread_of_targets: jax.Array,
        entropy_weight: jax.typing.ArrayLike,
    ):
        numbers, value = rerun(meta, lives)
        log_prob = actions.log_prob(numbers, lives.rollout.action)
        gain, clipped = clipped_gain(log_prob - lives.log_prob, lives.advantage, config.clip)
        entropy = actions.entropy(numbers)
        by_step = {"entropy": entropy, "value_loss": 0.5 * (value - lives.target) ** 2, "clipped": clipped}
        gain, metrics = jax.tree.map(lambda leaf: jnp.mean(weight * leaf), (gain, by_step))
        # In units of the targets' variance: a gradient as large as returns are would leave the policy no say.
        metrics["value_loss"] /= spread_of_targets + 1e-8
        return policy.value_weight * metrics["value_loss"] - gain - entropy_weight * metrics["entropy"], metrics

    def update(key: Key, state: MetaState, env_params: PyTree) -> tuple[MetaState, Metrics]:
        collect_key, epoch_key = jax.random.split(key)
        keys = jax.random.split(collect_key, jax.tree.leaves(env_params)[0].shape[0])
        keys, env_params = devices.spread((keys, env_params))
        lives = jax.vmap(collect, (0, None, 0))(keys, state.meta, env_params)
        batch = lives._replace(advantage=normalised(lives.advantage, lives.counts))
        entropy_weight = entropy(state.step)

        def gradient(meta: PyTree, lives: Lived) -> tuple[PyTree, Metrics]:
            spread_of_targets = jnp.var(lives.target, where=lives.counts)
            weight = lives.counts / jnp.mean(lives.counts)

            def of_share(lives: Lived, weight: jax.Array) -> tuple[PyTree, Metrics]:
                slope = jax.value_and_grad(loss, has_aux=True)
                (value, metrics), direction = slope(meta, lives, weight, spread_of_targets, entropy_weight)
                return direction, {"loss": value, **metrics}

            return mean_over_shares(of_share)(lives, weight)

        descend = over_epochs(gradient, optimizer, config)
        state, metrics = descend(epoch_key, state, batch)
        trial = jnp.mean(jnp.sum(lives.rollout.reward, axis=1))
        finite = each_is_finite(lives.rollout)
        return state, {**metrics, "return": trial / episodes, "trial_return": trial, TASK_IS_FINITE: finite}

    return starting(runner.adapter, optimizer), update


def in_first(rollout: Rollout, episodes: int) -> jax.Array:
    """Whether a step belongs to one of a rollout's first episodes, [T, E] bool."""
    ended = jnp.asarray(rollout.done, jnp.int32)
    return jnp.cumsum(ended, axis=0) - ended < episodes
