import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.core.errors import UsageError
from jaxmeta_envs.grid import best_return
from jaxmeta_envs.maze import SPLITS, EnvParams, Maze, classify, distance_range, environment_of, maze
from tests import tiers
from tests.reference import maze as reference

LEVELS = tiers.number(2000, 500)
HORIZON = 40


@functools.cache
def sampled(split, size=7, levels=LEVELS):
    """Levels of a split, leaves [levels, ...]."""
    tasks = maze(size=size, horizon=HORIZON)
    params = jax.jit(jax.vmap(lambda key: tasks.sample(key, split)))(jax.random.split(jax.random.key(0), levels))
    return jax.tree.map(np.asarray, params)


def each(params, levels=None):
    """Walls, start and goal of every level, for the reference."""
    for walls, start, goal in zip(params.walls[:levels], params.start, params.goal, strict=False):
        yield walls, tuple(start.tolist()), tuple(goal.tolist())


def first(params, levels):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf[:levels]), params)


@functools.cache
def layouts(split, size=7):
    return {walls.tobytes() for walls in sampled(split, size).walls}


@pytest.mark.parametrize(
    ("split", "size"), [*itertools.product(SPLITS, [7]), *tiers.slow(("train", 5), ("shifted", 5), ("test", 9))]
)
def test_every_level_can_be_solved_at_a_distance_of_its_split(split, size):
    nearest, farthest = distance_range(size, split)
    moves = [reference.distances(walls, start)[goal] for walls, start, goal in each(sampled(split, size))]
    assert set(moves) == set(range(nearest, farthest + 1, 2))
    assert farthest < HORIZON


@pytest.mark.parametrize("size", [7, *tiers.slow(5)])
def test_a_layout_is_connected_rooms_around_pillars(size):
    rooms = set(itertools.product(range(0, size, 2), repeat=2))
    for walls, start, goal in each(sampled("train", size)):
        assert {start, goal} <= rooms
        assert set(reference.distances(walls, start)) == set(map(tuple, np.argwhere(~walls)[:, ::-1].tolist()))
        assert not walls[::2, ::2].any()
        assert walls[1::2, 1::2].all()


def test_levels_are_distinct():
    levels = sampled("train", levels=5000)
    parts = [np.asarray(leaf).reshape(5000, -1) for leaf in (levels.walls, levels.start, levels.goal)]
    assert len(np.unique(np.concatenate(parts, axis=1), axis=0)) > 4990
    assert len(layouts("train")) > 0.98 * LEVELS


@pytest.mark.parametrize(("split", "size"), [*itertools.product(SPLITS, [7]), *tiers.slow(("test", 5), ("train", 9))])
def test_a_split_can_be_told_from_the_level(split, size):
    assert {reference.split_of(*level) for level in each(sampled(split, size))} == {split}
    assert set(np.asarray(jax.jit(jax.vmap(classify))(sampled(split, size))).tolist()) == {SPLITS.index(split)}


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
def test_double_precision_elsewhere_draws_the_same_levels():
    tasks = maze(horizon=HORIZON)
    drawn = jax.jit(jax.vmap(lambda key: tasks.sample(key, "train")))(jax.random.split(jax.random.key(0), LEVELS))
    jax.tree.map(np.testing.assert_array_equal, drawn, sampled("train"))


@pytest.mark.parametrize("size", [7, *tiers.slow(5)])
def test_splits_share_no_layout(size):
    for one, other in itertools.combinations(["train", "validation", "test"], 2):
        assert not layouts(one, size) & layouts(other, size)
    assert not layouts("train", size) & layouts("shifted", size)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_held_out_level_is_a_train_level_with_one_passage_changed(split):
    compared = 0
    for walls, start, goal in each(sampled(split), 100):
        for x, y in ((1, 0), (2, 3), (4, 5), (6, 3)):
            changed = walls.copy()
            changed[y, x] ^= True
            if reference.distances(changed, start).get(goal, 99) <= 6:
                assert reference.split_of(changed, start, goal) == "train"
                compared += 1
    assert compared > 200


@pytest.mark.parametrize("split", ["validation", "test"])
def test_no_cell_tells_a_split_from_train(split):
    one, other = (sampled(name).walls.mean(axis=0) for name in (split, "train"))
    assert np.abs(one - other).max() < 5 * np.sqrt(0.5 / LEVELS)
    total, total_train = (sampled(name).walls.sum(axis=(1, 2)) for name in (split, "train"))
    assert abs(total.mean() - total_train.mean()) < 5 * np.sqrt((total.var() + total_train.var()) / LEVELS)
    for parity in (0, 1):
        assert 0.4 < (total_train % 2 == parity).mean() < 0.6
        assert 0.4 < (total % 2 == parity).mean() < 0.6


def test_both_classes_of_train_layouts_occur_equally_often():
    odd = sampled("train").walls[:, :4, :4].sum(axis=(1, 2)) % 2
    assert abs(odd.mean() - 0.5) < 4 * 0.5 / np.sqrt(LEVELS)


def test_starts_and_goals_fill_the_rooms_and_favour_no_side():
    for ends in (sampled("train").start, sampled("train").goal):
        counts = np.zeros((7, 7))
        np.add.at(counts, tuple(ends.T), 1)
        turned = sum(np.rot90(counts, turns) for turns in range(4)) / 4
        rooms = np.abs(counts - turned)[::2, ::2]
        assert rooms.max() < 5 * np.sqrt(turned.max())
        assert counts[::2, ::2].min() > 0.02 * LEVELS


def test_steps_equal_the_reference_from_every_cell():
    env = environment_of(5)
    levels = first(sampled("train", 5), 20)
    free = [np.argwhere(~np.asarray(walls))[:, ::-1] for walls in levels.walls]
    cells = np.stack([np.resize(some, (25, 2)) for some in free])
    _, start = env.reset_env(jax.random.key(0), first(levels, 1).replace(start=levels.start[0]))
    step = jax.vmap(jax.vmap(jax.vmap(env.step_env, (None, None, 0, None)), (None, 0, None, None)), (None, 0, None, 0))
    states = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (20, 25, *leaf.shape)), start)
    states = states.replace(position=jnp.asarray(cells, jnp.int32))
    observations, after, rewards, terminated, _ = step(jax.random.key(0), states, jnp.arange(4), levels)
    for level, (walls, _, goal) in enumerate(each(jax.tree.map(np.asarray, levels))):
        for (index, cell), action in itertools.product(enumerate(cells[level].tolist()), range(4)):
            expected, reward = reference.step(walls, goal, tuple(cell), action)
            assert tuple(after.position[level, index, action].tolist()) == expected
            assert rewards[level, index, action] == np.float32(reward)
            assert not walls[expected[1], expected[0]]
            shown = np.zeros(25, np.float32)
            shown[expected[1] * 5 + expected[0]] = 1
            np.testing.assert_array_equal(observations[level, index, action], shown)
    assert not terminated.any()


def test_lives_equal_the_reference_and_keep_their_task_through_resets():
    env, steps = environment_of(7), 130
    levels = first(sampled("test"), 30)
    actions = np.random.default_rng(0).integers(4, size=(30, steps))

    def live(key, params, actions):
        def step(carry, inputs):
            key, action = inputs
            observation, state, reward, _, truncated, info = env.step(key, carry, action, params)
            return state, (state.position, observation, info["final_observation"], reward, truncated)

        key_reset, key_steps = jax.random.split(key)
        _, state = env.reset(key_reset, params)
        return jax.lax.scan(step, state, (jax.random.split(key_steps, steps), actions))[1]

    keys = jax.random.split(jax.random.key(1), 30)
    lives = [np.asarray(leaf) for leaf in jax.jit(jax.vmap(live))(keys, levels, actions)]
    found = 0
    for index, (walls, start, goal) in enumerate(each(jax.tree.map(np.asarray, levels))):
        cell = start
        for time in range(steps):
            position, observation, final, reward, truncated = (leaf[index, time] for leaf in lives)
            cell, expected = reference.step(walls, goal, cell, int(actions[index, time]))
            found += cell == goal
            assert reward == np.float32(expected)
            assert final.argmax() == cell[1] * 7 + cell[0]
            assert truncated == ((time + 1) % HORIZON == 0)
            cell = start if truncated else cell
            assert tuple(position.tolist()) == cell
            assert observation.argmax() == cell[1] * 7 + cell[0]
    assert found > 0


def test_walls_and_the_border_block():
    walls = jnp.zeros((5, 5), bool).at[1, 0].set(True)
    params = EnvParams(walls=walls, start=jnp.array([0, 0]), goal=jnp.array([4, 4]))
    env = environment_of(5)
    _, state = env.reset(jax.random.key(0), params)
    positions = []
    for action in (0, 2, 3, 1, 0):
        _, state, *_ = env.step(jax.random.key(0), state, action, params)
        positions.append(state.position.tolist())
    assert positions == [[0, 0], [0, 0], [0, 0], [1, 0], [1, 1]]


def test_the_goal_holds_the_agent_until_the_episode_ends():
    params = EnvParams(max_steps_in_episode=6, walls=jnp.zeros((5, 5), bool), goal=jnp.array([2, 0]))
    env = environment_of(5)
    _, state = env.reset(jax.random.key(0), params)
    rewards, ends = [], []
    for action in [1, 1, 1, 0, 3, 2] * 2:
        _, state, reward, terminated, truncated, info = env.step(jax.random.key(0), state, action, params)
        rewards.append(float(reward))
        ends.append((bool(terminated), bool(truncated)))
        assert float(info["discount"]) == 1.0
    assert rewards == pytest.approx(2 * [-0.1, 1, 1, 1, 1, 1])
    assert ends == 2 * ([(False, False)] * 5 + [(False, True)])


def test_the_observation_shows_neither_walls_nor_goal_nor_time():
    env = environment_of(7)
    shown = []
    for time, (walls, _, goal) in enumerate(each(sampled("train"), 5)):
        params = EnvParams(walls=jnp.asarray(walls), start=jnp.array([2, 4]), goal=jnp.array(goal))
        observation, state = env.reset(jax.random.key(time), params)
        shown += [observation, env.get_obs(state.replace(time=time), params)]
    for observation in shown:
        np.testing.assert_array_equal(observation, shown[0])


@pytest.mark.parametrize(
    ("split", "size", "horizon"), [("train", 7, 40), *tiers.slow(("shifted", 7, 10), ("test", 9, 13))]
)
def test_oracle_is_the_return_of_the_shortest_way(split, size, horizon):
    levels = sampled(split, size, 500)
    levels = levels.replace(max_steps_in_episode=np.full(500, horizon, np.int32))
    returns = jax.jit(jax.vmap(functools.partial(best_return, environment_of(size))))(levels)
    expected = [reference.direct_return(*level, horizon) for level in each(levels)]
    np.testing.assert_allclose(returns, expected, atol=1e-4)
    assert len(set(np.round(expected, 3).tolist())) > 1


def test_random_moves_earn_what_the_reference_expects_and_often_find_the_goal():
    tasks, count, episodes = maze(), 60, 200
    levels = first(sampled("train"), count)

    def episode(key, params):
        def step(state, action):
            _, state, reward, *_ = tasks.env.step(key, state, action, params)
            return state, reward

        _, state = tasks.env.reset(key, params)
        rewards = jax.lax.scan(step, state, jax.random.randint(key, (HORIZON,), 0, 4))[1]
        return rewards.sum(), rewards[-1] > 0

    keys = jax.random.split(jax.random.key(0), (count, episodes))
    returns, found = map(np.asarray, jax.jit(jax.vmap(jax.vmap(episode, (0, None))))(keys, levels))
    chances, expected = np.transpose(
        [reference.random_walk(*level, HORIZON) for level in each(sampled("train"), count)]
    )
    error = float(np.sqrt(returns.var(axis=1).mean() / returns.size))
    assert returns.mean() == pytest.approx(expected.mean(), abs=4 * error)
    assert found.mean() == pytest.approx(chances.mean(), abs=4 * np.sqrt(0.25 / found.size))
    assert 0.15 < chances.mean() < 0.4


def test_describe_lists_passages_and_scaled_ends():
    levels = sampled("train")
    described = np.asarray(jax.vmap(maze().describe)(levels))
    assert described.shape == (LEVELS, 24 + 4)
    assert set(np.unique(described[:, :24])) == {0, 1}
    np.testing.assert_array_equal(described[:, :24].sum(axis=1) + 9, levels.walls.sum(axis=(1, 2)))
    np.testing.assert_allclose(described[:, 24:26], levels.start / 3 - 1, atol=1e-6)
    np.testing.assert_allclose(described[:, 26:], levels.goal / 3 - 1, atol=1e-6)


def test_only_train_tasks_are_seen():
    tasks = maze()
    assert tasks.splits == SPLITS
    assert [split for split in tasks.splits if tasks.tasks_seen(split)] == ["train"]


def test_the_default_level_is_an_empty_square():
    assert float(best_return(Maze(5), Maze(5).default_params)) == pytest.approx(33 - 0.7, abs=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 3}, "maze:size must be odd and at least 5, got 3."),
        ({"size": 8}, "maze:size must be odd and at least 5, got 8."),
        ({"size": -7}, "maze:size must be odd and at least 5, got -7."),
        ({"horizon": 9}, "maze:horizon must be at least 10, the moves to the farthest goal, got 9."),
        ({"size": 39}, "maze:horizon must be at least 42, the moves to the farthest goal, got 40."),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(UsageError) as caught:
        maze(**options)
    assert str(caught.value) == message


def test_an_unknown_split_is_refused():
    for refuse in (functools.partial(maze().sample, jax.random.key(0)), maze().tasks_seen):
        with pytest.raises(UsageError, match=r"^split must be one of .*, got 'shift'\. Did you mean 'shifted'\?$"):
            refuse("shift")
