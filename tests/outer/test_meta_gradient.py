"""Meta-gradients against closed forms and against finite differences in float64."""

import functools
from types import MappingProxyType

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from jaxmeta.algorithms.maml import inner_loop
from jaxmeta.algorithms.registry import configure, make_learner
from jaxmeta.core.rollout import Runner
from jaxmeta.core.spec import spec_of
from jaxmeta.core.types import Task
from jaxmeta.inner import in_head
from jaxmeta.inner.forward_over_reverse import value_and_gradient
from jaxmeta.inner.optimizers import learned_step_sizes
from jaxmeta.outer import meta_gradient, objectives, reptile
from jaxmeta.rl import distributions, make_agent
from tests import tiers, toy
from tests.conftest import TINY, tiny

CENTRE = jnp.array([1.0, -2.0])
RATE, INNER_STEPS = 0.3, 3


def quadratic_update(rule, **options):
    """Start and updated start after one meta-step with plain SGD of step size 1: their difference is the direction."""
    adapter, objective = toy.quadratic_objective(INNER_STEPS, RATE, **options)
    init, update = rule(adapter, objective, optax.sgd(1.0))
    state = init(jax.random.key(0))
    after, _ = jax.jit(update)(jax.random.key(1), state, Task(CENTRE[None], None))
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


def scored(grid, config, adapter):
    """The objective of a configuration: what an adapter's lifetimes on the grid arrive at."""
    agent = make_agent(spec_of(grid), config.agent)
    actions = distributions.of_actions(agent.spec)
    outer_loss = objectives.OUTER_LOSSES[config.objective.loss](adapter, agent, actions, config.objective)
    runner = Runner(grid.env, adapter)
    return objectives.post_adaptation(runner, actions, config.adaptation, outer_loss, config.objective, grid.horizon)


def tiny_learner(name, grid, settings=MappingProxyType({})):
    """The adapter of an algorithm under tiny settings, and its objective."""
    learner = make_learner(name, grid, tiny(name, settings))
    return learner.adapter, scored(grid, learner.config, learner.adapter)


def grid_objective(grid, name="maml", settings=MappingProxyType({})):
    """An algorithm's objective on a small GridNavi as a function of a flat float64 vector, at fixed sampled data."""
    adapter, objective = tiny_learner(name, grid, settings)
    task = Task(grid.sample(jax.random.key(3), "train"), None)
    meta = adapter.init(jax.random.key(4))
    flat, unravel = ravel_pytree(meta)

    def function(vector):
        return objective(jax.random.key(5), unravel(vector), task, None)[0]

    learned = meta.replace(
        hyperparams=jax.tree.map(jnp.zeros_like, meta.hyperparams), params=jax.tree.map(jnp.ones_like, meta.params)
    )
    learned = ravel_pytree(learned)[0] != 0
    # Away from the start, where a table's values are all equal and the best action has a kink.
    at = flat + 0.3 * jax.random.normal(jax.random.key(7), flat.shape, jnp.float64) * learned
    return jax.jit(jax.value_and_grad(function)), at, learned


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("maml", {}),
        ("maml", {"objective.loss": "td"}),
        ("maml", {"agent": "actor_critic", "surrogate": "naive", "baseline": "value"}),
        ("meta_sgd", {}),
        *tiers.slow(
            ("maml", {"objective.loss": "monte_carlo"}),
            ("maml", {"inner.max_gradient_norm": 0.1, "n_step": 0}),
            ("maml", {"target_step_size": 1.0}),
            ("maml", {"lifetimes_per_task": 2}),
            ("maml", {"agent": "tabular_q"}),
            ("maml", {"agent": "actor_critic", "surrogate": "naive", "baseline": "linear"}),
            ("anil", {}),
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value.values())) or "default",
)
def test_meta_gradient_matches_finite_differences(grid, name, settings):
    adaptations = TINY["num_adaptations"] if tiers.is_full() or not settings else 1
    usual = {"target_step_size": 0.3, "n_step": 1, "num_adaptations": adaptations}
    usual["agent.replay_capacity"] = adaptations
    function, at, learned = grid_objective(grid, name, tiny(name, settings, small=TINY | usual))
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
    config = configure("maml", grid, TINY | {"n_step": 1, "inner.num_steps": 2})
    agent = make_agent(spec_of(grid), config.agent)
    task = Task(grid.sample(jax.random.key(3), "train"), None)
    found = []
    for target_network in (False, True):
        adapter = inner_loop(grid, agent, config, target_network=target_network)
        objective = scored(grid, config, adapter)
        meta = adapter.init(jax.random.key(4))
        value_and_life = jax.jit(
            jax.value_and_grad(lambda meta, run=objective: run(jax.random.key(5), meta, task, None)[:2], has_aux=True)
        )
        (_, learner_state), gradient = value_and_life(meta)
        found.append((gradient.params, learner_state.fast.params, learner_state.fast.target_params))
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12), *found)


@pytest.mark.usefixtures("float64")
def test_hyperparams_are_not_learned(grid):
    adapter, objective = tiny_learner("maml", grid)
    meta = adapter.init(jax.random.key(0))
    task = Task(grid.sample(jax.random.key(3), "train"), None)
    gradient = jax.jit(jax.grad(lambda meta: objective(jax.random.key(1), meta, task, None)[0]))(meta)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient.hyperparams))


def test_fomaml_is_the_gradient_at_the_adapted_parameters(grid):
    learner = make_learner("fomaml", grid, TINY | {"num_adaptations": 1})
    config, adapter = learner.config, learner.adapter
    objective = scored(grid, config, adapter)
    task = Task(grid.sample(jax.random.key(3), "train"), None)
    meta, key = adapter.init(jax.random.key(4)), jax.random.key(5)
    first_order = jax.jit(jax.grad(lambda meta: objective(key, meta, task, None)[0]))(meta).params

    lifetime = config.adaptation
    reset_key, adapt_key = jax.random.split(jax.random.split(key, 1)[0])
    learner_state = Runner(grid.env, adapter).reset(reset_key, meta, task, lifetime.num_envs)
    learner_state, (query_key,) = Runner(grid.env, adapter).adapt_for(
        adapt_key, meta, task, learner_state, lifetime, lambda key, *_: (key,)
    )
    query_envs = config.objective.num_query_envs
    query = Runner(grid.env, adapter).evaluate_policy(query_key[0], meta, task, learner_state, query_envs, grid.horizon)
    outer_loss = objectives.policy_gradient(adapter, distributions.of_actions(spec_of(grid)), config.objective)

    def at_adapted(params):
        return outer_loss(meta, learner_state.replace(fast=learner_state.fast.replace(params=params)), query)[0]

    expected = jax.jit(jax.grad(at_adapted))(learner_state.fast.params)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6), first_order, expected)


@pytest.mark.slow
def test_maml_and_fomaml_differ_on_the_grid(grid):
    directions = {}
    for name in ("maml", "fomaml"):
        learner = make_learner(name, grid, TINY)
        state = learner.init(jax.random.key(0))
        directions[name] = jax.jit(learner.update)(jax.random.key(1), state, Task(one_task_batch(grid), None))[
            0
        ].meta.params
    gaps = jax.tree.map(lambda a, b: float(jnp.max(jnp.abs(a - b))), directions["maml"], directions["fomaml"])
    assert max(jax.tree.leaves(gaps)) > 1e-5


def one_task_batch(grid):
    return jax.vmap(lambda key: grid.sample(key, "train"))(jax.random.split(jax.random.key(6), TINY["tasks_per_batch"]))


@pytest.mark.slow
def test_inner_step_size_zero_is_plain_training(grid):
    """Without a step the adapted parameters are the start, and MAML, FOMAML and plain policy gradients agree."""
    gradients = {}
    for name in ("maml", "fomaml"):
        adapter, objective = tiny_learner(name, grid, {"inner.learning_rate": 0.0})
        meta = adapter.init(jax.random.key(4))
        task = Task(grid.sample(jax.random.key(3), "train"), None)

        def loss(meta, objective=objective, task=task):
            value, learner_state, _ = objective(jax.random.key(5), meta, task, None)
            return value, learner_state

        gradient, learner_state = jax.jit(jax.grad(loss, has_aux=True))(meta)
        gradients[name] = gradient.params
        jax.tree.map(np.testing.assert_array_equal, learner_state.fast.params, meta.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), gradients["maml"], gradients["fomaml"])


def test_zero_inner_gradient_gives_a_finite_meta_gradient(grid):
    """A value network of zeros without rewards to explain has nowhere to go; its meta-gradient must still be finite."""
    adapter, objective = tiny_learner("meta_sgd", grid, {"discount": 0.0})
    meta = adapter.init(jax.random.key(4))
    meta = meta.replace(params=jax.tree.map(jnp.zeros_like, meta.params))
    task = Task(grid.sample(jax.random.key(3), "train"), None)
    gradient = jax.jit(jax.grad(lambda meta: objective(jax.random.key(5), meta, task, None)[0]))(meta)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))


def test_anil_changes_the_head_alone(grid):
    adapter, objective = tiny_learner("anil", grid)
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
        learner = make_learner("maml", grid, TINY | settings)
        state = learner.init(jax.random.key(0))
        after, info = jax.jit(learner.update)(jax.random.key(1), state, Task(one_task_batch(grid), None))
        return ravel_pytree(after.meta.params)[0], info.metrics["meta_gradient_norm"]

    return meta_step


@pytest.mark.usefixtures("float64")
@pytest.mark.slow
@pytest.mark.parametrize("setting", [{"remat": "steps"}, {"tasks_per_group": 1}, {"tasks_per_group": 2}])
def test_remat_and_group_size_leave_the_meta_gradient_alone(meta_step_of, setting):
    (params, norm), (other_params, other_norm) = meta_step_of(), meta_step_of(**setting)
    np.testing.assert_allclose(params, other_params, rtol=0, atol=1e-9)
    np.testing.assert_allclose(norm, other_norm, rtol=1e-9)


@pytest.mark.usefixtures("float64")
def test_the_gradients_forward_derivative_is_the_reverse_one_in_every_argument():
    def loss(params, target_params, batch, hyperparams):
        return jnp.mean(jnp.tanh(batch @ params["w"] + target_params["w"]) ** 3) * hyperparams * jnp.sum(
            params["w"] ** 4
        ), {}

    arguments = [{"w": jnp.array([0.3, -0.7])}, {"w": jnp.array(0.2)}, jnp.arange(6.0).reshape(3, 2), jnp.array(1.7)]

    def slope(derive, params, target_params, hyperparams):
        gradient = derive(params, target_params, arguments[2], hyperparams)[1]
        return jnp.sum(jnp.sin(gradient["w"]) * jnp.array([0.4, 1.1]))

    def third(derive, params, target_params, hyperparams):
        return jnp.sum(jax.grad(slope, 1)(derive, params, target_params, hyperparams)["w"] ** 2)

    learned = (arguments[0], arguments[1], arguments[3])
    reverse, forward = jax.value_and_grad(loss, has_aux=True), value_and_gradient(loss)
    for function in (slope, third):
        derivative = jax.jit(jax.grad(function, (1, 2, 3)), static_argnums=0)
        wanted, found = (derivative(which, *learned) for which in (reverse, forward))
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-12), found, wanted)
