"""Policies for recommendations: what popularity shows, what LinUCB has learned, and what both earn."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.core.config import AdaptationConfig
from jaxmeta.core.errors import UsageError
from jaxmeta.core.rollout import Runner
from jaxmeta.core.types import Percept, Task, sample_tasks
from jaxmeta.inner import random_policy
from jaxmeta_envs.recommender.family import recommender
from jaxmeta_envs.recommender.policies import Fit, linucb_policy, popularity_policy
from tests.reference import recommender as reference

ITEMS, SESSION, WINDOW = 5, 6, 2


def family(drift=0.0):
    return recommender(items=ITEMS, features=3, session=SESSION, window=WINDOW, drift=drift)


def round_(tasks, policy, steps):
    """Memory of one environment after some steps, and its rollout with leaves [steps, ...]."""
    task = Task(tasks.sample(jax.random.key(0), "test"), None)
    learner_state = Runner(tasks.env, policy).reset(jax.random.key(1), None, task, 1)
    learner_state, taken = Runner(tasks.env, policy).rollout(jax.random.key(2), None, task, learner_state, steps)
    return jax.tree.map(lambda leaf: np.asarray(leaf)[0], learner_state.memory), jax.tree.map(
        lambda leaf: leaf[:, 0], taken
    )


def regressors(catalogue, drift, history, time):
    """Of every item after a history, [items, D], and what an average user would do, [items]; in NumPy."""
    left = np.array([reference.factor(history, item, WINDOW) for item in range(ITEMS)])
    features = catalogue.features.astype(float)
    if drift:
        share = drift * time / SESSION
        features = np.concatenate([(1 - share) * features, share * features], axis=1)
    return left[:, None] * features, left * catalogue.average_chances(3.0)


# --- the average user


@pytest.mark.parametrize("features", [2, 3, 6])
@pytest.mark.parametrize("drift", [0.0, 0.9])
def test_the_average_user_is_the_average_over_users(features, drift):
    tasks, users = recommender(items=4, features=features, session=5, drift=drift), 4000
    params = sample_tasks(jax.random.key(0), tasks, "test", users)
    average = tasks.env.catalogue.average_chances(3.0)
    for time in (0, 4):
        chances = np.asarray(jax.vmap(tasks.env.chances, (None, 0))(jnp.array(time), params))
        assert np.all(np.abs(chances.mean(axis=0) - average) < 5 * chances.std(axis=0) / np.sqrt(users))


def test_popularity_shows_the_best_session_for_the_average_user():
    tasks = recommender(items=3, session=5, window=2)
    _, taken = round_(tasks, popularity_policy(tasks.env.catalogue, 5, 2), 15)
    chances = [tasks.env.catalogue.average_chances(3.0).tolist()] * 5
    for shown in np.asarray(taken.action).reshape(3, 5).tolist():
        assert reference.expected_return(chances, shown, 2) == pytest.approx(reference.best_return(chances, 2))


# --- LinUCB


@pytest.mark.parametrize("drift", [0.0, 0.6])
def test_linucb_has_learned_what_ridge_regression_learns(drift):
    tasks, ridge, steps = family(drift), 2.0, 3 * SESSION + 2
    catalogue = tasks.env.catalogue
    memory, taken = round_(tasks, linucb_policy(catalogue, WINDOW, drift, alpha=1.0, ridge=ridge), steps)
    actions, rows, targets = np.asarray(taken.action).tolist(), [], []
    for step, item in enumerate(actions):
        time = step % SESSION
        described, usual = regressors(catalogue, drift, actions[step - time : step], time)
        rows.append(described[item])
        targets.append(float(taken.reward[step]) - usual[item])
    seen, beyond = np.array(rows[:-1]), np.array(targets[:-1])  # the last step's reward has not been perceived yet
    precision = ridge * np.eye(seen.shape[1]) + seen.T @ seen
    np.testing.assert_allclose(memory.covariance, np.linalg.inv(precision), rtol=1e-4, atol=1e-5)
    coefficients = np.linalg.solve(precision, seen.T @ beyond)
    np.testing.assert_allclose(memory.covariance @ memory.moment, coefficients, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(memory.shown, rows[-1], rtol=1e-5)


@pytest.mark.parametrize("drift", [0.0, 0.6])
def test_linucb_shows_the_item_with_the_largest_bound(drift):
    catalogue, alpha, rng = family(drift).env.catalogue, 2.0, np.random.default_rng(0)
    policy = linucb_policy(catalogue, WINDOW, drift, alpha, ridge=1.0)
    size = 6 if drift else 3
    chosen = []
    for _ in range(12):
        root, moment, shown = rng.normal(size=(size, size)), rng.normal(size=size), rng.integers(ITEMS, size=3)
        covariance = root @ root.T / size
        nothing = jnp.zeros(size)
        memory = Fit(jnp.asarray(covariance, jnp.float32), jnp.asarray(moment, jnp.float32), nothing, jnp.float32(0))
        observation = np.concatenate([np.eye(ITEMS)[shown[::-1][:WINDOW]].ravel(), [3 / SESSION]])
        percept = Percept(jnp.asarray(observation, jnp.float32), jnp.int32(0), jnp.float32(0), jnp.array(False))
        described, usual = regressors(catalogue, drift, shown.tolist(), 3)
        mean = usual + described @ covariance @ moment
        width = np.sqrt(np.diag(described @ covariance @ described.T))
        wanted = int(np.argmax(mean + alpha * width)), int(np.argmax(mean))
        items = tuple(
            int(act(jax.random.key(0), None, None, memory, percept)[0]) for act in (policy.act, policy.eval_policy)
        )
        assert items == wanted
        chosen.append(items)
    assert any(explored != exploited for explored, exploited in chosen)
    assert len(set(itertools.chain(*chosen))) > 2


# --- lived


def returns_by_session(tasks, policy, params, sessions, openly=False):
    """Clicks in each session of a life, [tasks, sessions]."""
    lifetime = AdaptationConfig(num_envs=1, num_adaptations=sessions, rollout_length=tasks.horizon)

    def live(key, params):
        reset_key, adapt_key = jax.random.split(key)
        task = Task(params, params if openly else None)
        learner_state = Runner(tasks.env, policy).reset(reset_key, None, task, 1)
        return Runner(tasks.env, policy).adapt_for(adapt_key, None, task, learner_state, lifetime, clicks)[1]

    def clicks(key, round_):
        return jnp.sum(round_.rollout.reward)

    keys = jax.random.split(jax.random.key(1), len(params.strength))
    return np.asarray(jax.jit(jax.vmap(live))(keys, params))


@pytest.mark.slow
def test_learning_beats_popularity_which_beats_chance():
    tasks, sessions = recommender(), 4
    params = sample_tasks(jax.random.key(0), tasks, "test", 150)
    policies = tasks.policies(AdaptationConfig())
    assert set(policies) == {"popularity", "linucb"}
    best = np.asarray(jax.jit(jax.vmap(tasks.oracle))(params))
    random = returns_by_session(tasks, random_policy(tasks), params, sessions, openly=True).mean(axis=1)
    popularity = returns_by_session(tasks, policies["popularity"], params, sessions).mean(axis=1)
    linucb = returns_by_session(tasks, policies["linucb"], params, sessions)

    def surely_above(more, less):
        apart = more - less
        return apart.mean() > 5 * apart.std() / np.sqrt(len(apart))

    assert surely_above(popularity, random)
    assert surely_above(linucb[:, -1], popularity)
    assert surely_above(linucb[:, -1], linucb[:, 0])
    assert surely_above(best, linucb[:, 0])
    assert linucb[:, -1].mean() < best.mean()


def test_bad_input_is_refused():
    catalogue = family().env.catalogue
    with pytest.raises(UsageError, match=r"linucb_policy:alpha must be at least 0, got -1\.0\."):
        linucb_policy(catalogue, WINDOW, 0.0, alpha=-1.0, ridge=1.0)
    with pytest.raises(UsageError, match=r"linucb_policy:ridge must be above 0, got 0\.0\."):
        linucb_policy(catalogue, WINDOW, 0.0, alpha=1.0, ridge=0.0)
