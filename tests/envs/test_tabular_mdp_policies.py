"""Policies for random Markov decision processes: what they count, what they plan for, and what they earn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linprog

from jaxmeta.core.config import AdaptationConfig
from jaxmeta.core.errors import UsageError
from jaxmeta.core.rollout import Runner
from jaxmeta.core.types import Percept, Task, sample_tasks
from jaxmeta_envs.tabular_mdp.family import best_return, tabular_mdp
from jaxmeta_envs.tabular_mdp.policies import (
    Counts,
    most_valuable,
    plan,
    planning_policy,
    posterior_mean,
    posterior_sample,
    q_learning_policy,
    ucrl2,
)
from tests.trials import trial_returns

STATES, ACTIONS, HORIZON = 3, 2, 4


def round_(policy, steps):
    """A life of one environment after some steps, and its rollout with leaves [steps, ...]."""
    tasks = tabular_mdp(states=STATES, actions=ACTIONS, horizon=HORIZON)
    task = Task(tasks.sample(jax.random.key(0), "test"), None)
    learner_state = Runner(tasks.env, policy).reset(jax.random.key(1), None, task, 1)
    learner_state, taken = Runner(tasks.env, policy).rollout(jax.random.key(2), None, task, learner_state, steps)
    return jax.tree.map(lambda leaf: np.asarray(leaf)[0], learner_state.memory), jax.tree.map(
        lambda leaf: leaf[:, 0], taken
    )


def some_counts():
    """Counts that differ from place to place."""
    followed = np.arange(STATES * ACTIONS * STATES).reshape(STATES, ACTIONS, STATES) % 7
    visits = followed.sum(axis=-1) + np.array([[1, 0], [0, 2], [0, 0]])  # an episode's end shows no successor
    paid = np.linspace(-2.0, 3.0, STATES * ACTIONS).reshape(STATES, ACTIONS) * visits
    return Counts(*(jnp.asarray(leaf, jnp.float32) for leaf in (visits, paid, followed)))


def tables(backup):
    """Rewards [S, A] and transitions [S, A, S] of one process, told by its backup."""
    rewards = backup(jnp.zeros(STATES))
    return rewards, jnp.stack([backup(basis) - rewards for basis in jnp.eye(STATES)], axis=-1)


# --- what is counted


def test_counts_are_those_of_the_steps_taken():
    memory, taken = round_(planning_policy(STATES, ACTIONS, HORIZON, posterior_sample), 3 * HORIZON + 2)
    visits, paid = np.zeros((STATES, ACTIONS)), np.zeros((STATES, ACTIONS))
    followed = np.zeros((STATES, ACTIONS, STATES))
    states, actions = np.argmax(taken.percept.observation, axis=-1), np.asarray(taken.action)
    for step in range(len(states) - 1):  # the last step's outcome has not been perceived yet
        place = states[step], actions[step]
        visits[place] += 1
        paid[place] += taken.reward[step]
        if (step + 1) % HORIZON:  # an episode's end shows no successor
            followed[(*place, states[step + 1])] += 1
    np.testing.assert_array_equal(memory.counts.visits, visits)
    np.testing.assert_allclose(memory.counts.paid, paid, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(memory.counts.followed, followed)


def test_a_plan_is_followed_for_an_episode():
    policy = planning_policy(STATES, ACTIONS, HORIZON, posterior_sample)
    tasks = tabular_mdp(states=STATES, actions=ACTIONS, horizon=HORIZON)
    task = Task(tasks.sample(jax.random.key(0), "test"), None)
    learner_state = Runner(tasks.env, policy).reset(jax.random.key(1), None, task, 1)
    lifetime = AdaptationConfig(num_envs=1, num_adaptations=3 * HORIZON, rollout_length=1)

    def observe(key, round_):
        taken = round_.rollout
        return round_.after.memory.plan[0], jnp.argmax(taken.percept.observation[0, 0]), taken.action[0, 0]

    _, seen = Runner(tasks.env, policy).adapt_for(jax.random.key(2), None, task, learner_state, lifetime, observe)
    plans, states, actions = (np.asarray(leaf).reshape(3, HORIZON, *leaf.shape[1:]) for leaf in seen)
    assert (plans == plans[:, :1]).all()
    assert (plans[1:, 0] != plans[:-1, 0]).any()
    np.testing.assert_array_equal(actions, np.take_along_axis(plans[:, 0], states[..., None], axis=-1)[..., 0])


# --- what is planned for


def test_the_mean_of_the_posterior():
    counts = some_counts()
    rewards, transitions = tables(posterior_mean(jax.random.key(0), counts))
    visits, paid, followed = (np.asarray(leaf, np.float64) for leaf in counts)
    np.testing.assert_allclose(rewards, (1 + paid) / (1 + visits), rtol=1e-5)
    expected = (1 + followed) / (STATES + followed.sum(axis=-1, keepdims=True))
    np.testing.assert_allclose(transitions, expected, rtol=1e-4, atol=1e-6)


def test_samples_follow_the_posterior():
    counts, number = some_counts(), 4000
    keys = jax.random.split(jax.random.key(0), number)
    rewards, transitions = jax.vmap(lambda key: tables(posterior_sample(key, counts)))(keys)
    visits, paid, followed = (np.asarray(leaf, np.float64) for leaf in counts)
    variance = 1 / (1 + visits)
    error = 5 * np.sqrt(variance / number)
    assert (np.abs(rewards.mean(axis=0) - (1 + paid) / (1 + visits)) < error).all()
    np.testing.assert_allclose(rewards.var(axis=0), variance, rtol=5 * np.sqrt(2 / number))
    total = STATES + followed.sum(axis=-1, keepdims=True)
    mean = (1 + followed) / total
    variance = mean * (1 - mean) / (1 + total)
    assert (np.abs(transitions.mean(axis=0) - mean) < 5 * np.sqrt(variance / number)).all()
    np.testing.assert_allclose(transitions.var(axis=0), variance, rtol=0.15)


def test_the_most_valuable_transitions_are_those_of_a_linear_programme():
    rng = np.random.default_rng(0)
    for radius in (0.0, 0.1, 0.7, 1.5, 2.0, 9.0):
        transitions, values = rng.dirichlet(np.ones(5)), rng.normal(size=5)
        # Variables are the distribution and, entry by entry, how far it is from the given one.
        away = np.block([[np.eye(5), -np.eye(5)], [-np.eye(5), -np.eye(5)]])
        solved = linprog(
            np.concatenate([-values, np.zeros(5)]),
            A_ub=np.vstack([away, np.concatenate([np.zeros(5), np.ones(5)])]),
            b_ub=np.concatenate([transitions, -transitions, [radius]]),
            A_eq=np.concatenate([np.ones(5), np.zeros(5)])[None],
            b_eq=[1.0],
        )
        ours = most_valuable(jnp.asarray(transitions, jnp.float32), jnp.float32(radius), jnp.asarray(values))
        assert float(ours) == pytest.approx(-solved.fun, abs=1e-5)


def test_ucrl2_is_as_optimistic_as_the_formula_says():
    counts, values = some_counts(), jnp.array([0.5, -1.0, 2.0])
    visits, paid, followed = (np.asarray(leaf, np.float64) for leaf in counts)
    log = np.log(2 * STATES * ACTIONS * visits.sum() / 0.05)
    total = STATES + followed.sum(axis=-1)
    best = most_valuable(
        jnp.asarray((1 + followed) / total[..., None], jnp.float32),
        jnp.asarray(0.1 * np.sqrt(14 * STATES * log / total), jnp.float32),
        values,
    )
    expected = (1 + paid) / (1 + visits) + 0.1 * np.sqrt(3.5 * log / (1 + visits)) + best
    np.testing.assert_allclose(ucrl2(0.1)(jax.random.key(0), counts)(values), expected, rtol=1e-5)
    mean = posterior_mean(jax.random.key(0), counts)(values)
    np.testing.assert_allclose(ucrl2(0.0)(jax.random.key(0), counts)(values), mean, rtol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_the_plan_for_a_known_process_earns_what_the_oracle_does(seed):
    params = tabular_mdp(states=STATES, actions=ACTIONS, horizon=HORIZON).sample(jax.random.key(seed), "test")
    actions = np.asarray(plan(lambda values: params.rewards + params.transitions @ values, STATES, HORIZON))
    occupied, earned = np.eye(STATES)[0], 0.0
    for chosen in actions:
        places = np.arange(STATES), chosen
        earned += occupied @ np.asarray(params.rewards)[places]
        occupied = occupied @ np.asarray(params.transitions)[places]
    assert earned == pytest.approx(float(best_return(params)), rel=1e-5)


# --- Q-learning


def test_q_learning_is_that_of_plain_numpy():
    memory, taken = round_(q_learning_policy(STATES, ACTIONS, discount=0.5, epsilon=0.5), 3 * HORIZON)
    values, visits = np.full((STATES, ACTIONS), 2.0), np.zeros((STATES, ACTIONS))
    states, actions = np.argmax(taken.percept.observation, axis=-1), np.asarray(taken.action)
    for step in range(len(states) - 1):
        if (step + 1) % HORIZON:
            place = states[step], actions[step]
            target = taken.reward[step] + 0.5 * values[states[step + 1]].max()
            values[place] += (target - values[place]) / (visits[place] + 2)
            visits[place] += 1
    np.testing.assert_allclose(memory.values, values, rtol=1e-5)
    np.testing.assert_array_equal(memory.visits, visits)


@pytest.mark.parametrize("epsilon", [0.0, 0.4])
def test_logits_are_those_of_the_epsilon_greedy_policy(epsilon):
    policy = q_learning_policy(STATES, ACTIONS, discount=0.0, epsilon=epsilon)
    _, memory = policy.reset(jax.random.key(0), None, None)
    memory = memory._replace(values=memory.values.at[1, 1].set(5.0))
    percept = Percept(jnp.eye(STATES)[1], jnp.array(0, jnp.int32), jnp.array(0.0), jnp.array(True))
    for act, explored in ((policy.act, epsilon), (policy.eval_policy, 0.0)):
        *_, extras = act(jax.random.key(0), None, None, memory, percept)
        np.testing.assert_allclose(jnp.exp(extras["logits"]), [explored / 2, 1 - explored / 2], rtol=1e-6)


# --- lived


@pytest.mark.slow
def test_policies_earn_more_than_chance_and_less_than_the_oracle():
    tasks = tabular_mdp(states=4, actions=3, horizon=5)
    lifetime = AdaptationConfig(num_envs=1, num_adaptations=10, rollout_length=5)
    best = 10 * np.asarray(jax.vmap(tasks.oracle)(sample_tasks(jax.random.key(5), tasks, "test", 1000))).mean()
    policies = tasks.policies(lifetime)
    assert set(policies) == {"psrl", "ucrl2", "epsilon_greedy", "epsilon_greedy_q"}
    for name, policy in policies.items():
        returns = trial_returns(tasks, policy, lifetime, 60)
        error = returns.std() / np.sqrt(len(returns))
        assert 50 + 3 * error < returns.mean() < best, name  # a random action pays 1 on average


def test_bad_input_is_refused():
    with pytest.raises(UsageError, match=r"ucrl2:scale must be at least 0, got -1\.0\."):
        ucrl2(-1.0)
    with pytest.raises(UsageError, match=r"planning_policy:epsilon must be from 0 to 1, got 2\.0\."):
        planning_policy(STATES, ACTIONS, HORIZON, posterior_mean, epsilon=2.0)
    with pytest.raises(UsageError, match=r"q_learning_policy:discount must be at least 0 and below 1, got 1\.0\."):
        q_learning_policy(STATES, ACTIONS, discount=1.0, epsilon=0.1)
