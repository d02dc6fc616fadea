"""Recommendations to a new user: who the users are, what they click on, and what the best session is worth."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.core.errors import UsageError
from jaxmeta.core.types import sample_tasks
from jaxmeta_envs.recommender.family import recommender
from jaxmeta_envs.recommender.model import best_return, best_session, interest
from tests.reference import recommender as reference

DRAWS = 4000


def fresh_chances(tasks, params):
    """By time, of every item, by the reference."""
    session = int(params.max_steps_in_episode)
    tastes = [reference.preference(params.preference, params.later, params.drift, t, session) for t in range(session)]
    return [reference.fresh_chances(*tasks.env.catalogue, params.strength, taste) for taste in tastes]


def walked(tasks, params, actions):
    """The state that actions lead to from a session's start."""
    _, state = tasks.env.reset(jax.random.key(0), params)
    for action in actions:
        _, state, *_ = tasks.env.step(jax.random.key(0), state, jnp.array(action), params)
    return state


# --- users


@pytest.mark.parametrize("split", ["train", "validation", "test", "shifted"])
def test_preferences_are_uniform_on_the_sphere(split):
    params = sample_tasks(jax.random.key(0), recommender(features=3), split, DRAWS)
    for drawn in (np.asarray(params.preference), np.asarray(params.later)):
        np.testing.assert_allclose(np.linalg.norm(drawn, axis=1), 1.0, rtol=1e-5)
        np.testing.assert_allclose(drawn.mean(axis=0), 0.0, atol=5 * np.sqrt(1 / 3 / DRAWS))
        # On a sphere in three dimensions every coordinate is uniform from -1 to 1.
        np.testing.assert_allclose(np.histogram(drawn, bins=10, range=(-1, 1))[0] / drawn.size, 0.1, atol=0.015)
    across = params.preference.T @ params.later / DRAWS
    np.testing.assert_allclose(across, 0.0, atol=5 / 3 / np.sqrt(DRAWS))


def test_splits_share_no_user():
    tasks = recommender()
    drawn = [sample_tasks(jax.random.key(0), tasks, split, 100).preference for split in tasks.splits]
    assert len(np.unique(np.concatenate(drawn), axis=0)) == 100 * len(tasks.splits)
    assert [tasks.tasks_seen(split) for split in tasks.splits] == [True, False, False, False]


def test_shifted_users_have_stronger_tastes():
    strengths = {
        split: np.asarray(sample_tasks(jax.random.key(0), recommender(), split, 200).strength)
        for split in ("test", "shifted")
    }
    assert (strengths["test"] == 3.0).all()
    assert 4.5 <= strengths["shifted"].min() < 4.6 < 5.9 < strengths["shifted"].max() <= 6.0


def test_the_catalogue_is_always_the_same():
    first, second = (recommender(items=7, window=window).env.catalogue for window in (1, 2))
    np.testing.assert_array_equal(first.features, second.features)
    np.testing.assert_array_equal(first.offsets, second.offsets)
    assert (first.features.shape, first.offsets.shape) == ((7, 4), (7,))
    np.testing.assert_allclose(np.linalg.norm(first.features, axis=1), 1.0, rtol=1e-6)
    assert len(np.unique(first.offsets)) == 7


@pytest.mark.parametrize("drift", [0.0, 0.5])
def test_a_description_is_all_that_matters_of_a_user(drift):
    tasks = recommender(drift=drift)
    params = tasks.sample(jax.random.key(0), "test")
    wanted = np.concatenate([params.preference, params.later]) if drift else params.preference
    np.testing.assert_array_equal(tasks.describe(params), wanted)


# --- clicks


@pytest.mark.parametrize(("window", "drift"), [(1, 0.0), (2, 1.0), (3, 0.6)])
def test_chances_are_those_of_the_reference(window, drift):
    tasks = recommender(items=4, features=3, session=9, window=window, drift=drift)
    params = tasks.sample(jax.random.key(window), "shifted")
    fresh = fresh_chances(tasks, params)
    shown = [2, 2, 0, 2, 1, 3, 1, 1]
    for time in range(len(shown) + 1):
        state = walked(tasks, params, shown[:time])
        left = interest(jax.nn.one_hot(state.shown, 4))
        expected = [fresh[time][item] * reference.factor(shown[:time], item, window) for item in range(4)]
        np.testing.assert_allclose(tasks.env.chances(state.time, params) * left, expected, rtol=1e-4)


def test_clicks_come_as_often_as_they_should():
    tasks = recommender(items=4, features=3, session=6, window=2, drift=0.5)
    params = tasks.sample(jax.random.key(1), "test")
    state = walked(tasks, params, [0, 3, 1])
    keys = jax.random.split(jax.random.key(2), DRAWS)
    step = jax.vmap(lambda key, item: tasks.env.step(key, state, item, params)[2], (0, None))
    rewards = np.asarray(jax.jit(jax.vmap(step, (None, 0)))(keys, jnp.arange(4)))
    fresh = np.array(fresh_chances(tasks, params)[3])
    expected = fresh * [1.0, 0.1, 1.0, 0.55]
    assert set(np.unique(rewards)) == {0.0, 1.0}
    assert np.all(np.abs(rewards.mean(axis=1) - expected) < 4 * np.sqrt(expected * (1 - expected) / DRAWS))
    tired = rewards[[1, 3]].mean(axis=1)
    assert np.all(fresh[[1, 3]] - tired > 5 * np.sqrt(0.25 / DRAWS))


@pytest.mark.parametrize("drift", [0.0, 0.3, 1.0])
def test_interests_drift_as_far_as_they_should(drift):
    tasks = recommender(features=5, session=8, drift=drift)
    params = tasks.sample(jax.random.key(3), "test")
    for time in range(8):
        expected = reference.preference(params.preference, params.later, drift, time, 8)
        np.testing.assert_allclose(tasks.env.preference(jnp.array(time), params), expected, rtol=1e-4, atol=1e-6)


def test_without_drift_there_is_no_second_preference():
    tasks = recommender()
    params = tasks.sample(jax.random.key(0), "test")
    other = params.replace(later=-params.later)
    for time in map(jnp.array, (0, 19)):
        np.testing.assert_array_equal(tasks.env.chances(time, params), tasks.env.chances(time, other))
    assert float(tasks.oracle(params)) == float(tasks.oracle(other))
    drifting = params.replace(drift=jnp.float32(1.0)), other.replace(drift=jnp.float32(1.0))
    late, later = (tasks.env.chances(jnp.array(19), user) for user in drifting)
    assert not np.allclose(late, later, rtol=0.1)


def test_a_session_shows_the_last_items_and_the_time():
    tasks = recommender(items=3, session=4, window=2)
    params = tasks.sample(jax.random.key(0), "train")
    observation, state = tasks.env.reset(jax.random.key(1), params)
    np.testing.assert_array_equal(observation, [0, 0, 0, 0, 0, 0, 0])
    successors, ends = [], []
    for item in (1, 1, 2, 0):
        observation, state, _, terminated, truncated, info = tasks.env.step(jax.random.key(0), state, item, params)
        successors.append(np.asarray(info["final_observation"]).tolist())
        ends.append((bool(terminated), bool(truncated)))
    assert successors == [
        [0, 1, 0, 0, 0, 0, 0.25],
        [0, 1, 0, 0, 1, 0, 0.5],
        [0, 0, 1, 0, 1, 0, 0.75],
        [1, 0, 0, 0, 0, 1, 1],
    ]
    assert ends == [(False, False)] * 3 + [(False, True)]
    np.testing.assert_array_equal(observation, [0, 0, 0, 0, 0, 0, 0])


# --- the best session

SIZES = [(3, 4, 1, 0.0), (3, 5, 2, 0.8), (4, 4, 2, 0.0), (2, 6, 3, 1.0)]


@pytest.mark.parametrize(("items", "session", "window", "drift"), SIZES)
def test_the_oracle_is_the_best_of_all_sessions(items, session, window, drift):
    tasks = recommender(items=items, features=2, session=session, window=window, drift=drift)
    oracle = jax.jit(tasks.oracle)
    for key, split in itertools.product(jax.random.split(jax.random.key(0), 3), ("test", "shifted")):
        params = tasks.sample(key, split)
        assert float(oracle(params)) == pytest.approx(reference.best_return(fresh_chances(tasks, params), window))


@pytest.mark.parametrize("window", [1, 2, 3])
def test_a_plan_is_worth_what_it_promises(window):
    """Chances that are drawn anew for each step and item, which no greedy choice suits."""
    chances = np.random.default_rng(window).uniform(0.2, 1.0, (7, 3)).astype(np.float32)
    best = float(best_return(jnp.asarray(chances), window))
    shown = np.asarray(best_session(jnp.asarray(chances), window)).tolist()
    assert reference.expected_return(chances, shown, window) == pytest.approx(best, rel=1e-5)
    assert reference.best_return(chances.tolist(), window) == pytest.approx(best, rel=1e-5)


def test_clicks_of_the_best_session_are_those_that_the_oracle_expects():
    tasks = recommender(items=6, session=10, window=2, drift=0.7)
    params = tasks.sample(jax.random.key(4), "test")
    chances = jax.vmap(lambda time: tasks.env.chances(time, params))(jnp.arange(10))
    shown = best_session(chances, 2)

    def play(key):
        def step(state, chance):
            item, key = chance
            _, state, reward, *_ = tasks.env.step(key, state, item, params)
            return state, reward

        _, state = tasks.env.reset(key, params)
        return jnp.sum(jax.lax.scan(step, state, (shown, jax.random.split(key, 10)))[1])

    returns = np.asarray(jax.jit(jax.vmap(play))(jax.random.split(jax.random.key(5), DRAWS)))
    assert returns.mean() == pytest.approx(float(tasks.oracle(params)), abs=4 * returns.std() / np.sqrt(DRAWS))


def test_the_oracle_is_single_precision_and_vmaps():
    tasks = recommender(items=5, session=6)
    params = sample_tasks(jax.random.key(0), tasks, "test", 8)
    together = jax.jit(jax.vmap(tasks.oracle))(params)
    assert (together.shape, together.dtype) == ((8,), jnp.float32)
    alone = tasks.oracle(jax.tree.map(lambda leaf: leaf[3], params))
    assert float(together[3]) == pytest.approx(float(alone), rel=1e-5)


# --- options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"items": 1}, r"recommender:items must be at least 2, got 1\."),
        ({"features": 1}, r"recommender:features must be from 2 to 1000, got 1\."),
        ({"session": 0}, r"recommender:session must be at least 1, got 0\."),
        ({"window": 0}, r"recommender:window must be from 1 to 3, got 0\."),
        ({"window": 4, "items": 2}, r"recommender:window must be from 1 to 3, got 4\."),
        ({"drift": -0.1}, r"recommender:drift must be from 0 to 1, got -0\.1\."),
        ({"drift": float("nan")}, r"recommender:drift must be from 0 to 1, got nan\."),
        (
            {"window": 3, "items": 21},
            r"recommender:items must keep items \* \(items \+ 1\)\^3, the choices that the oracle weighs, "
            r"at most 200000, got 21\.",
        ),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(UsageError, match=f"^{message}$"):
        recommender(**options)


@pytest.mark.parametrize(("items", "window"), [(446, 1), (57, 2), (20, 3)])
def test_as_many_items_as_can_be_planned_for_are_not_refused(items, window):
    assert recommender(items=items, window=window).env.num_actions == items
    with pytest.raises(UsageError, match="the choices that the oracle weighs"):
        recommender(items=items + 1, window=window)
