"""The ring buffer, and n-step transitions against loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.core.types import Percept, Rollout, Spec
from jaxmeta.rl import replay
from tests.reference.n_step import n_step, random_episodes

STEPS, ENVS = 6, 3
SPEC = Spec(jax.ShapeDtypeStruct((2,), jnp.float32), jax.ShapeDtypeStruct((), jnp.int32), None, 4)
experience = jax.jit(replay.experience, static_argnums=2)


def make_rollout(seed: int) -> Rollout:
    generator = np.random.default_rng(seed)
    shape = (STEPS, ENVS)
    reward, terminated, truncated = random_episodes(generator, shape)
    observation = generator.normal(size=(*shape, 2)).astype(np.float32)
    percept = Percept(observation, np.zeros(shape, np.int32), reward, np.zeros(shape, bool))
    action = generator.integers(4, size=shape).astype(np.int32)
    following = generator.normal(size=(*shape, 2)).astype(np.float32)
    return jax.tree.map(jnp.asarray, Rollout(percept, action, reward, terminated, truncated, following, {}))


@pytest.mark.parametrize("n", [0, 1, 3, 99])
def test_read_matches_the_definition(n):
    rollout = make_rollout(0)
    batch = experience(rollout, jnp.float32(0.9), n)
    rollout, batch = jax.tree.map(np.asarray, (rollout, batch))
    for step in range(STEPS):
        for env in range(ENVS):
            index = step * ENVS + env
            reward, weight, last = n_step(
                rollout.reward[:, env], rollout.terminated[:, env], rollout.truncated[:, env], 0.9, n, step
            )
            np.testing.assert_allclose(batch.reward[index], reward, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(batch.discount[index], weight, rtol=1e-5)
            np.testing.assert_array_equal(batch.next_observation[index], rollout.next_observation[last, env])
            np.testing.assert_array_equal(batch.observation[index], rollout.percept.observation[step, env])
            assert batch.action[index] == rollout.action[step, env]


def test_truncation_bootstraps_and_termination_does_not():
    flags = jnp.zeros((STEPS, ENVS), bool).at[2, 0].set(True)
    rollout = make_rollout(0)._replace(terminated=jnp.zeros_like(flags), truncated=jnp.zeros_like(flags))
    index = 2 * ENVS
    truncated = experience(rollout._replace(truncated=flags), jnp.float32(0.9), 1)
    terminated = experience(rollout._replace(terminated=flags), jnp.float32(0.9), 1)
    both = experience(rollout._replace(terminated=flags, truncated=flags), jnp.float32(0.9), 1)
    assert float(truncated.discount[index]) == pytest.approx(0.9)
    assert float(terminated.discount[index]) == 0.0
    assert float(both.discount[index]) == 0.0


def test_ring_keeps_the_newest_rounds():
    buffer = replay.empty(SPEC, 2, STEPS, ENVS)
    for seed in range(3):
        buffer = replay.add(buffer, make_rollout(seed))
    np.testing.assert_array_equal(buffer.rollouts.reward, np.stack([make_rollout(2).reward, make_rollout(1).reward]))


def test_slots_that_hold_nothing_weigh_nothing():
    buffer = replay.add(replay.empty(SPEC, 3, STEPS, ENVS), make_rollout(0)).replace(written=jnp.array(1))
    read_batch, nothing = replay.batches(jax.random.key(0), buffer, 2, 0, jnp.float32(0.9), 1)
    batch = read_batch(nothing)
    assert nothing is None
    assert batch.weight.shape == (3 * STEPS * ENVS,)
    assert float(batch.weight.sum()) == STEPS * ENVS


def test_slots_that_are_known_to_hold_nothing_are_not_read():
    buffer = replay.empty(SPEC, 3, STEPS, ENVS)
    for written in range(1, 5):
        buffer = replay.add(buffer, make_rollout(written))
        known, unknown = (
            replay.batches(jax.random.key(0), held, 2, 0, jnp.float32(0.9), 0)[0](None)
            for held in (buffer, buffer.replace(written=jnp.array(written)))
        )
        filled = min(written, 3) * STEPS * ENVS
        assert known.weight.shape == (filled,)
        jax.tree.map(lambda one, other, n=filled: np.testing.assert_array_equal(one, other[:n]), known, unknown)


@pytest.mark.parametrize("written", [1, 3, 4])
def test_batches_cover_what_is_written_and_nothing_else(written):
    buffer = replay.empty(SPEC, 3, STEPS, ENVS)
    for seed in range(written):
        buffer = replay.add(buffer, make_rollout(seed))
    read_batch, index = replay.batches(jax.random.key(0), buffer, 8, 64, jnp.float32(0.9), 1)
    assert index.shape == (8, 64)
    assert set(np.unique(index)) == set(range(min(written, 3) * STEPS * ENVS))
    assert float(read_batch(index[0]).weight.sum()) == 64


def test_what_is_stored_carries_no_gradient():
    def stored(scale):
        rollout = make_rollout(0)
        buffer = replay.add(replay.empty(SPEC, 1, STEPS, ENVS), rollout._replace(reward=scale * rollout.reward))
        return buffer.rollouts.reward.sum()

    assert float(jax.grad(stored)(1.0)) == 0.0


def test_gradient_with_respect_to_the_discount_is_finite_at_zero():
    rollout = make_rollout(0)
    gradient = jax.grad(lambda discount: experience(rollout, discount, 3).reward.sum())(jnp.float32(0.0))
    assert np.isfinite(gradient)
