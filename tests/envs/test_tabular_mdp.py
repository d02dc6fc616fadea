"""Random Markov decision processes: what is drawn, how they move, and what the best policy expects that knows them."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import digamma

from jaxmeta.core.errors import UsageError
from jaxmeta.core.types import sample_tasks
from jaxmeta_envs.tabular_mdp.family import best_return, tabular_mdp

DRAWS = 20_000


def test_transitions_and_rewards_are_those_of_the_tables():
    tasks = tabular_mdp(states=4, actions=2)
    params = tasks.sample(jax.random.key(0), "train")
    _, state = tasks.env.reset(jax.random.key(1), params)
    state = state.replace(node=jnp.array(2, jnp.int32))

    def step(key):
        observation, _, reward, *_ = tasks.env.step(key, state, jnp.array(1), params)
        return observation, reward

    observations, rewards = jax.jit(jax.vmap(step))(jax.random.split(jax.random.key(2), DRAWS))
    np.testing.assert_allclose(observations.mean(axis=0), params.transitions[2, 1], atol=4 * 0.5 / np.sqrt(DRAWS))
    np.testing.assert_allclose(rewards.mean(), params.rewards[2, 1], atol=4 / np.sqrt(DRAWS))
    np.testing.assert_allclose(rewards.std(), 1.0, atol=0.03)


def test_tasks_follow_the_prior():
    tasks = tabular_mdp()
    params = jax.jit(lambda key: sample_tasks(key, tasks, "test", 400))(jax.random.key(0))
    np.testing.assert_allclose(params.transitions.sum(axis=-1), 1.0, rtol=1e-5)
    # An entry of a flat Dirichlet over n states has the mean 1/n and the variance (n - 1) / (n^2 (n + 1)).
    np.testing.assert_allclose(params.transitions.var(), 9 / (100 * 11), rtol=0.03)
    np.testing.assert_allclose((params.rewards.mean(), params.rewards.std()), (1.0, 1.0), atol=0.02)


@pytest.mark.slow
def test_a_varied_family_varies_noise_and_concentration():
    tasks = tabular_mdp(varied=True)
    params = jax.jit(lambda key: sample_tasks(key, tasks, "test", 2000))(jax.random.key(0))
    low, high = np.log((0.1, 3.0))
    drawn = np.log(params.noise)
    assert low <= drawn.min() < drawn.max() <= high
    np.testing.assert_allclose((drawn.mean(), drawn.std()), ((low + high) / 2, (high - low) / np.sqrt(12)), atol=0.07)
    described = np.asarray(jax.vmap(tasks.describe)(params))
    np.testing.assert_allclose(described[:, 0], drawn, rtol=1e-5)
    # The expected entropy of a Dirichlet of n times c is digamma(n c + 1) - digamma(c + 1).
    ends = [(digamma(10 * c + 1) - digamma(c + 1)) / np.log(10) for c in (0.03, 3.0)]
    np.testing.assert_allclose((described[:, 1].min(), described[:, 1].max()), ends, atol=0.1)
    np.testing.assert_allclose(described[:, 2], np.asarray(params.rewards).std(axis=(1, 2)), rtol=1e-4)
    np.testing.assert_allclose(params.transitions.sum(axis=-1), 1.0, rtol=1e-4)


def test_rewards_are_as_noisy_as_the_task_says():
    tasks = tabular_mdp(states=3, actions=2, varied=True)
    params = tasks.sample(jax.random.key(0), "train").replace(noise=jnp.float32(0.25))
    _, state = tasks.env.reset(jax.random.key(1), params)
    step = jax.jit(jax.vmap(lambda key: tasks.env.step(key, state, jnp.array(1), params)[2]))
    rewards = step(jax.random.split(jax.random.key(2), DRAWS))
    np.testing.assert_allclose((rewards.mean(), rewards.std()), (params.rewards[0, 1], 0.25), atol=0.01)


def by_enumeration(params, horizon):
    """Best return over all policies that depend on time and state, each evaluated exactly."""
    transitions, rewards = np.asarray(params.transitions, float), np.asarray(params.rewards, float)
    states, actions = rewards.shape
    best = -np.inf
    for policy in itertools.product(range(actions), repeat=states * horizon):
        chances, total = np.eye(states)[0], 0.0
        for now in np.reshape(policy, (horizon, states)):
            total += chances @ rewards[np.arange(states), now]
            chances = chances @ transitions[np.arange(states), now]
        best = max(best, total)
    return best


@pytest.mark.parametrize("seed", range(3))
def test_the_oracle_is_the_best_of_all_policies(seed):
    params = tabular_mdp(states=2, actions=2, horizon=3).sample(jax.random.key(seed), "test")
    assert float(best_return(params)) == pytest.approx(by_enumeration(params, 3), rel=1e-5)


@pytest.mark.slow
def test_the_known_mean_of_the_oracle():
    """21.83 +- 0.02 an episode."""
    tasks = tabular_mdp()
    params = jax.jit(lambda key: sample_tasks(key, tasks, "test", 4000))(jax.random.key(1))
    returns = np.asarray(jax.jit(jax.vmap(tasks.oracle))(params))
    assert abs(returns.mean() - 21.83) < 4 * np.hypot(0.02, returns.std() / np.sqrt(len(returns)))


def test_an_episode_is_truncated_and_starts_again_in_the_first_state():
    tasks = tabular_mdp(states=3, actions=2, horizon=2)
    params = tasks.sample(jax.random.key(0), "train")
    observation, state = tasks.env.reset(jax.random.key(1), params)
    np.testing.assert_array_equal(observation, [1, 0, 0])
    ends = []
    for index in range(2):
        observation, state, _, terminated, truncated, _ = tasks.env.step(jax.random.key(index), state, 0, params)
        ends.append((bool(terminated), bool(truncated)))
    assert ends == [(False, False), (False, True)]
    np.testing.assert_array_equal(observation, [1, 0, 0])


def test_out_of_range():
    with pytest.raises(UsageError, match="tabular_mdp:states must be at least 2, got 1"):
        tabular_mdp(states=1)
    with pytest.raises(UsageError, match="tabular_mdp:episodes must be at least 1, got 0"):
        tabular_mdp(episodes=0)
