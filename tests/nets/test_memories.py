"""Memories against NumPy, step by step and as a whole."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.algorithms.registry import make_learner
from jaxmeta.core.errors import UsageError
from jaxmeta.nets.memories import Attentive, ContentAddressed, Recurrent
from tests import tiers
from tests.conftest import tiny
from tests.reference import memories as reference

STEPS, FEATURES, OUTPUTS = 7, 5, 3


def run(network):
    """Parameters, features, and what the network puts out along them."""
    features = jax.random.normal(jax.random.key(0), (STEPS, FEATURES))
    memory = network.initial_memory()
    variables = jax.jit(network.initial_parameters)(jax.random.key(1), features[0])
    random = np.random.default_rng(2)
    variables = jax.tree.map(lambda leaf: leaf + np.float32(0.3 * random.normal(size=leaf.shape)), variables)

    def step(memory, now):
        memory, numbers, value = network.apply(variables, memory, now)
        return memory, (numbers, value)

    memory, (numbers, values) = jax.jit(lambda memory: jax.lax.scan(step, memory, features))(memory)
    return variables["params"], np.asarray(features), memory, numbers, values


def test_attention_with_kept_keys_is_causal_attention_over_the_whole_trial():
    network = Attentive(OUTPUTS, width=8, layers=2, heads=2, context=STEPS + 2)
    params, features, memory, numbers, values = run(network)
    expected_numbers, expected_values = reference.attentive(params, features, 2, 2)
    np.testing.assert_allclose(numbers, expected_numbers, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(values, expected_values, rtol=1e-4, atol=1e-4)
    assert int(memory.time) == STEPS


def test_content_addressed_memory_reads_and_writes_as_in_numpy():
    network = ContentAddressed(OUTPUTS, width=6, slots=5, word=4, heads=2)
    params, features, memory, numbers, values = run(network)
    expected = reference.content_addressed(params["cell"] | params, features, 6, 5, 4, 2, network.usage_decay)
    for ours, theirs in zip((numbers, values, memory.contents), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("readout", ["product", "plain"])
def test_a_cell_is_read_by_products_with_the_features(readout):
    network = Recurrent(OUTPUTS, "gru", 6, readout)
    params, features, _, numbers, values = run(network)
    memory = network.initial_memory()
    for now, got_numbers, got_value in zip(features, numbers, values, strict=True):
        memory, output = nn.GRUCell(6).apply({"params": params["cell"]}, memory, now)
        read = np.asarray(output)
        if readout == "product":
            read = reference.dense(params["select"], now) * reference.dense(params["read"], read)
        np.testing.assert_allclose(got_numbers, reference.dense(params["head"], read), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(got_value, reference.dense(params["head_value"], read)[0], rtol=1e-4, atol=1e-5)


NETWORKS = pytest.mark.parametrize(
    "network",
    [
        Recurrent(OUTPUTS, "gru", 6),
        ContentAddressed(OUTPUTS, 6, 5, 4, 2),
        Attentive(OUTPUTS, 8, 2, 2, STEPS),
        *tiers.slow(Recurrent(OUTPUTS, "lstm", 6), Recurrent(OUTPUTS, "gru", 6, "plain")),
    ],
    ids=["gru", "mann", "snail", "lstm", "plain"],
)


@NETWORKS
def test_steps_at_once_are_the_steps_one_by_one(network):
    """From the start, and from a memory of the first three steps."""
    params, features, memory, numbers, values = run(network)

    @jax.jit
    def unroll(memory, features):
        return network.apply({"params": params}, memory, features, method="unroll")

    for got in (
        unroll(network.initial_memory(), features),
        unroll(unroll(network.initial_memory(), features[:3])[0], features[3:]),
    ):
        steps = len(got[1])
        np.testing.assert_allclose(got[1], numbers[-steps:], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(got[2], values[-steps:], rtol=1e-4, atol=1e-5)
        jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5), got[0], memory)


@NETWORKS
def test_what_was_perceived_first_is_remembered(network):
    """The derivative of the last output with respect to the first features is there, and finite."""
    features = jax.random.normal(jax.random.key(0), (STEPS, FEATURES))
    variables = jax.jit(network.initial_parameters)(jax.random.key(1), features[0])

    def last_value(features):
        def step(memory, now):
            memory, _, value = network.apply(variables, memory, now)
            return memory, value

        return jax.lax.scan(step, network.initial_memory(), features)[1][-1]

    gradient = jax.jit(jax.grad(last_value))(features)
    assert np.all(np.isfinite(gradient))
    assert np.any(gradient[0] != 0)


@pytest.mark.parametrize(
    ("name", "settings", "sentence"),
    [
        ("mann", {"slots": 3, "heads": 4}, "slots must be at least heads = 4, a read each, got 3"),
        ("snail", {"context": 7}, "context must be at least 8, the steps of a trial, got 7"),
        ("snail", {"memory.width": 9, "heads": 2}, "heads must divide width = 9, got 2"),
        ("rl2", {"minibatches": 3}, "minibatches must divide tasks_per_batch = 4, got 3"),
        ("rl2", {"cell": "rnn"}, "cell must be"),
        ("rl2", {"readout": "sum"}, "readout must be"),
        ("rl2", {"span": -1}, "span must be at least 0"),
    ],
)
def test_what_does_not_fit_is_refused(name, settings, sentence):
    with pytest.raises(UsageError, match=sentence):
        make_learner(name, "grid_navi:size=3,horizon=4", tiny(name, settings))


def test_initial_memories_hold_nothing():
    for network in (Recurrent(OUTPUTS, "gru", 6), Attentive(OUTPUTS, 8, 2, 2, STEPS)):
        assert not any(jnp.any(leaf) for leaf in jax.tree.leaves(network.initial_memory()))


@pytest.mark.parametrize(
    "network", [Recurrent(OUTPUTS, "gru", 6, span=100), Recurrent(OUTPUTS, "lstm", 6, span=100)], ids=["gru", "lstm"]
)
def test_units_forget_within_their_share_of_the_span(network):
    """With weights of zero a unit keeps, at every step, the share 1 - 1 / (1 + s) of what it held; s from 1 to 99."""
    nothing = jnp.zeros(FEATURES)
    variables = jax.jit(network.initial_parameters)(jax.random.key(0), nothing)
    gates_alone = {"kernel": jnp.zeros_like, "bias": lambda leaf: leaf}
    variables = jax.tree_util.tree_map_with_path(lambda path, leaf: gates_alone[path[-1].key](leaf), variables)
    held = jax.tree.map(jnp.ones_like, network.initial_memory())
    after = network.apply(variables, held, nothing)[0]
    cell_state = after[0] if network.cell == "lstm" else after
    spans = np.linspace(1, 99, 6)
    np.testing.assert_allclose(cell_state, spans / (1 + spans), rtol=1e-5)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_the_shortest_span_leaves_parameters_as_they_are(cell):
    network = Recurrent(OUTPUTS, cell, 6, span=2)
    nothing = jnp.zeros(FEATURES)
    plain = network.init(jax.random.key(0), network.initial_memory(), nothing)
    chex.assert_trees_all_equal(network.initial_parameters(jax.random.key(0), nothing), plain)
