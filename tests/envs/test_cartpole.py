import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from gymnax.environments.classic_control import cartpole as standard

from jaxmeta_envs import cartpole, splits
from tests.reference.cartpole import feedback

CONSTANTS = ("gravity", "length", "masscart", "masspole", "tau")
FACTORS = np.log(np.array(list(cartpole.FACTORS.values())))
physics = jax.jit(cartpole.physics)
PLAIN = jnp.array(1.0)
TASKS = 2000
CONTROLLED = 32


@functools.cache
def sampled(split, signs="both"):
    """Many tasks of a split, leaves [TASKS, ...]."""
    tasks = cartpole.cartpole(horizon=1000, signs=signs)
    return jax.jit(jax.vmap(lambda key: tasks.sample(key, split)))(jax.random.split(jax.random.key(0), TASKS))


def first(params, count):
    return jax.tree.map(lambda leaf: leaf[:count], params)


def cube(params):
    """Where tasks lie in the unit cube of log-factors, read from the constants alone."""
    described = np.asarray(jax.vmap(cartpole.describe)(params))
    return (described[:, 1:] - FACTORS[:, 0]) / (FACTORS[:, 1] - FACTORS[:, 0])


def gains(params):
    """Gains of the known-physics controller, [CONTROLLED, 4] float32."""
    constants = {name: np.asarray(getattr(params, name), np.float64) for name in CONSTANTS}
    tasks = [dict(zip(constants, values, strict=True)) for values in zip(*constants.values(), strict=True)]
    return jnp.asarray(np.stack([feedback(task) for task in tasks]), jnp.float32)


@jax.jit
def controlled_returns(params, gain):
    """Return of an episode under full-force feedback, from the extreme resets, [CONTROLLED, 16] float32."""
    env = cartpole.ENVIRONMENT

    def episode(params, gain, start):
        def step(carry, _):
            state, alive = carry
            right = env.get_obs(state) @ gain < 0
            action = jnp.where(params.force_mag > 0, right, ~right).astype(jnp.int32)
            _, state, reward, terminated, _ = env.step_env(jax.random.key(0), state, action, params)
            return (state, alive & ~terminated & ~env.is_truncated(state, params)), reward * alive

        x, x_dot, theta, theta_dot = start
        state = standard.EnvState(x=x, x_dot=x_dot, theta=theta, theta_dot=theta_dot, time=0)
        return jax.lax.scan(step, (state, jnp.array(True)), length=1000)[1].sum()

    starts = jnp.array(list(itertools.product([-0.05, 0.05], repeat=4)))
    return jax.vmap(jax.vmap(episode, (None, None, 0)), (0, 0, None))(params, gain, starts)


@pytest.mark.parametrize("split", cartpole.SPLITS)
def test_known_physics_reach_the_oracle_in_every_split(split):
    params = first(sampled(split), CONTROLLED)
    assert set(np.sign(params.force_mag).tolist()) == {-1.0, 1.0}
    oracle = jax.vmap(cartpole.best_return)(params)
    returns = controlled_returns(params, gains(params))
    np.testing.assert_array_equal(returns, np.broadcast_to(oracle[:, None], returns.shape))
    np.testing.assert_array_equal(oracle, 1000)


@pytest.mark.parametrize("reach", [1.0, cartpole.SHIFT])
def test_known_physics_balance_at_the_corners_of_the_ranges(reach):
    ends = FACTORS + np.log(reach) * np.array([-1, 1])
    corners = jnp.array(list(itertools.product(*ends)), jnp.float32)
    params = jax.vmap(lambda corner: physics(corner, PLAIN, 1000))(corners)
    np.testing.assert_array_equal(controlled_returns(params, gains(params)), 1000)


def test_the_horizon_cuts_an_episode_short():
    params = first(sampled("train"), CONTROLLED)
    params = params.replace(max_steps_in_episode=jnp.full(CONTROLLED, 20, jnp.int32))
    np.testing.assert_array_equal(controlled_returns(params, gains(params)), 20)


def test_whoever_pushes_the_wrong_way_falls():
    params = first(sampled("train"), CONTROLLED)
    assert controlled_returns(params, -gains(params)).max() < 100


@pytest.mark.parametrize("split", cartpole.SPLITS)
def test_derived_constants_follow_the_drawn_ones(split):
    params = sampled(split)
    np.testing.assert_allclose(params.total_mass, params.masscart + params.masspole, rtol=1e-6)
    np.testing.assert_allclose(params.polemass_length, params.masspole * params.length, rtol=1e-6)
    assert np.ptp(params.masscart) > 0.5
    for name in ("tau", "theta_threshold_radians", "x_threshold"):
        np.testing.assert_array_equal(getattr(params, name), np.float32(getattr(cartpole.STANDARD, name)))


def test_the_cart_mass_changes_the_dynamics():
    _, state = cartpole.ENVIRONMENT.reset_env(jax.random.key(0), cartpole.STANDARD)
    rest = jax.tree.map(jnp.zeros_like, state)
    heavy = jnp.zeros(5).at[list(cartpole.FACTORS).index("masscart")].set(jnp.log(2.0))
    light_speed, heavy_speed = (
        cartpole.ENVIRONMENT.step(jax.random.key(1), rest, 1, physics(factors, PLAIN, 200))[0][1]
        for factors in (jnp.zeros(5), heavy)
    )
    assert 0.45 * light_speed < heavy_speed < 0.6 * light_speed


def test_factors_of_one_are_the_standard_cartpole_to_the_bit():
    params = physics(jnp.zeros(5), PLAIN, 500)
    given = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), cartpole.STANDARD)
    given = given.replace(max_steps_in_episode=jnp.array(500))
    jax.tree.map(np.testing.assert_array_equal, params, given)

    def live(env, params):
        def step(carry, key):
            key_action, key_step = jax.random.split(key)
            action = jax.random.bernoulli(key_action).astype(jnp.int32)
            outcome = env.step(key_step, carry, action, params)
            return outcome[1], outcome

        _, state = env.reset(jax.random.key(0), params)
        return jax.lax.scan(step, state, jax.random.split(jax.random.key(1), 100))[1]

    jax.tree.map(np.testing.assert_array_equal, live(cartpole.ENVIRONMENT, params), live(standard.CartPole(), given))


def test_a_negative_force_swaps_the_actions():
    factors = jnp.array([0.1, 0.2, 0.3, -0.1, -0.2])
    plain, mirrored = (physics(factors, jnp.array(sign), 200) for sign in (1.0, -1.0))
    _, state = cartpole.ENVIRONMENT.reset(jax.random.key(0), plain)
    for action in (0, 1):
        one = cartpole.ENVIRONMENT.step(jax.random.key(1), state, action, plain)[0]
        other = cartpole.ENVIRONMENT.step(jax.random.key(1), state, 1 - action, mirrored)[0]
        np.testing.assert_allclose(one, other, rtol=1e-6)


@pytest.mark.parametrize("split", cartpole.SPLITS)
def test_both_signs_occur_equally_often_in_every_split(split):
    signs = np.sign(sampled(split).force_mag)
    assert set(signs.tolist()) == {-1.0, 1.0}
    assert abs(signs.mean()) < 4 / np.sqrt(TASKS)


def test_plain_signs_push_right_and_change_nothing_else():
    both = sampled("train")
    expected = both.replace(force_mag=jnp.abs(both.force_mag))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), sampled("train", "plain"), expected)


@pytest.mark.parametrize("split", splits.CLASSES)
def test_tasks_lie_in_the_cells_of_their_split(split):
    points = cube(sampled(split))
    classes = np.asarray(jax.vmap(splits.classify)(jnp.asarray(points)))
    assert set(classes.tolist()) == set(splits.CLASSES[split])


def test_every_factor_of_a_shifted_task_lies_outside_the_range_at_either_end():
    points = cube(sampled("shifted"))
    outside = np.maximum(points - 1, -points)
    assert outside.min() >= -1e-5
    assert (outside * np.ptp(FACTORS, axis=1) <= np.log(cartpole.SHIFT) + 1e-5).all()
    assert ((points > 1).mean(axis=0) > 0.4).all()
    assert ((points < 0).mean(axis=0) > 0.4).all()


@pytest.mark.parametrize("split", splits.CLASSES)
def test_log_factors_are_uniform(split):
    for column in cube(sampled(split)).T:
        assert scipy.stats.kstest(column, "uniform").pvalue > 1e-3


def test_describe_reads_what_was_drawn():
    factors = jnp.array([0.1, -0.2, 0.3, 0.4, -0.05])
    described = cartpole.describe(physics(factors, jnp.array(-1.0), 200))
    np.testing.assert_allclose(described, [-1.0, *factors], rtol=1e-4)


def test_only_train_tasks_are_seen():
    tasks = cartpole.cartpole()
    assert [split for split in tasks.splits if tasks.tasks_seen(split)] == ["train"]


def test_falling_terminates_and_the_horizon_truncates():
    env, params = cartpole.ENVIRONMENT, physics(jnp.zeros(5), PLAIN, 3)
    _, state = env.reset(jax.random.key(0), params)
    for time, theta in itertools.product((0, 2), (0.0, 0.21)):
        met = state.replace(time=jnp.array(time), theta=jnp.array(theta))
        assert env.step(jax.random.key(0), met, 1, params)[3:5] == (theta > 0.2, time == 2)


def test_the_task_survives_a_reset():
    env = cartpole.ENVIRONMENT
    params = physics(jnp.array([0.1, 0.2, 0.3, -0.1, -0.2]), PLAIN, 1)
    _, state = env.reset(jax.random.key(0), params)
    _, reset, *_ = env.step(jax.random.key(1), state, 1, params)
    assert int(reset.time) == 0
    again = env.step(jax.random.key(2), reset, 1, params)[5]["final_observation"]
    expected = env.step_env(jax.random.key(3), reset, 1, params)[0]
    np.testing.assert_allclose(again, expected, rtol=1e-5)
