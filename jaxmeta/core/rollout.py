"""The one place that steps an environment."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta.core.config import AdaptationConfig
from jaxmeta.core.scans import Scan
from jaxmeta.core.types import (
    Adapter,
    Environment,
    Key,
    LearnerState,
    Metrics,
    Percept,
    PyTree,
    Rollout,
    Task,
)


class Round(NamedTuple):
    """One round of a lifetime, as `Runner.adapt_for` reports it."""

    before: LearnerState
    """The learner's state before the round."""
    rollout: Rollout
    """What it did, leaves [T, E, ...]."""
    after: LearnerState
    """The learner's state after the adaptation."""
    metrics: Metrics
    """What the adaptation reports."""


Observe = Callable[[Key, Round], PyTree]
"""`observe(key, round)`: the report of a round, with a key of its own."""


def reset(key: Key, env: Environment, env_params: PyTree, num_envs: int) -> tuple[PyTree, Percept]:
    """Starts `num_envs` environments of one task; returns their states and first percepts, leaves [E, ...]."""
    observation, env_state = jax.vmap(env.reset, (0, None))(jax.random.split(key, num_envs), env_params)
    action = jax.eval_shape(env.action_space(env_params).sample, key)
    percept = Percept(
        observation=observation,
        previous_action=jnp.zeros((num_envs, *action.shape), action.dtype),
        previous_reward=jnp.zeros(num_envs, jnp.float32),
        first=jnp.ones(num_envs, bool),
    )
    return env_state, percept


def keys_of_rounds(key: Key, rounds: int) -> Key:
    """Keys of `Runner.adapt_once` for each round, [rounds, 3]: to act, to adapt and to observe with."""
    return jax.vmap(lambda key: jax.random.split(key, 3))(jax.random.split(key, rounds))


@dataclass(frozen=True)
class Runner:
    """Runs lifetimes of a learner in tasks of an environment. Each method is a pure function of one task.

    The meta-parameters are an argument, so that gradients with respect to them flow through `reset` and every
    adaptation; nothing flows through what a rollout collects.
    """

    env: Environment
    adapter: Adapter

    def reset(self, key: Key, meta: PyTree, task: Task, num_envs: int) -> LearnerState:
        """Starts a lifetime in `num_envs` environments of one task, which have just been reset.

        Args:
          key: one key, used here alone.
          meta: the meta-parameters.
          task: leaves without a batch axis; its context is all that the learner receives of it.
          num_envs: E, static.

        Returns:
          A `LearnerState`: leaves of memory, environment state and percept are [E, ...].
        """
        adapter_key, reset_key = jax.random.split(key)
        fast, memory = self.adapter.reset(adapter_key, meta, task.context)
        memory = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (num_envs, *jnp.shape(leaf))), memory)
        env_state, percept = reset(reset_key, self.env, task.env_params, num_envs)
        return LearnerState(fast=fast, memory=memory, env_state=env_state, percept=percept)

    def rollout(
        self, key: Key, meta: PyTree, task: Task, learner_state: LearnerState, steps: int, eval_policy: bool = False
    ) -> tuple[LearnerState, Rollout]:
        """Takes `steps` steps in every environment of a lifetime, without adapting.

        Environments reset themselves at an episode's end; the task and the memory stay.

        Args:
          key: one key, used here alone.
          meta: the meta-parameters.
          task: leaves without a batch axis.
          learner_state: leaves of memory, environment state and percept are [E, ...].
          steps: T, static.
          eval_policy: act by `Adapter.eval_policy` instead of `Adapter.act`.

        Returns:
          The learner's state after the last step, and a `Rollout` with leaves [T, E, ...]; neither has a gradient.
        """
        meta, learner_state = jax.lax.stop_gradient((meta, learner_state))
        act = self.adapter.eval_policy if eval_policy else self.adapter.act

        def step_one(noise, step_key, memory, env_state, percept):
            action, memory, extras = act(noise, meta, learner_state.fast, memory, percept)
            observation, env_state, reward, terminated, truncated, info = self.env.step(
                step_key, env_state, action, task.env_params
            )
            reward = jnp.asarray(reward, jnp.float32)
            taken = Rollout(percept, action, reward, terminated, truncated, info["final_observation"], extras)
            percept = Percept(observation, action, reward, terminated | truncated)
            return memory, env_state, percept, taken

        def step(carry, chance):
            memory, env_state, percept, taken = jax.vmap(step_one)(*chance, *carry)
            return (memory, env_state, percept), taken

        num_envs = learner_state.percept.first.shape[0]
        act_keys, step_keys = jax.random.split(key, (2, steps, num_envs))
        chance = (jax.vmap(jax.vmap(self.adapter.noise))(act_keys), step_keys)
        (memory, env_state, percept), taken = jax.lax.scan(
            step, (learner_state.memory, learner_state.env_state, learner_state.percept), chance
        )
        return learner_state.replace(memory=memory, env_state=env_state, percept=percept), taken

    def evaluate_policy(
        self, key: Key, meta: PyTree, task: Task, learner_state: LearnerState, num_envs: int, steps: int
    ) -> Rollout:
        """Plays `num_envs` fresh environments of the same task by `eval_policy`; the learner does not adapt to them.

        Each starts with the memory, the previous action and the previous reward of the lifetime's first environment.

        Args:
          key: one key, used here alone.
          meta: the meta-parameters.
          task: leaves without a batch axis.
          learner_state: it is not changed.
          num_envs: Q, how many fresh environments, static.
          steps: T, static; they reset themselves, so that further episodes may follow the first.

        Returns:
          A `Rollout` with leaves [T, Q, ...], without gradient.
        """
        reset_key, rollout_key = jax.random.split(key)
        env_state, percept = reset(reset_key, self.env, task.env_params, num_envs)
        last = (learner_state.memory, learner_state.percept.previous_action, learner_state.percept.previous_reward)
        memory, action, reward = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[0], (num_envs, *leaf.shape[1:])), last)
        percept = percept._replace(previous_action=action, previous_reward=reward)
        guest = LearnerState(fast=learner_state.fast, memory=memory, env_state=env_state, percept=percept)
        return self.rollout(rollout_key, meta, task, guest, steps, eval_policy=True)[1]

    def adapt_once(
        self,
        keys: Key,
        meta: PyTree,
        task: Task,
        learner_state: LearnerState,
        steps: int,
        observe: Observe,
        acted: tuple[LearnerState, Rollout] | None = None,
    ) -> tuple[LearnerState, PyTree]:
        """Acts for `steps` steps, adapts, and reports.

        Args:
          keys: [3], to act, to adapt and to observe with.
          meta: the meta-parameters.
          task: leaves without a batch axis.
          learner_state: from which the lifetime continues.
          steps: T, static.
          observe: called as `observe(key, round)`.
          acted: what `rollout` has returned for the first of the keys, where that is known already.

        Returns:
          The learner's state after the adaptation, and what `observe` returned.
        """
        act_key, adapt_key, observe_key = keys
        moved, taken = acted or self.rollout(act_key, meta, task, learner_state, steps)
        fast, metrics = self.adapter.adapt(adapt_key, meta, learner_state.fast, taken)
        after = moved.replace(fast=fast)
        return after, observe(observe_key, Round(learner_state, taken, after, metrics))

    def adapt_for(
        self,
        key: Key,
        meta: PyTree,
        task: Task,
        learner_state: LearnerState,
        lifetime: AdaptationConfig,
        observe: Observe,
        scan: Scan = jax.lax.scan,
    ) -> tuple[LearnerState, PyTree]:
        """Runs `lifetime.num_adaptations` rounds of `lifetime.rollout_length` steps.

        Args:
          key: one key, used here alone.
          meta: the meta-parameters.
          task: leaves without a batch axis.
          learner_state: from which the lifetime continues.
          lifetime: its static shape.
          observe: called as `observe(key, round)` after every round, with a key of its own.
          scan: how rounds follow one another, see `scans`.

        Returns:
          The learner's state after the last round, and what `observe` returned, stacked: leaves [rounds, ...].
        """

        def one_round(learner_state, keys):
            return self.adapt_once(keys, meta, task, learner_state, lifetime.rollout_length, observe)

        return scan(one_round, learner_state, keys_of_rounds(key, lifetime.num_adaptations))
