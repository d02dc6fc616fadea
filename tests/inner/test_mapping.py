"""Mappings: what maps do to parameters, which sources are read, what the bank holds, and the gradient of the loss."""

import itertools
from types import MappingProxyType

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import jaxmeta
from jaxmeta.algorithms.registry import make_learner
from jaxmeta.core.errors import UsageError
from jaxmeta.core.rollout import Runner
from jaxmeta.core.spec import spec_of
from jaxmeta.core.types import sample_tasks
from jaxmeta.inner import mapping as mappings
from jaxmeta.inner import parameter_maps as maps
from jaxmeta.nets.encoders import SetEncoder
from jaxmeta.rl import make_agent, replay
from tests import tiers
from tests.trees import drawn

TINY = {
    "hidden": (4,),
    "num_envs": 2,
    "num_adaptations": 3,
    "agent.replay_capacity": 3,
    "inner.num_steps": 1,
    "inner.max_gradient_norm": 1.0,
    "num_sources": 3,
    "sources.num_steps": 2,
    "sources.replay_capacity": 4,
    "sources.epsilon": 0.3,
    "map.width": 3,
    "bank_batch": 5,
    "encoder.width": 4,
}
FORMS = {
    "full": maps.Full(3),
    "diagonal": maps.Diagonal(3),
    "kronecker": maps.Kronecker(3),
    "low_rank": maps.LowRank(3, 2),
}
PAIR = jnp.array([0.3, -0.7, 1.1])


@pytest.fixture
def network():
    return drawn({"layer": {"kernel": jnp.zeros((3, 4)), "bias": jnp.zeros(4)}})


@pytest.mark.parametrize("name", FORMS)
def test_every_map_is_a_copy_at_first(name, network):
    weights = jax.jit(FORMS[name].init)(jax.random.key(0), PAIR, network)
    jax.tree.map(np.testing.assert_array_equal, FORMS[name].apply(weights, PAIR, network), network)


def outputs(weights):
    """What the last layers put out, by name."""
    params = jax.tree.map(np.asarray, weights["params"])
    hidden = np.tanh(np.asarray(PAIR) @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    return {name: hidden @ layer["kernel"] + layer["bias"] for name, layer in params.items() if name != "hidden"}


@pytest.fixture
def applied(network):
    """By form, what is put out and what the map makes of the network, as a vector."""

    def apply(name):
        weights = drawn(jax.eval_shape(FORMS[name].init, jax.random.key(0), PAIR, network), 1)
        return outputs(weights), ravel_pytree(FORMS[name].apply(weights, PAIR, network))[0]

    return apply


def test_a_full_map_is_the_product_with_its_matrix(network, applied):
    put_out, result = applied("full")
    vector = np.asarray(ravel_pytree(network)[0])
    matrix = np.eye(16) + put_out["matrix"].reshape(16, 16)
    np.testing.assert_allclose(result, matrix @ vector, rtol=1e-4, atol=1e-5)


def test_a_kronecker_map_is_the_full_one_of_its_factors(network, applied):
    put_out, result = applied("kronecker")
    left = np.eye(3) + put_out["layer_kernel_left"].reshape(3, 3)
    right = np.eye(4) + put_out["layer_kernel_right"].reshape(4, 4)
    of_bias = np.eye(4) + put_out["layer_bias_right"].reshape(4, 4)
    matrix = np.zeros((16, 16))
    matrix[:4, :4] = of_bias.T
    matrix[4:, 4:] = np.kron(left, right.T)
    vector = np.asarray(ravel_pytree(network)[0])
    np.testing.assert_allclose(result, matrix @ vector, rtol=1e-4, atol=1e-5)


def test_a_diagonal_map_and_one_of_low_rank_are_their_formulas(network, applied):
    vector = np.asarray(ravel_pytree(network)[0])
    put_out, result = applied("diagonal")
    np.testing.assert_allclose(result, vector * (1 + put_out["diagonal"]), rtol=1e-4, atol=1e-5)
    put_out, result = applied("low_rank")
    parts = []
    for name, part in (("bias", vector[:4]), ("kernel", vector[4:])):
        into, out = (put_out[f"layer_{name}_{way}"].reshape(len(part), 2) for way in ("in", "out"))
        parts.append(part + out @ (into.T @ part) / np.sqrt(len(part)))
    np.testing.assert_allclose(result, np.concatenate(parts), rtol=1e-4, atol=1e-5)


def test_a_full_map_too_large_is_refused_with_its_size(grid):
    sentence = (
        r"map\.form must be another than 'full' for \d\d,\d\d\d parameters, whose map would have weights of \d+\.\d GB"
    )
    with pytest.raises(UsageError, match=sentence):
        make_learner("mapping", grid, TINY | {"hidden": (128, 128), "map.form": "full"}).init(jax.random.key(0))


def carrier_of(grid, selection, map_of=None, encoder=None):
    size = grid.describe(grid.sample(jax.random.key(0), "train")).size
    return mappings.mapping(spec_of(grid), map_of or maps.Identity(), selection, 3, size, encoder, 3)


def stocked(grid, settings=MappingProxyType({})):
    """A state of `mapping` whose bank and weights are drawn anew, so that no two sources and no two maps are alike."""
    learner = make_learner("mapping", grid, {**TINY, **settings})
    state = jax.jit(learner.init)(jax.random.key(0))
    bank = state.meta.bank.replace(network=drawn(state.meta.bank.network))
    weights = jax.tree.map(lambda leaf: 0.3 * leaf, drawn(state.meta.weights, 1))
    return learner, state.replace(meta=state.meta.replace(bank=bank, weights=weights))


def bank_loss_of(grid, config, parameter_map, reads_one):
    agent = make_agent(spec_of(grid), config.agent)
    return mappings.bank_loss(parameter_map, agent, config.loss, config.inner.max_gradient_norm, reads_one)


@pytest.mark.parametrize(
    ("selection", "shares"),
    [("nearest", [0, 0, 1]), ("random", [1, 0, 0]), ("average", [1 / 3, 1 / 3, 1 / 3])],
)
def test_which_sources_are_read(grid, selection, shares):
    parameter_map = carrier_of(grid, selection)
    _, state = stocked(grid, {"source_selection": selection, "map.form": "identity"})
    sources = state.meta.bank.description
    result = parameter_map.carry(state.meta, sources[2] + 0.01, sources, jnp.ones(3, bool))
    expected = jax.tree.map(
        lambda leaf: jnp.tensordot(jnp.array(shares, jnp.float32), leaf, 1), state.meta.bank.network
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), result, expected)


@pytest.mark.parametrize("selection", ["nearest", "attention", *tiers.slow("random", "average")])
def test_what_is_not_allowed_is_not_read(grid, selection):
    parameter_map = carrier_of(grid, selection)
    _, state = stocked(grid, {"source_selection": selection, "map.form": "identity"})
    sources, allowed = state.meta.bank.description, jnp.array([False, True, True])
    network = jax.tree.map(lambda leaf: leaf.at[0].set(jnp.nan), state.meta.bank.network)
    without = state.meta.replace(bank=state.meta.bank.replace(network=jax.tree.map(jnp.nan_to_num, network)))
    one = parameter_map.carry(state.meta, sources[0], sources, allowed)
    other = parameter_map.carry(without, sources[0], sources, allowed)
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_attention_is_its_formula(grid):
    parameter_map = carrier_of(grid, "attention", maps.Kronecker(3))
    _, state = stocked(grid, {"source_selection": "attention", "map.form": "kronecker"})
    meta, sources = state.meta, state.meta.bank.description
    target = jnp.array([0.4, -0.2])[: sources.shape[1]]
    weights = jax.tree.map(np.asarray, meta.weights.attention["params"])
    query = np.asarray(target) @ weights["query"]["kernel"] + weights["query"]["bias"]
    keys = np.asarray(sources) @ weights["key"]["kernel"] + weights["key"]["bias"]
    share = np.exp(keys @ query / np.sqrt(3))
    share /= share.sum()
    mixture = jax.tree.map(lambda leaf: np.tensordot(share, leaf, 1), meta.bank.network)
    expected = ravel_pytree(parameter_map.apply(meta, target, share @ np.asarray(sources), mixture))[0]
    result = ravel_pytree(parameter_map.carry(meta, target, sources, jnp.ones(3, bool)))[0]
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("selection", "embedding"), [("attention", "described"), ("random", "inferred")])
def test_the_gradient_of_the_bank_loss_matches_finite_differences(grid, selection, embedding):
    settings = {
        "source_selection": selection, "task_embedding": embedding, "loss.beta": 0.3, "loss.td": 0.7,
        "loss.td_steps": 2, "agent": "dqn", "temperature": 0.5, "inner.learning_rate": 0.1,
    }  # fmt: skip
    learner, state = stocked(grid, settings)
    encoder = SetEncoder(4, "mean") if embedding == "inferred" else None
    parameter_map = carrier_of(grid, selection, maps.Kronecker(3), encoder)
    state, _ = jax.jit(learner.update)(jax.random.key(1), state, None)
    loss = bank_loss_of(grid, learner.config, parameter_map, reads_one=selection == "random")
    with jax.enable_x64(True):
        weights = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), state.meta.weights)
        vector, unravel = ravel_pytree(weights)

        @jax.jit
        def value(vector):
            meta = state.meta.replace(weights=unravel(vector))
            return loss(jax.random.key(2), meta, state.aux_state.learner_states.fast)[0]

        gradient = jax.jit(jax.grad(value))(vector)
        rng = np.random.default_rng(0)
        for _ in range(3):
            direction = rng.normal(size=vector.size)
            change = (value(vector + 1e-6 * direction) - value(vector - 1e-6 * direction)) / 2e-6
            np.testing.assert_allclose(gradient @ direction, change, rtol=1e-4, atol=1e-7)


def test_a_source_is_never_made_of_itself(grid):
    """Of two sources whose places in the bank are swapped each is a copy of what it is to be compared with."""
    settings = TINY | {"source_selection": "average", "map.form": "identity", "num_sources": 2, "agent": "dqn"}
    learner = make_learner("mapping", grid, settings)
    state = jax.jit(learner.init)(jax.random.key(0))
    size = state.meta.bank.description.shape[1]
    parameter_map = mappings.mapping(spec_of(grid), maps.Identity(), "average", 2, size, None, 3)
    loss = bank_loss_of(grid, learner.config, parameter_map, reads_one=False)
    network = drawn(state.meta.bank.network)
    meta = state.meta.replace(bank=state.meta.bank.replace(network=network))
    fast = state.aux_state.learner_states.fast
    fast = fast.replace(replay=fast.replay.replace(written=jnp.ones(2, jnp.int32)))

    @jax.jit
    def distance(trained):
        return loss(jax.random.key(2), meta, fast.replace(params={**fast.params, "network": trained}))[1][
            "distillation"
        ]

    assert float(distance(jax.tree.map(lambda leaf: leaf[::-1], network))) == pytest.approx(0.0, abs=1e-9)
    assert float(distance(network)) > 0.01


def test_the_bank_holds_what_sources_have_learned_from_one_start(grid):
    learner = make_learner("mapping", grid, TINY)
    state = jax.jit(learner.init)(jax.random.key(0))
    start = state.meta.start.params["network"]
    jax.tree.map(
        lambda bank, one: np.testing.assert_array_equal(bank, np.stack([one] * 3)), state.meta.bank.network, start
    )
    assert len(np.unique(np.asarray(state.meta.bank.description), axis=0)) == 3
    update = jax.jit(learner.update)
    after, _ = update(jax.random.key(1), state, None)
    after, info = update(jax.random.key(2), after, None)
    learned = after.aux_state.learner_states.fast.params["network"]
    jax.tree.map(np.testing.assert_array_equal, after.meta.bank.network, learned)
    heads = np.asarray(after.meta.bank.network["params"]["head"]["kernel"])
    assert np.any(heads[0] != heads[1])
    np.testing.assert_array_equal(after.aux_state.learner_states.fast.replay.written, [2, 2, 2])
    np.testing.assert_allclose(after.aux_state.learner_states.fast.hyperparams.epsilon, 0.3)
    jax.tree.map(np.testing.assert_array_equal, after.meta.start, state.meta.start)
    assert np.isfinite(info.metrics["distillation"])


@pytest.mark.slow
def test_tasks_that_are_inferred_are_known_by_what_newcomers_see(grid):
    """Whose parameters never change: they show it in every rollout."""
    settings = {
        "task_embedding": "inferred",
        "source_selection": "average",
        "map.form": "identity",
        "agent.epsilon": 0.0,
    }
    learner = make_learner("mapping", grid, TINY | settings)
    state = jax.jit(learner.init)(jax.random.key(0))
    before = state.meta
    assert state.meta.bank.replay.rollouts.reward.shape == (3, 3, 4, 2)  # sources, adaptations, steps, environments
    state, _ = jax.jit(learner.update)(jax.random.key(1), state, None)
    replay = state.meta.bank.replay
    np.testing.assert_array_equal(replay.written, [1, 1, 1])
    env_params = jax.tree.map(lambda leaf: leaf[0], state.aux_state.env_params)
    task = learner.task(jax.random.key(2), env_params)
    learner_state = Runner(grid.env, learner.adapter).reset(jax.random.key(3), before, task, 2)
    seen = Runner(grid.env, learner.adapter).rollout(jax.random.key(4), before, task, learner_state, 4)[1]
    np.testing.assert_array_equal(replay.rollouts.action[0, 0], seen.action)  # greedy, in an environment without chance


def test_as_many_rollouts_are_known_as_there_are_moments_in_a_life():
    buffer = replay.Replay(replay.Transitions(*[jnp.zeros((3, 4, 2))] * 6), jnp.asarray(7))
    known = jax.vmap(lambda key: mappings.some_rounds(key, buffer).written)(jax.random.split(jax.random.key(0), 4000))
    np.testing.assert_allclose(np.bincount(known) / 4000, [0.25] * 4, atol=0.03)
    young = buffer.replace(written=jnp.asarray(1))
    known = jax.vmap(lambda key: mappings.some_rounds(key, young).written)(jax.random.split(jax.random.key(0), 100))
    assert set(known.tolist()) == {0, 1}


def lives(grid, settings):
    """Parameters of a life at its start and after each adaptation, and the carrier's meta."""
    learner, state = stocked(grid, settings)
    meta = state.meta
    task = learner.task(
        jax.random.key(1), jax.tree.map(lambda x: x[0], sample_tasks(jax.random.key(2), grid, "train", 1))
    )
    learner_state = jax.jit(lambda key: Runner(grid.env, learner.adapter).reset(key, meta, task, 2))(jax.random.key(3))
    kept = jax.jit(
        lambda key: Runner(grid.env, learner.adapter).adapt_for(
            key, meta, task, learner_state, learner.lifetime, lambda _, round_: round_.after.fast.params
        )[1]
    )(jax.random.key(4))
    return learner, meta, task, learner_state.fast.params, kept


def test_a_described_task_starts_from_what_is_carried_to_it(grid):
    _, meta, task, begun, after = lives(grid, {"source_selection": "nearest", "inner.learning_rate": 0.0})
    parameter_map = carrier_of(grid, "nearest", maps.Kronecker(3))
    expected = parameter_map.carry(meta, task.context, meta.bank.description, jnp.ones(3, bool))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), begun["network"], expected)
    for index in range(3):  # a step size of zero: nothing is renewed
        jax.tree.map(lambda a, b, index=index: np.testing.assert_array_equal(a[index], b), after, begun)


@pytest.mark.parametrize(
    ("regenerate", "changes"), [("first", [True, False, False]), *tiers.slow(("every", [True, True, True]))]
)
def test_an_inferred_embedding_is_renewed_with_the_data(grid, regenerate, changes):
    settings = {
        "task_embedding": "inferred",
        "source_selection": "attention",
        "inner.learning_rate": 0.0,
        "regenerate": regenerate,
    }
    _, _, _, begun, after = lives(grid, settings)
    heads = [np.asarray(begun["network"]["params"]["head"]["kernel"]), *after["network"]["params"]["head"]["kernel"]]
    assert [bool(np.any(one != other)) for one, other in itertools.pairwise(heads)] == changes


@pytest.mark.slow
def test_a_run_is_resumed_with_its_bank_and_refused_with_another_network(grid, tmp_path):
    settings, options = TINY | {"final_learning_rate_fraction": 1.0}, {"log_every": 1, "checkpoint_every": 1}
    whole = jaxmeta.train("mapping", grid, settings, run_dir=tmp_path / "whole", meta_steps=4, **options).state
    jaxmeta.train("mapping", grid, settings, run_dir=tmp_path / "parts", meta_steps=2, **options)
    parts = jaxmeta.train("mapping", grid, run_dir=tmp_path / "parts", resume=True, meta_steps=4).state
    assert jaxmeta.state_digest(whole) == jaxmeta.state_digest(parts)
    with pytest.raises(UsageError, match="hidden must be"):
        jaxmeta.train("mapping", grid, {"hidden": (5,)}, run_dir=tmp_path / "parts", resume=True)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"num_sources": 1}, "num_sources must be at least 2, got 1"),
        ({"map.form": "diagnal"}, "Did you mean 'diagonal'?"),
        ({"source_selection": "near"}, "source_selection must be one of"),
        ({"agent": "actor_critic"}, "agent must be one of dqn, tabular_q, got 'actor_critic'"),
    ],
)
def test_mistakes_are_told(grid, settings, sentence):
    with pytest.raises(UsageError, match=sentence.replace("?", r"\?")):
        make_learner("mapping", grid, TINY | settings)


def test_tasks_without_a_description_cannot_be_described(grid):
    undescribed = grid._replace(describe=lambda env_params: jnp.zeros(0))
    sentence = "task_embedding must be 'inferred' for grid_navi:size=3,horizon=4, whose tasks have no description"
    with pytest.raises(UsageError, match=sentence):
        make_learner("mapping", undescribed, TINY)
