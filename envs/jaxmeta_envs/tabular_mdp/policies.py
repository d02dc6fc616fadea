"""Classical policies for `tabular_mdp`, run and evaluated like every learner.

All but Q-learning keep counts of what was seen, plan at the start of each episode by value iteration over its steps,
and follow that plan to its end; they differ by the process that they plan for. They learn nothing across tasks. Every
environment has a memory of its own, and nothing is passed from one to another. What is scored after a round is the best
plan for the mean of the posterior, and for Q-learning the greedy policy.

An episode's end shows no successor: the state seen next is the first of another episode. So the last transition of
every episode teaches its reward alone, and Q-learning, whose target needs the successor, nothing.

References: Strens (2000) and Osband, Russo and Van Roy (2013), posterior sampling; Jaksch, Ortner and Auer (2010),
UCRL2; Watkins and Dayan (1992), Q-learning.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta.core.config import AdaptationConfig
from jaxmeta.core.errors import require
from jaxmeta.core.types import Adapter, Key, Percept, PyTree
from jaxmeta.inner import without_learning

PRIOR_REWARD = 1.0
"""Mean reward of the prior, which is worth one visit: means ~ N(1, 1), and rewards have the variance 1 too."""
RISK = 0.05
"""Of UCRL2: the probability that its sets, at their textbook size, do not hold the process."""


class Counts(NamedTuple):
    """What was seen of a process with S states and A actions."""

    visits: jax.Array
    """[S, A] float32, how often each action was taken in each state."""
    paid: jax.Array
    """[S, A] float32, sum of the rewards for it."""
    followed: jax.Array
    """[S, A, S] float32, how often each state was seen to follow."""


Backup = Callable[[jax.Array], jax.Array]
"""From values of the states one step later, [S] float32, to action values, [S, A] float32."""
Model = Callable[[Key, Counts], Backup]
"""`model(key, counts)`: the process to plan for."""


def posterior_mean(key: Key, counts: Counts) -> Backup:
    """Transitions and rewards as they are on average under the posterior."""
    del key
    transitions, rewards = _mean_transitions(counts), _mean_reward(counts)
    return lambda values: rewards + transitions @ values


def posterior_sample(key: Key, counts: Counts) -> Backup:
    """A sample of the posterior: transitions ~ Dirichlet(1 + followed), mean rewards with variance 1 / (1 + visits)."""
    transition_key, reward_key = jax.random.split(key)
    transitions = jax.random.dirichlet(transition_key, 1 + counts.followed, dtype=jnp.float32)
    noise = jax.random.normal(reward_key, counts.visits.shape, jnp.float32)
    rewards = _mean_reward(counts) + noise / jnp.sqrt(1 + counts.visits)
    return lambda values: rewards + transitions @ values


def ucrl2(scale: float = 1.0) -> Model:
    """The best process in a confidence set around the posterior's mean, where the prior counts as visits.

    With L = log(2 S A t / RISK) after t steps, a reward of n visits lies within scale sqrt(3.5 L / n) of its mean, and
    transitions lie within the L1 distance scale sqrt(14 S L / n) of theirs. The textbook has a scale of 1, counts no
    prior, and starts an episode when some count has doubled; here episodes are those of the environment.

    Raises:
      UsageError: a negative scale.
    """
    require(scale >= 0, "ucrl2:scale", "be at least 0", scale)

    def model(key: Key, counts: Counts) -> Backup:
        del key
        states, actions = counts.visits.shape
        log = jnp.log(2 * states * actions * jnp.maximum(jnp.sum(counts.visits), 1.0) / RISK)
        rewards = _mean_reward(counts) + scale * jnp.sqrt(3.5 * log / (1 + counts.visits))
        transitions = _mean_transitions(counts)
        radius = scale * jnp.sqrt(14 * states * log / (states + jnp.sum(counts.followed, axis=-1)))
        return lambda values: rewards + most_valuable(transitions, radius, values)

    return model


def most_valuable(transitions: jax.Array, radius: jax.Array, values: jax.Array) -> jax.Array:
    """Largest expected value of the next state under any distribution within an L1 distance of the given ones.

    Half of the distance is added to the best state, and taken from the worst ones.

    Args:
      transitions: [..., S] float32, distributions over next states.
      radius: [...] float32, the L1 distance.
      values: [S] float32.

    Returns:
      [...] float32.

    Reference: Jaksch, Ortner and Auer (2010), figure 2.
    """
    falling = jnp.argsort(-values)
    shifted = transitions[..., falling]
    shifted = shifted.at[..., 0].add(radius / 2)
    before = jnp.cumsum(shifted, axis=-1) - shifted
    return jnp.clip(1 - before, 0, shifted) @ values[falling]


def plan(backup: Backup, states: int, horizon: int) -> jax.Array:
    """Best action at every step of an episode in every state, [horizon, S] int32, by finite-horizon value iteration."""

    def step(values, _):
        action_values = backup(values)
        return jnp.max(action_values, axis=-1), jnp.argmax(action_values, axis=-1).astype(jnp.int32)

    return jax.lax.scan(step, jnp.zeros(states), length=horizon, reverse=True)[1]


class Planned(NamedTuple):
    """The memory of a policy that plans."""

    counts: Counts
    plan: jax.Array
    """[horizon, S] int32, the actions of this episode."""
    time: jax.Array
    """[] int32, steps taken in this episode."""
    state: jax.Array
    """[] int32, the state that was acted in last."""
    started: jax.Array
    """[] bool, whether an action was taken: a lifetime's first percept has none."""


def planning_policy(states: int, actions: int, horizon: int, model: Model, epsilon: float = 0.0) -> Adapter:
    """A policy that plans at every episode's start, and acts at random with probability epsilon while it learns.

    Args:
      states: S, the size of the one-hot observation.
      actions: A.
      horizon: steps of an episode.
      model: what it plans for.
      epsilon: probability of a random action.

    Returns:
      An `Adapter` whose meta and fast are None and whose memory is `Planned`.

    Raises:
      UsageError: epsilon is no probability.
    """
    require(0 <= epsilon <= 1, "planning_policy:epsilon", "be from 0 to 1", epsilon)

    def reset(key: Key, meta: None, context: PyTree):
        del key, meta, context
        table, none = (states, actions), jnp.zeros((), jnp.int32)
        counts = Counts(jnp.zeros(table), jnp.zeros(table), jnp.zeros((*table, states)))
        return None, Planned(counts, jnp.zeros((horizon, states), jnp.int32), none, none, jnp.zeros((), bool))

    def acting(model: Model, epsilon: float):
        def act(key: Key, meta: None, fast: None, memory: Planned, percept: Percept):
            del meta, fast
            model_key, action_key = jax.random.split(key)
            state = jnp.argmax(percept.observation).astype(jnp.int32)
            counts = _counted(memory, percept, state)
            # Under vmap a condition computes both branches anyhow.
            new = plan(model(model_key, counts), states, horizon)
            time = jnp.where(percept.first, 0, memory.time + 1)
            memory = Planned(counts, jnp.where(percept.first, new, memory.plan), time, state, jnp.ones((), bool))
            action, logits = _epsilon_greedy(action_key, memory.plan[time, state], actions, epsilon)
            return action.astype(percept.previous_action.dtype), memory, {"logits": logits}

        return act

    return without_learning(reset, acting(model, epsilon), acting(posterior_mean, 0.0))


class Learned(NamedTuple):
    """The memory of Q-learning."""

    values: jax.Array
    """[S, A] float32, action values."""
    visits: jax.Array
    """[S, A] float32, how often each was updated."""
    state: jax.Array
    """[] int32, the state that was acted in last."""


def q_learning_policy(states: int, actions: int, discount: float, epsilon: float) -> Adapter:
    """Tabular Q-learning with an epsilon-greedy policy.

    The step size of a value that was updated n times is 1 / (n + 2) and its start that of a process that pays the
    prior's mean for ever; without a discounted future, values are then means of the posterior.

    Args:
      states: S, the size of the one-hot observation.
      actions: A.
      discount: of the next state's value, from 0 to below 1.
      epsilon: probability of a random action while it learns.

    Returns:
      An `Adapter` whose meta and fast are None and whose memory is `Learned`.

    Raises:
      UsageError: a discount or an epsilon out of range.
    """
    require(0 <= discount < 1, "q_learning_policy:discount", "be at least 0 and below 1", discount)
    require(0 <= epsilon <= 1, "q_learning_policy:epsilon", "be from 0 to 1", epsilon)

    def reset(key: Key, meta: None, context: PyTree):
        del key, meta, context
        values = jnp.full((states, actions), PRIOR_REWARD / (1 - discount), jnp.float32)
        return None, Learned(values, jnp.zeros((states, actions)), jnp.zeros((), jnp.int32))

    def acting(epsilon: float):
        def act(key: Key, meta: None, fast: None, memory: Learned, percept: Percept):
            del meta, fast
            state = jnp.argmax(percept.observation).astype(jnp.int32)
            last = _taken(memory.state, percept, states, actions) * ~percept.first
            target = percept.previous_reward + discount * jnp.max(memory.values[state])
            values = memory.values + last * (target - memory.values) / (memory.visits + 2)
            memory = Learned(values, memory.visits + last, state)
            action, logits = _epsilon_greedy(key, jnp.argmax(values[state]), actions, epsilon)
            return action.astype(percept.previous_action.dtype), memory, {"logits": logits}

        return act

    return without_learning(reset, acting(epsilon), acting(0.0))


def _mean_reward(counts: Counts) -> jax.Array:
    """Of the posterior, [S, A] float32."""
    return (PRIOR_REWARD + counts.paid) / (1 + counts.visits)


def _mean_transitions(counts: Counts) -> jax.Array:
    """Of the posterior, [S, A, S] float32."""
    concentration = 1 + counts.followed
    return concentration / jnp.sum(concentration, axis=-1, keepdims=True)


def _taken(state: jax.Array, percept: Percept, states: int, actions: int) -> jax.Array:
    """1 where `state` and the previous action are, [S, A] float32."""
    return jnp.outer(jax.nn.one_hot(state, states), jax.nn.one_hot(percept.previous_action, actions))


def _counted(memory: Planned, percept: Percept, state: jax.Array) -> Counts:
    """The counts updated by the previous step, as a percept shows it."""
    visits, paid, followed = memory.counts
    last = _taken(memory.state, percept, *visits.shape) * memory.started
    seen = last[..., None] * jax.nn.one_hot(state, visits.shape[0]) * ~percept.first
    return Counts(visits + last, paid + last * percept.previous_reward, followed + seen)


def _epsilon_greedy(key: Key, greedy: jax.Array, actions: int, epsilon: float) -> tuple[jax.Array, jax.Array]:
    """An action, the greedy one or with probability epsilon any, and its logits [A] float32."""
    logits = jnp.log((1 - epsilon) * jax.nn.one_hot(greedy, actions) + epsilon / actions)
    return jax.random.categorical(key, logits), logits


def tabular_mdp_policies(states: int, actions: int, horizon: int, lifetime: AdaptationConfig) -> dict[str, Adapter]:
    """Policies for `tabular_mdp`, by name.

    Scale, epsilon and discount are one number each for trials of any length, chosen for 10 states, 5 actions and a
    horizon of 10 on the split `validation`. Mean returns of 10 and 50 episodes (standard errors 0.8 and 7): UCRL2 with
    a scale of 0.05 151.1, 940.3, of 0.1 150.3, 950.4, of 0.2 147.1, 948.2; plans for the posterior's mean with an
    epsilon of 0 149.2, 899.1, of 0.05 148.0, 897.1; Q-learning with an epsilon of 0 and a discount of 0 156.1, 906.1,
    of 0.3 154.9, 886.1, of 0.6 152.8, 857.7. In a process so well mixed it is best off with what pays at once, and,
    unlike the plans, it learns within an episode.

    Returns:
      `psrl`, `ucrl2`, `epsilon_greedy`, whose plans are for the mean of the posterior, and `epsilon_greedy_q`.
    """
    del lifetime

    def planning(model: Model, epsilon: float = 0.0) -> Adapter:
        return planning_policy(states, actions, horizon, model, epsilon)

    return {
        "psrl": planning(posterior_sample),
        "ucrl2": planning(ucrl2(scale=0.1)),
        "epsilon_greedy": planning(posterior_mean, epsilon=0.0),
        "epsilon_greedy_q": q_learning_policy(states, actions, discount=0.0, epsilon=0.0),
    }
