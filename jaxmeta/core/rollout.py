"""Living: the one place that steps an environment."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta.core.scans import Scan
from jaxmeta.core.types import Adapter, Environment, Key, Life, Lifetime, Metrics, Percept, PyTree, Rollout, Task


class Round(NamedTuple):
    """What `live` shows of one round."""

    before: Life
    """The life that acted."""
    rollout: Rollout
    """What it did, leaves [T, E, ...]."""
    after: Life
    """The life that has learned from it."""
    metrics: Metrics
    """What the adaptation reports."""


Observe = Callable[[Key, Round], PyTree]
"""`observe(key, round)`: what is to be kept of a round, with a key for whatever is random in finding out."""


def reset(key: Key, env: Environment, env_params: PyTree, envs: int) -> tuple[PyTree, Percept]:
    """Starts `envs` environments of one task; returns their states and first percepts, leaves [E, ...]."""
    observation, env_state = jax.vmap(env.reset, (0, None))(jax.random.split(key, envs), env_params)
    action = jax.eval_shape(env.action_space(env_params).sample, key)
    percept = Percept(
        observation=observation,
        previous_action=jnp.zeros((envs, *action.shape), action.dtype),
        previous_reward=jnp.zeros(envs, jnp.float32),
        first=jnp.ones(envs, bool),
    )
    return env_state, percept


def rollout(
    key: Key,
    env: Environment,
    task: Task,
    adapter: Adapter,
    meta: PyTree,
    life: Life,
    steps: int,
    exploit: bool = False,
) -> tuple[Life, Rollout]:
    """Takes `steps` steps in every environment of a life, with `fast` as it is.

    Environments reset themselves at an episode's end; the task and the memory stay. Nothing that is returned carries a
    gradient.

    Args:
      key: one key, used here alone.
      env: the environment.
      task: leaves without a batch axis.
      adapter: what acts.
      meta: the meta-parameters.
      life: leaves of memory, environment state and percept are [E, ...].
      steps: T, static.
      exploit: act by `adapter.exploit` instead of `adapter.act`.

    Returns:
      The life after the last step, and a `Rollout` with leaves [T, E, ...].
    """
    meta, life = jax.lax.stop_gradient((meta, life))
    act = adapter.exploit if exploit else adapter.act

    def step_one(noise, step_key, memory, env_state, percept):
        action, memory, extras = act(noise, meta, life.fast, memory, percept)
        observation, env_state, reward, terminated, truncated, info = env.step(
            step_key, env_state, action, task.env_params
        )
        reward = jnp.asarray(reward, jnp.float32)
        taken = Rollout(percept, action, reward, terminated, truncated, info["final_observation"], extras)
        percept = Percept(observation, action, reward, terminated | truncated)
        return memory, env_state, percept, taken

    def step(carry, chance):
        memory, env_state, percept, taken = jax.vmap(step_one)(*chance, *carry)
        return (memory, env_state, percept), taken

    envs = life.percept.first.shape[0]
    act_keys, step_keys = jax.random.split(key, (2, steps, envs))
    chance = (jax.vmap(jax.vmap(adapter.noise))(act_keys), step_keys)
    (memory, env_state, percept), taken = jax.lax.scan(step, (life.memory, life.env_state, life.percept), chance)
    return life.replace(memory=memory, env_state=env_state, percept=percept), taken


def begin(key: Key, env: Environment, adapter: Adapter, meta: PyTree, task: Task, envs: int) -> Life:
    """Starts a lifetime in `envs` environments of one task.

    Args:
      key: one key, used here alone.
      env: the environment.
      adapter: how the learner begins.
      meta: the meta-parameters; gradients with respect to them flow into `fast` and the memory.
      task: leaves without a batch axis; its context is all that the learner is told.
      envs: E, static.

    Returns:
      A `Life` in environments that have just been reset: leaves of memory, environment state and percept are [E, ...].
    """
    begin_key, reset_key = jax.random.split(key)
    fast, memory = adapter.begin(begin_key, meta, task.context)
    memory = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (envs, *jnp.shape(leaf))), memory)
    env_state, percept = reset(reset_key, env, task.env_params, envs)
    return Life(fast=fast, memory=memory, env_state=env_state, percept=percept)


def play(
    key: Key, env: Environment, adapter: Adapter, meta: PyTree, task: Task, life: Life, envs: int, steps: int
) -> Rollout:
    """Plays `envs` fresh environments of the same task by what a life has learned so far, and learns nothing from them.

    Each starts with the memory of the life's first environment, and knows what that did last and was paid for it.

    Args:
      key: one key, used here alone.
      env: the environment.
      adapter: acts by `exploit`.
      meta: the meta-parameters.
      task: leaves without a batch axis.
      life: what has been learned; it stays as it is.
      envs: Q, how many fresh environments, static.
      steps: T, static; they reset themselves, so that further episodes may follow the first.

    Returns:
      A `Rollout` with leaves [T, Q, ...], which carries no gradient.
    """
    reset_key, rollout_key = jax.random.split(key)
    env_state, percept = reset(reset_key, env, task.env_params, envs)
    last = (life.memory, life.percept.previous_action, life.percept.previous_reward)
    memory, action, reward = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[0], (envs, *leaf.shape[1:])), last)
    percept = percept._replace(previous_action=action, previous_reward=reward)
    guest = Life(fast=life.fast, memory=memory, env_state=env_state, percept=percept)
    return rollout(rollout_key, env, task, adapter, meta, guest, steps, exploit=True)[1]


def first_rollout(
    key: Key, env: Environment, adapter: Adapter, meta: PyTree, task: Task, life: Life, lifetime: Lifetime
) -> tuple[Life, Rollout]:
    """What `live` acts in its first round, given the same arguments: by what the life has not changed yet.

    Args:
      key: the one that `live` is given.
      env: the environment.
      adapter: acts by `act`.
      meta: the meta-parameters.
      task: leaves without a batch axis.
      life: where the lifetime stands.
      lifetime: its static shape, E environments and rounds of T steps.

    Returns:
      The life after the round's last step, with `fast` as it was, and a `Rollout` with leaves [T, E, ...]; neither
      carries a gradient.
    """
    rollout_key, _, _ = _keys_of_round(jax.random.split(key, lifetime.rounds)[0])
    return rollout(rollout_key, env, task, adapter, meta, life, lifetime.steps)


def live(
    key: Key,
    env: Environment,
    adapter: Adapter,
    meta: PyTree,
    task: Task,
    life: Life,
    lifetime: Lifetime,
    observe: Observe,
    unrolled: bool = False,
    first: tuple[Life, Rollout] | None = None,
    scan: Scan = jax.lax.scan,
) -> tuple[Life, PyTree]:
    """Lives `lifetime.rounds` rounds: act for `lifetime.steps` steps, adapt, report.

    Args:
      key: one key, used here alone.
      env: the environment.
      adapter: how the learner acts and learns.
      meta: the meta-parameters; gradients with respect to them flow through every adaptation.
      task: leaves without a batch axis.
      life: where the lifetime stands.
      lifetime: its static shape.
      observe: called as `observe(key, round)` after every round, with a key of its own.
      unrolled: write the rounds one after the other instead of as a loop. That is faster to differentiate, for nothing
        is stacked and a replay buffer knows how full it is; the program grows with the number of rounds.
      first: where rounds are unrolled, what `first_rollout` returned, if that is known already.
      scan: how rounds follow one another where they are not unrolled, see `scans`.

    Returns:
      The life after the last round, and what `observe` returned, stacked: leaves [rounds, ...].
    """

    def one_round(life, key, acted=None):
        rollout_key, adapt_key, observe_key = _keys_of_round(key)
        moved, taken = acted or rollout(rollout_key, env, task, adapter, meta, life, lifetime.steps)
        fast, metrics = adapter.adapt(adapt_key, meta, life.fast, taken)
        after = moved.replace(fast=fast)
        return after, observe(observe_key, Round(life, taken, after, metrics))

    keys = jax.random.split(key, lifetime.rounds)
    if not unrolled:
        return scan(one_round, life, keys)
    reports = []
    for index in range(lifetime.rounds):
        life, report = one_round(life, keys[index], None if index else first)
        reports.append(report)
    return life, jax.tree.map(lambda *leaves: jnp.stack(leaves), *reports)


def _keys_of_round(key: Key) -> tuple[Key, Key, Key]:
    """To act with, to adapt with, and to observe with."""
    act_key, adapt_key, observe_key = jax.random.split(key, 3)
    return act_key, adapt_key, observe_key
