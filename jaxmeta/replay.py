"""A ring buffer of whole rounds, and the n-step transitions that are read from it.

Whole rounds are stored rather than single steps, so that no window of rewards crosses the ring's seam and the discount
of today applies to the data of yesterday. What is stored is gradient-stopped.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from jaxmeta.base import Experience, Key, PyTree, Rollout, Spec


class Transitions(NamedTuple):
    """The part of a rollout that value learning needs. Leaves [..., T, E, ...], as in `Rollout`."""

    observation: PyTree
    action: jax.Array
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    next_observation: PyTree


class Replay(struct.PyTreeNode):
    """The latest rounds of one task."""

    rounds: Transitions
    """Leaves [C, T, E, ...], C rounds of T steps in E environments."""
    written: jax.Array
    """[] int32, rounds written so far."""


def transitions(rollout: Rollout) -> Transitions:
    """Takes from a rollout what value learning needs, gradient-stopped."""
    kept = Transitions(
        rollout.percept.observation,
        rollout.action,
        rollout.reward,
        rollout.terminated,
        rollout.truncated,
        rollout.next_observation,
    )
    return jax.lax.stop_gradient(kept)


def empty(spec: Spec, capacity: int, steps: int, envs: int) -> Replay:
    """A buffer of `capacity` rounds that holds nothing yet."""
    shape = (capacity, steps, envs)

    def zeros(leaf: jax.ShapeDtypeStruct) -> jax.Array:
        return jnp.zeros(shape + leaf.shape, leaf.dtype)

    return Replay(
        rounds=Transitions(
            observation=jax.tree.map(zeros, spec.observation),
            action=zeros(spec.action),
            reward=jnp.zeros(shape, jnp.float32),
            terminated=jnp.zeros(shape, bool),
            truncated=jnp.zeros(shape, bool),
            next_observation=jax.tree.map(zeros, spec.observation),
        ),
        written=jnp.zeros((), jnp.int32),
    )


def add(replay: Replay, rollout: Rollout) -> Replay:
    """Writes a round over the oldest one."""
    slot = replay.written % replay.rounds.reward.shape[0]
    rounds = jax.tree.map(lambda ring, new: ring.at[slot].set(new), replay.rounds, transitions(rollout))
    return Replay(rounds=rounds, written=replay.written + 1)


def batches(
    key: Key, replay: Replay, steps: int, batch_size: int, discount: jax.Array, n_step: int
) -> tuple[Callable[[jax.Array | None], Experience], jax.Array | None]:
    """Prepares the batches of so many gradient steps, for a scan that closes over the buffer.

    Args:
      key: one key.
      replay: the buffer.
      steps: gradient steps.
      batch_size: transitions of a batch; 0 means every slot, those not written yet too, which carry no weight. Then all
        batches are the same one, which is read once.
      discount: [] float32.
      n_step: as in `read`.

    Returns:
      What reads a batch, given an entry of the second result, which is what to scan over: [steps, batch_size] int32
      indices, uniform over what is written; or None.
    """
    capacity, rollout_steps, envs = replay.rounds.reward.shape
    slots = capacity * rollout_steps * envs
    if batch_size == 0:
        whole = read(replay, jnp.arange(slots), discount, n_step)
        return lambda nothing: whole, None
    filled = jnp.minimum(replay.written, capacity) * rollout_steps * envs
    index = jax.random.randint(key, (steps, batch_size), 0, filled)
    return lambda index: read(replay, index, discount, n_step), index


def read(replay: Replay, index: jax.Array, discount: jax.Array, n_step: int) -> Experience:
    """Reads n-step transitions.

    A window of rewards ends after `n_step` steps, at the end of its episode, or at the end of its round, whichever
    comes first; the value at its far end is bootstrapped unless the episode terminated there.

    Args:
      replay: the buffer.
      index: [B] int32, as `draw` gives it.
      discount: [] float32.
      n_step: rewards of a window at most; 0 means as many as the round has.

    Returns:
      `Experience` with leaves [B, ...].
    """
    capacity, steps, envs = replay.rounds.reward.shape
    window = steps if n_step == 0 else min(n_step, steps)
    slot, step, env = jnp.unravel_index(index, (capacity, steps, envs))

    ahead = jnp.arange(window)[None, :]
    later = step[:, None] + ahead
    inside = later < steps
    later = jnp.minimum(later, steps - 1)
    slots, envs_ = slot[:, None], env[:, None]
    done = (replay.rounds.terminated | replay.rounds.truncated)[slots, later, envs_]
    alive = inside & (jnp.cumsum(done, axis=1) - done == 0)
    powers = jnp.cumprod(jnp.concatenate([jnp.ones(1, discount.dtype), jnp.broadcast_to(discount, (window,))]))

    taken = jnp.sum(alive, axis=1)
    last = step + taken - 1
    terminated = replay.rounds.terminated[slot, last, env]
    return Experience(
        observation=jax.tree.map(lambda leaf: leaf[slot, step, env], replay.rounds.observation),
        action=replay.rounds.action[slot, step, env],
        reward=jnp.sum(replay.rounds.reward[slots, later, envs_] * alive * powers[:-1], axis=1),
        discount=powers[taken] * ~terminated,
        next_observation=jax.tree.map(lambda leaf: leaf[slot, last, env], replay.rounds.next_observation),
        weight=(slot < replay.written).astype(jnp.float32),
    )


def experience(rollout: Rollout, discount: jax.Array, n_step: int) -> Experience:
    """Reads every step of one rollout as n-step transitions, leaves [T * E, ...]."""
    one_round = jax.tree.map(lambda leaf: leaf[None], transitions(rollout))
    replay = Replay(rounds=one_round, written=jnp.ones((), jnp.int32))
    return read(replay, jnp.arange(rollout.reward.size), discount, n_step)
