"""Bandits: what arms pay, and what the best policy expects that does not know them."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.core.errors import UsageError
from jaxmeta.core.types import sample_tasks
from jaxmeta_envs.bandit.family import bandit, gaussian_bandit
from jaxmeta_envs.bandit.planning import bayes_optimal_return

PULLS = 20_000


def paid(tasks, params):
    """Rewards of many pulls of each arm, [arms, PULLS]."""
    _, state = tasks.env.reset(jax.random.key(0), params)

    def pull(key, arm):
        return tasks.env.step(key, state, arm, params)[2]

    keys = jax.random.split(jax.random.key(1), PULLS)
    return jax.jit(jax.vmap(jax.vmap(pull, (0, None)), (None, 0)))(keys, jnp.arange(len(params.means)))


def test_arms_pay_one_or_zero_as_often_as_they_should():
    tasks = bandit(arms=4)
    params = tasks.sample(jax.random.key(5), "train")
    rewards = np.asarray(paid(tasks, params))
    assert set(np.unique(rewards)) == {0.0, 1.0}
    assert np.all(np.abs(rewards.mean(axis=1) - params.means) < 4 * 0.5 / np.sqrt(PULLS))


def test_gaussian_arms_pay_their_mean_and_noise_of_scale_one():
    tasks = gaussian_bandit(arms=4)
    params = tasks.sample(jax.random.key(5), "train")
    rewards = np.asarray(paid(tasks, params))
    assert np.all(np.abs(rewards.mean(axis=1) - params.means) < 4 / np.sqrt(PULLS))
    np.testing.assert_allclose(rewards.std(axis=1), 1.0, atol=0.03)


@pytest.mark.parametrize("family", [bandit, gaussian_bandit])
def test_an_episode_is_one_pull_and_shows_nothing(family):
    tasks = family(arms=3)
    params = tasks.sample(jax.random.key(0), "train")
    observation, state = tasks.env.reset(jax.random.key(1), params)
    after, _, reward, terminated, _, info = tasks.env.step(jax.random.key(2), state, jnp.array(2), params)
    assert bool(terminated)
    assert (reward.shape, reward.dtype) == ((), jnp.float32)
    for shown in (observation, after, info["final_observation"]):
        np.testing.assert_array_equal(shown, np.ones(1))


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_every_split_draws_from_the_whole_prior(split):
    means = np.asarray(sample_tasks(jax.random.key(3), bandit(arms=5), split, 4000).means)
    counts = np.histogram(means, bins=10, range=(0, 1))[0] / means.size
    np.testing.assert_allclose(counts, 0.1, atol=0.01)
    np.testing.assert_allclose(np.corrcoef(means.T), np.eye(5), atol=0.08)


def test_the_oracle_pulls_the_best_arm():
    tasks = bandit(arms=3)
    params = tasks.sample(jax.random.key(0), "test").replace(means=jnp.array([0.2, 0.9, 0.4]))
    assert float(tasks.oracle(params)) == pytest.approx(0.9)


def by_enumeration(arms, pulls):
    """The same optimum over beliefs that keep the order of the arms, by plain recursion."""

    def value(counts, left):
        if left == 0:
            return 0.0
        worth = []
        for arm in range(arms):
            wins, losses = counts[arm]
            chance = (wins + 1) / (wins + losses + 2)
            won, lost = list(counts), list(counts)
            won[arm], lost[arm] = (wins + 1, losses), (wins, losses + 1)
            worth.append(chance * (1 + value(won, left - 1)) + (1 - chance) * value(lost, left - 1))
        return max(worth)

    return value([(0, 0)] * arms, pulls)


@pytest.mark.parametrize(("arms", "pulls"), list(itertools.product((1, 2, 3), (0, 1, 4))))
def test_the_bayes_optimal_return_is_that_of_plain_recursion(arms, pulls):
    assert bayes_optimal_return(arms, pulls) == pytest.approx(by_enumeration(arms, pulls))


@pytest.mark.parametrize(
    ("arms", "pulls", "published"), [(2, 10, 6.0218), (5, 10, 6.6600), (2, 20, 12.4313), (3, 20, 13.4658)]
)
def test_the_bayes_optimal_return_is_the_one_known(arms, pulls, published):
    assert bayes_optimal_return(arms, pulls) == pytest.approx(published, abs=5e-5)


def test_out_of_range():
    with pytest.raises(UsageError, match="bandit:arms must be at least 2, got 1"):
        bandit(arms=1)
    with pytest.raises(UsageError, match="gaussian_bandit:pulls must be at least 1, got 0"):
        gaussian_bandit(pulls=0)
