"""Classical policies for bandits, run and evaluated like every learner.

What they know of a task is how often each arm was pulled, and what it paid; of the family they know its prior and how
long a lifetime is. They learn nothing across tasks. Every environment has a memory of its own, and nothing is passed
from one to another: a lifetime with several environments is several trials.

What is scored after a round is the arm that is best on average under the belief, whichever way the policy explores.

References: Auer, Cesa-Bianchi and Fischer (2002), UCB1 and epsilon-greedy; Thompson (1933), Thompson sampling; those of
`bandit_planning`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.core.config import AdaptationConfig
from jaxmeta.core.errors import require
from jaxmeta.core.types import Adapter, Key, Percept, PyTree
from jaxmeta.inner import without_learning
from jaxmeta_envs.bandit.planning import (
    bayes_optimal_worth,
    code,
    first_index,
    gittins_indices,
    number_of_beliefs,
)

MOST_BELIEFS = 200_000
"""More are not planned for; these take a second or two."""
MOST_INDEXED_PULLS = 500
"""Indices for longer trials are not computed; these take 10 seconds and 83 MB."""


class Pulls(NamedTuple):
    """What has happened to the arms."""

    pulled: jax.Array
    """[A] float32, how often each was pulled."""
    paid: jax.Array
    """[A] float32, what each has paid in sum."""
    started: jax.Array
    """[] bool, whether an arm was pulled: a lifetime's first percept has no action."""


Preference = Callable[[Key, Pulls], jax.Array]
"""`preference(key, pulls)`, [A] float32: the arm that it is largest for is pulled next, ties broken at random."""


class Prior(NamedTuple):
    """What is believed about what an arm pays on average, before it is pulled."""

    mean: float
    weight: float
    """How many pulls that paid the mean it is worth."""
    draw: Preference
    """A sample of the posterior."""

    def seen(self, pulls: Pulls) -> jax.Array:
        """Pulls of each arm, with those that the prior is worth, [A] float32."""
        return self.weight + pulls.pulled

    def posterior_mean(self, pulls: Pulls) -> jax.Array:
        """[A] float32."""
        return (self.weight * self.mean + pulls.paid) / self.seen(pulls)


def _draw_beta(key: Key, pulls: Pulls) -> jax.Array:
    return jax.random.beta(key, 1 + pulls.paid, 1 + pulls.pulled - pulls.paid)


def _draw_normal(key: Key, pulls: Pulls) -> jax.Array:
    noise = jax.random.normal(key, pulls.pulled.shape, jnp.float32)
    return NORMAL.posterior_mean(pulls) + noise / jnp.sqrt(NORMAL.seen(pulls))


UNIFORM = Prior(mean=0.5, weight=2.0, draw=_draw_beta)
"""Of `bandit`: the posterior is Beta(1 + paid, 1 + pulled - paid)."""
NORMAL = Prior(mean=0.0, weight=1.0, draw=_draw_normal)
"""Of `gaussian_bandit`: the posterior is normal with the mean paid / (1 + pulled), the variance 1 / (1 + pulled)."""


def ucb1(prior: Prior, scale: float = 2.0) -> Preference:
    """The mean and a bonus sqrt(scale log t / n), t pulls in all and n of the arm, where the prior counts as pulls.

    With the prior no arm has to be pulled before the others can be judged, which for short trials is too dear.

    Raises:
      UsageError: a negative scale.
    """
    require(scale >= 0, "ucb1:scale", "be at least 0", scale)

    def preference(key: Key, pulls: Pulls) -> jax.Array:
        del key
        bonus = jnp.sqrt(scale * jnp.log1p(jnp.sum(pulls.pulled)) / prior.seen(pulls))
        return prior.posterior_mean(pulls) + bonus

    return preference


def epsilon_greedy(prior: Prior, epsilon: float) -> Preference:
    """The mean of the belief about each arm; any arm with probability epsilon.

    Raises:
      UsageError: no probability.
    """
    require(0 <= epsilon <= 1, "epsilon_greedy:epsilon", "be from 0 to 1", epsilon)

    def preference(key: Key, pulls: Pulls) -> jax.Array:
        explores, arms = jax.random.split(key)
        means = prior.posterior_mean(pulls)
        return jnp.where(jax.random.bernoulli(explores, epsilon), jax.random.uniform(arms, means.shape), means)

    return preference


def gittins(pulls: int) -> Preference:
    """The finite-horizon Gittins index of each arm of `bandit`, in a trial of `pulls` pulls."""
    indices = gittins_indices(pulls)

    def preference(key: Key, pulls: Pulls) -> jax.Array:
        del key
        return jnp.asarray(indices)[first_index(jnp.sum(pulls.pulled, dtype=jnp.int32)) + _codes(pulls)]

    return preference


def bayes_optimal(arms: int, pulls: int) -> Preference:
    """What maximises the expected reward of the rest of the trial, for `bandit` and a trial of `pulls` pulls.

    Raises:
      UsageError: more beliefs than can be planned for.
    """
    require(can_be_optimal(arms, pulls), "bayes_optimal", "plan for fewer arms or pulls", (arms, pulls))
    radices = code(pulls, 0) ** np.arange(arms)
    layers = [(worth.beliefs @ radices, worth.values) for worth in bayes_optimal_worth(arms, pulls)]
    names, values = (np.concatenate(parts) for parts in zip(*layers, strict=True))
    order = np.argsort(names)
    names = names[order].astype(np.int32)
    # Arms that are worth the same but for rounding are equally good.
    best = np.isclose(values, values.max(axis=1, keepdims=True), rtol=0, atol=1e-9)[order]

    def preference(key: Key, pulls: Pulls) -> jax.Array:
        del key
        codes = _codes(pulls)
        rising = jnp.argsort(codes)
        name = jnp.sum(codes[rising] * jnp.asarray(radices, jnp.int32))
        found = jnp.asarray(best)[jnp.searchsorted(jnp.asarray(names), name)]
        return jnp.zeros(arms).at[rising].set(found.astype(jnp.float32))

    return preference


def can_be_optimal(arms: int, pulls: int) -> bool:
    """Whether `bayes_optimal` can plan for a trial: its beliefs are few, and 32 bits name each of them."""
    return number_of_beliefs(arms, pulls) <= MOST_BELIEFS and code(pulls, 0) ** arms < 2**31


def _codes(pulls: Pulls) -> jax.Array:
    """Codes of the arms, [A] int32."""
    return code(pulls.pulled.astype(jnp.int32), pulls.paid.astype(jnp.int32))


def bandit_policy(arms: int, prior: Prior, preference: Preference) -> Adapter:
    """A policy that pulls the arm it prefers, and exploits by pulling the one that is best on average.

    Args:
      arms: number of arms.
      prior: of what its arms pay.
      preference: which arm to pull while learning.

    Returns:
      An `Adapter` whose meta and fast are None and whose memory is `Pulls`.
    """

    def reset(key: Key, meta: None, context: PyTree):
        del key, meta, context
        return None, Pulls(jnp.zeros(arms), jnp.zeros(arms), jnp.zeros((), bool))

    def acting(preference: Preference):
        def act(key: Key, meta: None, fast: None, memory: Pulls, percept: Percept):
            del meta, fast
            preference_key, tie_key = jax.random.split(key)
            last = jax.nn.one_hot(percept.previous_action, arms) * memory.started
            memory = Pulls(memory.pulled + last, memory.paid + last * percept.previous_reward, jnp.ones((), bool))
            preferred = preference(preference_key, memory)
            logits = jnp.where(preferred == jnp.max(preferred), 0.0, -jnp.inf)
            action = jax.random.categorical(tie_key, logits).astype(percept.previous_action.dtype)
            return action, memory, {"logits": logits}

        return act

    return without_learning(reset, acting(preference), acting(lambda key, pulls: prior.posterior_mean(pulls)))


def bernoulli_policies(arms: int, lifetime: AdaptationConfig) -> dict[str, Adapter]:
    """Policies for `bandit` over a lifetime, by name.

    Scale and epsilon are one number each for trials of any length, chosen for 5 arms on the split `validation`. Mean
    returns of 10, 100 and 500 pulls (standard errors 0.02, 0.2 and 1.7): UCB1 with a scale of 0.05 6.67, 78.1, 403.3,
    of 0.1 6.65, 78.2, 405.8, of 0.2 6.61, 77.4, 404.5, and of the textbook's 2 5.85, 66.7, 368.1; epsilon-greedy with
    0 6.65, 75.8, 385.4, with 0.01 6.63, 75.7, 388.8, with 0.05 6.56, 75.3, 390.9.

    Returns:
      `thompson`, `ucb1`, `epsilon_greedy`; `gittins` for up to `MOST_INDEXED_PULLS`; and `bayes_optimal` where it can
      be planned for and there is one environment: a learner that sees several at once may do better than any policy
      that sees one.
    """
    pulls = lifetime.num_adaptations * lifetime.rollout_length
    preferences = {
        "thompson": UNIFORM.draw,
        "ucb1": ucb1(UNIFORM, scale=0.1),
        "epsilon_greedy": epsilon_greedy(UNIFORM, epsilon=0.01),
    }
    if pulls <= MOST_INDEXED_PULLS:
        preferences["gittins"] = gittins(pulls)
    if lifetime.num_envs == 1 and can_be_optimal(arms, pulls):
        preferences["bayes_optimal"] = bayes_optimal(arms, pulls)
    return {name: bandit_policy(arms, UNIFORM, preference) for name, preference in preferences.items()}


def gaussian_policies(arms: int, lifetime: AdaptationConfig) -> dict[str, Adapter]:
    """Policies for `gaussian_bandit`, by name: `thompson`, `ucb1` and `epsilon_greedy`.

    Scale and epsilon were chosen as for `bernoulli_policies`. Mean returns of 10, 100 and 500 pulls (standard errors
    0.05, 0.7 and 7): UCB1 with a scale of 0.2 5.96, 98.0, 528.7, of 0.5 5.92, 101.2, 550.0, of 1 5.70, 100.6, 552.6;
    epsilon-greedy with 0 5.72, 85.3, 442.5, with 0.02 5.62, 86.1, 481.6, with 0.05 5.46, 86.4, 494.8.
    """
    del lifetime
    preferences = {
        "thompson": NORMAL.draw,
        "ucb1": ucb1(NORMAL, scale=0.5),
        "epsilon_greedy": epsilon_greedy(NORMAL, epsilon=0.02),
    }
    return {name: bandit_policy(arms, NORMAL, preference) for name, preference in preferences.items()}
