"""The Bayes-optimal return of GridNavi, and the policy that earns it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.algorithms.registry import make_learner
from jaxmeta.core.config import AdaptationConfig
from jaxmeta.evaluation.measurement import measure
from jaxmeta_envs.grid import EnvParams
from jaxmeta_envs.grid_navi.bayes import MOST_VALUES, bayes_optimal_return, best_plan, computable
from jaxmeta_envs.grid_navi.environment import goal_cells
from jaxmeta_envs.grid_navi.family import grid_navi
from tests import tiers
from tests.reference import grid_navi as reference


@pytest.mark.parametrize(
    ("size", "horizon", "episodes"), [(3, 1, 2), (3, 4, 1), (3, 4, 2), (3, 3, 4), (3, 9, 2), (4, 5, 1), (4, 4, 2)]
)
def test_equals_the_best_of_all_policies(size, horizon, episodes):
    expected = reference.bayes_optimal_return(size, horizon, episodes)
    assert bayes_optimal_return(size, horizon, episodes) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("horizon", "episodes"), [(5, 1), (3, 2), (2, 3)])
def test_equals_the_best_of_all_sequences_of_moves(horizon, episodes):
    expected = reference.best_search(3, horizon, episodes)
    assert bayes_optimal_return(3, horizon, episodes) == pytest.approx(expected, abs=1e-9)


@pytest.mark.slow
def test_the_paper_s_grid():
    """A first episode earns 4 at most, for a step finds one goal at most; a later one, what is earned by knowing."""
    one, four = bayes_optimal_return(5, 15, 1), bayes_optimal_return(5, 15, 4)
    assert one == pytest.approx(-1.5 + 1.1 * sum(range(1, 15)) / 21)
    assert four == pytest.approx(one + 3 * np.mean([reference.direct_return(5, 15, goal) for goal in goals(5)]))
    assert 37.2 <= four <= 44.286


def goals(size):
    return [tuple(goal) for goal in goal_cells(size).tolist()]


@functools.cache
def round_(size, horizon, episodes, num_adaptations):
    """`bayes_oracle`, measured on every goal."""
    tasks = grid_navi(size=size, horizon=horizon)
    rollout_length = horizon * episodes // num_adaptations
    learner = make_learner("rl2", tasks, {"num_adaptations": num_adaptations, "rollout_length": rollout_length})
    policy = tasks.policies(learner.lifetime)["bayes_oracle"]
    cells = jnp.asarray(goal_cells(size))
    params = EnvParams(max_steps_in_episode=jnp.full(len(cells), horizon, jnp.int32), goal=cells)
    run = jax.jit(lambda key: measure(key, learner._replace(adapter=policy), None, tasks, params))
    with jax.numpy_rank_promotion("raise"):
        return jax.tree.map(np.asarray, run(jax.random.key(0)))


@pytest.mark.parametrize(
    ("size", "horizon", "episodes", "num_adaptations"),
    [(3, 4, 2, 2), (3, 3, 4, 2), *tiers.slow((4, 6, 3, 3), (5, 15, 4, 4))],
)
def test_the_policy_earns_it(size, horizon, episodes, num_adaptations):
    """A trial earns what was computed, and a first fresh episode what a trial of one would."""
    measured = round_(size, horizon, episodes, num_adaptations)
    assert measured.trial.mean() == pytest.approx(bayes_optimal_return(size, horizon, episodes), abs=1e-4)
    assert measured.returns[:, 0].mean() == pytest.approx(bayes_optimal_return(size, horizon, 1), abs=1e-4)
    best = [reference.direct_return(size, horizon, goal) for goal in goals(size)]
    assert np.all(measured.returns <= np.array(best)[:, None] + 1e-4)
    assert np.all(np.diff(measured.returns.mean(axis=0)) >= -1e-4)


def test_what_was_found_is_walked_to_and_what_was_not_is_looked_for():
    """Four of the five goals are within three steps, and two episodes, which are the first round, find them all."""
    measured = round_(3, 3, 4, 2)
    best = [reference.direct_return(3, 3, goal) for goal in goals(3)]
    np.testing.assert_allclose(measured.returns[:, 1:], np.stack([best, best], axis=1), atol=1e-4)


def test_the_last_search_looks_where_none_has_looked():
    """After one episode too short for all goals, one more finds others."""
    plan = best_plan(4, 5, 1)
    assert plan.trial.shape == (1, 5)
    assert plan.single.shape == (2, 5)

    def visited(actions):
        cell, cells = (0, 0), set()
        for action in actions:
            cell = reference.move(4, cell, action)
            cells.add(cell)
        return cells & reference.goals(4)

    first, then = (visited(actions) for actions in plan.single.tolist())
    assert first == visited(plan.trial[0].tolist())
    assert len(then - first) >= 3


def test_more_episodes_earn_more_and_never_more_than_knowing():
    """One episode more earns at least what it would if all before were forgotten, and in the end what knowing earns."""
    values = np.array([bayes_optimal_return(4, 8, episodes) for episodes in range(1, 6)])
    best = np.mean([reference.direct_return(4, 8, goal) for goal in goals(4)])
    gains = np.diff(values, prepend=0.0)
    assert np.all(gains >= values[0] - 1e-9)
    assert np.all(gains <= best + 1e-9)
    assert gains[-1] == pytest.approx(best)


@pytest.mark.parametrize(
    ("options", "lifetime"),
    [
        ({}, {"num_envs": 2, "rollout_length": 15, "num_adaptations": 4}),
        ({}, {"num_envs": 1, "rollout_length": 10, "num_adaptations": 3}),
        ({}, {"num_envs": 1, "rollout_length": 15, "num_adaptations": 100}),
        ({"goals": "split"}, {"num_envs": 1, "rollout_length": 15, "num_adaptations": 4}),
        ({"size": 6}, {"num_envs": 1, "rollout_length": 15, "num_adaptations": 4}),
    ],
)
def test_it_is_offered_only_where_it_is_known(options, lifetime):
    assert grid_navi(**options).policies(AdaptationConfig(**lifetime)) == {}


def test_what_is_computable():
    assert computable(5, 15, 5)
    assert not computable(5, 15, 6)
    assert computable(4, 100, 40)
    assert 25 * 2**21 * 81 <= MOST_VALUES < 25 * 2**21 * 82
