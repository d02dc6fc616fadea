"""Measurement: the totals of whole trials, with and without what is played beside them."""

import itertools

import jax
import numpy as np
import pytest

from jaxmeta import recipes
from jaxmeta.base import sample_tasks
from jaxmeta.measurement import measure, returns_by_round, trial_of_task, trials
from jaxmeta.tasks import make
from tests import tiers
from tests.conftest import TINY

TINY_MEMORY = {"rounds": 2, "memory_width": 4, "tasks_per_batch": 4}


@pytest.mark.parametrize(("recipe", "settings"), [("rl2", TINY_MEMORY), *tiers.slow(("maml", TINY))])
def test_a_trial_is_what_it_is_without_fresh_episodes(grid, recipe, settings):
    learner = recipes.make_recipe(recipe, grid, **settings)
    meta = learner.meta(learner.init(jax.random.key(0)))
    env_params = sample_tasks(jax.random.key(1), grid, "test", 6)
    measured = jax.jit(lambda key: measure(key, learner, meta, grid, env_params).trial)(jax.random.key(2))
    alone = jax.jit(jax.vmap(lambda key, env_params: trial_of_task(key, learner, meta, grid, env_params)))
    keys = jax.random.split(jax.random.key(2), 6)
    np.testing.assert_allclose(alone(keys, env_params), measured, rtol=1e-5)


def test_returns_by_round_are_of_tasks_of_their_split_that_come_again_with_their_key():
    grid = make("grid_navi:goals=split")
    learner = recipes.make_recipe("maml", grid, **TINY)
    meta = learner.init(jax.random.key(0)).meta
    returns = [
        returns_by_round(jax.random.key(1), learner, meta, grid, 6, split) for split in ("test", "test", "train")
    ]
    assert returns[0].shape == (6, TINY["rounds"] + 1)
    np.testing.assert_array_equal(returns[0], returns[1])
    assert np.any(returns[0] != returns[2])


def test_a_trial_earns_what_its_steps_are_worth():
    """Where every step of every environment pays 1."""
    tasks = make("probe:number=6")
    learner = recipes.make_recipe("maml", tasks, **TINY)
    batch = next(trials(jax.random.key(0), learner, learner.init(jax.random.key(1)).meta, tasks, 3))
    np.testing.assert_allclose(batch, TINY["rounds"] * TINY["steps"] * np.ones(3))


def test_batches_of_trials_are_fresh_and_come_again_with_their_key(grid):
    learner = recipes.make_recipe("rl2", grid, **TINY_MEMORY)
    meta = learner.init(jax.random.key(0)).meta

    def first_two(key):
        return list(itertools.islice(trials(key, learner, meta, grid, 8), 2))

    one, two = first_two(jax.random.key(1))
    assert one.shape == two.shape == (8,)
    assert np.any(one != two)
    np.testing.assert_array_equal(first_two(jax.random.key(1)), [one, two])
