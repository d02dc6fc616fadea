import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta_envs.grid import EnvParams, best_return
from jaxmeta_envs.grid_navi.environment import GridNavi, environment_of, goal_cells
from jaxmeta_envs.grid_navi.family import grid_navi
from tests.reference import grid_navi as reference


def all_tasks(size, horizon):
    goals = goal_cells(size)
    return EnvParams(max_steps_in_episode=jnp.full(len(goals), horizon, jnp.int32), goal=jnp.asarray(goals))


def sampled_goals(tasks, split, count=300):
    keys = jax.random.split(jax.random.key(0), count)
    goals = jax.vmap(lambda key: tasks.sample(key, split))(keys).goal
    return set(map(tuple, np.asarray(goals).tolist()))


def test_moves_equal_the_reference():
    env = environment_of(4)
    goal = (2, 1)
    params = EnvParams(goal=jnp.array(goal))
    cells = np.array(list(itertools.product(range(4), repeat=2)))
    step = jax.vmap(jax.vmap(env.step_env, (None, None, 0, None)), (None, 0, None, None))
    _, start = env.reset_env(jax.random.key(0), params)
    states = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (len(cells), *leaf.shape)), start)
    states = states.replace(position=jnp.asarray(cells))
    observations, after, rewards, terminated, _ = step(jax.random.key(0), states, jnp.arange(5), params)
    for (index, cell), action in itertools.product(enumerate(cells.tolist()), range(5)):
        expected = reference.move(4, tuple(cell), action)
        assert tuple(after.position[index, action].tolist()) == expected
        assert rewards[index, action] == np.float32(1.0 if expected == goal else -0.1)
        assert int(observations[index, action].argmax()) == expected[1] * 4 + expected[0]
        assert float(observations[index, action].sum()) == 1.0
    assert not terminated.any()


@pytest.mark.parametrize("size", [3, 5, 8])
def test_goals_are_all_cells_but_those_at_the_start(size):
    cells = goal_cells(size)
    assert len(cells) == size**2 - 4
    assert set(map(tuple, cells.tolist())) == reference.goals(size)


@pytest.mark.parametrize(("size", "horizon"), [(5, 15), (3, 1), (4, 5), (6, 30)])
def test_oracle_equals_the_references(size, horizon):
    tasks = all_tasks(size, horizon)
    returns = jax.jit(jax.vmap(grid_navi(size=size, horizon=horizon).oracle))(tasks)
    for goal, best in zip(map(tuple, goal_cells(size).tolist()), returns.tolist(), strict=True):
        assert best == pytest.approx(reference.expected_return(size, horizon, goal, best=True), abs=1e-4)
        assert best == pytest.approx(reference.direct_return(size, horizon, goal), abs=1e-4)


def test_oracle_mean_is_the_published_one():
    returns = jax.vmap(grid_navi().oracle)(all_tasks(5, 15))
    assert len(returns) == 21
    assert float(returns.mean()) == pytest.approx(11.071, abs=5e-4)


def test_random_policy_earns_its_exact_expectation():
    env = environment_of(5)
    tasks = all_tasks(5, 15)
    episodes = 400

    def episode(key, params):
        def step(state, key):
            key_action, key_step = jax.random.split(key)
            action = env.action_space(params).sample(key_action)
            _, state, reward, _, _, _ = env.step(key_step, state, action, params)
            return state, reward

        _, state = env.reset(key, params)
        return jax.lax.scan(step, state, jax.random.split(key, 15))[1].sum()

    keys = jax.random.split(jax.random.key(0), (21, episodes))
    returns = np.asarray(jax.jit(jax.vmap(jax.vmap(episode, (0, None))))(keys, tasks))
    expected = [reference.expected_return(5, 15, tuple(goal), best=False) for goal in goal_cells(5).tolist()]
    error = returns.std(axis=1).mean() / np.sqrt(returns.size)
    assert returns.mean() == pytest.approx(np.mean(expected), abs=4 * error)


def test_an_episode_is_truncated_and_never_terminated():
    tasks = grid_navi(horizon=4)
    params = tasks.sample(jax.random.key(1), "train")
    observation, state = tasks.env.reset(jax.random.key(0), params)
    start = np.asarray(observation)
    flags = []
    for _ in range(3 * 4):
        observation, state, _, terminated, truncated, info = tasks.env.step(jax.random.key(0), state, 1, params)
        flags.append((bool(terminated), bool(truncated)))
        if truncated:
            np.testing.assert_array_equal(observation, start)
            assert int(info["final_observation"].argmax()) == 4 * 5
            assert float(info["discount"]) == 1.0
    assert flags == 3 * ([(False, False)] * 3 + [(False, True)])


@pytest.mark.parametrize("goal", [(2, 0), (4, 4)])
def test_the_reward_stays_where_the_goal_is_after_a_reset(goal):
    env = environment_of(5)
    params = EnvParams(max_steps_in_episode=10, goal=jnp.array(goal))
    walk = [2] * goal[0] + [1] * goal[1] + [0] * (10 - sum(goal))
    _, state = env.reset(jax.random.key(0), params)
    rewards = []
    for action in walk * 2:
        _, state, reward, *_ = env.step(jax.random.key(0), state, action, params)
        rewards.append(float(reward))
    assert rewards[:10] == rewards[10:]
    assert sum(rewards[:10]) == pytest.approx(reference.direct_return(5, 10, goal), abs=1e-5)


def test_the_observation_shows_neither_goal_nor_time():
    env = environment_of(5)
    _, state = env.reset(jax.random.key(0), EnvParams())
    shown = [
        env.step(jax.random.key(0), state.replace(time=time), 0, EnvParams(goal=jnp.array(goal)))[0]
        for time, goal in [(0, (4, 4)), (3, (0, 2))]
    ]
    np.testing.assert_array_equal(*shown)


def test_every_split_of_all_goals_draws_all_goals():
    tasks = grid_navi()
    for split in tasks.splits:
        assert sampled_goals(tasks, split) == reference.goals(5)
        assert tasks.tasks_seen(split)


@pytest.mark.parametrize(("size", "holdout"), [(5, 7), (3, 1), (3, 4), (5, 20)])
def test_split_goals_are_a_partition(size, holdout):
    tasks = grid_navi(size=size, goals="split", holdout=holdout)
    train, validation, test = (sampled_goals(tasks, split) for split in tasks.splits)
    assert train == validation
    assert not train & test
    assert train | test == reference.goals(size)
    assert len(test) == holdout
    assert [tasks.tasks_seen(split) for split in tasks.splits] == [True, True, False]


def test_kept_goals_are_for_validation_alone():
    tasks = grid_navi(goals="split", kept=3)
    train, validation, test = (sampled_goals(tasks, split) for split in tasks.splits)
    assert test == sampled_goals(grid_navi(goals="split"), "test")
    assert (len(train), len(validation), len(test)) == (11, 3, 7)
    assert len(train | validation | test) == 21
    assert [tasks.tasks_seen(split) for split in tasks.splits] == [True, False, False]


def test_holdout_goals_are_spread_over_the_grid():
    test = goal_cells(5)[:7]
    assert len(set(test[:, 0])) >= 4
    assert len(set(test[:, 1])) == 5
    assert abs(test.sum(axis=1).mean() - goal_cells(5).sum(axis=1).mean()) < 0.5


def test_holdout_is_ignored_where_all_goals_are_seen():
    assert grid_navi(size=3).tasks_seen("test")


def test_describe_scales_the_goal_to_the_unit_square():
    tasks = grid_navi()
    described = jax.vmap(tasks.describe)(all_tasks(5, 15))
    np.testing.assert_allclose(described, goal_cells(5) / 2 - 1)


def test_best_return_reads_the_horizon_of_the_task():
    params = EnvParams(max_steps_in_episode=5, goal=jnp.array([2, 2]))
    assert float(best_return(GridNavi(3), params)) == pytest.approx(1.7, abs=1e-5)
