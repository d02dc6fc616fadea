"""Classical policies for Bernoulli bandits, lived and evaluated like every learner.

What they know of a task is how often each arm was pulled, and how often it paid. They learn nothing across tasks.

References: Auer, Cesa-Bianchi and Fischer (2002), UCB1 and epsilon-greedy; Thompson (1933).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta.base import Adapter, Key, Percept, PyTree, Spec
from jaxmeta.errors import UsageError


class Pulls(NamedTuple):
    """What has happened to the arms."""

    pulled: jax.Array
    """[A] float32, how often each was pulled."""
    paid: jax.Array
    """[A] float32, what each has paid in sum."""
    started: jax.Array
    """[] bool, whether anything was pulled: a lifetime's first percept shows an action that nobody took."""


Preference = Callable[[Key, Pulls], jax.Array]
"""`preference(key, pulls)`, [A] float32: the arm that it is largest for is pulled next, ties broken at random."""


def ucb1(scale: float = 2.0) -> Preference:
    """The mean and a bonus sqrt(scale log t / n), t pulls in all and n of the arm; every arm once before any twice."""

    def preference(key: Key, pulls: Pulls) -> jax.Array:
        del key
        seen = jnp.maximum(pulls.pulled, 1.0)
        bonus = jnp.sqrt(scale * jnp.log(jnp.maximum(jnp.sum(pulls.pulled), 1.0)) / seen)
        return jnp.where(pulls.pulled > 0, pulls.paid / seen + bonus, jnp.inf)

    return preference


def thompson(key: Key, pulls: Pulls) -> jax.Array:
    """A draw from the belief about each arm's probability, which is Beta(1, 1) at first."""
    return jax.random.beta(key, 1 + pulls.paid, 1 + pulls.pulled - pulls.paid)


def epsilon_greedy(epsilon: float) -> Preference:
    """The mean of the belief about each arm; any arm with probability epsilon."""

    def preference(key: Key, pulls: Pulls) -> jax.Array:
        explores, arms = jax.random.split(key)
        means = (1 + pulls.paid) / (2 + pulls.pulled)
        return jnp.where(jax.random.bernoulli(explores, epsilon), jax.random.uniform(arms, means.shape), means)

    return preference


def bandit_policy(spec: Spec, preference: Preference) -> Adapter:
    """A policy that pulls the arm it prefers; meta and fast are None.

    Raises:
      UsageError: actions are continuous.
    """
    num_actions = spec.num_actions
    if num_actions is None:
        raise UsageError("A bandit's policy must be given discrete actions, got continuous ones.")

    def begin(key: Key, meta: None, context: PyTree):
        del key, meta, context
        return None, Pulls(jnp.zeros(num_actions), jnp.zeros(num_actions), jnp.zeros((), bool))

    def act(key: Key, meta: None, fast: None, memory: Pulls, percept: Percept):
        del meta, fast
        preference_key, tie_key = jax.random.split(key)
        last = jax.nn.one_hot(percept.previous_action, num_actions) * memory.started
        memory = Pulls(memory.pulled + last, memory.paid + last * percept.previous_reward, jnp.ones((), bool))
        preferred = preference(preference_key, memory)
        best = preferred == jnp.max(preferred)
        logits = jnp.where(best, 0.0, -jnp.inf)
        action = jax.random.categorical(tie_key, logits).astype(spec.action.dtype)
        return action, memory, {"logits": logits}

    return Adapter(
        init=lambda key: None,
        begin=begin,
        act=act,
        exploit=act,
        adapt=lambda key, meta, fast, rollout: (fast, {}),
    )
