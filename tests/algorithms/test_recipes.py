"""One protocol body over all recipes, and the settings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmeta
from jaxmeta.algorithms import presets, recipes
from jaxmeta.core import tasks
from jaxmeta.core.config import OuterConfig
from jaxmeta.core.errors import UsageError
from jaxmeta.core.rollout import Runner
from jaxmeta.core.types import TASK_IS_FINITE, sample_tasks
from jaxmeta.outer.optimizer import outer_optimizer
from tests import tiers
from tests.conftest import TINY, tiny


@pytest.fixture(params=sorted(recipes.RECIPES))
def name(request):
    return request.param


BY_GRADIENT = ["maml", "fomaml", "anil", "meta_sgd", "reptile", "finetune"]
COMPILED = ["fomaml", "rl2", "scratch"]
SEEN = ["meta_sgd", "mann", "learned_rule", "hypernetwork", "mapping"]
"""Recipes whose programs the fast tier compiles, and others of which it sees the shapes."""


def batch_of(grid, seed=0):
    return sample_tasks(jax.random.key(seed), grid, "train", TINY["tasks_per_batch"])


IN_STRETCHES = {
    "maml-es": ("maml", {"outer_gradient": "es", "outer_loss": "td"}),
    "maml-truncated": ("maml", {"stretch": 1}),
    "learned_rule-pes": ("learned_rule", {"outer_gradient": "pes", "stretch": 1}),
    "learned_rule-truncated": (
        "learned_rule",
        {"outer_gradient": "backpropagation", "outer_loss": "td", "stretch": 1, "remat": True, "rule": "recurrent"},
    ),
    "hyper_policy-pes": ("hyper_policy", {"outer_gradient": "pes", "stretch": 1, "form": "static"}),
}


@pytest.mark.parametrize("name", [*COMPILED, *tiers.slow(*sorted({*recipes.RECIPES} - {*COMPILED}))])
def test_recipe_protocol(name, grid):
    hold_to_protocol(recipes.make_recipe(name, grid, **tiny(name)), grid)


@pytest.mark.parametrize("name", [*SEEN, *tiers.slow(*sorted({*recipes.RECIPES} - {*COMPILED, *SEEN}))])
def test_a_meta_step_keeps_the_structure_of_its_state(name, grid):
    learner = recipes.make_recipe(name, grid, **tiny(name))
    start = jax.eval_shape(learner.init, jax.random.key(0))
    after, metrics = jax.eval_shape(learner.update, jax.random.key(1), start, jax.eval_shape(lambda: batch_of(grid)))
    assert jax.tree.structure(after) == jax.tree.structure(start)
    assert jax.tree.all(jax.tree.map(lambda a, b: a.shape == b.shape and a.dtype == b.dtype, after, start))
    assert {"loss", "return"} <= set(metrics)
    metrics.pop(TASK_IS_FINITE, None)
    assert all(metric.shape == () for metric in metrics.values())
    assert jax.tree.structure(learner.meta(after)) == jax.tree.structure(
        jax.eval_shape(learner.adapter.init, jax.random.key(0))
    )


@pytest.mark.parametrize("variant", tiers.slow(*IN_STRETCHES))
def test_estimators_serve_any_method(variant, grid):
    recipe, settings = IN_STRETCHES[variant]
    hold_to_protocol(recipes.make_recipe(recipe, grid, **tiny(recipe, population=2, **settings)), grid)


def hold_to_protocol(learner, grid):
    """Traces once, keeps the structure of its state, and stays finite."""
    traces = []

    @jax.jit
    def update(key, state, env_params):
        traces.append(None)
        return learner.update(key, state, env_params)

    start = jax.jit(learner.init)(jax.random.key(0))
    state = start
    for step in range(3):
        state, metrics = update(jax.random.key(step), state, batch_of(grid, step))
    assert len(traces) == 1
    assert jax.tree.structure(state) == jax.tree.structure(start)
    assert jax.tree.all(jax.tree.map(lambda a, b: a.shape == b.shape and a.dtype == b.dtype, state, start))
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(state) if leaf.dtype == jnp.float32)
    assert {"loss", "return"} <= set(metrics)
    finite = metrics.pop(TASK_IS_FINITE, jnp.ones(1, bool))
    assert np.all(finite)
    assert all(metric.shape == () for metric in metrics.values())
    assert int(state.step) == 3
    assert learner.env_steps_per_task >= 0
    assert jax.tree.structure(learner.meta(state)) == jax.tree.structure(learner.adapter.init(jax.random.key(0)))


@pytest.mark.slow
def test_a_run_in_stretches_is_resumed_with_its_lives(tmp_path):
    """To the bit, though lives, tasks and perturbations are half-way through when it stops."""
    settings = TINY | {"outer_gradient": "pes", "stretch": 1, "population": 2, "learning_rate_left": 1.0}

    def run(folder, meta_steps, **options):
        return jaxmeta.train(
            "learned_rule", "grid_navi:size=3,horizon=4", run_dir=folder, meta_steps=meta_steps, **options, **settings
        )[1]

    whole = run(tmp_path / "whole", 3)
    run(tmp_path / "parts", 2)
    resumed = run(tmp_path / "parts", 3, resume=True)
    assert jaxmeta.state_digest(resumed) == jaxmeta.state_digest(whole)


OF_POLICIES = {"linear": "point_navigation:horizon=4", "value": "grid_navi:size=3,horizon=4"}


@pytest.mark.slow
@pytest.mark.parametrize("recipe", BY_GRADIENT)
@pytest.mark.parametrize("baseline", OF_POLICIES)
def test_a_policy_is_trained_by_every_gradient_based_recipe(recipe, baseline):
    distribution = tasks.make_tasks(OF_POLICIES[baseline])
    settings = tiny(recipe, agent="actor_critic", baseline=baseline, hidden=(4,), inner_steps=1)
    learner = recipes.make_recipe(recipe, distribution, **settings)
    state = jax.jit(learner.init)(jax.random.key(0))
    after, metrics = jax.jit(learner.update)(jax.random.key(1), state, batch_of(distribution))
    assert all(np.all(np.isfinite(value)) for value in metrics.values())
    moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), state.meta.params["policy"], after.meta.params["policy"])
    assert any(jax.tree.leaves(moved))
    assert jax.tree.structure(after) == jax.tree.structure(state)


@pytest.mark.parametrize("family", sorted({*presets.FAMILY_SETTINGS, *presets.POLICY_SETTINGS, *presets.TRIALS}))
def test_a_familys_own_settings_suit_every_recipe(name, family):
    if name in ("hyper_policy", "hypernetwork", "mapping") and family in presets.POLICY_SETTINGS:
        with pytest.raises(UsageError, match=f"agent must have action values for {name}"):
            recipes.make_recipe(name, tasks.make_tasks(family))
    else:
        recipes.make_recipe(name, tasks.make_tasks(family))


@pytest.mark.parametrize("name", ["fomaml", "rl2", *tiers.slow(*sorted({*recipes.RECIPES} - {"fomaml", "rl2"}))])
def test_vmapped_tasks_equal_looped_tasks(name, grid):
    """What one task's lifetime gives does not depend on the tasks beside it."""
    learner = recipes.make_recipe(name, grid, **tiny(name))
    meta = learner.init(jax.random.key(0)).meta
    env_params = batch_of(grid)
    keys = jax.random.split(jax.random.key(1), TINY["tasks_per_batch"])

    def adapted(key, env_params):

        begin_key, live_key = jax.random.split(key)
        task = learner.task(key, env_params)
        life = Runner(grid.env, learner.adapter).begin(begin_key, meta, task, learner.lifetime.envs)
        life, _ = Runner(grid.env, learner.adapter).live(live_key, meta, task, life, learner.lifetime, lambda *_: None)
        learner_of_task = getattr(life.fast, "learner", life.fast)
        memory = life.memory
        if name == "mann":  # empty slots are alike, and which of them is written to first is up to rounding
            memory = memory[0], memory[1].controller
        return learner_of_task and learner_of_task.params, memory

    together = jax.jit(jax.vmap(adapted))(keys, env_params)
    one = jax.jit(adapted)
    for index in range(TINY["tasks_per_batch"]):
        alone = one(keys[index], jax.tree.map(lambda leaf, index=index: leaf[index], env_params))
        jax.tree.map(
            lambda a, b, index=index: np.testing.assert_allclose(a[index], b, rtol=1e-4, atol=1e-5), together, alone
        )


@pytest.mark.parametrize("name", ["fomaml", *tiers.slow("maml")])
def test_a_changed_hyper_parameter_recompiles_nothing(name, grid):
    learner = recipes.make_recipe(name, grid, **TINY)
    update = jax.jit(learner.update)
    state = jax.jit(learner.init)(jax.random.key(0))
    outcomes = []
    for rate in (0.1, 0.2):
        hypers = state.meta.hypers.replace(learning_rate=jnp.float32(rate))
        changed = state.replace(meta=state.meta.replace(hypers=hypers))
        outcomes.append(update(jax.random.key(1), changed, batch_of(grid))[1]["loss"])
    assert update._cache_size() == 1
    assert outcomes[0] != outcomes[1]


def test_finetune_and_scratch_start_alike_and_only_finetune_learns(grid):
    for name, learns in (("finetune", True), ("scratch", False)):
        learner = recipes.make_recipe(name, grid, **tiny(name, inner_optimizer="adam", learning_rate=1e-2))
        state = learner.init(jax.random.key(0))
        after, _ = jax.jit(learner.update)(jax.random.key(1), state, batch_of(grid))
        changed = any(jax.tree.leaves(jax.tree.map(lambda a, b: bool(jnp.any(a != b)), state.meta, after.meta)))
        assert changed == learns


def test_settings_take_precedence_in_order(grid, monkeypatch):
    monkeypatch.setitem(presets.FAMILY_SETTINGS, "grid_navi", {"rounds": 4, "envs": 5})
    resolved = recipes.resolve_settings("maml", grid, envs=6)
    assert (resolved["envs"], resolved["rounds"], resolved["discount"]) == (6, 4, 0.9)
    assert resolved["steps"] == grid.horizon


def test_the_outer_step_size_falls_along_a_line():
    """Adam's step is as large as its step size where the gradient is always the same."""
    outer = OuterConfig(meta_steps=10, outer_learning_rate=0.1, learning_rate_left=0.5)
    optimizer = outer_optimizer(outer, steps_per_meta_step=2)
    gradient = jnp.array([0.3])
    state, sizes = optimizer.init(gradient), []
    for _ in range(25):
        change, state = optimizer.update(gradient, state, gradient)
        sizes.append(-float(change[0]))
    np.testing.assert_allclose(sizes[:21], np.linspace(0.1, 0.05, 21), rtol=1e-3)
    np.testing.assert_allclose(sizes[21:], 0.05, rtol=1e-3)


def test_the_outer_gradient_is_clipped_before_adam_sees_it():
    optimizer = outer_optimizer(OuterConfig(outer_learning_rate=0.1, max_gradient_norm=1.0))
    gradients = np.array([[30.0, 40.0], [0.3, -0.4]])  # of lengths 50 and 0.5
    state, changes = optimizer.init(jnp.zeros(2)), []
    for gradient in gradients:
        change, state = optimizer.update(jnp.asarray(gradient, jnp.float32), state, jnp.zeros(2))
        changes.append(change)
    mean, square = np.zeros(2), np.zeros(2)
    for step, (gradient, change) in enumerate(zip(gradients, changes, strict=True), 1):
        clipped = gradient / max(1.0, np.linalg.norm(gradient))
        mean, square = 0.9 * mean + 0.1 * clipped, 0.999 * square + 0.001 * clipped**2
        expected = -0.1 * (mean / (1 - 0.9**step)) / np.sqrt(square / (1 - 0.999**step))
        np.testing.assert_allclose(change, expected, rtol=1e-3)


def test_no_recipe_is_told_of_its_task_but_one_that_says_so(name, grid):
    context = recipes.make_recipe(name, grid, **tiny(name)).task(
        jax.random.key(0), grid.sample(jax.random.key(1), "train")
    )
    assert (context.context is not None) == (name == "mapping")


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"rounds": 0}, "rounds must be at least 1, got 0"),
        ({"rounds": "3"}, "rounds must be an integer, got '3'"),
        ({"rounds": 2.5}, "rounds must be an integer, got 2.5"),
        ({"rounds": True}, "rounds must be an integer, got True"),
        ({"discount": "high"}, "discount must be a number, got 'high'"),
        ({"double": 1}, "double must be True or False, got 1"),
        ({"hidden": 64}, "hidden must be a tuple of integers, got 64"),
        ({"agent": None}, "agent must be a string, got None"),
        ({"discount": 1.5}, "discount must be at most 1, got 1.5"),
        ({"learning_rate": float("nan")}, "learning_rate must be finite, got nan"),
        ({"learning_rate": -1.0}, "learning_rate must be at least 0, got -1.0"),
        ({"hidden": (0,)}, "hidden must hold integers of at least 1"),
        ({"tasks_per_group": 3}, "tasks_per_group must be 0 or divide tasks_per_batch"),
        ({"agent": "dqm"}, "Did you mean 'dqn'?"),
        ({"outer_loss": "policy"}, "Did you mean 'policy_gradient'?"),
        ({"round": 3}, "Did you mean 'rounds'?"),
        ({"inner_optimizer": "adam"}, "inner_optimizer must be 'sgd'"),
        ({"learning_rate_left": 1.5}, "learning_rate_left must be at most 1, got 1.5"),
        ({"outer_update": "proximal"}, "outer_update must be 'descent' but for"),
    ],
)
def test_a_bad_setting_is_refused_with_a_sentence(grid, settings, named):
    with pytest.raises(UsageError) as refused:
        recipes.make_recipe("maml", grid, **TINY | settings)
    assert named in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("recipe", "settings", "sentence"),
    [
        ("reptile", {"stretch": 1}, "stretch must be 0, a whole lifetime, under reptile, got 1"),
        (
            "reptile",
            {"outer_gradient": "es", "outer_loss": "td"},
            "outer_gradient must be 'backpropagation' under reptile, got 'es'",
        ),
        (
            "maml",
            {"outer_update": "proximal", "agent": "actor_critic", "outer_gradient": "es", "outer_loss": "return"},
            "outer_gradient must be 'backpropagation' under outer_update 'proximal', got 'es'",
        ),
    ],
)
def test_what_has_no_meta_gradient_refuses_its_estimates(grid, recipe, settings, sentence):
    with pytest.raises(UsageError) as refused:
        recipes.make_recipe(recipe, grid, **TINY | {"lives_per_task": 1, "rounds": 2} | settings)
    assert sentence in str(refused.value)


def test_numbers_of_numpy_become_plain_ones(grid):
    resolved = recipes.resolve_settings("maml", grid, rounds=np.int64(2), discount=np.float32(0.5), hidden=[8])
    assert [type(resolved[name]) for name in ("rounds", "discount", "hidden")] == [int, float, list]
    assert (resolved["rounds"], resolved["discount"], resolved["hidden"]) == (2, 0.5, [8])


def test_an_unknown_recipe_is_refused_with_the_nearest(grid):
    with pytest.raises(UsageError, match="Did you mean 'reptile'"):
        recipes.make_recipe("reptil", grid)


@pytest.mark.parametrize("recipe", ["maml", "reptile", "scratch", "finetune"])
@pytest.mark.parametrize("agent", ["dqn", "tabular_q"])
def test_q_learning_refuses_continuous_actions(grid, recipe, agent):
    from gymnax.environments.classic_control.pendulum import Pendulum

    pendulum = grid._replace(env=Pendulum(), sample=lambda key, split: Pendulum().default_params)
    sentence = f"agent must suit the action space: '{agent}' needs discrete actions, got continuous ones."
    with pytest.raises(UsageError, match=sentence):
        recipes.make_recipe(recipe, pendulum, agent=agent)


def test_the_same_key_gives_the_same_tasks_and_another_key_others():
    cartpole = tasks.make_tasks("cartpole")
    one, again, other = (sample_tasks(jax.random.key(seed), cartpole, "train", 4) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.length, again.length)
    assert not np.any(one.length == other.length)
    assert len(np.unique(one.length)) == 4, "each task of a batch is drawn by itself"
