"""Learning in context: what a memory keeps, and the gradient of policy optimisation against an exact one."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmeta.algorithms.registry import make_learner
from jaxmeta.core import tasks
from jaxmeta.core.config import AdaptationConfig
from jaxmeta.core.errors import UsageError
from jaxmeta.core.rollout import Runner
from jaxmeta.core.spec import spec_of
from jaxmeta.core.types import Rollout, Spec, Task, sample_tasks
from jaxmeta.evaluation.measurement import measure
from jaxmeta.inner import in_context
from jaxmeta.nets.memories import Recurrent
from jaxmeta.outer import ppo
from jaxmeta.outer.epochs import TrustRegionConfig, clipped_gain
from jaxmeta.outer.ppo import PPOConfig, in_first, policy_optimisation
from jaxmeta.rl import distributions
from jaxmeta_envs.bandit.family import bandit
from tests.toy import CentreEnv

MEANS = np.array([0.2, 0.7])
PULLS = 2
ONE_STEP = TrustRegionConfig(epochs=1, minibatches=1)


@pytest.fixture(scope="module")
def arms():
    return bandit(arms=2, pulls=PULLS)


def learner_of(tasks, cell="gru"):
    spec = spec_of(tasks)
    actions = distributions.of_actions(spec)
    return in_context(Recurrent(actions.size, cell, 6), spec, actions), actions


def task_of(tasks):
    return tasks.sample(jax.random.key(0), "train").replace(means=jnp.asarray(MEANS, jnp.float32))


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_memory_lasts_through_episodes_and_is_cleared_between_lifetimes(arms, cell):
    adapter, _ = learner_of(arms, cell)
    meta, task = adapter.init(jax.random.key(0)), Task(task_of(arms), None)
    learner_state = Runner(arms.env, adapter).reset(jax.random.key(1), meta, task, 1)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(learner_state.memory))
    after, taken = Runner(arms.env, adapter).rollout(jax.random.key(2), meta, task, learner_state, 3)
    assert np.all(taken.terminated)
    assert any(np.any(leaf) for leaf in jax.tree.leaves(after.memory))
    logits = taken.extras["logits"][:, 0]
    assert not np.allclose(logits[0], logits[1])


def test_what_was_remembered_decides_the_first_action_of_an_episode(arms):
    """Of one that goes on as much as of one that is played beside the lifetime."""
    adapter, _ = learner_of(arms)
    meta, task = adapter.init(jax.random.key(0)), Task(task_of(arms), None)
    learner_state = Runner(arms.env, adapter).reset(jax.random.key(1), meta, task, 1)
    assert np.all(learner_state.percept.first)

    before, remembered = learner_state.memory

    @jax.jit
    def first_logits(remembered):
        start = learner_state.replace(memory=(before, remembered))
        goes_on = Runner(arms.env, adapter).rollout(jax.random.key(2), meta, task, start, 1)[1]
        beside = Runner(arms.env, adapter).evaluate_policy(jax.random.key(2), meta, task, start, 1, 1)
        return goes_on.extras["logits"], beside.extras["logits"]

    other = jax.tree.map(lambda leaf: leaf + 1.0, remembered)
    for one, two in zip(first_logits(remembered), first_logits(other), strict=True):
        assert not np.allclose(one, two)


def test_what_was_done_and_paid_last_is_perceived(arms):
    adapter, _ = learner_of(arms)
    meta, task = adapter.init(jax.random.key(0)), Task(task_of(arms), None)
    learner_state = Runner(arms.env, adapter).reset(jax.random.key(1), meta, task, 1)
    learner_state, taken = Runner(arms.env, adapter).rollout(jax.random.key(2), meta, task, learner_state, 5)
    np.testing.assert_array_equal(taken.percept.previous_action[1:], taken.action[:-1])
    np.testing.assert_array_equal(taken.percept.previous_reward[1:], taken.reward[:-1])
    assert np.all(taken.percept.first)
    guest = Runner(arms.env, adapter).evaluate_policy(jax.random.key(3), meta, task, learner_state, 4, 1)
    np.testing.assert_array_equal(guest.percept.previous_action[0], np.repeat(taken.action[-1], 4))
    np.testing.assert_array_equal(guest.percept.previous_reward[0], np.repeat(taken.reward[-1], 4))


def test_the_observation_before_is_shown():
    """One step from the same memory and percept, after two observations that differ, leads to different memories."""
    grid = tasks.make_tasks("grid_navi:size=3,horizon=4")
    adapter, _ = learner_of(grid)
    meta, task = adapter.init(jax.random.key(0)), Task(grid.sample(jax.random.key(1), "train"), None)
    learner_state = Runner(grid.env, adapter).reset(jax.random.key(2), meta, task, 1)
    learner_state, taken = Runner(grid.env, adapter).rollout(jax.random.key(3), meta, task, learner_state, 3)
    before, remembered = jax.tree.map(lambda leaf: leaf[0], learner_state.memory)
    np.testing.assert_array_equal(before, taken.percept.observation[-1, 0])
    noise, percept = adapter.noise(jax.random.key(4)), jax.tree.map(lambda leaf: leaf[0], learner_state.percept)
    _, (shown, one), _ = adapter.act(noise, meta, None, (before, remembered), percept)
    _, (_, other), _ = adapter.act(noise, meta, None, (jnp.roll(before, 1), remembered), percept)
    np.testing.assert_array_equal(shown, percept.observation)
    assert not np.allclose(one, other)


def expected_return(adapter, meta, task):
    """Of a trial, by enumeration of everything that can be pulled and paid."""
    learner_state = Runner(bandit(arms=2).env, adapter).reset(jax.random.key(1), meta, task, 1)
    start = jax.tree.map(lambda leaf: leaf[0], (learner_state.memory, learner_state.percept))

    def part(history):
        (memory, percept), chance = start, 1.0
        for action, paid in zip(history[::2], history[1::2], strict=True):
            _, memory, extras = adapter.act(adapter.noise(jax.random.key(0)), meta, None, memory, percept)
            mean = jnp.asarray(MEANS, jnp.float32)[action]
            chance *= jax.nn.softmax(extras["logits"])[action] * jnp.where(paid, mean, 1 - mean)
            percept = percept._replace(previous_action=action, previous_reward=paid.astype(jnp.float32))
        return chance * jnp.sum(history[1::2])

    return jnp.sum(jax.vmap(part)(jnp.array(list(itertools.product(*[(0, 1)] * (2 * PULLS))))))


@pytest.fixture
def descent(monkeypatch):
    """Plain steps of size 1 in place of Adam's, so that where they lead is the gradient."""
    monkeypatch.setattr(ppo, "outer_optimizer", lambda config, steps: optax.sgd(1.0))


@pytest.mark.usefixtures("descent")
def test_the_first_step_of_policy_optimisation_is_along_the_exact_gradient(arms):
    """Without discount or clipping, and with advantages that reach to the end, its mean is the derivative, known
    exactly, of the expected return of a trial, but for the scale of the advantages.
    """
    adapter, actions = learner_of(arms)
    lifetime = AdaptationConfig(num_envs=1, rollout_length=1, num_adaptations=PULLS)
    config = PPOConfig(trust_region=ONE_STEP, discount=1.0, gae_lambda=1.0, value_weight=0.0, entropy=0.0)
    init, update = policy_optimisation(Runner(arms.env, adapter), actions, lifetime, config, meta_steps=1, horizon=1)
    state = init(jax.random.key(0))
    meta = jax.tree.map(lambda leaf: leaf + 0.5 * jax.random.normal(jax.random.key(leaf.size), leaf.shape), state.meta)
    state = state.replace(meta=meta)
    exact = jax.jit(jax.grad(lambda meta: expected_return(adapter, meta, Task(task_of(arms), None))))(meta)

    lives = 20_000
    env_params = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (lives, *leaf.shape)), task_of(arms))
    steps = jax.jit(lambda key: jax.tree.map(jnp.subtract, update(key, state, Task(env_params, None))[0].meta, meta))
    samples = [jax.flatten_util.ravel_pytree(steps(jax.random.key(seed)))[0] for seed in range(8)]
    mean, error = np.mean(samples, axis=0), np.std(samples, axis=0, ddof=1) / np.sqrt(len(samples))
    exact = np.asarray(jax.flatten_util.ravel_pytree(exact)[0])
    scale = mean @ exact / (exact @ exact)
    assert scale > 0
    assert mean @ exact / np.linalg.norm(mean) / np.linalg.norm(exact) > 0.999
    assert np.linalg.norm(mean - scale * exact) < 4 * np.linalg.norm(error)


def test_which_steps_belong_to_the_first_episodes():
    ended = np.array([0, 1, 0, 0, 1, 0, 1, 0], bool)[:, None]
    nothing = np.zeros_like(ended)
    rollout = Rollout(*[None] * len(Rollout._fields))
    for episodes, last in ((1, 2), (2, 5), (3, 7), (4, 8)):
        for terminated, truncated in ((ended, nothing), (nothing, ended)):
            counts = in_first(rollout._replace(terminated=terminated, truncated=truncated), episodes)
            np.testing.assert_array_equal(counts[:, 0], np.arange(1, 9) <= last)


class Afterwards(CentreEnv):
    """Pays for one of two actions in an episode of two steps; shows and pays its parameter in all that follow."""

    def step(self, key, state, action, params):
        """Takes a step; the state is the number of steps since the very first."""
        first = state < 2
        shown = jnp.where(state < 1, 0.0, params) * jnp.ones(2)
        ended = state % 2 == 1
        reward = jnp.where(first, action.astype(jnp.float32), params)
        return shown, state + 1, reward, ended, jnp.zeros((), bool), {"final_observation": jnp.zeros(2)}

    def reset(self, key, params):
        """Starts the first episode."""
        return jnp.zeros(2), jnp.zeros((), jnp.int32)


@pytest.mark.usefixtures("descent")
def test_what_comes_after_the_last_episode_that_counts_changes_nothing():
    """Neither through rewards, nor values, nor the entropy of what is done there."""
    spec = Spec(jax.ShapeDtypeStruct((2,), jnp.float32), jax.ShapeDtypeStruct((), jnp.int32), None, 2)
    actions = distributions.of_actions(spec)
    adapter = in_context(Recurrent(actions.size, "gru", 6), spec, actions)
    lifetime = AdaptationConfig(num_envs=2, rollout_length=6, num_adaptations=1)
    config = PPOConfig(trust_region=TrustRegionConfig(epochs=2, minibatches=2), discount=0.9, entropy=0.5)
    init, update = policy_optimisation(
        Runner(Afterwards(), adapter), actions, lifetime, config, meta_steps=1, horizon=6
    )
    state = init(jax.random.key(0))
    after = {tail: jax.jit(update)(jax.random.key(1), state, Task(jnp.full(4, tail), None)) for tail in (0.0, 5.0)}
    (quiet, reported), (loud, told_too) = after.values()
    assert not jax.tree.all(jax.tree.map(np.allclose, quiet.meta, state.meta))
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, atol=1e-6), quiet.meta, loud.meta)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6), reported, told_too)


class Paid(CentreEnv):
    """Pays its parameter for one of two actions."""

    def step(self, key, state, action, params):
        """Takes a step."""
        ended = jnp.zeros((), bool)
        return jnp.ones(2), state, params * action, ended, ended, {"final_observation": jnp.ones(2)}

    def reset(self, key, params):
        """Starts an episode."""
        return jnp.ones(2), jnp.zeros((), jnp.int32)


@pytest.mark.usefixtures("descent")
def test_a_policy_learns_as_much_from_large_rewards_as_from_small_ones():
    """For its advantages are normalised; the value, which is not, stays at zero."""
    spec = Spec(jax.ShapeDtypeStruct((2,), jnp.float32), jax.ShapeDtypeStruct((), jnp.int32), None, 2)
    actions = distributions.of_actions(spec)
    adapter = in_context(Recurrent(actions.size, "gru", 4, "plain"), spec, actions)
    lifetime = AdaptationConfig(num_envs=2, rollout_length=3, num_adaptations=1)
    config = PPOConfig(trust_region=ONE_STEP, discount=0.9, value_weight=0.0, entropy=0.0)
    init, update = policy_optimisation(Runner(Paid(), adapter), actions, lifetime, config, meta_steps=1, horizon=3)
    state = init(jax.random.key(0))
    network = state.meta["params"]
    state = state.replace(
        meta={"params": network | {"head_value": jax.tree.map(jnp.zeros_like, network["head_value"])}}
    )
    # What is perceived of a reward changes what is done next; the memory is told of none.
    small, large = (
        jax.jit(update)(jax.random.key(1), state, Task(jnp.full(8, scale), None))[0].meta["params"]["head"]["bias"]
        for scale in (1e-3, 2e-3)
    )
    assert np.any(np.abs(small) > 1e-2)
    np.testing.assert_allclose(small, large, rtol=0.05)


@pytest.mark.slow
def test_a_pole_that_falls_costs_the_rest_of_its_episode():
    """An environment that begins anew by itself pays as much whether poles fall or not."""
    family = tasks.make_tasks("cartpole:horizon=100")
    learner = make_learner(
        "rl2", family, {"num_adaptations": 2, "memory.width": 4, "tasks_per_batch": 8, "epochs": 1, "minibatches": 1}
    )
    params = sample_tasks(jax.random.key(0), family, "train", 8)
    metrics = jax.jit(learner.update)(jax.random.key(1), learner.init(jax.random.key(2)), Task(params, None))[1].metrics
    assert 5 < metrics["return"] < 60
    assert metrics["trial_return"] == pytest.approx(2 * metrics["return"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rl2", "mann", "snail"])
def test_a_memory_is_trained_on_more_rollouts_than_it_lives(arms, name):
    """Its training is that of whoever lives as long, and its lifetime is not."""
    small = {"tasks_per_batch": 4, "memory.width": 8, "num_envs": 1, "minibatches": 2, "epochs": 1}
    if name == "snail":  # keeps the longer lifetime and a rollout, as it is parameters that are compared
        small |= {"layers": 1, "context": 5}
    short = make_learner(name, arms, {"num_adaptations": 3, "trial_rollouts": 4, **small})
    whole = make_learner(name, arms, {"num_adaptations": 4, **small})
    assert (short.lifetime.num_adaptations, whole.lifetime.num_adaptations) == (3, 4)
    assert short.env_steps_per_task == whole.env_steps_per_task == 4 * short.lifetime.rollout_length
    params = sample_tasks(jax.random.key(0), arms, "train", 4)
    ends = [
        jax.jit(learner.update)(jax.random.key(1), learner.init(jax.random.key(2)), Task(params, None))[0].meta
        for learner in (short, whole)
    ]
    jax.tree.map(np.testing.assert_array_equal, *ends)
    returns = measure(jax.random.key(3), short, ends[0], arms, params).returns
    assert returns.shape == (4, 4)
    assert np.all(np.isfinite(returns))


@pytest.mark.parametrize(
    ("settings", "kept"), [({}, 4), ({"trial_rollouts": 4}, 4), ({"trial_rollouts": 6}, 6), ({"context": 9}, 9)]
)
def test_attention_keeps_a_trial_and_what_a_lifetime_led_to_and_no_more(arms, settings, kept):
    learner = make_learner("snail", arms, {"num_adaptations": 3, "memory.width": 8, "tasks_per_batch": 4, **settings})
    meta = jax.eval_shape(learner.init, jax.random.key(0)).meta
    assert meta["params"]["place"]["embedding"].shape == (kept, 8)


def test_a_trial_is_no_shorter_than_a_lifetime(arms):
    rule = r"^trial_rollouts must be 0 or at least num_adaptations = 3, which a lifetime has, got 2\.$"
    with pytest.raises(UsageError, match=rule):
        make_learner("rl2", arms, {"num_adaptations": 3, "trial_rollouts": 2})


@pytest.mark.parametrize("action_range", [None, (np.array([-2.0, 0.0, -1.0]), np.array([2.0, 1.0, 3.0]))])
def test_a_gaussian_is_scored_as_it_is_drawn(action_range):
    spec = Spec(None, jax.ShapeDtypeStruct((3,), jnp.float32), None, None, action_range)
    gaussian = distributions.of_actions(spec)
    assert gaussian.size == 6
    numbers = jnp.array([0.3, -1.0, 2.0, 0.1, -0.5, 0.7])
    low, high = action_range or (-np.ones(3), np.ones(3))
    mean = (low + high) / 2 + (high - low) / 2 * numbers[:3]
    deviation = (high - low) / 2 * jnp.exp(numbers[3:])
    action = jnp.array([0.0, -1.5, 5.0])
    density = jax.scipy.stats.norm.logpdf(action, mean, deviation).sum()
    np.testing.assert_allclose(gaussian.log_prob(numbers, action), density, rtol=1e-5)
    drawn = jax.vmap(lambda key: gaussian.draw(gaussian.noise(key), numbers))(
        jax.random.split(jax.random.key(0), 40_000)
    )
    np.testing.assert_allclose(drawn.mean(axis=0), mean, atol=0.1)
    np.testing.assert_allclose(drawn.std(axis=0), deviation, rtol=0.02)
    surprise = -jax.vmap(gaussian.log_prob, (None, 0))(numbers, drawn)
    np.testing.assert_allclose(surprise.mean(), gaussian.entropy(numbers), atol=0.03)


@pytest.mark.parametrize("log_scale", [-100.0, 100.0])
def test_a_gaussian_without_measure_stays_finite(log_scale):
    """RL^2 on point navigation put out a deviation of e^-8 in a rare state; the next gradient was not finite."""
    gaussian = distributions.of_actions(Spec(None, jax.ShapeDtypeStruct((1,), jnp.float32), None, None, None))
    numbers = jnp.array([0.5, log_scale])
    deviation = np.exp(np.clip(log_scale, *distributions.LOG_SCALES))
    np.testing.assert_allclose(gaussian.draw(jnp.array([2.0]), numbers), [0.5 + 2 * deviation], rtol=1e-6)
    density = jax.scipy.stats.norm.logpdf(0.7, 0.5, deviation)
    np.testing.assert_allclose(gaussian.log_prob(numbers, jnp.array([0.7])), density, rtol=1e-5)
    gradient = jax.grad(gaussian.log_prob)(numbers, jnp.array([0.7]))
    np.testing.assert_allclose(gradient, [0.2 / deviation**2, 0.0], rtol=1e-4)


def test_what_is_to_be_gained_is_clipped_on_the_side_that_gains():
    ratio = np.array([0.5, 0.9, 1.1, 2.0])
    gain, clipped = clipped_gain(jnp.log(ratio)[:, None], jnp.array([2.0, -2.0]), 0.2)
    np.testing.assert_allclose(gain[:, 0], [1.0, 1.8, 2.2, 2.4], rtol=1e-5)
    np.testing.assert_allclose(gain[:, 1], [-1.6, -1.8, -2.2, -4.0], rtol=1e-5)
    np.testing.assert_array_equal(clipped[:, 0], [True, False, False, True])


@pytest.mark.parametrize("advantage", [-1.0, 1.0])
def test_an_action_that_became_far_more_probable_leaves_the_gain_finite(advantage):
    value, gradient = jax.value_and_grad(
        lambda far: jnp.sum(clipped_gain(jnp.array([far, 0.1]), jnp.array([advantage, 1.0]), 0.2)[0])
    )(1e3)
    assert np.isfinite(value)
    assert gradient == 0.0


def test_the_range_of_actions_is_read_off_where_tasks_share_it():
    low, high = spec_of(tasks.make_tasks("point_navigation")).action_range
    np.testing.assert_allclose((low, high), ([-0.1, -0.1], [0.1, 0.1]), rtol=1e-6)
    assert spec_of(tasks.make_tasks("bandit")).action_range is None
    assert spec_of(tasks.make_tasks("gymnax:id=PointRobot-misc,vary=max_force@0.1@0.5")).action_range is None


@pytest.mark.slow
def test_the_entropys_weight_falls_along_a_line(arms):
    settings = {"memory.width": 4, "tasks_per_batch": 4, "epochs": 1, "minibatches": 1, "entropy": 0.5}
    learner = make_learner("rl2", arms, {**settings, "final_entropy_fraction": 0.2, "meta_steps": 10})
    start = jax.jit(learner.init)(jax.random.key(0))
    env_params = sample_tasks(jax.random.key(1), arms, "train", 4)
    update = jax.jit(
        lambda step: learner.update(jax.random.key(2), start.replace(step=step), Task(env_params, None))[1].metrics
    )
    first, half, last = (update(jnp.int32(step)) for step in (0, 5, 10))
    np.testing.assert_allclose(half["loss"] - first["loss"], 0.5 * 0.4 * first["entropy"], rtol=1e-4)
    np.testing.assert_allclose(last["loss"] - first["loss"], 0.5 * 0.8 * first["entropy"], rtol=1e-4)
