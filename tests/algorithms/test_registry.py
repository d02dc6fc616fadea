"""One protocol body over all algorithms, and their configurations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmeta
from jaxmeta.algorithms import registry
from jaxmeta.algorithms.families import POLICIES
from jaxmeta.algorithms.registry import configure, make_learner
from jaxmeta.core import tasks
from jaxmeta.core.errors import UsageError
from jaxmeta.core.rollout import Runner
from jaxmeta.core.types import sample_tasks
from jaxmeta.outer.optimizer import OptimizerConfig, outer_optimizer
from tests import tiers
from tests.conftest import TINY, tiny


@pytest.fixture(params=sorted(registry.ALGORITHMS))
def name(request):
    return request.param


BY_GRADIENT = ["maml", "fomaml", "anil", "meta_sgd", "reptile", "finetune"]
COMPILED = ["fomaml", "rl2", "scratch"]
SEEN = ["meta_sgd", "mann", "learned_optimizer", "hypernetwork", "mapping"]
"""Algorithms whose programs the fast tier compiles, and others of which it sees the shapes."""


def posed(learner, env_params):
    """Tasks as a learner may see them, leaves [tasks, ...]."""
    keys = jax.random.split(jax.random.key(9), jax.tree.leaves(env_params)[0].shape[0])
    return jax.vmap(learner.task)(keys, env_params)


def batch_of(grid, seed=0):
    return sample_tasks(jax.random.key(seed), grid, "train", TINY["tasks_per_batch"])


IN_STRETCHES = {
    "maml-es": ("maml", {"gradient_estimator": "es", "objective.loss": "td"}),
    "maml-truncated": ("maml", {"truncation_length": 1}),
    "learned_optimizer-pes": ("learned_optimizer", {"gradient_estimator": "pes", "truncation_length": 1}),
    "learned_optimizer-truncated": (
        "learned_optimizer",
        {
            "gradient_estimator": "backpropagation",
            "objective.loss": "td",
            "truncation_length": 1,
            "remat": "steps",
            "rule.network": "recurrent",
        },
    ),
    "hyper_policy-pes": (
        "hyper_policy",
        {"gradient_estimator": "pes", "truncation_length": 1, "policy.form": "static"},
    ),
}


@pytest.mark.parametrize("name", [*COMPILED, *tiers.slow(*sorted({*registry.ALGORITHMS} - {*COMPILED}))])
def test_algorithm_protocol(name, grid):
    hold_to_protocol(make_learner(name, grid, tiny(name)), grid)


@pytest.mark.parametrize("name", [*SEEN, *tiers.slow(*sorted({*registry.ALGORITHMS} - {*COMPILED, *SEEN}))])
def test_a_meta_step_keeps_the_structure_of_its_state(name, grid):
    learner = make_learner(name, grid, tiny(name))
    start = jax.eval_shape(learner.init, jax.random.key(0))
    batch = jax.eval_shape(lambda: posed(learner, batch_of(grid)))
    after, info = jax.eval_shape(learner.update, jax.random.key(1), start, batch)
    assert jax.tree.structure(after) == jax.tree.structure(start)
    assert jax.tree.all(jax.tree.map(lambda a, b: a.shape == b.shape and a.dtype == b.dtype, after, start))
    assert {"loss", "return"} <= set(info.metrics)
    assert all(metric.shape == () for metric in info.metrics.values())
    assert jax.tree.structure(learner.meta(after)) == jax.tree.structure(
        jax.eval_shape(learner.adapter.init, jax.random.key(0))
    )


@pytest.mark.parametrize("variant", tiers.slow(*IN_STRETCHES))
def test_estimators_serve_any_algorithm(variant, grid):
    name, settings = IN_STRETCHES[variant]
    few = {"num_perturbations": 2} if "gradient_estimator" in settings else {}
    hold_to_protocol(make_learner(name, grid, tiny(name, few | settings)), grid)


def hold_to_protocol(learner, grid):
    """Traces once, keeps the structure of its state, and stays finite."""
    traces = []

    @jax.jit
    def update(key, state, tasks):
        traces.append(None)
        return learner.update(key, state, tasks)

    start = jax.jit(learner.init)(jax.random.key(0))
    state = start
    for step in range(3):
        state, info = update(jax.random.key(step), state, posed(learner, batch_of(grid, step)))
    assert len(traces) == 1
    assert jax.tree.structure(state) == jax.tree.structure(start)
    assert jax.tree.all(jax.tree.map(lambda a, b: a.shape == b.shape and a.dtype == b.dtype, state, start))
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(state) if leaf.dtype == jnp.float32)
    assert {"loss", "return"} <= set(info.metrics)
    assert info.task_is_finite is None or np.all(info.task_is_finite)
    assert all(metric.shape == () for metric in info.metrics.values())
    assert int(state.step) == 3
    assert learner.env_steps_per_task >= 0
    assert jax.tree.structure(learner.meta(state)) == jax.tree.structure(learner.adapter.init(jax.random.key(0)))


@pytest.mark.slow
def test_a_run_in_stretches_is_resumed_with_its_lives(tmp_path):
    """To the bit, though lives, tasks and perturbations are half-way through when it stops."""
    settings = TINY | {
        "gradient_estimator": "pes",
        "truncation_length": 1,
        "num_perturbations": 2,
        "final_learning_rate_fraction": 1.0,
    }

    def run(folder, meta_steps, **options):
        return jaxmeta.train(
            "learned_optimizer",
            "grid_navi:size=3,horizon=4",
            settings,
            run_dir=folder,
            meta_steps=meta_steps,
            **options,
        ).state

    whole = run(tmp_path / "whole", 3)
    run(tmp_path / "parts", 2)
    resumed = run(tmp_path / "parts", 3, resume=True)
    assert jaxmeta.state_digest(resumed) == jaxmeta.state_digest(whole)


OF_POLICIES = {"linear": "point_navigation:horizon=4", "value": "grid_navi:size=3,horizon=4"}


@pytest.mark.slow
@pytest.mark.parametrize("name", BY_GRADIENT)
@pytest.mark.parametrize("baseline", OF_POLICIES)
def test_a_policy_is_trained_by_every_gradient_based_algorithm(name, baseline):
    distribution = tasks.make_tasks(OF_POLICIES[baseline])
    own = {"agent": "actor_critic", "baseline": baseline, "hidden": (4,), "inner.num_steps": 1}
    learner = make_learner(name, distribution, tiny(name, own))
    state = jax.jit(learner.init)(jax.random.key(0))
    after, info = jax.jit(learner.update)(jax.random.key(1), state, posed(learner, batch_of(distribution)))
    assert all(np.all(np.isfinite(value)) for value in info.metrics.values())
    moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), state.meta.params["policy"], after.meta.params["policy"])
    assert any(jax.tree.leaves(moved))
    assert jax.tree.structure(after) == jax.tree.structure(state)


CONFIGS = [registry.find(name).config for name in registry.ALGORITHMS]
FAMILIES = {family for config in CONFIGS for family in (*config.families, *config.policy_families)}


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_familys_own_settings_suit_every_algorithm(name, family):
    if name in ("hyper_policy", "hypernetwork", "mapping") and family in POLICIES:
        with pytest.raises(UsageError, match="agent must suit the action space: 'dqn' needs discrete actions"):
            make_learner(name, tasks.make_tasks(family))
    else:
        make_learner(name, tasks.make_tasks(family))


@pytest.mark.parametrize("name", ["fomaml", "rl2", *tiers.slow(*sorted({*registry.ALGORITHMS} - {"fomaml", "rl2"}))])
def test_vmapped_tasks_equal_looped_tasks(name, grid):
    """What one task's lifetime gives does not depend on the tasks beside it."""
    learner = make_learner(name, grid, tiny(name))
    meta = learner.init(jax.random.key(0)).meta
    env_params = batch_of(grid)
    keys = jax.random.split(jax.random.key(1), TINY["tasks_per_batch"])

    def adapted(key, env_params):
        reset_key, adapt_key = jax.random.split(key)
        task = learner.task(key, env_params)
        learner_state = Runner(grid.env, learner.adapter).reset(reset_key, meta, task, learner.lifetime.num_envs)
        learner_state, _ = Runner(grid.env, learner.adapter).adapt_for(
            adapt_key, meta, task, learner_state, learner.lifetime, lambda *_: None
        )
        learner_of_task = getattr(learner_state.fast, "learner", learner_state.fast)
        memory = learner_state.memory
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
    learner = make_learner(name, grid, TINY)
    update = jax.jit(learner.update)
    state = jax.jit(learner.init)(jax.random.key(0))
    outcomes = []
    for rate in (0.1, 0.2):
        hyperparams = state.meta.hyperparams.replace(learning_rate=jnp.float32(rate))
        changed = state.replace(meta=state.meta.replace(hyperparams=hyperparams))
        outcomes.append(update(jax.random.key(1), changed, posed(learner, batch_of(grid)))[1].metrics["loss"])
    assert update._cache_size() == 1
    assert outcomes[0] != outcomes[1]


def test_finetune_and_scratch_start_alike_and_only_finetune_learns(grid):
    for name, learns in (("finetune", True), ("scratch", False)):
        learner = make_learner(name, grid, tiny(name, {"inner.optimizer": "adam", "inner.learning_rate": 1e-2}))
        state = learner.init(jax.random.key(0))
        after, _ = jax.jit(learner.update)(jax.random.key(1), state, posed(learner, batch_of(grid)))
        changed = any(jax.tree.leaves(jax.tree.map(lambda a, b: bool(jnp.any(a != b)), state.meta, after.meta)))
        assert changed == learns


def test_settings_take_precedence_in_order(grid, monkeypatch):
    own = {"adaptation.num_adaptations": 4, "adaptation.num_envs": 5}
    monkeypatch.setattr(jaxmeta.MAMLConfig, "families", {"grid_navi": own})
    config = configure("maml", grid, {"num_envs": 6})
    assert config.adaptation == jaxmeta.AdaptationConfig(num_envs=6, rollout_length=grid.horizon, num_adaptations=4)
    assert config.agent.discount == 0.9


def test_the_outer_step_size_falls_along_a_line():
    """Adam's step is as large as its step size where the gradient is always the same."""
    optimizer = outer_optimizer(OptimizerConfig(learning_rate=0.1, final_learning_rate_fraction=0.5), steps=20)
    gradient = jnp.array([0.3])
    state, sizes = optimizer.init(gradient), []
    for _ in range(25):
        change, state = optimizer.update(gradient, state, gradient)
        sizes.append(-float(change[0]))
    np.testing.assert_allclose(sizes[:21], np.linspace(0.1, 0.05, 21), rtol=1e-3)
    np.testing.assert_allclose(sizes[21:], 0.05, rtol=1e-3)


def test_the_outer_gradient_is_clipped_before_adam_sees_it():
    optimizer = outer_optimizer(OptimizerConfig(learning_rate=0.1, max_gradient_norm=1.0), steps=10)
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


def test_no_algorithm_is_told_of_its_task_but_one_that_says_so(name, grid):
    context = make_learner(name, grid, tiny(name)).task(jax.random.key(0), grid.sample(jax.random.key(1), "train"))
    assert (context.context is not None) == (name == "mapping")


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"num_adaptations": 0}, "num_adaptations must be at least 1, got 0"),
        ({"num_adaptations": "3"}, "num_adaptations must be an integer, got '3'"),
        ({"num_adaptations": 2.5}, "num_adaptations must be an integer, got 2.5"),
        ({"num_adaptations": True}, "num_adaptations must be an integer, got True"),
        ({"discount": "high"}, "discount must be a number, got 'high'"),
        ({"double": 1}, "double must be True or False, got 1"),
        ({"hidden": 64}, "hidden must be a tuple of integers, got 64"),
        ({"agent": None}, "agent must be of type ActorCriticConfig or DQNConfig or TabularQConfig, got None"),
        ({"agent": ["dqn"]}, "agent must be of type ActorCriticConfig or DQNConfig or TabularQConfig, got ['dqn']"),
        ({"discount": 1.5}, "discount must be at most 1, got 1.5"),
        ({"inner.learning_rate": float("nan")}, "learning_rate must be finite, got nan"),
        ({"inner.learning_rate": -1.0}, "learning_rate must be at least 0, got -1.0"),
        ({"hidden": (0,)}, "hidden must hold integers of at least 1"),
        ({"tasks_per_group": 3}, "tasks_per_group must be 0 or divide tasks_per_batch"),
        ({"agent": "dqm"}, "Did you mean 'dqn'?"),
        ({"objective.loss": "policy"}, "Did you mean 'policy_gradient'?"),
        ({"rounds": 3}, "Did you mean 'num_adaptations'?"),
        ({"num_adaptation": 3}, "Did you mean 'num_adaptations'"),
        ({"inner.optimizer": "adam"}, "inner.optimizer must be 'sgd'"),
        ({"final_learning_rate_fraction": 1.5}, "final_learning_rate_fraction must be at most 1, got 1.5"),
        ({"trust_region": "default"}, "trust_region must be given for agent 'actor_critic' and"),
    ],
)
def test_a_bad_setting_is_refused_with_a_sentence(grid, settings, named):
    with pytest.raises(UsageError) as refused:
        make_learner("maml", grid, TINY | settings)
    assert named in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "settings", "sentence"),
    [
        ("reptile", {"truncation_length": 1}, "setting must be one that reptile reads with agent 'dqn'"),
        ("reptile", {"gradient_estimator": "es"}, "setting must be one that reptile reads with agent 'dqn'"),
        (
            "maml",
            {
                "trust_region": "default",
                "agent": "actor_critic",
                "gradient_estimator": "es",
                "objective.loss": "return",
            },
            "gradient_estimator must be 'backpropagation' within a trust region, got 'es'",
        ),
    ],
)
def test_what_has_no_meta_gradient_refuses_its_estimates(grid, name, settings, sentence):
    with pytest.raises(UsageError) as refused:
        make_learner(name, grid, tiny(name, settings))
    assert sentence in str(refused.value)


def test_numbers_of_numpy_become_plain_ones(grid):
    given = {"num_adaptations": np.int64(2), "discount": np.float32(0.5), "hidden": [8]}
    config = configure("maml", grid, given)
    values = [config.adaptation.num_adaptations, config.agent.discount, config.agent.hidden]
    assert values == [2, 0.5, (8,)]
    assert list(map(type, values)) == [int, float, tuple]


def test_an_unknown_algorithm_is_refused_with_the_nearest(grid):
    with pytest.raises(UsageError, match="Did you mean 'reptile'"):
        make_learner("reptil", grid)


@pytest.mark.parametrize("name", ["maml", "reptile", "scratch", "finetune"])
@pytest.mark.parametrize("agent", ["dqn", "tabular_q"])
def test_q_learning_refuses_continuous_actions(grid, name, agent):
    from gymnax.environments.classic_control.pendulum import Pendulum

    pendulum = grid._replace(env=Pendulum(), sample=lambda key, split: Pendulum().default_params)
    sentence = f"agent must suit the action space: '{agent}' needs discrete actions, got continuous ones."
    with pytest.raises(UsageError, match=sentence):
        make_learner(name, pendulum, {"agent": agent})


def test_the_same_key_gives_the_same_tasks_and_another_key_others():
    cartpole = tasks.make_tasks("cartpole")
    one, again, other = (sample_tasks(jax.random.key(seed), cartpole, "train", 4) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.length, again.length)
    assert not np.any(one.length == other.length)
    assert len(np.unique(one.length)) == 4, "each task of a batch is drawn by itself"
