"""Hypernetworks: sets without order, generated parameters, and what of a lifetime they read."""

from types import MappingProxyType

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.algorithms.registry import make_learner
from jaxmeta.core import tasks
from jaxmeta.core.config import kinds
from jaxmeta.core.errors import UsageError
from jaxmeta.core.rollout import Runner
from jaxmeta.core.spec import spec_of
from jaxmeta.core.types import Task, sample_tasks
from jaxmeta.nets import encoders, generators
from jaxmeta.rl import replay
from tests import tiers
from tests.trees import drawn

TINY = {
    "hidden": (4,),
    "num_envs": 2,
    "num_adaptations": 3,
    "agent.replay_capacity": 3,
    "inner.num_steps": 1,
    "tasks_per_batch": 2,
    "encoder.width": 8,
}
GENERATORS = {"whole": generators.Whole(), "low_rank": generators.LowRank(2), "film": generators.Film()}


@pytest.fixture
def elements():
    return jnp.asarray(np.random.default_rng(0).normal(size=(6, 3)), jnp.float32)


@pytest.mark.parametrize("pooling", kinds(encoders.EncoderConfig)["pooling"].values)
def test_a_summary_knows_neither_order_nor_what_is_absent(elements, pooling):
    encoder = encoders.SetEncoder(8, pooling)
    present = jnp.array([True, True, True, True, False, False])
    weights = drawn(jax.eval_shape(encoder.init, jax.random.key(0), elements, present))
    apply = jax.jit(encoder.apply)
    summary = apply(weights, elements, present)
    order = jnp.array([3, 5, 0, 2, 4, 1])
    np.testing.assert_allclose(apply(weights, elements[order], present[order]), summary, atol=1e-5)
    np.testing.assert_allclose(apply(weights, elements.at[4:].set(7.0), present), summary, atol=1e-5)
    np.testing.assert_allclose(apply(weights, elements[:4], present[:4]), summary, atol=1e-5)
    assert np.abs(apply(weights, elements.at[0].add(1.0), present) - summary).max() > 1e-3
    nothing = apply(weights, elements, jnp.zeros(6, bool))
    assert np.all(np.isfinite(nothing))
    assert np.abs(nothing - summary).max() > 1e-3


def test_an_attending_encoder_is_its_formula(elements):
    encoder = encoders.SetEncoder(8, "attention")
    weights = drawn(encoder.init(jax.random.key(0), elements, jnp.ones(6, bool)))
    params = jax.tree.map(np.asarray, weights["params"])

    def dense(name, x):
        return x @ params[name]["kernel"] + params[name]["bias"]

    hidden = np.maximum(dense("element_1", np.maximum(dense("element_0", np.asarray(elements)), 0)), 0)
    hidden = np.concatenate([np.zeros((1, 8)), hidden])
    key, value, read = dense("key", hidden), dense("value", hidden), []
    for head, query in enumerate(params["query"]):
        part = slice(2 * head, 2 * head + 2)
        weight = np.exp(key[:, part] @ query / np.sqrt(2))
        read.append(weight @ value[:, part] / weight.sum())
    expected = np.tanh(dense("summary", np.append(np.concatenate(read), 1.0)))
    np.testing.assert_allclose(encoder.apply(weights, elements, jnp.ones(6, bool)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", GENERATORS)
def test_before_it_has_learned_it_generates_what_is_shared(name):
    shared = drawn({"layer": {"kernel": jnp.zeros((3, 4)), "bias": jnp.zeros(4)}})
    weights = GENERATORS[name].init(jax.random.key(0), jnp.ones(5), shared)
    generated = GENERATORS[name].apply(weights, jnp.full(5, 0.3), shared)
    jax.tree.map(np.testing.assert_array_equal, generated, shared)


def test_what_is_generated_is_its_formula():
    shared = drawn({"layer": {"kernel": jnp.zeros((3, 4)), "bias": jnp.zeros(4)}})
    summary = jnp.asarray(np.random.default_rng(1).normal(size=5), jnp.float32)
    kernel, bias = np.asarray(shared["layer"]["kernel"]), np.asarray(shared["layer"]["bias"])
    generated, dense = {}, {}
    for name, generator in GENERATORS.items():
        weights = drawn(generator.init(jax.random.key(0), summary, shared))
        generated[name] = generator.apply(weights, summary, shared)["layer"]
        for layer, values in weights["params"].items():
            dense[name, layer] = np.asarray(summary) @ np.asarray(values["kernel"]) + np.asarray(values["bias"])
    low_rank = dense["low_rank", "layer_kernel_left"].reshape(3, 2) @ dense["low_rank", "layer_kernel_right"].reshape(
        2, 4
    )
    expected = {
        "whole": (kernel + dense["whole", "layer_kernel"].reshape(3, 4), bias + dense["whole", "layer_bias"]),
        "low_rank": (kernel + low_rank / np.sqrt(2), bias + dense["low_rank", "layer_bias"]),
        "film": (
            kernel * (1 + dense["film", "layer_kernel_scale"]),
            bias * (1 + dense["film", "layer_bias_scale"]) + dense["film", "layer_bias_shift"],
        ),
    }
    for name, (kernel, bias) in expected.items():
        np.testing.assert_allclose(generated[name]["kernel"], kernel, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(generated[name]["bias"], bias, rtol=1e-4, atol=1e-5)


def round_(grid, settings=MappingProxyType({})):
    """The adapter and meta of a hypernetwork that has learned something, and lives before and after each adaptation."""
    learner = make_learner("hypernetwork", grid, {**TINY, **settings})
    meta = jax.jit(learner.init)(jax.random.key(0)).meta
    meta = meta.replace(encoder=drawn(meta.encoder), generator=drawn(meta.generator, 1))
    task = learner.task(jax.random.key(1), sample_tasks(jax.random.key(2), grid, "train", 1))
    task = jax.tree.map(lambda leaf: leaf[0], task)
    envs = learner.lifetime.num_envs
    learner_state = jax.jit(lambda key: Runner(grid.env, learner.adapter).reset(key, meta, task, envs))(
        jax.random.key(3)
    )

    def observe(key, round_):
        return round_.before.fast, round_.after.fast, round_.rollout

    live = jax.jit(
        lambda key: Runner(grid.env, learner.adapter).adapt_for(
            key, meta, task, learner_state, learner.lifetime, observe
        )[1]
    )
    return learner.adapter, meta, learner_state.fast, live(jax.random.key(4))


def differs(one, other):
    return any(bool(jnp.any(a != b)) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))


def test_parameters_are_generated_from_all_rollouts_or_from_the_first(grid):
    for regenerate in ("every", "first"):
        _, _, begun, (before, after, _) = round_(grid, {"regenerate": regenerate})
        network = after.params["network"]
        adapted = [jax.tree.map(lambda leaf, index=index: leaf[index], network) for index in range(3)]
        assert differs(begun.params["network"], adapted[0])
        assert differs(adapted[0], adapted[1]) == differs(adapted[1], adapted[2]) == (regenerate == "every")
        np.testing.assert_array_equal(after.replay.written, [1, 2, 3])
        assert np.all(after.hyperparams.epsilon < before.hyperparams.epsilon)


def test_what_is_generated_is_what_encoder_and_generator_say_of_the_replay(grid):
    _, meta, _, (_, after, _) = round_(grid, {"generator.form": "low_rank"})
    spec = spec_of(grid)
    last = jax.tree.map(lambda leaf: leaf[1], after)
    elements, written = replay.elements_of(spec, last.replay)
    assert written.sum() == 2 * 2 * 4
    summary = encoders.SetEncoder(8).apply(meta.encoder, elements, written)
    network = generators.LowRank(4).apply(meta.generator, summary, meta.start.params["network"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), last.params["network"], network)


def test_targets_teach_what_generates_nothing(grid):
    learner = make_learner("hypernetwork", grid, TINY)
    adapter, meta = learner.adapter, learner.init(jax.random.key(0)).meta

    def size(meta, part):
        begun = adapter.reset(jax.random.key(0), meta, None)[0]
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(getattr(begun, part)["network"]))

    of_slow, of_params = jax.jit(lambda meta: [jax.grad(size)(meta, part) for part in ("target_params", "params")])(
        meta
    )
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(of_slow))
    assert any(np.any(leaf) for leaf in jax.tree.leaves(of_params.generator))


def test_elements_are_the_transitions(grid):
    spec = spec_of(grid)
    _, _, _, (_, after, rollout) = round_(grid)
    last = jax.tree.map(lambda leaf: leaf[0], after)
    elements, written = replay.elements_of(spec, last.replay)
    first = jax.tree.map(lambda leaf: np.asarray(leaf[0]), replay.transitions(rollout))
    step, env = 2, 1
    expected = np.concatenate(
        [
            np.ravel(first.observation[step, env]),
            np.eye(spec.num_actions)[first.action[step, env]],
            [first.reward[step, env], first.terminated[step, env]],
            np.ravel(first.next_observation[step, env]),
        ]
    )
    np.testing.assert_array_equal(elements[step * 2 + env], expected)
    np.testing.assert_array_equal(written, np.arange(24) < 8)


@pytest.mark.slow
def test_gradient_steps_may_follow(grid):
    _, _, _, (_, plain, _) = round_(grid)
    _, _, _, (_, tuned, _) = round_(grid, {"fine_tune": True})
    first_plain, first_tuned = (jax.tree.map(lambda leaf: leaf[0], fast.params["network"]) for fast in (plain, tuned))
    assert differs(first_plain, first_tuned)
    np.testing.assert_array_equal(tuned.age, [1, 2, 3])


@pytest.mark.slow
def test_all_parts_learn(grid):
    adaptations = tiers.number(3, 1)
    settings = TINY | {
        "num_adaptations": adaptations,
        "agent.replay_capacity": adaptations,
        "generator.form": "low_rank",
        "encoder.pooling": "attention",
    }
    learner = make_learner("hypernetwork", grid, settings)
    state = jax.jit(learner.init)(jax.random.key(0))
    state = state.replace(meta=state.meta.replace(generator=drawn(state.meta.generator)))
    env_params = sample_tasks(jax.random.key(2), grid, "train", 2)
    after, _ = jax.jit(learner.update)(jax.random.key(1), state, Task(env_params, None))
    for part in ("encoder", "generator"):
        assert differs(getattr(state.meta, part), getattr(after.meta, part))
    assert differs(state.meta.start.params, after.meta.start.params)
    assert not differs(state.meta.start.hyperparams, after.meta.start.hyperparams)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"generator.form": "part"}, "generator.form must be one of film, low_rank, whole, got 'part'"),
        ({"encoder.pooling": "means"}, "Did you mean 'mean'?"),
        (
            {"encoder.pooling": "attention", "encoder.width": 6},
            "width must be a multiple of 4 under pooling 'attention'",
        ),
        ({"agent": "actor_critic"}, "agent must be one of dqn, tabular_q, got 'actor_critic'"),
        ({"generator.rank": 0}, "generator.rank must be at least 1, got 0"),
    ],
)
def test_mistakes_are_told(grid, settings, sentence):
    with pytest.raises(UsageError, match=sentence.replace("?", r"\?")):
        make_learner("hypernetwork", grid, TINY | settings)


def test_continuous_tasks_are_refused():
    with pytest.raises(UsageError, match="agent must"):
        make_learner("hypernetwork", tasks.make_tasks("pendulum:torques=0"), TINY)
