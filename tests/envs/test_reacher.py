"""Reacher: how the arm moves, where goals lie, and that they can be reached."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.core.types import sample_tasks
from jaxmeta_envs.reacher import EnvParams, fingertip, reacher
from jaxmeta_envs.splits import split_of
from tests.reference import reacher as reference

HORIZON = 50


def test_the_arm_moves_as_the_reference():
    env, goal = reacher().env, (0.3, -0.4)
    params = EnvParams(goal=jnp.array(goal))
    torques = np.random.default_rng(0).uniform(-1.5, 1.5, (HORIZON - 1, 2))
    _, state = env.reset(jax.random.key(0), params)
    angles, velocities = [0.0, 0.0], [0.0, 0.0]
    for torque in torques:
        observation, state, reward, terminated, truncated, _ = env.step(
            jax.random.key(0), state, jnp.asarray(torque), params
        )
        angles, velocities, tip, expected = reference.step(angles, velocities, torque, goal)
        np.testing.assert_allclose(observation, [*np.cos(angles), *np.sin(angles), *velocities], atol=2e-5)
        np.testing.assert_allclose(fingertip(state.angles), tip, atol=2e-5)
        np.testing.assert_allclose(reward, expected, atol=2e-5)
        assert not terminated
        assert not truncated
    assert env.step(jax.random.key(0), state, jnp.zeros(2), params)[4]


def test_the_observation_does_not_show_the_goal():
    env = reacher().env
    shown = []
    for goal in [(0.3, -0.4), (-0.7, 0.1)]:
        params = EnvParams(goal=jnp.array(goal))
        observation, state = env.reset(jax.random.key(0), params)
        shown.append([observation, env.step(jax.random.key(1), state, jnp.array([0.5, -1.0]), params)[0]])
    np.testing.assert_array_equal(*shown)


def reach(env, params):
    """The distances to the goal in an episode of one who knows it and bends the arm straight there, [HORIZON]."""
    away = jnp.linalg.norm(params.goal)
    bend = 2 * jnp.arccos(jnp.clip(away, 0.0, 1.0))
    wanted = jnp.stack([jnp.arctan2(params.goal[1], params.goal[0]) - bend / 2, bend])

    def step(state, key):
        torques = 4.0 * (wanted - state.angles) - 1.2 * state.velocities
        _, state, _, _, _, info = env.step(key, state, torques, params)
        cos, sin = jnp.split(info["final_observation"][:4], 2)
        return state, jnp.linalg.norm(fingertip(jnp.arctan2(sin, cos)) - params.goal)

    _, state = env.reset(jax.random.key(0), params)
    return jax.lax.scan(step, state, jax.random.split(jax.random.key(1), HORIZON))[1]


@pytest.mark.parametrize("split", ["test", "shifted"])
def test_whoever_knows_the_goal_reaches_it(split):
    tasks = reacher()
    params = sample_tasks(jax.random.key(0), tasks, split, 200)
    distances = np.asarray(jax.jit(jax.vmap(lambda params: reach(tasks.env, params)))(params))
    assert distances[:, -1].max() < 0.02
    assert distances[:, 0].mean() > 0.5


def test_no_torque_is_as_fast_as_the_bound_says():
    env, params = reacher().env, EnvParams(max_steps_in_episode=1000)
    _, state = env.reset(jax.random.key(0), params)

    def push(state, key):
        state = env.step(key, state, jnp.array([1.0, -1.0]), params)[1]
        return state, state.velocities

    velocities = np.asarray(jax.lax.scan(push, state, jax.random.split(jax.random.key(1), 500))[1])
    space = env.observation_space(params)
    np.testing.assert_allclose(velocities[-1], [space.high[-1], space.low[-1]], rtol=1e-4)
    assert np.all(np.abs(velocities) <= space.high[-1])


def test_goals_fill_the_disc_and_splits_are_disjoint():
    tasks = reacher()
    for split in ("train", "validation", "test"):
        goals = np.asarray(sample_tasks(jax.random.key(1), tasks, split, 300).goal)
        area = (goals**2).sum(axis=1) / 0.75**2
        turn = np.arctan2(goals[:, 1], goals[:, 0]) / (2 * np.pi) % 1
        assert {split_of(place) for place in jnp.stack([area, turn], axis=1)} == {split}
        np.testing.assert_allclose([area.mean(), turn.mean()], 0.5, atol=4 * 0.29 / np.sqrt(300))
    away = np.linalg.norm(sample_tasks(jax.random.key(1), tasks, "shifted", 300).goal, axis=1)
    assert 0.75 <= away.min() < 0.76
    assert 0.99 < away.max() <= 1.0
    np.testing.assert_allclose((away**2).mean(), (0.75**2 + 1) / 2, atol=0.03)
