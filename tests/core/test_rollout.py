"""Living: tasks persist, rounds join up, keys differ, and nothing that is lived carries a gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.algorithms.registry import make_learner
from jaxmeta.core import tasks
from jaxmeta.core.config import AdaptationConfig
from jaxmeta.core.rollout import Runner, keys_of_rounds, reset
from jaxmeta.core.types import Adapter, Rollout, Task
from jaxmeta.inner import privileged_task, random_policy
from tests import toy
from tests.conftest import TINY


def random_lifetime(distribution, key, envs=3):
    task = privileged_task(key, distribution.sample(key, "train"))
    adapter = random_policy(distribution)
    return adapter, task, Runner(distribution.env, adapter).reset(key, None, task, envs)


def test_the_task_stays_the_same_across_auto_resets(grid):
    key = jax.random.key(0)
    adapter, task, learner_state = random_lifetime(grid, key)
    taken = Runner(grid.env, adapter).rollout(key, None, task, learner_state, 5 * grid.horizon)[1]
    assert int(taken.truncated.sum()) == 5 * 3
    positions = jnp.argmax(taken.next_observation, axis=-1)
    goal = task.env_params.goal[1] * 3 + task.env_params.goal[0]
    np.testing.assert_array_equal(taken.reward, jnp.where(positions == goal, 1.0, -0.1).astype(jnp.float32))


def test_first_marks_the_step_after_an_episode_and_successors_are_true_ones(grid):
    key = jax.random.key(1)
    adapter, task, learner_state = random_lifetime(grid, key)
    taken = Runner(grid.env, adapter).rollout(key, None, task, learner_state, 3 * grid.horizon)[1]
    expected = np.zeros(3 * grid.horizon, bool)
    expected[:: grid.horizon] = True
    np.testing.assert_array_equal(taken.percept.first, np.repeat(expected[:, None], 3, axis=1))
    inside = ~np.asarray(taken.truncated[:-1])
    np.testing.assert_array_equal(
        np.asarray(taken.next_observation[:-1])[inside], np.asarray(taken.percept.observation[1:])[inside]
    )
    np.testing.assert_array_equal(taken.percept.previous_action[1:], taken.action[:-1])
    np.testing.assert_array_equal(taken.percept.previous_reward[1:], taken.reward[:-1])


def test_environments_of_one_task_differ_and_keys_matter():
    cartpole = tasks.make_tasks("cartpole:horizon=20")
    env_params = cartpole.sample(jax.random.key(0), "train")
    observation = reset(jax.random.key(1), cartpole.env, env_params, 4)[1].observation
    assert len(np.unique(np.asarray(observation)[:, 0])) == 4
    other = reset(jax.random.key(2), cartpole.env, env_params, 4)[1].observation
    assert not np.any(observation == other)


def test_the_key_of_a_lifetime_is_not_the_key_of_its_resets(grid):
    """`reset` splits its key: the learner's start and the environments' starts share no randomness."""
    used = []
    adapter, task, _ = random_lifetime(grid, jax.random.key(0))
    watching = adapter._replace(
        reset=lambda key, meta, context: (used.append(key), adapter.reset(key, meta, context))[1]
    )

    class Env:
        def reset(self, key, params):
            jax.debug.callback(lambda data: used.append(data), jax.random.key_data(key))
            return grid.env.reset(key, params)

        action_space = grid.env.action_space

    key = jax.random.key(7)
    Runner(Env(), watching).reset(key, None, task, 2)
    jax.effects_barrier()
    data = [np.asarray(jax.random.key_data(entry) if entry.dtype != np.uint32 else entry) for entry in used]
    data.append(np.asarray(jax.random.key_data(key)))
    # Nor is the learner's key the one that those of the environments are split from: it may split it likewise.
    data += list(np.asarray(jax.random.key_data(jax.random.split(used[0], 2))))
    assert len({tuple(entry.ravel()) for entry in data}) == 6


class ShowsItsKey(toy.CentreEnv):
    """Shows the key of each step."""

    def step(self, key, state, action, params):
        """Takes a step that changes nothing."""
        shown, state, reward, ended, cut, _ = super().step(key, state, action, params)
        return shown, state, reward, ended, cut, {"final_observation": jax.random.key_data(key)}


def test_no_key_of_a_rollout_is_used_twice():
    """Neither by two steps, nor by two environments, nor by a learner and its environment."""

    def act(key, meta, fast, memory, percept):
        return jnp.zeros((), jnp.int32), memory, {"key": jax.random.key_data(key)}

    adapter = Adapter(None, lambda key, meta, context: (None, None), act, act, None)
    task, steps, envs = Task(jnp.zeros(2), None), 4, 3
    learner_state = Runner(ShowsItsKey(), adapter).reset(jax.random.key(0), None, task, envs)
    taken = Runner(ShowsItsKey(), adapter).rollout(jax.random.key(1), None, task, learner_state, steps)[1]
    used = np.concatenate([np.reshape(keys, (-1, 2)) for keys in (taken.extras["key"], taken.next_observation)])
    assert len(np.unique(used, axis=0)) == 2 * steps * envs


def test_rounds_continue_the_same_episodes(grid):
    """Two rounds of three steps see what one round of six sees, if nothing is learned in between."""
    key = jax.random.key(2)
    adapter, task, learner_state = random_lifetime(grid, key)
    short = AdaptationConfig(num_envs=3, rollout_length=3, num_adaptations=2)
    long = AdaptationConfig(num_envs=3, rollout_length=6, num_adaptations=1)

    def firsts(lifetime):
        observed = Runner(grid.env, adapter).adapt_for(
            key, None, task, learner_state, lifetime, lambda key, round_: round_.rollout.percept.first
        )
        return np.asarray(observed[1]).reshape(6, 3)

    np.testing.assert_array_equal(firsts(short), firsts(long))


def test_the_return_of_an_episode_ends_with_its_last_step():
    """By termination in the first environment, by truncation in the second; the third plays on."""
    ended = np.array([[False] * 3, [True, False, False], [False] * 3])
    cut = np.array([[False] * 3, [False, True, False], [False] * 3])
    reward = np.array([[1, 10, 100]] * 3, np.float32)
    taken = Rollout(None, None, jnp.asarray(reward), jnp.asarray(ended), jnp.asarray(cut), None, {})
    np.testing.assert_array_equal(taken.done, ended | cut)
    np.testing.assert_array_equal(taken.episode_return, [2, 20, 300])


@pytest.mark.slow
def test_rounds_written_out_are_the_rounds_of_the_loop(grid):
    learner = make_learner("maml", grid, {**TINY, "num_adaptations": 3, "agent.replay_capacity": 2, "batch_size": 0})
    meta = jax.jit(learner.adapter.init)(jax.random.key(0))
    task = Task(grid.sample(jax.random.key(1), "train"), None)

    def observe(key, round_):
        return round_.rollout.action, round_.after.fast.params, jax.random.uniform(key)

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def adapted(unrolled, known=False):
        runner, lifetime = Runner(grid.env, learner.adapter), learner.lifetime
        learner_state = runner.reset(jax.random.key(2), meta, task, lifetime.num_envs)
        if not unrolled:
            return runner.adapt_for(jax.random.key(3), meta, task, learner_state, lifetime, observe)[1]
        keys, reports = keys_of_rounds(jax.random.key(3), lifetime.num_adaptations), []
        acted = runner.rollout(keys[0, 0], meta, task, learner_state, lifetime.rollout_length) if known else None
        for own in keys:
            learner_state, report = runner.adapt_once(
                own, meta, task, learner_state, lifetime.rollout_length, observe, acted
            )
            reports, acted = [*reports, report], None
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *reports)

    looped = adapted(False)
    for written_out in (adapted(True), adapted(True, True)):
        jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, atol=1e-6), written_out, looped)


def test_rollouts_carry_no_gradient(grid):
    learner = make_learner("maml", grid, TINY)
    meta = learner.adapter.init(jax.random.key(0))
    task = Task(grid.sample(jax.random.key(1), "train"), None)

    def value(meta):
        learner_state = Runner(grid.env, learner.adapter).reset(jax.random.key(2), meta, task, 3)
        taken = Runner(grid.env, learner.adapter).rollout(jax.random.key(3), meta, task, learner_state, 4)[1]
        return jnp.sum(taken.extras["q"])

    assert not any(np.any(leaf) for leaf in jax.tree.leaves(jax.grad(value)(meta)))


def test_play_changes_no_life(grid):
    key = jax.random.key(4)
    adapter, task, learner_state = random_lifetime(grid, key)
    before = jax.tree.map(np.array, learner_state)
    Runner(grid.env, adapter).evaluate_policy(key, None, task, learner_state, 2, 4)
    jax.tree.map(np.testing.assert_array_equal, before, learner_state)
