"""The policy over hyper-parameters: what it sees, what it sets, and that what it sets makes a difference."""

from types import MappingProxyType

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.algorithms.maml import inner_loop
from jaxmeta.algorithms.registry import make_learner
from jaxmeta.core import tasks
from jaxmeta.core.config import AdaptationConfig
from jaxmeta.core.errors import UsageError
from jaxmeta.core.rollout import Runner
from jaxmeta.core.settings import with_values
from jaxmeta.core.spec import spec_of
from jaxmeta.core.types import Percept, Rollout
from jaxmeta.inner.gradient import mixed
from jaxmeta.inner.hyper_policy import DECAYS, FORMS, SET, Statistics, moved, view_of, with_round
from jaxmeta.nets.networks import WHOLE, taking_part
from jaxmeta.rl import make_agent
from tests import tiers, toy
from tests.conftest import TINY, tiny

SETTINGS = {name: value for name, value in TINY.items() if name != "epsilon_decay"} | {
    "num_perturbations": 2,
    "n_step": 3,
    "mixed_targets": True,
    "inner.learning_rate": 0.3,
    "discount": 0.9,
    "agent.epsilon": 0.4,
    "mixing": 0.3,
    "target_step_size": 0.5,
    "temperature": 0.5,
    "stickiness": 0.0,
}


def made(grid, settings=MappingProxyType({})):
    """A learner, and its meta-parameters, with a policy that sees what it sees."""
    learner = make_learner("hyper_policy", grid, tiny("hyper_policy", settings, small=SETTINGS))
    return learner, learner.adapter.init(jax.random.key(0))


def with_output(meta, index, value):
    """The same policy with something added to one of its outputs."""
    head = meta.policy["params"]["head"]
    changed = {"params": meta.policy["params"] | {"head": head | {"bias": head["bias"].at[index].add(value)}}}
    return meta.replace(policy=changed)


def adapted(grid, learner, adaptations=2):
    """`live(meta)`: where a life stands after so many adaptations, and what was done."""

    @jax.jit
    def live(meta):
        env_params = grid.sample(jax.random.key(1), "train")
        task = learner.task(jax.random.key(2), env_params)
        learner_state = Runner(grid.env, learner.adapter).reset(
            jax.random.key(3), meta, task, learner.lifetime.num_envs
        )
        shape = AdaptationConfig(num_envs=3, rollout_length=4, num_adaptations=adaptations)
        return Runner(grid.env, learner.adapter).adapt_for(
            jax.random.key(4), meta, task, learner_state, shape, lambda key, round_: round_.rollout
        )

    return live


@pytest.mark.parametrize("form", ["online", *tiers.slow("schedule", "static", "constant")])
def test_at_first_it_sets_what_the_settings_say(grid, form):
    learner, meta = made(grid, {"policy.form": form})
    learner_state, _ = adapted(grid, learner)(meta)
    settings = {path.rpartition(".")[2]: value for path, value in SETTINGS.items()}
    for name in SET:
        np.testing.assert_allclose(getattr(learner_state.fast.learner.hyperparams, name), settings[name], rtol=1e-5)


@pytest.mark.parametrize(
    ("agent", "name"),
    [
        *(("dqn", "learning_rate"), ("dqn", "discount")),
        *tiers.slow(("dqn", "mixing"), ("dqn", "target_step_size")),
        # A table's greedy values are those of actions not tried yet, zero, as long as rewards are negative.
        *tiers.slow(*(("tabular_q", name) for name in SET if name not in ("epsilon", "target_step_size"))),
    ],
)
def test_every_output_that_teaches_changes_the_next_update(grid, agent, name):
    """From the first step on, but for the slow targets, which begin to differ from the others after it."""
    learner, meta = made(grid, {"agent": agent, "inner.num_steps": 2})
    live = adapted(grid, learner, adaptations=1)
    plain, other = (live(m)[0].fast.learner.params for m in (meta, with_output(meta, SET.index(name), 0.5)))
    apart = jax.tree.map(lambda a, b: float(jnp.max(jnp.abs(a - b))), plain["network"], other["network"])
    assert max(jax.tree.leaves(apart)) > 1e-6
    assert live._cache_size() == 1


def test_epsilon_changes_what_is_done_next(grid):
    learner, meta = made(grid)
    live = adapted(grid, learner, adaptations=1)
    logits = [live(m)[1].extras["logits"] for m in (meta, with_output(meta, SET.index("epsilon"), 2.0))]
    assert np.all(np.ptp(logits[1], axis=-1) < np.ptp(logits[0], axis=-1))


@pytest.mark.slow
def test_no_gradient_of_epsilon_passes_and_one_of_all_else_does(grid):
    """Two adaptations later, of what the parameters are then."""
    by_backpropagation = {"gradient_estimator": "backpropagation", "objective.loss": "td", "inner.optimizer": "sgd"}
    learner, meta = made(grid, {"policy.form": "constant", "inner.num_steps": 2, **by_backpropagation})
    live = adapted(grid, learner)

    def size(meta):
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(live(meta)[0].fast.learner.params["network"]))

    gradient = np.asarray(jax.jit(jax.grad(size))(meta).policy["params"]["head"]["bias"])
    assert [name for name, slope in zip(SET, gradient, strict=True) if slope == 0] == ["epsilon"]


@pytest.mark.slow
def test_structure_is_set_once_and_stays(grid):
    learner, meta = made(grid, {"structure": True, "hidden": (8, 6)})
    live = adapted(grid, learner)
    plain, other = (live(m)[0].fast.learner for m in (meta, with_output(meta, len(SET) + 1, -3.0)))
    np.testing.assert_allclose(plain.params["structure"], [WHOLE, WHOLE])
    np.testing.assert_allclose(other.params["structure"], [WHOLE, WHOLE - 12.0])
    np.testing.assert_array_equal(other.params["structure"], other.target_params["structure"])
    assert float(jnp.max(jnp.abs(plain.params["network"]["params"]["head"]["kernel"]))) != float(
        jnp.max(jnp.abs(other.params["network"]["params"]["head"]["kernel"]))
    )


def test_of_a_layer_so_much_takes_part():
    np.testing.assert_allclose(taking_part(jnp.array(WHOLE), 64), 1.0, atol=0.02)
    np.testing.assert_allclose(taking_part(jnp.array(-WHOLE), 64), 0.0, atol=0.02)
    assert float(jnp.sum(taking_part(jnp.array(0.0), 64))) == pytest.approx(32, rel=1e-5)


def test_forms_see_what_they_are_named_after():
    seen = Statistics(jnp.array(2), jnp.array([0.1, 0.2]), jnp.array([0.3, 0.1]), jnp.array(0.5))
    later, better = seen.replace(rounds=jnp.array(3)), seen.replace(reward=jnp.array([0.4, 0.2]))
    for form, of_time, of_learning, of_task in [
        ("online", True, True, False),
        ("schedule", True, False, False),
        ("static", False, False, True),
        ("constant", False, False, False),
    ]:
        view = view_of(form, 2, 10)
        sees = view.of(jnp.zeros(2), seen)
        assert sees.shape == (view.size,)
        assert np.array_equal(sees, view.of(jnp.zeros(2), later)) != of_time
        assert np.array_equal(sees, view.of(jnp.zeros(2), better)) != of_learning
        assert np.array_equal(sees, view.of(jnp.ones(2), seen)) != of_task


def test_only_the_static_form_is_told_of_its_task(grid):
    env_params = grid.sample(jax.random.key(1), "train")
    for form in FORMS:
        context = made(grid, {"policy.form": form})[0].task(jax.random.key(0), env_params).context
        assert (context is not None) == (form == "static")


def test_statistics_are_averages_over_rollouts():
    rewards, errors = [[1.0, 3.0], [-6.0, -2.0]], [0.5, 0.25]
    statistics = Statistics(jnp.array(0), jnp.zeros(2), jnp.zeros(2), jnp.zeros(()))
    for reward, error in zip(rewards, errors, strict=True):
        nothing = jnp.zeros((2, 1))
        percept = Percept(nothing, nothing, nothing, nothing)
        rollout = Rollout(percept, nothing, jnp.array(reward)[:, None], nothing, nothing, nothing, {})
        statistics = with_round(statistics, rollout, {"td_error": jnp.array(error)})
    for index, decay in enumerate(DECAYS):
        expected = (1 - decay) * (decay * 2.0 + -4.0), (1 - decay) * (decay * 0.5 + 0.25)
        np.testing.assert_allclose((statistics.reward[index], statistics.error[index]), expected, rtol=1e-5)
    assert (int(statistics.rounds), float(statistics.largest)) == (2, 4.0)


def test_numbers_move_rates_by_factors_and_shares_by_odds():
    start = toy.hyperparams(learning_rate=0.1, discount=0.8, epsilon=0.0, target_step_size=1.0, mixing=0.5)
    after = moved(start, jnp.log(jnp.array([2.0, 2.0, 1.0, 1.0, 3.0])))
    np.testing.assert_allclose(after.learning_rate, 0.2, rtol=1e-5)
    np.testing.assert_allclose(after.discount, 8 / 9, rtol=1e-5)  # odds of 4 become 8
    np.testing.assert_allclose((after.epsilon, after.target_step_size), (0.001, 0.999), rtol=1e-4)
    np.testing.assert_allclose(after.mixing, 0.75, rtol=1e-5)


def test_mixed_targets_have_the_gradient_of_their_mean():
    def loss(params, target_params, batch, hyperparams):
        return 0.5 * jnp.sum((params - batch) ** 2), {}

    params, near, far = jnp.array([0.3, -1.0]), jnp.array([1.0, 2.0]), jnp.array([-2.0, 0.5])
    hyperparams = toy.hyperparams(mixing=0.25)
    gradient = jax.grad(lambda p: mixed(loss)(p, p, (near, far), hyperparams)[0])(params)
    np.testing.assert_allclose(gradient, params - (0.75 * near + 0.25 * far), rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"policy.form": "on-line"}, "Did you mean 'online'?"),
        ({"policy.width": 0}, "policy.width must be at least 1, got 0"),
        (
            {"structure": True, "agent": "tabular_q"},
            "setting must be one that hyper_policy reads with agent 'tabular_q'",
        ),
        ({"mixing": 1.5}, "mixing must be at most 1, got 1.5"),
    ],
)
def test_mistakes_are_told_before_anything_compiles(grid, settings, sentence):
    with pytest.raises(UsageError, match=sentence):
        made(grid, settings)


def test_a_task_without_a_description_is_refused():
    undescribed = tasks.make_tasks("grid_navi:size=3,horizon=4")._replace(describe=lambda params: jnp.zeros(0))
    with pytest.raises(UsageError, match=r"form must have a description of its tasks, and .* has none, got 'static'"):
        make_learner("hyper_policy", undescribed, SETTINGS | {"policy.form": "static"})


def test_fixed_settings_are_those_of_gradient_steps(grid):
    """What it sets at first teaches as the same hyper-parameters do without it."""
    learner, meta = made(grid)
    config = with_values(learner.config, {"agent.epsilon_decay": 1.0})
    agent = make_agent(spec_of(grid), config.agent)
    plain = learner._replace(adapter=inner_loop(grid, agent, config, fresh=True, target_network=True))
    ours = adapted(grid, learner)(meta)[0].fast.learner.params
    theirs = adapted(grid, plain)(meta.start)[0].fast.params
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5), ours, theirs)
