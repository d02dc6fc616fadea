"""Any gymnax environment as a family: tasks, splits, dynamics."""

import functools
from typing import Any, NamedTuple

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments import environment

from jaxmeta.core.errors import UsageError
from jaxmeta_envs import splits
from jaxmeta_envs.from_gymnax.family import from_gymnax
from jaxmeta_envs.from_gymnax.known_environments import KEPT
from tests import tiers

VARY = {
    "CartPole-v1": {"masscart": (0.5, 2.0), "length": (0.25, 1.0)},
    "Pendulum-v1": {"g": (5.0, 15.0)},
    "Acrobot-v1": {"link_mass_1": (0.5, 2.0), "torque_noise_max": (0.0, 0.5)},
    "MountainCar-v0": {"gravity": (0.002, 0.003), "goal_velocity": (-0.01, 0.01)},
    "MountainCarContinuous-v0": {"power": (0.001, 0.002)},
    "Asterix-MinAtar": {"init_spawn_speed": (5, 15)},
    "Freeway-MinAtar": {"player_speed": (2, 5)},
    "Seaquest-MinAtar": {"max_oxygen": (100, 300), "shot_cool_down": (3, 6)},
    "SpaceInvaders-MinAtar": {"enemy_move_interval": (6, 18)},
    "MemoryChain-bsuite": {"memory_length": (2, 15)},
    "UmbrellaChain-bsuite": {"chain_length": (5, 20)},
    "Pong-misc": {"paddle_y_speed": (1, 2)},
}
"""What varies where gymnax keeps no task outside the parameters."""
REFUSED = {
    "Breakout-MinAtar": "gymnax:id must name an environment with more than one task, got 'Breakout-MinAtar'.",
    "Catch-bsuite": "gymnax:id must name an environment with more than one task, got 'Catch-bsuite'.",
    "MNISTBandit-bsuite": "gymnax:id must name an environment that can vary, got 'MNISTBandit-bsuite', "
    "which downloads its images when it is built, and has a single task.",
}
SUPPORTED = [env_id for env_id in gymnax.registered_envs if env_id not in REFUSED]
OF_EACH_KIND = ["CartPole-v1", "Acrobot-v1", "BernoulliBandit-misc", "DiscountingChain-bsuite", "FrozenLake-misc"]
"""Parameters that others follow from, ranges, tasks that are drawn, too few tasks, and a task in the state."""
SOME_SUPPORTED = [*OF_EACH_KIND, *tiers.slow(*(env_id for env_id in SUPPORTED if env_id not in OF_EACH_KIND))]
"""The others take long to compile."""
SEEN = {"BernoulliBandit-misc", "DiscountingChain-bsuite", "Freeway-MinAtar", "Pong-misc"}
"""Those with too few tasks to split."""
TASKS, LIVED, STEPS, HORIZON = 48, 3, 7, 3
RANGES = {"link_mass_1": (0.5, 2.0), "torque_noise_max": (0.0, 0.5), "dt": (0.1, 0.3)}


@functools.cache
def made(env_id):
    return from_gymnax(env_id, VARY.get(env_id, {}), horizon=HORIZON)


@functools.cache
def drawn(env_id):
    """Tasks by split, leaves [TASKS, ...]."""

    @jax.jit
    def draw(keys):
        return {split: jax.vmap(functools.partial(made(env_id).sample, split=split))(keys) for split in splits.CLASSES}

    return draw(jax.random.split(jax.random.key(0), TASKS))


class Steps(NamedTuple):
    """Random lives in the first train tasks, leaves [LIVED, STEPS, ...]."""

    state: Any
    action: jax.Array
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    final: jax.Array


@functools.cache
def round_(env_id):
    env = made(env_id).env

    def live(key, params):
        def step(state, key):
            key_action, key_step = jax.random.split(key)
            action = env.action_space(params).sample(key_action)
            _, after, *outcome, info = env.step(key_step, state, action, params)
            return after, Steps(state, action, *outcome, info["final_observation"])

        key_reset, key_steps = jax.random.split(key)
        return jax.lax.scan(step, env.reset(key_reset, params)[1], jax.random.split(key_steps, STEPS))[1]

    few = jax.tree.map(lambda leaf: leaf[:LIVED], drawn(env_id)["train"])
    return jax.jit(jax.vmap(live))(jax.random.split(jax.random.key(1), LIVED), few)


def kept_leaves(params):
    return jax.tree.leaves(getattr(params, "task", None))


def rows(leaves):
    """One tuple of numbers per task."""
    return [tuple(row) for row in np.concatenate([np.asarray(leaf).reshape(TASKS, -1) for leaf in leaves], 1).tolist()]


@pytest.mark.parametrize("env_id", REFUSED)
def test_an_environment_with_a_single_task_is_refused(env_id):
    with pytest.raises(UsageError) as caught:
        made(env_id)
    assert str(caught.value) == REFUSED[env_id]


@pytest.mark.parametrize("env_id", SOME_SUPPORTED)
def test_every_other_environment_is_a_family_of_arrays(env_id):
    tasks = made(env_id)
    assert isinstance(tasks.env, environment.Environment)
    assert from_gymnax(env_id, VARY.get(env_id, {})).env is tasks.env
    leaves = jax.tree.leaves(drawn(env_id))
    assert all(leaf.dtype in (jnp.float32, jnp.int32, jnp.bool_) and not leaf.weak_type for leaf in leaves)
    assert all(np.isfinite(leaf).all() for leaf in leaves)
    described = jax.vmap(tasks.describe)(drawn(env_id)["test"])
    assert described.dtype == jnp.float32
    assert len(np.unique(described, axis=0)) > 1


@pytest.mark.parametrize("env_id", SOME_SUPPORTED)
def test_every_other_environment_can_be_lived_in(env_id):
    steps = round_(env_id)
    assert (steps.reward.dtype, steps.terminated.dtype, steps.truncated.dtype) == (jnp.float32, bool, bool)
    assert steps.reward.shape == steps.terminated.shape == steps.truncated.shape == (LIVED, STEPS)
    assert np.isfinite(steps.reward).all()
    assert np.isfinite(steps.final).all()
    assert (steps.terminated | steps.truncated).sum() >= LIVED * (STEPS // HORIZON)


@pytest.mark.parametrize("env_id", SOME_SUPPORTED)
def test_tasks_of_different_splits_differ_unless_there_are_too_few(env_id):
    found = [
        set(rows([*(getattr(params, field) for field in VARY.get(env_id, {})), *kept_leaves(params)]))
        for params in drawn(env_id).values()
    ]
    tasks_seen = {split: made(env_id).tasks_seen(split) for split in splits.CLASSES}
    assert tasks_seen == {"train": True, "validation": env_id in SEEN, "test": env_id in SEEN}
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert bool(found[one] & found[other]) == (env_id in SEEN)
    assert all(len(tasks) > 1 for tasks in found)


IN_THE_STATE = [env_id for env_id in KEPT if KEPT[env_id].draw is None]


@pytest.mark.parametrize("env_id", [*IN_THE_STATE[:2], *tiers.slow(*IN_THE_STATE[2:])])
def test_a_task_in_the_state_outlives_resets(env_id):
    steps = round_(env_id)
    assert (steps.terminated | steps.truncated)[:, :-1].sum() >= LIVED * 2
    for field, value in drawn(env_id)["train"].task.items():
        held = np.asarray(getattr(steps.state, field))
        np.testing.assert_array_equal(held, np.broadcast_to(np.asarray(value)[:LIVED, None], held.shape))


def test_goals_of_the_half_circle_lie_in_the_sectors_of_their_split():
    for split, params in drawn("PointRobot-misc").items():
        x, y = np.asarray(params.task["goal"]).T
        np.testing.assert_allclose(np.hypot(x, y), 1, rtol=1e-6)
        degrees = np.degrees(np.arctan2(y, x))
        assert {int(sector) % 6 for sector in degrees // 15} <= set(splits.CLASSES[split])


@pytest.mark.parametrize(("env_id", "reach"), [("Reacher-misc", 2), ("Swimmer-misc", 1)])
def test_goals_of_the_plane_lie_in_the_cells_of_their_split(env_id, reach):
    for split, params in drawn(env_id).items():
        places = (params.task["goal_xy"] / reach + 1) / 2
        assert ((places >= 0) & (places < 1)).all()
        assert {int(splits.classify(place)) for place in places} <= set(splits.CLASSES[split])


def test_means_of_gaussian_arms_lie_in_the_bins_of_their_split():
    for split, params in drawn("GaussianBandit-misc").items():
        deviations = np.asarray(params.task["mu"]) + 1
        assert {int(part) % 6 for part in np.floor(3 * deviations)} <= set(splits.CLASSES[split])
        assert 0.5 < deviations.std() < 2


def test_arms_pay_what_the_task_says():
    steps, tasks = round_("SimpleBandit-bsuite"), drawn("SimpleBandit-bsuite")
    for params in tasks.values():
        np.testing.assert_allclose(np.sort(params.task["rewards"]), np.tile(np.linspace(0, 1, 11), (TASKS, 1)), 1e-6)
    paid = np.take_along_axis(np.asarray(tasks["train"].task["rewards"])[:LIVED], np.asarray(steps.action), 1)
    np.testing.assert_array_equal(steps.reward, paid)


def test_every_lake_has_a_safe_path():
    for params in drawn("FrozenLake-misc").values():
        for tiles in np.asarray(params.task["desc"]):
            assert tiles[0, 0] == 0
            assert tiles[3, 3] == 3
            reached, frontier = {(0, 0)}, [(0, 0)]
            while frontier:
                row, column = frontier.pop()
                for near in ((row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)):
                    if near not in reached and 0 <= min(near) <= max(near) <= 3 and tiles[near] != 2:
                        reached.add(near)
                        frontier.append(near)
            assert (3, 3) in reached


def test_the_lake_walked_on_is_that_of_the_task():
    steps = round_("FrozenLake-misc")
    lakes = np.asarray(drawn("FrozenLake-misc")["train"].task["desc"]).reshape(TASKS, -1)[:LIVED]
    met = np.take_along_axis(lakes, np.asarray(steps.final), 1)
    np.testing.assert_array_equal(steps.terminated, met >= 2)
    np.testing.assert_array_equal(steps.reward, met == 3)


def test_the_chain_that_pays_more_is_that_of_the_task():
    states = round_("DiscountingChain-bsuite").state
    paying = np.asarray(drawn("DiscountingChain-bsuite")["train"].task["mapping_seed"])[:LIVED, None]
    np.testing.assert_array_equal(np.argmax(states.rewards, -1), np.broadcast_to(paying, (LIVED, STEPS)))


@pytest.mark.parametrize(
    "env_id", ["Acrobot-v1", "MountainCarContinuous-v0", "PointRobot-misc", "BernoulliBandit-misc"]
)
def test_dynamics_are_those_of_gymnax(env_id):
    env, (standard, params) = made(env_id).env, gymnax.make(env_id)
    given = env.default_params
    key_reset, key_action, key_step = jax.random.split(jax.random.key(3), 3)
    _, state = jax.jit(standard.reset)(jax.random.split(key_reset)[0])
    action = standard.action_space(params).sample(key_action)
    if env_id in KEPT:
        given = given.replace(task={name: getattr(state, name) for name in KEPT[env_id].fields})
    _, ours = env.reset(key_reset, given)
    jax.tree.map(np.testing.assert_array_equal, ours, state)
    got, wanted = jax.jit(
        lambda state: (
            env.step_env(key_step, state, action, given),
            standard.step_env(key_step, state, action, params),
        )
    )(state)
    assert got[2].dtype == jnp.float32
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-6), got, wanted)


@pytest.mark.parametrize("split", splits.CLASSES)
def test_real_fields_lie_in_the_cells_of_their_split(split):
    tasks = from_gymnax("Acrobot-v1", RANGES)
    params = jax.jit(jax.vmap(lambda key: tasks.sample(key, split)))(jax.random.split(jax.random.key(0), 500))
    places = np.stack(
        [
            np.log(params.link_mass_1 / 0.5) / np.log(4),
            params.torque_noise_max / 0.5,
            np.log(params.dt / 0.1) / np.log(3),
        ],
        axis=1,
    )
    np.testing.assert_allclose(jax.vmap(tasks.describe)(params), places, atol=1e-5)
    classes = np.asarray(jax.vmap(splits.classify)(jnp.asarray(places, jnp.float32)))
    assert set(classes.tolist()) == set(splits.CLASSES[split])
    np.testing.assert_allclose(places.mean(axis=0), 0.5, atol=0.06)


def test_shifted_fields_lie_outside_their_range_and_on_its_side_of_zero():
    tasks = from_gymnax("Acrobot-v1", RANGES)
    params = jax.jit(jax.vmap(lambda key: tasks.sample(key, "shifted")))(jax.random.split(jax.random.key(0), 500))
    for field, (low, high) in RANGES.items():
        values = np.asarray(getattr(params, field))
        assert ((values < low) | (values > high)).all()
        assert (values > 0).all()
        assert (values > high).any()
        assert (values < low).any() == (low > 0)


def test_whole_fields_reach_both_ends_and_their_sum_tells_the_splits_apart():
    for split, params in drawn("Seaquest-MinAtar").items():
        assert params.max_oxygen.dtype == params.shot_cool_down.dtype == jnp.int32
        assert set(np.asarray(params.shot_cool_down).tolist()) == {3, 4, 5, 6}
        sums = np.asarray(params.max_oxygen - 100 + params.shot_cool_down - 3)
        assert set((sums % 6).tolist()) <= set(splits.CLASSES[split])


def test_a_pole_length_changes_what_follows_from_it():
    for params in drawn("CartPole-v1").values():
        np.testing.assert_allclose(params.total_mass, params.masscart + params.masspole, rtol=1e-6)
        np.testing.assert_allclose(params.polemass_length, params.masspole * params.length, rtol=1e-6)
        assert np.ptp(params.total_mass) > 0.5


def test_the_horizon_is_the_time_limit():
    tasks = made("Acrobot-v1")
    assert (tasks.horizon, int(tasks.sample(jax.random.key(0), "train").max_steps_in_episode)) == (HORIZON, HORIZON)
    assert from_gymnax("BernoulliBandit-misc").horizon == 100


def test_a_probability_is_not_shifted():
    assert from_gymnax("BernoulliBandit-misc", {"reward_prob": (0.1, 0.4)}).splits == tuple(splits.CLASSES)
    assert "shifted" in from_gymnax("PointRobot-misc", {"max_force": (0.1, 0.4)}).splits
