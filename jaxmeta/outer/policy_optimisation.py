"""Proximal policy optimisation over whole lifetimes: the outer rule of learners whose memory does the learning.

A lifetime is one long episode, in which nothing is discounted away where an episode of the task ends: what is found out
in one episode pays in the next. Memories are run anew along what was perceived, so that gradients flow through all of a
lifetime.

References: Schulman et al. (2017), PPO; Duan et al. (2016) for lifetimes as episodes.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta import lifetime as living
from jaxmeta.advantages import generalised_advantage
from jaxmeta.base import Adapter, Environment, Key, Lifetime, MetaState, Metrics, PyTree, Rollout, Task
from jaxmeta.config import PolicyConfig, ProximalConfig
from jaxmeta.distributions import ActionDistribution
from jaxmeta.outer.descent import Init, Pose, Update


class Lived(NamedTuple):
    """One task's lifetime, and what its steps are judged by: leaves [T, E, ...]."""

    key: Key
    """What the lifetime began with, a single key."""
    task: Task
    """The task alone, without T and E."""
    rollout: Rollout
    log_prob: jax.Array
    """float32, of the action when it was taken."""
    advantage: jax.Array
    """float32."""
    target: jax.Array
    """float32, what the value should have been."""


def policy_optimisation(
    env: Environment,
    adapter: Adapter,
    actions: ActionDistribution,
    pose: Pose,
    optimizer: optax.GradientTransformation,
    lifetime: Lifetime,
    config: ProximalConfig,
    policy: PolicyConfig,
    discount: float,
    entropy: float,
) -> tuple[Init, Update]:
    """Builds the rule: collect one lifetime of every task, then several epochs over minibatches of tasks.

    Args:
      env: the environment.
      adapter: `act` must report the numbers of `actions` as `logits`, and `value`; `fast` must not change.
      actions: how numbers become actions.
      pose: what of a task the learner may see.
      optimizer: of every minibatch.
      lifetime: how long a lifetime is; its rounds are run as one.
      config: epochs, minibatches and how far a step may go.
      policy: what actions are judged by.
      discount: of a lifetime's rewards.
      entropy: weight of the policy's entropy.
    """
    steps = lifetime.rounds * lifetime.steps

    def init(key: Key) -> MetaState:
        meta = adapter.init(key)
        return MetaState(meta=meta, optimizer=optimizer.init(meta), step=jnp.zeros((), jnp.int32), carried=None)

    def begin(key: Key, meta: PyTree, task: Task):
        return living.begin(key, env, adapter, meta, task, lifetime.envs)

    def collect(key: Key, meta: PyTree, env_params: PyTree) -> Lived:
        pose_key, begin_key, rollout_key = jax.random.split(key, 3)
        task = pose(pose_key, env_params)
        _, rollout = living.rollout(rollout_key, env, task, adapter.act, meta, begin(begin_key, meta, task), steps)
        value = rollout.extras["value"]
        next_value = jnp.concatenate([value[1:], jnp.zeros_like(value[:1])])
        never = jnp.zeros_like(rollout.terminated)
        advantage = jax.vmap(generalised_advantage, (1, 1, 1, 1, 1, None, None), 1)(
            rollout.reward, never, never, value, next_value, discount, policy.gae_lambda
        )
        log_prob = jax.vmap(jax.vmap(actions.log_prob))(rollout.extras["logits"], rollout.action)
        return Lived(begin_key, task, rollout, log_prob, advantage, advantage + value)

    def rerun(meta: PyTree, lived: Lived):
        """What the network puts out along a lifetime: numbers [T, E, N] and values [T, E]."""
        life = begin(lived.key, meta, lived.task)

        def act(memory, percept):
            _, memory, extras = adapter.act(lived.key, meta, life.fast, memory, percept)  # its draw is not used
            return memory, (extras["logits"], extras["value"])

        return jax.lax.scan(jax.vmap(act), life.memory, lived.rollout.percept)[1]

    def loss(meta: PyTree, lives: Lived):
        numbers, value = jax.vmap(rerun, (None, 0))(meta, lives)
        log_prob = jax.vmap(jax.vmap(jax.vmap(actions.log_prob)))(numbers, lives.rollout.action)
        ratio = jnp.exp(log_prob - lives.log_prob)
        clipped = jnp.clip(ratio, 1 - config.clip, 1 + config.clip)
        gain = jnp.mean(jnp.minimum(ratio * lives.advantage, clipped * lives.advantage))
        spread = jnp.mean(jax.vmap(jax.vmap(jax.vmap(actions.entropy)))(numbers))
        # In units of the targets' variance: a gradient as large as returns are would leave the policy no say.
        error = 0.5 * jnp.mean((value - lives.target) ** 2) / (jnp.var(lives.target) + 1e-8)
        metrics = {"entropy": spread, "value_loss": error, "clipped": jnp.mean(jnp.abs(ratio - 1) > config.clip)}
        return policy.value_weight * error - gain - entropy * spread, metrics

    def update(key: Key, state: MetaState, env_params: PyTree) -> tuple[MetaState, Metrics]:
        tasks = jax.tree.leaves(env_params)[0].shape[0]
        collect_key, epoch_key = jax.random.split(key)
        keys = jax.random.split(collect_key, tasks)
        lives = jax.vmap(collect, (0, None, 0))(keys, state.meta, env_params)
        advantage = lives.advantage
        normal = (advantage - jnp.mean(advantage)) / (jnp.std(advantage) + 1e-8)
        batch = lives._replace(advantage=normal)

        def minibatch_step(carry, chosen):
            meta, optimizer_state = carry
            picked = jax.tree.map(lambda leaf: leaf[chosen], batch)
            (value, metrics), gradient = jax.value_and_grad(loss, has_aux=True)(meta, picked)
            changes, optimizer_state = optimizer.update(gradient, optimizer_state, meta)
            metrics = {**metrics, "loss": value, "meta_gradient_norm": optax.tree.norm(gradient)}
            return (optax.apply_updates(meta, changes), optimizer_state), metrics

        orders = jax.vmap(lambda key: jax.random.permutation(key, tasks))(jax.random.split(epoch_key, config.epochs))
        orders = orders.reshape(config.epochs * config.minibatches, -1)
        (meta, optimizer_state), metrics = jax.lax.scan(minibatch_step, (state.meta, state.optimizer), orders)
        trial = jnp.mean(jnp.sum(lives.rollout.reward, axis=1))
        metrics = {**jax.tree.map(jnp.mean, metrics), "return": trial / lifetime.rounds, "trial_return": trial}
        return state.replace(meta=meta, optimizer=optimizer_state, step=state.step + 1), metrics

    return init, update
