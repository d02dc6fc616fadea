"""Meta-gradients against closed forms and against finite differences in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from jaxmeta.algorithms import composition, recipes
from jaxmeta.core.rollout import Runner
from jaxmeta.core.types import Task
from jaxmeta.inner import in_head
from jaxmeta.inner.forward_over_reverse import value_and_gradient
from jaxmeta.inner.optimizers import learned_step_sizes
from jaxmeta.outer import meta_gradient, objectives, reptile
from jaxmeta.rl import distributions
from tests import tiers, toy
from tests.conftest import TINY

CENTRE = jnp.array([1.0, -2.0])
RATE, INNER_STEPS = 0.3, 3
METHODS = {
    "maml": {},
    "anil": {"adapts": in_head},
    "meta_sgd": {"rule": learned_step_sizes(TINY["learning_rate"])},
}


def quadratic_update(rule, **options):
    """Start and updated start after one meta-step with plain SGD of step size 1: their difference is the direction."""
    adapter, objective = toy.quadratic_objective(INNER_STEPS, RATE, **options)
    init, update = rule(adapter, objective, toy.pose, optax.sgd(1.0))
    state = init(jax.random.key(0))
    after, _ = jax.jit(update)(jax.random.key(1), state, CENTRE[None])
    return state.meta.params, after.meta.params


@pytest.mark.parametrize(
    ("rule", "options", "factor"),
    [
        (meta_gradient, {}, (1 - RATE) ** (2 * INNER_STEPS)),
        (meta_gradient, {"first_order": True}, (1 - RATE) ** INNER_STEPS),
        (reptile, {}, 1 - (1 - RATE) ** INNER_STEPS),
    ],
    ids=["maml", "fomaml", "reptile"],
)
def test_quadratic_tasks_have_the_closed_form(rule, options, factor):
    before, after = quadratic_update(rule, **options)
    np.testing.assert_allclose(before - after, factor * (before - CENTRE), rtol=1e-5, atol=1e-6)


def test_meta_sgd_step_size_gradient_has_the_closed_form():
    adapter, objective = toy.quadratic_objective(1, RATE, rule=learned_step_sizes(RATE))
    meta = adapter.init(jax.random.key(0))
    gradient = jax.jit(jax.grad(lambda meta: objective(jax.random.key(1), meta, Task(CENTRE, None), None)[0]))(meta)
    offset = meta.params - CENTRE
    np.testing.assert_allclose(gradient.rule, -RATE * (1 - RATE) * offset**2, rtol=1e-5)


def to_float64(tree):
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float64), tree)


def grid_objective(grid, method="maml", **settings):
    """A method's objective on a small GridNavi as a function of a flat float64 vector, at fixed sampled data."""
    parts = composition.make_parts(grid, recipes.resolve_settings("maml", grid, **TINY | settings))
    adapter = composition.learner_by_gradient(parts, **METHODS[method])
    objective = composition.scored(parts, adapter)
    task = Task(grid.sample(jax.random.key(3), "train"), None)
    meta = adapter.init(jax.random.key(4))
    flat, unravel = ravel_pytree(to_float64(meta))

    def function(vector):
        return objective(jax.random.key(5), unravel(vector), task, None)[0]

    learned = meta.replace(
        hypers=jax.tree.map(jnp.zeros_like, meta.hypers), params=jax.tree.map(jnp.ones_like, meta.params)
    )
    learned = ravel_pytree(learned)[0] != 0
    # Away from the start, where a table's values are all equal and the best action has a kink.
    at = flat + 0.3 * jax.random.normal(jax.random.key(7), flat.shape, jnp.float64) * learned
    return jax.jit(jax.value_and_grad(function)), at, learned


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("maml", {}),
        ("maml", {"outer_loss": "td"}),
        ("maml", {"agent": "actor_critic", "estimator": "naive", "baseline": "value"}),
        ("meta_sgd", {}),
        *tiers.slow(
            ("maml", {"outer_loss": "monte_carlo"}),
            ("maml", {"max_inner_norm": 0.1, "n_step": 0}),
            ("maml", {"target_step_size": 1.0}),
            ("maml", {"lives_per_task": 2}),
            ("maml", {"agent": "tabular_q"}),
            ("maml", {"agent": "actor_critic", "estimator": "naive", "baseline": "linear"}),
            ("anil", {}),
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value.values())) or "default",
)
def test_meta_gradient_matches_finite_differences(grid, method, settings):
    rounds = TINY["rounds"] if tiers.is_full() or not settings else 1
    usual = {"target_step_size": 0.3, "n_step": 1, "rounds": rounds, "replay_rounds": rounds}
    function, at, learned = grid_objective(grid, method, **usual | settings)
    exact = function(at)[1]
    assert float(jnp.linalg.norm(exact)) > 0
    assert not np.any(exact[~learned]), "hyper-parameters are not learned"
    for seed in range(3):
        direction = jax.random.normal(jax.random.key(seed), at.shape, jnp.float64) * learned
        direction /= jnp.linalg.norm(direction)
        step = 1e-5
        difference = (function(at + step * direction)[0] - function(at - step * direction)[0]) / (2 * step)
        assert float(abs(difference - exact @ direction)) < 1e-5 * float(jnp.linalg.norm(exact))


@pytest.mark.usefixtures("float64")
def test_targets_of_the_newest_parameters_are_those_that_follow_at_once(grid):
    parts = composition.make_parts(
        grid, recipes.resolve_settings("maml", grid, **TINY | {"n_step": 1, "inner_steps": 2})
    )
    task = Task(grid.sample(jax.random.key(3), "train"), None)
    found = []
    for slow_targets in (False, True):
        adapter = composition.learner_by_gradient(parts, slow_targets=slow_targets)
        objective = composition.scored(parts, adapter)
        meta = to_float64(adapter.init(jax.random.key(4)))
        value_and_life = jax.jit(
            jax.value_and_grad(lambda meta, run=objective: run(jax.random.key(5), meta, task, None)[:2], has_aux=True)
        )
        (_, life), gradient = value_and_life(meta)
        found.append((gradient.params, life.fast.params, life.fast.slow))
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12), *found)


@pytest.mark.usefixtures("float64")
def test_hypers_are_not_learned(grid):
    parts = composition.make_parts(grid, recipes.resolve_settings("maml", grid, **TINY))
    adapter = composition.learner_by_gradient(parts)
    objective = composition.scored(parts, adapter)
    meta = adapter.init(jax.random.key(0))
    task = Task(grid.sample(jax.random.key(3), "train"), None)
    gradient = jax.jit(jax.grad(lambda meta: objective(jax.random.key(1), meta, task, None)[0]))(meta)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient.hypers))


def test_fomaml_is_the_gradient_at_the_adapted_parameters(grid):
    settings = recipes.resolve_settings("fomaml", grid, **TINY | {"rounds": 1})
    parts = composition.make_parts(grid, settings)
    adapter = composition.learner_by_gradient(parts, first_order=True)
    objective = composition.scored(parts, adapter)
    task = Task(grid.sample(jax.random.key(3), "train"), None)
    meta, key = adapter.init(jax.random.key(4)), jax.random.key(5)
    first_order = jax.jit(jax.grad(lambda meta: objective(key, meta, task, None)[0]))(meta).params

    lifetime, outer = parts.settings.lifetime, parts.settings.outer
    begin_key, live_key = jax.random.split(jax.random.split(key, 1)[0])
    life = Runner(grid.env, adapter).begin(begin_key, meta, task, lifetime.envs)
    life, (query_key,) = Runner(grid.env, adapter).live(live_key, meta, task, life, lifetime, lambda key, *_: (key,))
    query = Runner(grid.env, adapter).play(query_key[0], meta, task, life, outer.query_envs, grid.horizon)
    actions = distributions.of_actions(parts.spec)
    outer_loss = objectives.OUTER_LOSSES[outer.outer_loss](adapter, parts.agent, actions, outer)

    def at_adapted(params):
        return outer_loss(meta, life.replace(fast=life.fast.replace(params=params)), query)[0]

    expected = jax.jit(jax.grad(at_adapted))(life.fast.params)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6), first_order, expected)


@pytest.mark.slow
def test_maml_and_fomaml_differ_on_the_grid(grid):
    directions = {}
    for name in ("maml", "fomaml"):
        learner = recipes.make_recipe(name, grid, **TINY)
        state = learner.init(jax.random.key(0))
        directions[name] = jax.jit(learner.update)(jax.random.key(1), state, one_task_batch(grid))[0].meta.params
    gaps = jax.tree.map(lambda a, b: float(jnp.max(jnp.abs(a - b))), directions["maml"], directions["fomaml"])
    assert max(jax.tree.leaves(gaps)) > 1e-5


def one_task_batch(grid):
    return jax.vmap(lambda key: grid.sample(key, "train"))(jax.random.split(jax.random.key(6), TINY["tasks_per_batch"]))


@pytest.mark.slow
def test_inner_step_size_zero_is_plain_training(grid):
    """Without a step the adapted parameters are the start, and MAML, FOMAML and plain policy gradients agree."""
    gradients = {}
    for options in ({}, {"first_order": True}):
        parts = composition.make_parts(grid, recipes.resolve_settings("maml", grid, **TINY | {"learning_rate": 0.0}))
        adapter = composition.learner_by_gradient(parts, **options)
        objective = composition.scored(parts, adapter)
        meta = adapter.init(jax.random.key(4))
        task = Task(grid.sample(jax.random.key(3), "train"), None)

        def loss(meta, objective=objective, task=task):
            value, life, _ = objective(jax.random.key(5), meta, task, None)
            return value, life

        gradient, life = jax.jit(jax.grad(loss, has_aux=True))(meta)
        gradients[bool(options)] = gradient.params
        jax.tree.map(np.testing.assert_array_equal, life.fast.params, meta.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), gradients[False], gradients[True])


def test_zero_inner_gradient_gives_a_finite_meta_gradient(grid):
    """A value network of zeros without rewards to explain has nowhere to go; its meta-gradient must still be finite."""
    parts = composition.make_parts(grid, recipes.resolve_settings("meta_sgd", grid, **TINY | {"discount": 0.0}))
    adapter = composition.learner_by_gradient(parts, rule=learned_step_sizes(TINY["learning_rate"]))
    objective = composition.scored(parts, adapter)
    meta = adapter.init(jax.random.key(4))
    meta = meta.replace(params=jax.tree.map(jnp.zeros_like, meta.params))
    task = Task(grid.sample(jax.random.key(3), "train"), None)
    gradient = jax.jit(jax.grad(lambda meta: objective(jax.random.key(5), meta, task, None)[0]))(meta)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))


def test_anil_changes_the_head_alone(grid):
    parts = composition.make_parts(grid, recipes.resolve_settings("anil", grid, **TINY))
    adapter = composition.learner_by_gradient(parts, adapts=in_head)
    objective = composition.scored(parts, adapter)
    meta = adapter.init(jax.random.key(4))
    task = Task(grid.sample(jax.random.key(3), "train"), None)
    after = jax.jit(objective)(jax.random.key(5), meta, task, None)[1].fast.params
    for path, before in jax.tree_util.tree_leaves_with_path(meta.params):
        changed = np.any(before != dict(jax.tree_util.tree_leaves_with_path(after))[path])
        assert changed == in_head(path), path


@pytest.fixture(scope="module")
def meta_step_of(grid):
    """The parameters and gradient norm that one meta-step in float64 gives under some settings."""

    @functools.cache
    def meta_step(**settings):
        learner = recipes.make_recipe("maml", grid, **TINY | settings)
        state = learner.init(jax.random.key(0))
        state = state.replace(meta=to_float64(state.meta), optimizer=to_float64_floats(state.optimizer))
        after, metrics = jax.jit(learner.update)(jax.random.key(1), state, one_task_batch(grid))
        return ravel_pytree(after.meta.params)[0], metrics["meta_gradient_norm"]

    return meta_step


@pytest.mark.usefixtures("float64")
@pytest.mark.slow
@pytest.mark.parametrize("setting", [{"remat": True}, {"tasks_per_group": 1}, {"tasks_per_group": 2}])
def test_remat_and_group_size_leave_the_meta_gradient_alone(meta_step_of, setting):
    (params, norm), (other_params, other_norm) = meta_step_of(), meta_step_of(**setting)
    np.testing.assert_allclose(params, other_params, rtol=0, atol=1e-9)
    np.testing.assert_allclose(norm, other_norm, rtol=1e-9)


def to_float64_floats(tree):
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float64) if leaf.dtype == jnp.float32 else leaf, tree)


@pytest.mark.usefixtures("float64")
def test_the_gradients_forward_derivative_is_the_reverse_one_in_every_argument():
    def loss(params, slow, batch, hypers):
        return jnp.mean(jnp.tanh(batch @ params["w"] + slow["w"]) ** 3) * hypers * jnp.sum(params["w"] ** 4), {}

    arguments = [{"w": jnp.array([0.3, -0.7])}, {"w": jnp.array(0.2)}, jnp.arange(6.0).reshape(3, 2), jnp.array(1.7)]

    def slope(derive, params, slow, hypers):
        gradient = derive(params, slow, arguments[2], hypers)[1]
        return jnp.sum(jnp.sin(gradient["w"]) * jnp.array([0.4, 1.1]))

    def third(derive, params, slow, hypers):
        return jnp.sum(jax.grad(slope, 1)(derive, params, slow, hypers)["w"] ** 2)

    learned = (arguments[0], arguments[1], arguments[3])
    reverse, forward = jax.value_and_grad(loss, has_aux=True), value_and_gradient(loss)
    for function in (slope, third):
        derivative = jax.jit(jax.grad(function, (1, 2, 3)), static_argnums=0)
        wanted, found = (derivative(which, *learned) for which in (reverse, forward))
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-12), found, wanted)
