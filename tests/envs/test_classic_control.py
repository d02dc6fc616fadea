import functools

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta_envs import classic_control, splits
from jaxmeta_envs.ranges import SHIFT
from tests import tiers

FAMILIES = {
    "acrobot": classic_control.acrobot,
    "mountain_car": classic_control.mountain_car,
    "pendulum": classic_control.pendulum,
}
ONE_OF_FAMILIES = ["pendulum", *tiers.slow("acrobot", "mountain_car")]
IDS = {"acrobot": "Acrobot-v1", "mountain_car": "MountainCar-v0", "pendulum": "Pendulum-v1"}
STANDARD = {
    "acrobot": {
        "link_length_1": 1.0,
        "link_mass_1": 1.0,
        "link_mass_2": 1.0,
        "link_com_pos_2": 0.5,
        "link_moi": 1.0,
        "torque": 1.0,
    },
    "mountain_car": {"force": 0.001, "gravity": 0.0025},
    "pendulum": {"g": 10.0, "m": 1.0, "l": 1.0},
}
TASKS, SOLVED, EPISODES = 1000, 32, 8


@functools.cache
def drawn(name, signs="both"):
    """Many tasks by split, leaves [TASKS, ...]."""
    tasks = FAMILIES[name](signs=signs)

    @jax.jit
    def draw(keys):
        return {split: jax.vmap(functools.partial(tasks.sample, split=split))(keys) for split in tasks.splits}

    return draw(jax.random.split(jax.random.key(0), TASKS))


def posed(name, sign=1.0):
    """A task with the standard constants."""
    constants = {field: jnp.array(value, jnp.float32) for field, value in STANDARD[name].items()}
    return classic_control.PHYSICS[name].parameters(FAMILIES[name]().env.standard_params, constants, jnp.array(sign))


def described(name, params):
    return np.asarray(jax.vmap(FAMILIES[name]().describe)(params))


@pytest.mark.parametrize("name", FAMILIES)
def test_standard_constants_are_the_standard_environment(name):
    env, params, (standard, given) = FAMILIES[name]().env, posed(name), gymnax.make(IDS[name])
    given = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf)), given)
    for field in given.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(params, field), getattr(given, field))

    @jax.jit
    def live(key):
        def step(carry, key):
            key_action, key_step = jax.random.split(key)
            index = env.action_space(params).sample(key_action)
            action = jnp.linspace(-2, 2, 5)[index] if name == "pendulum" else index
            ours = env.step(key_step, carry[0], index, params)
            theirs = standard.step(key_step, carry[1], action, given)
            return (ours[1], theirs[1]), (ours, theirs)

        _, state = standard.reset(key, given)
        return jax.lax.scan(step, (state, state), jax.random.split(key, 60))[1]

    ours, theirs = live(jax.random.key(0))
    for one, other in zip(ours[1:], theirs[1:], strict=True):
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), one, other)
    assert ours[2].dtype == jnp.float32


@pytest.mark.parametrize("name", FAMILIES)
def test_the_sign_mirrors_the_actions(name):
    env, plain, mirrored = FAMILIES[name]().env, posed(name), posed(name, -1.0)
    _, state = env.reset(jax.random.key(0), plain)
    shown = [
        [env.step(jax.random.key(1), state, jnp.array(action), params)[0] for action in range(env.num_actions)]
        for params in (plain, mirrored)
    ]
    np.testing.assert_allclose(shown[0], shown[1][::-1], rtol=1e-6)
    assert not np.allclose(shown[0], shown[1])


def drive(name, state, params, env):
    """What solves a task for one who knows its constants and sign."""
    if name == "mountain_car":
        return jnp.where((state.velocity >= 0) == (params.force > 0), 2, 0)
    if name == "acrobot":
        return jnp.where((state.velocity_1 < 0) == (params.available_torque[2] > 0), 2, 0)
    angle = jnp.mod(state.theta + jnp.pi, 2 * jnp.pi) - jnp.pi
    pull, push = 1.5 * params.g / params.l, 3 / (params.m * params.l**2)
    energy = state.theta_dot**2 / 2 + pull * (jnp.cos(angle) - 1)
    swing = -2 * jnp.sign(energy) * jnp.sign(state.theta_dot)
    hold = -(2 * pull * angle + 2 * jnp.sqrt(pull) * state.theta_dot) / push
    torque = params.sign * jnp.where(jnp.abs(angle) < 0.4, jnp.clip(hold, -2, 2), swing)
    return jnp.round((torque + 2) / 4 * (env.torques - 1)).astype(jnp.int32)


@functools.cache
def episodes(name):
    """A function of tasks: steps of an episode, and its last reward, [SOLVED, EPISODES]."""
    tasks = FAMILIES[name]()

    def episode(params, key):
        def step(carry, key):
            state, alive = carry
            action = drive(name, state, params, tasks.env)
            _, state, reward, terminated, _ = tasks.env.step_env(key, state, action, params)
            return (state, alive & ~terminated), (alive, reward)

        key_reset, key_steps = jax.random.split(key)
        _, state = tasks.env.reset_env(key_reset, params)
        keys = jax.random.split(key_steps, tasks.horizon)
        (_, unsolved), (alive, reward) = jax.lax.scan(step, (state, jnp.array(True)), keys)
        return alive.sum(), unsolved, reward[-1]

    return jax.jit(jax.vmap(jax.vmap(episode, (None, 0)), (0, None)))


@pytest.mark.parametrize("name", ONE_OF_FAMILIES)
def test_whoever_knows_the_task_solves_it(name):
    keys = jax.random.split(jax.random.key(2), EPISODES)
    for split in FAMILIES[name]().splits:
        params = jax.tree.map(lambda leaf: leaf[:SOLVED], drawn(name)[split])
        steps, unsolved, last_reward = map(np.asarray, episodes(name)(params, keys))
        failed = last_reward < -0.5 if name == "pendulum" else unsolved
        assert not failed.all(axis=1).any()
        assert failed.mean() <= (0.05 if split == "shifted" else 0.0)
        assert name == "pendulum" or steps.max() > 2 * steps.min()


@pytest.mark.parametrize("name", FAMILIES)
def test_whoever_drives_the_wrong_way_does_not(name):
    keys = jax.random.split(jax.random.key(2), EPISODES)
    tasks, env = drawn(name)["test"], FAMILIES[name]().env
    params = jax.tree.map(lambda leaf: leaf[:SOLVED], tasks)

    def wrong(params):
        physics = classic_control.PHYSICS[name]
        constants, sign = physics.read(params)
        return physics.parameters(params, constants, -sign)

    @jax.jit
    @jax.vmap
    def last(params):
        def step(carry, key):
            state, alive = carry
            action = drive(name, state, wrong(params), env)
            _, state, reward, terminated, _ = env.step_env(key, state, action, params)
            return (state, alive & ~terminated), reward

        carry = env.reset_env(keys[0], params)[1], jnp.array(True)
        (_, unsolved), reward = jax.lax.scan(step, carry, jax.random.split(keys[1], 200))
        return unsolved, reward[-50:].mean()

    unsolved, reward = last(params)
    assert np.all(reward < -1) if name == "pendulum" else np.all(unsolved)


@pytest.mark.parametrize("name", ONE_OF_FAMILIES)
def test_tasks_lie_in_the_cells_of_their_split(name):
    for split in splits.CLASSES:
        places = jnp.asarray(described(name, drawn(name)[split])[:, 1:])
        classes = np.asarray(jax.vmap(splits.classify)(places))
        assert set(classes.tolist()) == set(splits.CLASSES[split])
        np.testing.assert_allclose(places.mean(axis=0), 0.5, atol=0.05)


@pytest.mark.parametrize("name", ONE_OF_FAMILIES)
def test_every_constant_of_a_shifted_task_lies_outside_its_range_at_either_end(name):
    places = described(name, drawn(name)["shifted"])[:, 1:]
    outside = np.maximum(places - 1, -places)
    assert outside.min() > 0
    assert outside.max() <= SHIFT + 1e-5
    assert ((places > 1).mean(axis=0) > 0.4).all()
    assert ((places < 0).mean(axis=0) > 0.4).all()


@pytest.mark.parametrize("name", ONE_OF_FAMILIES)
def test_both_signs_occur_equally_often_in_every_split_unless_they_are_plain(name):
    for split, params in drawn(name).items():
        signs = described(name, params)[:, 0]
        assert set(signs.tolist()) == {-1.0, 1.0}
        assert abs(signs.mean()) < 4 / np.sqrt(TASKS)
        assert (described(name, drawn(name, "plain")[split])[:, 0] == 1).all()


def test_the_first_links_centre_stays_in_its_middle():
    for params in drawn("acrobot").values():
        np.testing.assert_allclose(params.link_com_pos_1, params.link_length_1 / 2, rtol=1e-6)


@pytest.mark.parametrize("name", FAMILIES)
def test_only_train_tasks_are_seen(name):
    tasks = FAMILIES[name]()
    assert [split for split in tasks.splits if tasks.tasks_seen(split)] == ["train"]
    assert tasks.oracle is None


@pytest.mark.parametrize("name", FAMILIES)
def test_the_horizon_truncates(name):
    tasks = FAMILIES[name](horizon=1)
    params = tasks.sample(jax.random.key(0), "test")
    _, state = tasks.env.reset(jax.random.key(1), params)
    assert tasks.env.step(jax.random.key(2), state, jnp.array(0), params)[3:5] == (False, True)


def test_torques_may_be_continuous():
    tasks = classic_control.pendulum(torques=0)
    params = posed("pendulum", -1.0)
    space = tasks.env.action_space(params)
    assert (space.shape, float(space.low), float(space.high), tasks.env.num_actions) == ((1,), -2.0, 2.0, 1)
    standard, given = gymnax.make("Pendulum-v1")
    _, state = tasks.env.reset(jax.random.key(0), params)
    ours = tasks.env.step_env(jax.random.key(1), state, jnp.array([0.7]), params)
    theirs = standard.step_env(jax.random.key(1), state, jnp.array([-0.7]), given)
    for one, other in zip(ours[:3], theirs[:3], strict=True):
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), one, other)


def test_torques_are_evenly_spaced():
    tasks = classic_control.pendulum(torques=3)
    assert classic_control.pendulum(torques=3).env is tasks.env is not classic_control.pendulum().env
    params = posed("pendulum")
    _, state = tasks.env.reset(jax.random.key(0), params)
    torques = [tasks.env.step_env(jax.random.key(1), state, jnp.array(action), params)[1].last_u for action in range(3)]
    np.testing.assert_array_equal(torques, [-2.0, 0.0, 2.0])
