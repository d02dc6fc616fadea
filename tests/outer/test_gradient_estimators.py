"""Estimators of an outer gradient against a problem whose gradient is known exactly.

A lifetime is `state <- DECAY * state + meta`, its loss in every step half the squared distance to the task's centre.
The loss is quadratic in `meta`, so that smoothing leaves its gradient as it is, and late losses owe most of their
gradient to early steps, which truncation hides.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmeta.core.types import Objective, Task
from jaxmeta.outer import truncated_unrolls
from jaxmeta.outer.batching import BatchConfig
from jaxmeta.outer.gradient_estimators import (
    SIGNS,
    backpropagation,
    evolution_strategies,
    persistent_evolution_strategies,
)
from tests import toy

DECAY, STEPS, SEGMENT = 0.9, 12, 3
SEGMENTS = STEPS // SEGMENT
CENTRE = jnp.array([1.0, -2.0])
META = {"learned": jnp.array([0.3, 0.1]), "fixed": jnp.array([0.5])}


def begin(key, meta, task):
    del key, task
    return meta["learned"] * 0.0


def live(meta, task, learner_state, steps):
    """The loss of so many steps, and the state after them."""
    total = 0.0
    for _ in range(steps):
        learner_state = DECAY * learner_state + meta["learned"]
        total += 0.5 * jnp.sum((learner_state - task.env_params) ** 2) * meta["fixed"][0]
    return total, learner_state


def objective(steps):
    def score(meta, task, learner_state, collected):
        del collected
        value, learner_state = live(meta, task, learner_state, steps)
        return value, learner_state, {"return": -value}

    return Objective(lambda key, meta, task, learner_state: None, score)


def is_learned(path):
    return path[0].key == "learned"


def perturbing(build, steps, population=16):
    return build(begin, objective(steps), population, 0.5, is_learned)


ES = functools.partial(perturbing, evolution_strategies)
PES = functools.partial(perturbing, persistent_evolution_strategies)


def truncated(steps):
    return backpropagation(begin, objective(steps))


def exact():
    """The gradient of a whole lifetime's loss."""
    return jax.grad(lambda meta: live(meta, Task(CENTRE, None), jnp.zeros(2), STEPS)[0])(META)["learned"]


def of_a_lifetime(estimator, num_unrolls):
    """`estimate(key)`: the sum of what is estimated from the segments of one lifetime, at fixed meta-parameters."""

    def estimate(key):
        previous = None if num_unrolls == 1 else estimator.reset(key, META, Task(CENTRE, None))
        total = jnp.zeros(2)
        for index in range(num_unrolls):
            gradient, previous, _ = estimator.gradient(
                jax.random.fold_in(key, index), META, Task(CENTRE, None), previous, jnp.array(index == 0)
            )
            total += gradient["learned"]
        return total

    return estimate


def mean_and_error(estimate, samples=4000):
    drawn = np.asarray(jax.jit(jax.vmap(estimate))(jax.random.split(jax.random.key(0), samples)), np.float64)
    return drawn.mean(axis=0), drawn.std(axis=0, ddof=1) / np.sqrt(samples)


def truncation_bias():
    """What truncated back-propagation, which here has no variance, misses of the gradient."""
    estimated = of_a_lifetime(truncated(SEGMENT), SEGMENTS)(jax.random.key(0))
    return np.asarray(estimated - exact())


def test_backpropagation_of_a_whole_lifetime_is_exact():
    np.testing.assert_allclose(of_a_lifetime(truncated(STEPS), 1)(jax.random.key(0)), exact(), rtol=1e-5)


def test_truncated_backpropagation_sees_half_of_the_gradient_or_less():
    assert np.all(np.abs(truncation_bias()) > 0.5 * np.abs(exact()))


@pytest.mark.parametrize(
    ("estimator", "num_unrolls"),
    [(ES(STEPS), 1), (PES(STEPS), 1), (PES(SEGMENT), SEGMENTS)],
    ids=["es", "pes1", "pes"],
)
def test_evolution_strategies_are_right_on_average(estimator, num_unrolls):
    mean, error = mean_and_error(of_a_lifetime(estimator, num_unrolls))
    assert np.linalg.norm(error) < 0.03 * np.linalg.norm(exact())
    assert np.all(np.abs(mean - exact()) < 3 * error)


def test_evolution_strategies_share_the_bias_of_truncation_where_persistent_ones_have_none():
    mean, error = mean_and_error(of_a_lifetime(ES(SEGMENT), SEGMENTS))
    assert np.all(np.abs(mean - exact() - truncation_bias()) < 3 * error)
    assert np.all(np.abs(mean - exact()) > 10 * error)


@pytest.mark.parametrize("build", [evolution_strategies, persistent_evolution_strategies])
def test_a_pair_meets_the_same_random_numbers(build):
    """With a loss that is chance alone, both of a pair lose the same and there is no gradient."""

    def score(meta, task, learner_state, key):
        return jax.random.normal(key), learner_state, {}

    estimator = build(begin, Objective(lambda key, *_: key, score), 8, 0.5, is_learned)
    gradient, _, metrics = estimator.gradient(jax.random.key(1), META, Task(CENTRE, None), None, jnp.array(True))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient))
    assert metrics["loss"] != 0


@pytest.mark.parametrize("estimator", [ES(SEGMENT), PES(SEGMENT)], ids=["es", "pes"])
def test_what_is_not_learned_has_no_gradient(estimator):
    previous = estimator.reset(jax.random.key(0), META, Task(CENTRE, None))
    gradient, _, _ = estimator.gradient(jax.random.key(0), META, Task(CENTRE, None), previous, jnp.array(False))
    assert not np.any(gradient["fixed"])
    assert np.all(gradient["learned"])


@pytest.mark.parametrize("build", [truncated, ES, PES])
def test_a_new_lifetime_owes_nothing_to_the_one_before(build):
    estimator, task = build(SEGMENT), Task(CENTRE, None)
    previous = estimator.reset(jax.random.key(0), META, task)
    others = jax.tree.map(lambda leaf: leaf + 1.0, previous)
    for first in (True, False):
        one, other = (
            estimator.gradient(jax.random.key(1), META, task, before, jnp.array(first))[:2]
            for before in (previous, others)
        )
        assert jax.tree.all(jax.tree.map(np.array_equal, one, other)) == first


def adding_up():
    """An optimizer that changes nothing and adds up the gradients."""

    def update(gradient, total, params):
        return jax.tree.map(jnp.zeros_like, params), jax.tree.map(jnp.add, total, gradient)

    return optax.GradientTransformation(lambda params: jax.tree.map(jnp.zeros_like, params), update)


def run_of(estimator, num_unrolls, num_tasks, tasks_per_group=0):
    """States after 0, 1, 2, ... meta-steps, the n-th of which is given tasks with centres n * CENTRE."""
    adapter = toy.quadratic_objective(1, 0.1)[0]._replace(init=lambda key: META)
    init, update = truncated_unrolls(
        adapter,
        estimator,
        lambda key: Task(jnp.zeros(2), None),
        adding_up(),
        num_unrolls,
        BatchConfig(tasks_per_batch=num_tasks, tasks_per_group=tasks_per_group),
    )
    states = [init(jax.random.key(0))]
    for step in range(1, 3 * num_unrolls + 1):
        tasks = Task(step * jnp.broadcast_to(CENTRE, (num_tasks, 2)), None)
        states.append(jax.jit(update)(jax.random.key(step), states[-1], tasks)[0])
    return states


def test_lifetimes_are_staggered_and_keep_their_tasks():
    states = run_of(truncated(SEGMENT), SEGMENTS, SEGMENTS)
    for step, state in enumerate(states):
        np.testing.assert_array_equal(state.aux_state.age, (np.arange(SEGMENTS) + step) % SEGMENTS)
    for before, after, step in zip(states, states[1:], range(1, len(states)), strict=False):
        begun = np.asarray(before.aux_state.age) == 0
        assert begun.sum() == 1
        centres = np.asarray(after.aux_state.task.env_params)
        np.testing.assert_array_equal(centres[begun], step * np.asarray(CENTRE)[None])
        np.testing.assert_array_equal(centres[~begun], np.asarray(before.aux_state.task.env_params)[~begun])


def test_a_lifetime_goes_on_where_it_was_left():
    """After its first segment a life stands where so many steps in its task lead."""
    states = run_of(truncated(SEGMENT), SEGMENTS, SEGMENTS)
    expected = live(META, Task(CENTRE, None), jnp.zeros(2), SEGMENT)[1]
    np.testing.assert_allclose(states[1].aux_state.learner_states[0], expected)
    np.testing.assert_allclose(
        states[3].aux_state.learner_states[0], live(META, Task(CENTRE, None), jnp.zeros(2), 3 * SEGMENT)[1]
    )


@pytest.mark.parametrize("build", [truncated, ES, PES])
def test_groups_of_tasks_change_nothing(build):
    one, other = (run_of(build(SEGMENT), SEGMENTS, 4, group)[-1] for group in (0, 2))
    jax.tree.map(lambda *leaves: np.testing.assert_allclose(*leaves, rtol=1e-5), one, other)


def test_whole_lifetimes_leave_nothing_to_carry():
    states = run_of(PES(STEPS), 1, 3)
    assert all(state.aux_state is None for state in states)


def test_signs_are_antithetic():
    np.testing.assert_array_equal(SIGNS, [1.0, -1.0])
