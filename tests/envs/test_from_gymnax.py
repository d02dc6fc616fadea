import functools
from typing import Any, NamedTuple

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from gymnax.environments import environment, spaces

from jaxmeta.errors import UsageError
from jaxmeta_envs import splits
from jaxmeta_envs.from_gymnax import environment_of, from_gymnax, gymnax_tasks
from jaxmeta_envs.known_environments import KEPT

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
def lived(env_id):
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


@pytest.mark.parametrize("env_id", SUPPORTED)
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


LONG_TO_COMPILE = {"Asterix-MinAtar", "Freeway-MinAtar", "Seaquest-MinAtar", "SpaceInvaders-MinAtar"}


@pytest.mark.parametrize(
    "env_id",
    [pytest.param(env_id, marks=pytest.mark.slow if env_id in LONG_TO_COMPILE else ()) for env_id in SUPPORTED],
)
def test_every_other_environment_can_be_lived_in(env_id):
    steps = lived(env_id)
    assert (steps.reward.dtype, steps.terminated.dtype, steps.truncated.dtype) == (jnp.float32, bool, bool)
    assert steps.reward.shape == steps.terminated.shape == steps.truncated.shape == (LIVED, STEPS)
    assert np.isfinite(steps.reward).all()
    assert np.isfinite(steps.final).all()
    assert (steps.terminated | steps.truncated).sum() >= LIVED * (STEPS // HORIZON)


@pytest.mark.parametrize("env_id", SUPPORTED)
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


@pytest.mark.parametrize("env_id", [env_id for env_id in KEPT if KEPT[env_id].draw is None])
def test_a_task_in_the_state_outlives_resets(env_id):
    steps = lived(env_id)
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
    steps, tasks = lived("SimpleBandit-bsuite"), drawn("SimpleBandit-bsuite")
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
    steps = lived("FrozenLake-misc")
    lakes = np.asarray(drawn("FrozenLake-misc")["train"].task["desc"]).reshape(TASKS, -1)[:LIVED]
    met = np.take_along_axis(lakes, np.asarray(steps.final), 1)
    np.testing.assert_array_equal(steps.terminated, met >= 2)
    np.testing.assert_array_equal(steps.reward, met == 3)


def test_the_chain_that_pays_more_is_that_of_the_task():
    states = lived("DiscountingChain-bsuite").state
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


def test_the_name_is_the_specification_that_makes_it_again():
    tasks = from_gymnax("Acrobot-v1", {"dt": (1e-05, 1e5), "link_moi": (1, 2.5)}, horizon=20)
    family, _, options = tasks.name.partition(":")
    assert family == "gymnax"
    again = gymnax_tasks(**dict(option.split("=") for option in options.split(",") if "horizon" not in option))
    assert again.name == tasks.name.removesuffix(",horizon=20")
    key = jax.random.key(1)
    one, other = tasks.sample(key, "test"), again.sample(key, "test")
    jax.tree.map(np.testing.assert_array_equal, one, other.replace(max_steps_in_episode=one.max_steps_in_episode))


@pytest.mark.parametrize("text", ["dt", "dt@0.1", "dt@0.1@0.2@0.3", "dt@low@high", "dt@0.1@0.2;link_moi@1@2", "+"])
def test_what_varies_is_written_in_one_way(text):
    with pytest.raises(UsageError, match=r"^gymnax:vary must be written FIELD@LOW@HIGH\+FIELD@LOW@HIGH, got '"):
        gymnax_tasks(id="Acrobot-v1", vary=text)


@pytest.mark.parametrize(
    ("env_id", "vary", "message"),
    [
        ("Acrobot", {}, "gymnax:id must be one of Acrobot-v1, "),
        ("Acrobot-v1", {}, "gymnax:vary must name one or more of dt, link_com_pos_1, "),
        ("Acrobot-v1", {"link_mass": (1, 2)}, "gymnax:vary must be one of available_torque, dt, "),
        (
            "Acrobot-v1",
            {"link_length_2": (1, 2)},
            "gymnax:vary must name a parameter that has an effect in Acrobot-v1, got 'link_length_2'.",
        ),
        (
            "SimpleBandit-bsuite",
            {"optimal_return": (1, 2)},
            "gymnax:vary must name a parameter that has an effect in SimpleBandit-bsuite, got 'optimal_return'.",
        ),
        (
            "CartPole-v1",
            {"total_mass": (1, 2)},
            "gymnax:vary must name masscart and masspole in place of what is computed from them, got 'total_mass'.",
        ),
        (
            "Acrobot-v1",
            {"available_torque": (1, 2)},
            "gymnax:vary must name a parameter that is a single number, got 'available_torque'.",
        ),
        (
            "PointRobot-misc",
            {"dense_reward": (0, 1)},
            "gymnax:vary must name a parameter that is a single number, got 'dense_reward'.",
        ),
        (
            "Acrobot-v1",
            {"max_steps_in_episode": (10, 20)},
            "gymnax:vary must leave the time limit to horizon, got 'max_steps_in_episode'.",
        ),
        (
            "Freeway-MinAtar",
            {"player_speed": (1, 2.5)},
            "gymnax:vary player_speed must have whole numbers of at most 1000000000 at its ends, "
            "as the parameter is one, got (1.0, 2.5).",
        ),
        (
            "BernoulliBandit-misc",
            {"reward_prob": (0.1, 0.6)},
            "gymnax:vary reward_prob must lie between 0 and 0.5, got (0.1, 0.6).",
        ),
        ("Acrobot-v1", {"dt": (0.3, 0.1)}, "gymnax:vary dt must have its lowest value below its highest, got "),
        ("Acrobot-v1", {"dt": (0.3, 0.3)}, "gymnax:vary dt must have its lowest value below its highest, got "),
        ("Acrobot-v1", {"dt": (0.1, float("inf"))}, "gymnax:vary dt must be finite, got inf."),
        ("Acrobot-v1", {"dt": (float("nan"), 1.0)}, "gymnax:vary dt must be finite, got nan."),
        ("Acrobot-v1", {"dt": 0.3}, "gymnax:vary dt must be a pair of numbers, the lowest and the highest, got 0.3."),
        ("Acrobot-v1", {"dt": ("0.1", 0.2)}, "gymnax:vary dt must be a number, got '0.1'."),
    ],
)
def test_what_cannot_vary_is_refused(env_id, vary, message):
    with pytest.raises(UsageError) as caught:
        from_gymnax(env_id, vary)
    assert str(caught.value).startswith(message)
    assert str(caught.value).count(". ") <= ("Did you mean" in str(caught.value))


def test_the_nearest_field_is_offered():
    with pytest.raises(UsageError, match=r"Did you mean 'link_mass_1'\?$"):
        from_gymnax("Acrobot-v1", {"linkmass_1": (1, 2)})


@pytest.mark.parametrize("horizon", [0, -1, 10**10, 1.5, True])
def test_a_horizon_out_of_range_is_refused(horizon):
    with pytest.raises(UsageError, match=r"^gymnax:horizon must be "):
        from_gymnax("Reacher-misc", horizon=horizon)


def test_a_field_is_named_once():
    with pytest.raises(UsageError, match=r"^gymnax:vary must name a parameter once, got 'dt'\.$"):
        gymnax_tasks(id="Acrobot-v1", vary="dt@0.1@0.2+dt@0.2@0.3")


@pytest.fixture
def walk(monkeypatch):
    """An environment of its own that is registered at run time, some of whose parameters gymnax could not trace."""

    @struct.dataclass
    class State(environment.EnvState):
        place: jax.Array

    @struct.dataclass
    class Params(environment.EnvParams):
        stride: float = 1.0
        width: float = 2.0
        max_steps_in_episode: int = 5

    class Walk(environment.Environment):
        def __init__(self, forked):
            super().__init__()
            self.forked = forked

        @property
        def default_params(self):
            return Params()

        def step_env(self, key, state, action, params):
            if self.forked and params.width > 1:
                action = -action
            place = state.place + params.stride * action
            state = State(time=state.time + 1, place=place)
            return self.get_obs(state), state, place, jnp.array(False), {}

        def reset_env(self, key, params):
            state = State(time=0, place=jnp.zeros(()))
            return self.get_obs(state), state

        def get_obs(self, state, params=None, key=None):
            return state.place.reshape(1)

        def action_space(self, params=None):
            return spaces.Discrete(2)

        def observation_space(self, params):
            return spaces.Box(-10, 10, (1,), jnp.float32)

    for name, forked in (("Walk-test", False), ("ForkedWalk-test", True)):
        monkeypatch.setitem(gymnax.registration._registry, name, functools.partial(Walk, forked))
    monkeypatch.setattr(gymnax, "registered_envs", [*gymnax.registered_envs, "Walk-test", "ForkedWalk-test"])


def test_an_environment_registered_at_run_time_can_vary(walk):
    tasks = from_gymnax("Walk-test", {"stride": (2.0, 3.0)})
    params = tasks.sample(jax.random.key(0), "train")
    _, state = tasks.env.reset(jax.random.key(1), params)
    assert tasks.env.step(jax.random.key(2), state, jnp.array(1), params)[2] == params.stride
    with pytest.raises(UsageError, match="must name a parameter that has an effect in Walk-test, got 'width'"):
        from_gymnax("Walk-test", {"width": (2.0, 3.0)})


def test_a_parameter_that_cannot_be_traced_is_refused(walk):
    message = (
        "gymnax:id must name an environment whose parameters may be arrays, and this one uses width "
        "as a Python value, got 'ForkedWalk-test'."
    )
    with pytest.raises(UsageError) as caught:
        from_gymnax("ForkedWalk-test", {"stride": (2.0, 3.0)})
    assert str(caught.value) == message


@pytest.mark.parametrize("env_id", ["FourRooms-misc", "DeepSea-bsuite", "FrozenLake-misc"])
def test_an_environment_first_asked_for_inside_a_trace_outlives_it(env_id):
    environment_of.cache_clear()
    inside = jax.jit(lambda key: from_gymnax(env_id).sample(key, "train"))(jax.random.key(0))
    outside = from_gymnax(env_id).sample(jax.random.key(0), "train")
    jax.tree.map(np.testing.assert_allclose, inside, outside)
