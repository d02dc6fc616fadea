import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.core.errors import UsageError
from jaxmeta_envs.probes import TABLES, EnvParams, environment_of, probe, probe_values

GAMMA = 0.75
VALUES = {
    1: ([[0]], [[1, 1]]),
    2: ([[-1], [1]], [[-1, -1], [1, 1]]),
    3: ([[0], [1]], [[0.75, 0.75], [1, 1]]),
    4: ([[0]], [[-1, 1]]),
    5: ([[-1], [1]], [[1, -1], [-1, 1]]),
    6: ([[0]], [[4, 4]]),
}
"""Action values at a discount of 0.75, worked out by hand."""


@functools.cache
def experience(number, count=16, steps=12):
    """Transitions of uniformly random play, leaves [count * steps, ...]."""
    env, params = environment_of(number), EnvParams()

    def live(key):
        def step(carry, key):
            observation, state = carry
            key_action, key_step = jax.random.split(key)
            action = env.action_space(params).sample(key_action)
            after, state, reward, terminated, truncated, info = env.step(key_step, state, action, params)
            return (after, state), (observation, action, reward, terminated, truncated, info["final_observation"])

        return jax.lax.scan(step, env.reset(key, params), jax.random.split(key, steps))[1]

    taken = jax.jit(jax.vmap(live))(jax.random.split(jax.random.key(0), count))
    return [np.asarray(leaf).reshape(count * steps, *leaf.shape[2:]) for leaf in taken]


@pytest.mark.parametrize("number", TABLES)
def test_values_are_those_worked_out_by_hand(number):
    observations, q_values = probe_values(number, GAMMA)
    np.testing.assert_array_equal(observations, VALUES[number][0])
    np.testing.assert_allclose(q_values, VALUES[number][1])
    assert observations.dtype == q_values.dtype == np.float32


@pytest.mark.parametrize("number", TABLES)
def test_values_satisfy_the_bellman_equation_on_what_is_experienced(number):
    observations, q_values = probe_values(number, GAMMA)
    table = {float(shown[0]): values for shown, values in zip(observations, q_values, strict=True)}
    met = set()
    for shown, action, reward, terminated, _, after in zip(*experience(number), strict=True):
        follow = 0.0 if terminated else GAMMA * table[float(after[0])].max()
        assert table[float(shown[0])][action] == pytest.approx(reward + follow)
        met.add((float(shown[0]), int(action)))
    assert met == {(shown, action) for shown in table for action in (0, 1)}


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_episodes_terminate_and_are_never_truncated(number):
    _, _, _, terminated, truncated, _ = experience(number)
    assert not truncated.any()
    assert terminated.mean() == pytest.approx(1 / probe(number).horizon)


def test_the_sixth_is_truncated_and_never_terminates():
    _, _, reward, terminated, truncated, _ = experience(6)
    assert not terminated.any()
    np.testing.assert_array_equal(np.flatnonzero(truncated[:12]), [3, 7, 11])
    np.testing.assert_array_equal(reward, 1)


@pytest.mark.parametrize("number", TABLES)
def test_oracle_is_the_mean_return_of_the_greedy_policy(number):
    tasks = probe(number)
    observations, q_values = probe_values(number, GAMMA)
    greedy = jnp.asarray(q_values.argmax(axis=1))

    def episode(key):
        observation, state = tasks.env.reset(key, EnvParams())
        alive, total = jnp.array(True), 0.0
        for _ in range(tasks.horizon):
            action = greedy[jnp.argmax(jnp.all(observation == observations, axis=-1))]
            observation, state, reward, terminated, truncated, _ = tasks.env.step(key, state, action, EnvParams())
            total += alive * reward
            alive &= ~(terminated | truncated)
        return total, alive

    returns, alive = jax.jit(jax.vmap(episode))(jax.random.split(jax.random.key(0), 400))
    assert not alive.any()
    tolerance = 4 * float(returns.std()) / 20 + 1e-6
    assert float(returns.mean()) == pytest.approx(float(tasks.oracle(EnvParams())), abs=tolerance)


def test_both_observations_are_drawn_equally_often():
    first = experience(2, count=1000, steps=1)[0]
    assert abs(first.mean()) < 4 / np.sqrt(1000)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((9, 0.5), "number must be from 1 to 6, got 9."),
        ((1, 1.0), "discount must be at least 0 and less than 1, got 1.0."),
        ((1, float("nan")), "discount must be at least 0 and less than 1, got nan."),
    ],
)
def test_values_of_nothing_are_refused(arguments, message):
    with pytest.raises(UsageError) as caught:
        probe_values(*arguments)
    assert str(caught.value) == message
