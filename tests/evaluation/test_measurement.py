"""Measurement: the totals of whole trials, with and without what is played beside them."""

import itertools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.algorithms.registry import make_learner
from jaxmeta.core.config import AdaptationConfig
from jaxmeta.core.tasks import make_tasks
from jaxmeta.core.types import sample_tasks
from jaxmeta.evaluation import evaluate as evaluation
from jaxmeta.evaluation import measurement
from jaxmeta.evaluation.measurement import (
    Measured,
    Meter,
    measure,
    measure_task,
    returns_by_round,
    trial_of_task,
    trials,
)
from tests import tiers, toy
from tests.conftest import TINY
from tests.outer.test_objectives import REWARDS, Pull, copycat

TINY_MEMORY = {"num_adaptations": 2, "memory.width": 4, "tasks_per_batch": 4}


@pytest.mark.parametrize(("algorithm", "settings"), [("rl2", TINY_MEMORY), *tiers.slow(("maml", TINY))])
def test_a_trial_is_what_it_is_without_fresh_episodes(grid, algorithm, settings):
    learner = make_learner(algorithm, grid, settings)
    meta = learner.meta(learner.init(jax.random.key(0)))
    env_params = sample_tasks(jax.random.key(1), grid, "test", 6)
    measured = jax.jit(lambda key: measure(key, learner, meta, grid, env_params).trial)(jax.random.key(2))
    alone = jax.jit(jax.vmap(lambda key, env_params: trial_of_task(key, learner, meta, grid, env_params)))
    keys = jax.random.split(jax.random.key(2), 6)
    np.testing.assert_allclose(alone(keys, env_params), measured, rtol=1e-5)


@pytest.mark.slow
def test_returns_by_round_are_of_tasks_of_their_split_that_come_again_with_their_key():
    grid = make_tasks("grid_navi:goals=split")
    learner = make_learner("maml", grid, TINY)
    meta = learner.init(jax.random.key(0)).meta
    returns = [
        returns_by_round(jax.random.key(1), learner, meta, grid, 6, split) for split in ("test", "test", "train")
    ]
    assert returns[0].shape == (6, TINY["num_adaptations"] + 1)
    np.testing.assert_array_equal(returns[0], returns[1])
    assert np.any(returns[0] != returns[2])


def test_returns_are_those_of_what_was_learned_by_then():
    """Of a learner that pulls arm 0 at first, and after each round the next one."""
    counting = copycat()._replace(adapt=lambda key, meta, fast, rollout: (fast + 1, {}))
    lifetime = AdaptationConfig(num_envs=1, rollout_length=1, num_adaptations=2)
    learner = SimpleNamespace(adapter=counting, lifetime=lifetime, task=toy.pose)
    measured = measure_task(jax.random.key(0), learner, jnp.zeros(3), SimpleNamespace(env=Pull(), horizon=1), REWARDS)
    np.testing.assert_allclose(measured.returns, REWARDS, rtol=1e-6)


def test_an_episode_that_has_terminated_earns_no_more():
    """Where every step pays 1, and poles that are not balanced fall within the horizon."""
    tasks = make_tasks("cartpole:horizon=100,signs=plain")
    learner = make_learner("maml", tasks, TINY)
    returns = returns_by_round(jax.random.key(0), learner, learner.init(jax.random.key(1)).meta, tasks, 4)
    assert np.all((returns > 5) & (returns < 60))


def test_a_trial_earns_what_its_steps_are_worth():
    """Where every step of every environment pays 1."""
    tasks = make_tasks("probe:number=6")
    learner = make_learner("maml", tasks, TINY)
    batch = next(trials(jax.random.key(0), learner, learner.init(jax.random.key(1)).meta, tasks, 3))
    np.testing.assert_allclose(batch, TINY["num_adaptations"] * TINY["rollout_length"] * np.ones(3))


def test_batches_of_trials_are_fresh_and_come_again_with_their_key(grid):
    learner = make_learner("rl2", grid, TINY_MEMORY)
    meta = learner.init(jax.random.key(0)).meta

    def first_two(key):
        return list(itertools.islice(trials(key, learner, meta, grid, 8), 2))

    one, two = first_two(jax.random.key(1))
    assert one.shape == two.shape == (8,)
    assert np.any(one != two)
    np.testing.assert_array_equal(first_two(jax.random.key(1)), [one, two])


@pytest.mark.parametrize("count", [3, 4, 5, 8, 9])
def test_groups_of_tasks_add_up_to_all_of_them(monkeypatch, count):
    monkeypatch.setattr(measurement, "GROUP", 4)
    sizes, shares = [], []

    def run(keys, values):
        sizes.append(len(values))
        return Measured(jnp.stack([values, 2 * values]), values[None])

    values = jnp.arange(float(count))
    batch = (jax.random.split(jax.random.key(0), count), values)
    measured = measurement.in_groups(run, batch, axis=1, on_share=shares.append)
    np.testing.assert_array_equal(measured.returns, [values, 2 * values])
    np.testing.assert_array_equal(measured.trial, [values])
    assert set(sizes) == {min(4, count)}, "one program serves all groups"
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


@pytest.mark.slow
def test_tasks_are_measured_alike_in_groups_and_at_once(grid, monkeypatch):
    learner = make_learner("maml", grid, TINY)
    meta = learner.init(jax.random.key(0)).meta
    env_params = sample_tasks(jax.random.key(1), grid, "test", 6)
    measure_with_ends = evaluation.make_measurement(learner, grid)
    at_once = measure_with_ends(jax.random.key(2), [meta], env_params, lambda share: None)
    monkeypatch.setattr(measurement, "GROUP", 4)
    in_groups = measure_with_ends(jax.random.key(2), [meta], env_params, lambda share: None)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5), at_once, in_groups)


def test_a_meter_leaves_out_what_was_not_begun():
    reported = []
    meter = Meter({"first": 1.0, "skipped": 7.0, "last": 1.0}, lambda part, share: reported.append((part, share)))
    meter.begin("first")
    meter.advance(0.9)
    meter.begin("last")
    meter.advance(1.0)
    assert reported == [("first", 0.0), ("first", 0.1), ("last", 0.5), ("last", 1.0)]
