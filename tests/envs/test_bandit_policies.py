"""Policies for bandits: what they know, what they prefer, and that none is better than the best."""

import functools
import itertools
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxmeta.core.config import AdaptationConfig
from jaxmeta.core.errors import UsageError
from jaxmeta.core.types import Percept
from jaxmeta_envs.bandit import planning as bandit_planning
from jaxmeta_envs.bandit.family import bandit, gaussian_bandit
from jaxmeta_envs.bandit.planning import bayes_optimal_return, code, counts, first_index, gittins_indices
from jaxmeta_envs.bandit.policies import (
    NORMAL,
    UNIFORM,
    Pulls,
    bandit_policy,
    bayes_optimal,
    epsilon_greedy,
    gittins,
    ucb1,
)
from tests.trials import trial_returns


def pulls_of(pulled, paid):
    return Pulls(jnp.array(pulled, jnp.float32), jnp.array(paid, jnp.float32), jnp.array(True))


def percept_of(action, reward):
    return Percept(jnp.ones(1), jnp.array(action, jnp.int32), jnp.array(reward, jnp.float32), jnp.array(True))


def test_a_code_stands_for_two_counts():
    pulled, paid = np.array([(n, s) for n in range(60) for s in range(n + 1)]).T
    np.testing.assert_array_equal(code(pulled, paid), np.arange(len(pulled)))
    np.testing.assert_array_equal(counts(code(pulled, paid)), (pulled, paid))


# --- the Gittins index


def exact_index(pulled, paid, left):
    """The index by brute force: the best ratio of rewards to pulls over every rule that says when to stop.

    A rule is, for each outcome sequence, whether to go on; all rules are tried.
    """

    def rules(pulled, paid, left):
        """Of every rule that pulls now: (expected rewards, expected pulls), exact."""
        chance = Fraction(paid + 1, pulled + 2)
        if left == 1:
            return {(chance, Fraction(1))}
        stopped = {(Fraction(0), Fraction(0))}
        lost, won = (stopped | rules(pulled + 1, paid + outcome, left - 1) for outcome in (0, 1))
        return {
            (chance + chance * w[0] + (1 - chance) * f[0], 1 + chance * w[1] + (1 - chance) * f[1])
            for f, w in itertools.product(lost, won)
        }

    return float(max(rewards / pulls for rewards, pulls in rules(pulled, paid, left)))


@pytest.mark.parametrize("pulls", [1, 2, 4])
def test_gittins_indices_are_those_of_the_best_rule_for_stopping(pulls):
    indices = gittins_indices(pulls)
    assert len(indices) == first_index(pulls)
    for time in range(pulls):
        for pulled in range(time + 1):
            for paid in range(pulled + 1):
                index = indices[first_index(time) + code(pulled, paid)]
                assert index == pytest.approx(exact_index(pulled, paid, pulls - time), abs=0.001)


@pytest.mark.slow
def test_a_finer_grid_moves_no_index_by_much(monkeypatch):
    indices = gittins_indices(30)
    monkeypatch.setattr(bandit_planning, "CELLS", 2000)
    apart = indices - gittins_indices(30)
    assert np.abs(apart).max() < 0.005
    assert np.abs(apart).mean() < 0.0005


# --- exact values


def exact_return(preference, arms, pulls):
    """Expected return of a preference that is not random but for ties, over all sequences of pulls and payments."""
    preferred = jax.jit(lambda pulled, paid: preference(jax.random.key(0), pulls_of(pulled, paid)))

    @functools.cache
    def value(belief):
        pulled, paid = np.array(belief).T
        if pulled.sum() == pulls:
            return 0.0
        scores = np.asarray(preferred(pulled, paid))
        best = np.flatnonzero(scores == scores.max())
        return sum(after_pull(belief, arm) for arm in best) / len(best)

    def after_pull(belief, arm):
        pulled, paid = belief[arm]
        chance = (paid + 1) / (pulled + 2)
        lost, won = ((*belief[:arm], (pulled + 1, paid + outcome), *belief[arm + 1 :]) for outcome in (0, 1))
        return chance * (1 + value(won)) + (1 - chance) * value(lost)

    return value(((0, 0),) * arms)


def preferences_of(arms, pulls):
    return {
        "bayes_optimal": bayes_optimal(arms, pulls),
        "gittins": gittins(pulls),
        "ucb1": ucb1(UNIFORM, 0.1),
        "greedy": epsilon_greedy(UNIFORM, 0.0),
    }


@pytest.mark.parametrize(("arms", "pulls"), [(2, 1), (2, 7), (3, 4)])
def test_the_optimal_policy_attains_the_optimum_and_no_other_exceeds_it(arms, pulls):
    best = bayes_optimal_return(arms, pulls)
    returns = {name: exact_return(rule, arms, pulls) for name, rule in preferences_of(arms, pulls).items()}
    assert returns["bayes_optimal"] == pytest.approx(best, abs=1e-9)
    assert returns["gittins"] >= max(returns["ucb1"], returns["greedy"]) - 1e-9
    assert max(returns.values()) <= best + 1e-9


# --- what the others prefer


def test_samples_follow_the_posterior():
    pulls = pulls_of([0, 4, 7], [0, 1, 7])
    keys = jax.random.split(jax.random.key(0), 4000)
    for prior, posteriors in (
        (UNIFORM, [stats.beta(1, 1), stats.beta(2, 4), stats.beta(8, 1)]),
        (NORMAL, [stats.norm(0, 1), stats.norm(1 / 5, 5**-0.5), stats.norm(7 / 8, 8**-0.5)]),
    ):
        samples = np.asarray(jax.vmap(prior.draw, (0, None))(keys, pulls))
        for column, posterior in zip(samples.T, posteriors, strict=True):
            assert stats.kstest(column, posterior.cdf).pvalue > 1e-3
        means = [posterior.mean() for posterior in posteriors]
        np.testing.assert_allclose(prior.posterior_mean(pulls), means, rtol=1e-6)


def test_ucb1_adds_what_the_formula_says():
    preferred = ucb1(UNIFORM, scale=0.3)(jax.random.key(0), pulls_of([0, 4, 7], [0, 1, 7]))
    seen = np.array([2, 6, 9])
    np.testing.assert_allclose(preferred, np.array([1, 2, 8]) / seen + np.sqrt(0.3 * np.log(12) / seen), rtol=1e-6)


def test_epsilon_greedy_explores_as_often_as_it_should():
    policy = bandit_policy(4, UNIFORM, epsilon_greedy(UNIFORM, 0.4))
    memory = pulls_of([1, 2, 0, 0], [0, 2, 0, 0])
    keys = jax.random.split(jax.random.key(0), 4000)

    def share_of_the_best(act):
        actions = jax.vmap(lambda key: act(key, None, None, memory, percept_of(1, 1.0))[0])(keys)
        return float(jnp.mean(actions == 1))

    assert share_of_the_best(policy.act) == pytest.approx(0.6 + 0.4 / 4, abs=4 * np.sqrt(0.21 / 4000))
    assert share_of_the_best(policy.eval_policy) == 1.0


# --- lived


def test_the_action_that_nobody_took_is_not_counted():
    policy = bandit_policy(3, UNIFORM, UNIFORM.draw)
    _, memory = policy.reset(jax.random.key(0), None, None)
    _, memory, _ = policy.act(jax.random.key(1), None, None, memory, percept_of(0, 0.0))
    np.testing.assert_array_equal(memory.pulled, [0, 0, 0])
    for action, reward in ((2, 1.0), (2, 0.0)):
        _, memory, _ = policy.act(jax.random.key(2), None, None, memory, percept_of(action, reward))
    np.testing.assert_array_equal(memory.pulled, [0, 0, 2])
    np.testing.assert_array_equal(memory.paid, [0, 0, 1])


def test_a_guest_knows_the_last_pull_of_the_life_it_copies():
    policy = bandit_policy(2, UNIFORM, ucb1(UNIFORM, 100.0))
    memory = pulls_of([0, 0], [0, 0])
    action, _, extras = policy.eval_policy(jax.random.key(0), None, None, memory, percept_of(1, 1.0))
    assert int(action) == 1
    np.testing.assert_array_equal(extras["logits"], [-np.inf, 0.0])


@pytest.mark.slow
def test_no_policy_is_better_than_the_best():
    lifetime = AdaptationConfig(num_envs=1, num_adaptations=2, rollout_length=5)
    tasks = bandit(arms=5)
    policies = tasks.policies(lifetime)
    assert set(policies) == {"bayes_optimal", "gittins", "ucb1", "thompson", "epsilon_greedy"}
    for name, policy in policies.items():
        returns = trial_returns(tasks, policy, lifetime, 2000)
        error = returns.std() / np.sqrt(len(returns))
        assert returns.mean() < 6.6600 + 3 * error, name
        assert returns.mean() > (5.5 if name == "thompson" else 6.4), name


@pytest.mark.slow
def test_gaussian_policies_earn_more_than_chance():
    lifetime = AdaptationConfig(num_envs=1, num_adaptations=10, rollout_length=1)
    tasks = gaussian_bandit(arms=5)
    for name, policy in tasks.policies(lifetime).items():
        assert trial_returns(tasks, policy, lifetime, 500).mean() > 3.0, name


def test_the_optimum_is_offered_where_it_is_one():
    def names(num_envs, arms, pulls):
        lifetime = AdaptationConfig(num_envs=num_envs, num_adaptations=pulls, rollout_length=1)
        return set(bandit(arms=arms).policies(lifetime))

    assert "bayes_optimal" in names(1, 2, 20)
    assert "bayes_optimal" not in names(2, 2, 20)
    assert "bayes_optimal" not in names(1, 8, 40)
    assert "gittins" not in names(1, 2, 501)


def test_bad_input_is_refused():
    with pytest.raises(UsageError, match=r"ucb1:scale must be at least 0, got -1\.0\."):
        ucb1(UNIFORM, -1.0)
    with pytest.raises(UsageError, match=r"epsilon_greedy:epsilon must be from 0 to 1, got 1\.5\."):
        epsilon_greedy(NORMAL, 1.5)
    with pytest.raises(UsageError, match=r"bayes_optimal must plan for fewer arms or pulls, got \(5, 100\)\."):
        bayes_optimal(5, 100)
