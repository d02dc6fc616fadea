"""2-D navigation: how the point moves, where goals lie, and the best return."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.core.errors import UsageError
from jaxmeta.core.types import sample_tasks
from jaxmeta_envs.point_navigation import EnvParams, point_navigation
from jaxmeta_envs.splits import split_of

HORIZON = 100


def walk(tasks, params, policy):
    """Return of the first episode under `policy(position)`, and where it leads, [2]."""

    def step(carry, key):
        observation, state, alive = carry
        after, state, reward, terminated, truncated, info = tasks.env.step(key, state, policy(observation), params)
        return (after, state, alive & ~(terminated | truncated)), (alive * reward, alive, info["final_observation"])

    observation, state = tasks.env.reset(jax.random.key(0), params)
    start = (observation, state, jnp.ones((), bool))
    _, (rewards, alive, positions) = jax.lax.scan(step, start, jax.random.split(jax.random.key(1), HORIZON))
    return jnp.sum(rewards), positions[jnp.sum(alive) - 1]


def test_standing_still_and_the_oracle_are_worth_what_is_known():
    """-38.28 and -0.507 for goals uniform in the square."""
    tasks = point_navigation()
    goals = jax.random.uniform(jax.random.key(0), (20_000, 2), jnp.float32, -0.5, 0.5)
    params = EnvParams(max_steps_in_episode=jnp.full(len(goals), HORIZON, jnp.int32), goal=goals)
    still = jax.jit(jax.vmap(lambda params: walk(tasks, params, lambda position: jnp.zeros(2))[0]))(params)
    np.testing.assert_allclose(still.mean(), -38.28, atol=4 * still.std() / np.sqrt(len(still)))
    best = jax.vmap(tasks.oracle)(params)
    np.testing.assert_allclose(best.mean(), -0.507, atol=0.001 + 4 * best.std() / np.sqrt(len(best)))


@pytest.mark.parametrize("split", ["test", "shifted"])
def test_walking_straight_attains_the_oracle(split):
    tasks = point_navigation()
    params = sample_tasks(jax.random.key(0), tasks, split, 50)
    returns, ends = jax.jit(jax.vmap(lambda params: walk(tasks, params, lambda position: params.goal - position)))(
        params
    )
    np.testing.assert_allclose(returns, jax.vmap(tasks.oracle)(params), atol=0.02)
    assert np.all(np.abs(ends - params.goal) < 0.0101)


def test_velocities_are_clipped():
    tasks = point_navigation()
    params = tasks.sample(jax.random.key(0), "train")
    _, state = tasks.env.reset(jax.random.key(0), params)
    after = tasks.env.step(jax.random.key(0), state, jnp.array([5.0, -0.03]), params)[0]
    np.testing.assert_allclose(after, [0.1, -0.03], rtol=1e-6)


def test_directions_go_round_the_circle():
    tasks = point_navigation(directions=8)
    params = EnvParams(goal=jnp.array([0.4, 0.4]))
    _, state = tasks.env.reset(jax.random.key(0), params)
    moves = jnp.stack([tasks.env.step(jax.random.key(0), state, action, params)[0] for action in range(8)])
    np.testing.assert_allclose(jnp.linalg.norm(moves, axis=1), 0.1, rtol=1e-5)
    angles = np.unwrap(np.arctan2(moves[:, 1], moves[:, 0]))
    np.testing.assert_allclose(angles, np.arange(8) * np.pi / 4, atol=1e-5)
    assert tasks.oracle is None


def test_splits_are_disjoint_and_shifted_goals_lie_outside():
    tasks = point_navigation()
    for split in ("train", "validation", "test"):
        goals = np.asarray(sample_tasks(jax.random.key(1), tasks, split, 300).goal)
        assert {split_of(goal + 0.5) for goal in goals} == {split}
    reach = np.abs(sample_tasks(jax.random.key(1), tasks, "shifted", 300).goal).max(axis=1)
    assert 0.5 <= reach.min() < 0.55
    assert 0.7 < reach.max() <= 0.75


def test_out_of_range():
    with pytest.raises(
        UsageError, match="point_navigation:directions must be at least 3, or 0 for any velocity, got 2"
    ):
        point_navigation(directions=2)
    with pytest.raises(UsageError, match="point_navigation:horizon must be at least 1, got 0"):
        point_navigation(horizon=0)
