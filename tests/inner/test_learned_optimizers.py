"""Learned optimizers: what their rules are before they have learned, and what their weights mean."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmeta
from jaxmeta.algorithms.registry import make_learner
from jaxmeta.core.errors import UsageError
from jaxmeta.inner.learned_optimizers import (
    DECAYS,
    OUTPUTS,
    Attentive,
    Recurrent,
    Structured,
    as_optax,
    layers_of,
    learned_rule,
)
from jaxmeta.inner.optimizers import UpdateContext
from jaxmeta.nets.networks import QNetwork
from tests import tiers
from tests.conftest import TINY, tiny

RATE, STEPS = 1e-2, 20
NETWORKS = {
    "structured": Structured,
    "gru": lambda layers: Recurrent(4),
    "lstm": lambda layers: Recurrent(4, "lstm"),
    "attention": lambda layers: Attentive(4),
}
INPUTS = jax.random.normal(jax.random.key(1), (16, 3))


def params_of(hidden=(6, 5), seed=0):
    return QNetwork(2, hidden).init(jax.random.key(seed), jnp.zeros(3))


def loss(params, hidden=(6, 5)):
    """Regression, whose gradients are none of them zero."""
    outputs = jax.vmap(lambda x: QNetwork(2, hidden).apply(params, x))(INPUTS)
    return jnp.mean((outputs - jnp.sin(INPUTS[:, :2])) ** 2)


def moved(weights, scale=0.3):
    """Weights away from where the rule is made by hand."""
    random = np.random.default_rng(3)
    return jax.tree.map(lambda leaf: leaf + np.float32(scale * random.normal(size=leaf.shape)), weights)


BASES = {"adam": optax.adam(RATE), "rmsprop": optax.rmsprop(RATE, decay=0.99), "sgd": optax.sgd(RATE)}
EACH_ONCE = [("structured", "adam"), ("gru", "rmsprop"), ("lstm", "sgd"), ("attention", "sgd")]
"""Every network and every optimizer that a rule begins as."""


@pytest.mark.parametrize(
    ("network", "base"),
    [*EACH_ONCE, *tiers.slow(*((name, base) for name in NETWORKS for base in BASES if (name, base) not in EACH_ONCE))],
)
def test_before_it_has_learned_a_rule_is_made_by_hand(network, base):
    params, optimizer = params_of(), BASES[base]
    rule = learned_rule(NETWORKS[network], base)
    learned = as_optax(rule, jax.jit(rule.init)(jax.random.key(0), params), RATE)

    @jax.jit
    def step(ours, theirs, index):
        (our_params, our_state), (their_params, their_state) = ours, theirs
        value, gradient = jax.value_and_grad(loss)(our_params)
        change, our_state = learned.update(gradient, our_state, our_params, value=value, progress=index / STEPS)
        our_params = optax.apply_updates(our_params, change)
        change, their_state = optimizer.update(jax.grad(loss)(their_params), their_state)
        return (our_params, our_state), (optax.apply_updates(their_params, change), their_state)

    ours, theirs = (params, learned.init(params)), (params, optimizer.init(params))
    for index in range(STEPS):
        ours, theirs = step(ours, theirs, index)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, atol=1e-6), ours[0], theirs[0])
    assert float(loss(ours[0])) < float(loss(params))


def reference_step(gradients, progress, trend, weights, depth_index):
    """The structured rule's last change of one leaf, from all its gradients so far, in NumPy."""
    count = len(gradients)
    square = sum(0.001 * 0.999 ** (count - 1 - index) * g**2 for index, g in enumerate(gradients)) / (1 - 0.999**count)
    averages = [
        sum((1 - decay) * decay ** (count - 1 - index) * g for index, g in enumerate(gradients)) / (1 - decay**count)
        for decay in DECAYS
    ]
    directions = np.stack([gradients[-1], *averages]) / (np.sqrt(square) + 1e-8)
    kernel, bias = (np.asarray(weights["schedule"][name], float) for name in ("kernel", "bias"))
    numbers = np.array([progress, progress**2, trend]) @ kernel + bias
    factor = 5 * np.tanh((numbers[0] + float(weights["rates"][depth_index])) / 5)
    mix = np.eye(4)[2] + numbers[1:]
    return -RATE * np.exp(factor) * np.tensordot(mix, directions, 1)


def test_the_structured_rule_is_its_formula():
    params = params_of()
    rule = learned_rule(Structured, "adam")
    weights, update = moved(jax.jit(rule.init)(jax.random.key(0), params)), jax.jit(rule.update)
    gradients = [jax.tree.map(lambda leaf, s=seed: jnp.sin(leaf * 5 + s), params) for seed in range(3)]
    values, state = (2.0, 3.0, 1.0), rule.init_state(params)
    for gradient, value in zip(gradients, values, strict=True):
        seen = UpdateContext(jnp.float32(RATE), jnp.float32(value), jnp.float32(0.25))
        change, state = update(weights, gradient, state, params, seen)
    averages = [
        sum((1 - decay) * decay ** (2 - index) * value for index, value in enumerate(values)) / (1 - decay**3)
        for decay in (0.9, 0.99)
    ]
    trend = np.tanh(np.log(averages[0] + 1e-8) - np.log(averages[1] + 1e-8))
    for index, layer in enumerate(("torso_0", "torso_1", "head")):
        for name in ("kernel", "bias"):
            history = [np.asarray(gradient["params"][layer][name], float) for gradient in gradients]
            expected = reference_step(history, 0.25, trend, weights["params"], index)
            np.testing.assert_allclose(change["params"][layer][name], expected, rtol=2e-4, atol=1e-7)


def weights_of(network, params):
    return moved(jax.jit(learned_rule(NETWORKS[network], "adam").init)(jax.random.key(0), params))


def change_of(network, params, weights, gradient):
    rule = learned_rule(NETWORKS[network], "adam")
    update = jax.jit(rule.update)
    state = rule.init_state(params)
    seen = UpdateContext(jnp.float32(RATE), jnp.float32(1.0), jnp.float32(0.5))
    for _ in range(2):
        change, state = update(weights, gradient, state, params, seen)
    return change


@pytest.mark.parametrize("network", ["gru", "attention", *tiers.slow("structured", "lstm")])
def test_a_rule_does_not_know_units_by_their_places(network):
    """Hidden units in another order are changed in the same way, in that order."""
    params = params_of()
    weights = weights_of(network, params)
    order = jnp.array([3, 1, 4, 0, 5, 2])

    def reordered(tree):
        layers = tree["params"]
        first = {"kernel": layers["torso_0"]["kernel"][:, order], "bias": layers["torso_0"]["bias"][order]}
        second = layers["torso_1"] | {"kernel": layers["torso_1"]["kernel"][order]}
        return {"params": layers | {"torso_0": first, "torso_1": second}}

    gradient = jax.jit(jax.grad(loss))(params)
    change = change_of(network, params, weights, gradient)
    other = change_of(network, reordered(params), weights, reordered(gradient))
    jax.tree.map(lambda one, two: np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-7), reordered(change), other)


@pytest.mark.slow
@pytest.mark.parametrize("network", ["structured", "gru", "lstm", "attention"])
def test_a_rule_serves_wider_networks(network):
    weights = weights_of(network, params_of())
    wide = params_of((12, 9))
    change = change_of(network, wide, weights, jax.tree.map(jnp.cos, wide))
    assert jax.tree.all(jax.tree.map(lambda leaf: bool(jnp.all(jnp.isfinite(leaf)) & jnp.any(leaf != 0)), change))


@pytest.mark.parametrize("network", ["gru", "attention"])
def test_a_units_step_depends_on_the_layer_only_under_attention(network):
    """Another gradient elsewhere in the layer changes a unit's step if units attend to each other."""
    params = params_of()
    weights = weights_of(network, params)
    gradient = jax.tree.map(jnp.ones_like, params)
    kernel = gradient["params"]["torso_0"]["kernel"].at[:, 1:].multiply(-1.0)
    other = {"params": gradient["params"] | {"torso_0": gradient["params"]["torso_0"] | {"kernel": kernel}}}
    one, two = (change_of(network, params, weights, g)["params"]["torso_0"]["kernel"][:, 0] for g in (gradient, other))
    assert np.allclose(one, two, rtol=1e-5) == (network == "gru")


def test_what_belongs_to_no_layer_is_changed_by_hand():
    params = {"network": params_of(), "exploration": jnp.zeros(2)}
    rule = learned_rule(Structured, "sgd")
    weights = moved(jax.jit(rule.init)(jax.random.key(0), params))
    gradient = jax.tree.map(jnp.ones_like, params)
    seen = UpdateContext(jnp.float32(RATE), jnp.float32(1.0), jnp.float32(0.5))
    change, _ = jax.jit(rule.update)(weights, gradient, rule.init_state(params), params, seen)
    np.testing.assert_allclose(change["exploration"], -RATE)
    assert not np.allclose(change["network"]["params"]["head"]["bias"], -RATE)


def test_layers_are_in_the_order_of_the_network():
    matrix = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    params = {"Dense_10": matrix, "Dense_9": matrix, "head": matrix, "scale": jnp.ones(3)}
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]]
    names = [{paths[leaf].split("'")[1] for leaf in layer.leaves} for layer in layers_of(params)]
    assert names == [{"Dense_9"}, {"Dense_10"}, {"head"}]
    assert [layer.depth for layer in layers_of(params)] == [0.0, 0.5, 1.0]


def test_no_derivative_is_lost_to_a_gradient_of_zero():
    params = params_of()
    rule = learned_rule(Structured, "adam")
    weights = jax.jit(rule.init)(jax.random.key(0), params)
    seen = UpdateContext(jnp.float32(RATE), jnp.float32(0.0), jnp.float32(0.0))

    def total(weights, gradient):
        change, _ = rule.update(weights, gradient, rule.init_state(params), params, seen)
        return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(change))

    for derivative in jax.jit(jax.grad(total, (0, 1)))(weights, jax.tree.map(jnp.zeros_like, params)):
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(derivative))


@pytest.mark.parametrize("missing", ["params", *tiers.slow("value", "progress")])
def test_what_an_exported_rule_needs_is_asked_for(missing):
    params = params_of()
    rule = learned_rule(Structured, "adam")
    learned = as_optax(rule, rule.init(jax.random.key(0), params), RATE)
    given = {"params": params, "value": 1.0, "progress": 0.0} | {missing: None}
    with pytest.raises(UsageError, match=f"{missing} must be given to the update of a learned rule, got None"):
        learned.update(params, learned.init(params), **given)


def test_networks_that_a_rule_cannot_fit_are_refused():
    rule = learned_rule(Structured, "adam")
    learned = as_optax(rule, rule.init(jax.random.key(0), params_of()), RATE)
    with pytest.raises(UsageError, match="params must hold a matrix for a learned rule, got 1 leaves without one"):
        learned.init({"bias": jnp.zeros(3)})
    with pytest.raises(UsageError, match="have as many layers as those that the rule was learned with, got 2"):
        learned.init(params_of((4,)))


RULE = TINY | {"num_perturbations": 2, "meta_steps": 2, "num_adaptations": 2}


@pytest.mark.slow
def test_a_trained_rule_is_exported(tmp_path):
    settings = RULE | {"outer.learning_rate": 0.5}
    run = jaxmeta.train("learned_optimizer", "grid_navi:size=3,horizon=4", settings, run_dir=tmp_path / "run")
    exported, params = jaxmeta.export_optimizer(tmp_path / "run"), params_of((6,))
    state_of_rule = exported.init(params)
    gradient = jax.grad(loss)(params, (6,))
    change, _ = exported.update(gradient, state_of_rule, params, value=1.0, progress=0.5)
    by_hand, _ = optax.adam(RULE["inner.learning_rate"]).update(gradient, optax.adam(0.1).init(params))
    difference = jax.tree.map(lambda one, other: float(jnp.max(jnp.abs(one - other))), change, by_hand)
    assert min(jax.tree.leaves(difference)) > 1e-3
    twice, _ = jaxmeta.export_optimizer(tmp_path / "run", learning_rate=2 * RULE["inner.learning_rate"]).update(
        gradient, state_of_rule, params, value=1.0, progress=0.5
    )
    jax.tree.map(lambda one, other: np.testing.assert_allclose(2 * one, other, rtol=1e-5), change, twice)
    assert run.learner.meta(run.state).rule["params"]["schedule"]["kernel"].shape == (3, OUTPUTS)


def test_only_rules_are_exported(tmp_path):
    jaxmeta.train("scratch", "grid_navi:size=3,horizon=4", tiny("scratch"), run_dir=tmp_path, meta_steps=1)
    with pytest.raises(UsageError, match="run_dir must hold a run of learned_optimizer, got 'scratch'"):
        jaxmeta.export_optimizer(tmp_path)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"truncation_length": 3, "num_adaptations": 4}, "truncation_length must divide num_adaptations = 4, got 3"),
        ({"num_perturbations": 3}, "num_perturbations must be even, for antithetic pairs, got 3"),
        ({"perturbation_scale": 0.0}, "perturbation_scale must be above 0, got 0.0"),
        ({"gradient_estimator": "backprop"}, "Did you mean 'backpropagation'?"),
        (
            {"gradient_estimator": "backpropagation"},
            "gradient_estimator must be 'es' or 'pes' under objective.loss 'return'",
        ),
        ({"objective.loss": "policy_gradient"}, "objective.loss must have a value that is to be lowered"),
        ({"lifetimes_per_task": 2}, "lifetimes_per_task must be 1 under gradient_estimator 'es' or 'pes', got 2"),
        ({"rule.network": "structure"}, "Did you mean 'structured'?"),
        (
            {"rule.network": "attention", "rule.width": 5},
            "width must be a multiple of 2 under network 'attention', got 5",
        ),
    ],
)
def test_mistakes_are_told_before_anything_compiles(grid, settings, sentence):
    with pytest.raises(UsageError, match=sentence):
        make_learner("learned_optimizer", grid, RULE | settings)


@pytest.mark.slow
@pytest.mark.parametrize("network", ["structured", "gru"])
def test_a_step_within_many_batches_does_not_crash_the_compiler(network):
    """Seeds, tasks, perturbed copies and axes of one: XLA had a fault that ended the process."""
    params, rule = {"w": jnp.ones((64, 64))}, learned_rule(NETWORKS[network], "adam")
    batched = jax.tree.map(lambda leaf: jnp.ones((2, 2, 1, 2, 1, *leaf.shape)), params)

    def step(params):
        weights = moved(rule.init(jax.random.key(0), params))
        seen = UpdateContext(learning_rate=0.1, progress=0.5, value=1.0)
        return rule.update(weights, params, rule.init_state(params), params, seen)[0]

    every = step
    for _ in range(5):
        every = jax.vmap(every)
    (steps,) = jax.tree.leaves(jax.jit(every)(batched))
    (alone,) = jax.tree.leaves(step(params))
    np.testing.assert_allclose(steps[1, 0, 0, 1, 0], alone, rtol=1e-4, atol=1e-6)
