"""A ring buffer of whole rounds, and the n-step transitions that are read from it.

Whole rounds are stored rather than single steps, so that no window of rewards crosses the ring's seam and the discount
of today applies to the data of yesterday. What is stored is gradient-stopped.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

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


class Windows(NamedTuple):
    """What follows each stored step, as far as a target looks ahead. Leaves [C, T, E]."""

    reward: jax.Array
    """float32, discounted sum of the rewards in the window."""
    discount: jax.Array
    """float32, weight of the value at the window's far end: 0 where the episode terminated there."""
    last: jax.Array
    """int32, the window's last step."""


def look_ahead(rounds: Transitions, discount: jax.Array, n_step: int) -> Windows:
    """Looks ahead from every step.

    A window ends after `n_step` steps, at the end of its episode, or at the end of its round, whichever comes first.
    The value at its far end is bootstrapped unless the episode terminated there.

    Args:
      rounds: leaves [C, T, E, ...].
      discount: [] float32.
      n_step: rewards of a window at most; 0 means as many as the round has.
    """
    steps = rounds.reward.shape[1]
    ends = (rounds.terminated | rounds.truncated).at[:, -1].set(True)
    of_one = _to_the_end if n_step == 0 or n_step >= steps else functools.partial(_n_steps, n_step=n_step)
    reward, weight, last = jax.vmap(jax.vmap(of_one, (1, 1, None), 1), (0, 0, None))(rounds.reward, ends, discount)
    terminated = jnp.take_along_axis(rounds.terminated, last, axis=1)
    return Windows(reward=reward, discount=weight * ~terminated, last=last)


def _to_the_end(reward: jax.Array, ends: jax.Array, discount: jax.Array):
    """Windows of one environment's round up to the episode's end: sum of rewards, weight and last step, [T] each."""

    def backwards(later, now):
        reward, end, step = now
        total, weight, last = later
        total = reward + jnp.where(end, 0.0, discount * total)
        weight = discount * jnp.where(end, 1.0, weight)
        last = jnp.where(end, step, last)
        return (total, weight, last), (total, weight, last)

    nothing = jnp.zeros((), jnp.result_type(reward, discount))
    start = (nothing, jnp.ones_like(nothing), jnp.zeros((), jnp.int32))
    return jax.lax.scan(backwards, start, (reward, ends, jnp.arange(len(reward), dtype=jnp.int32)), reverse=True)[1]


def _n_steps(reward: jax.Array, ends: jax.Array, discount: jax.Array, n_step: int):
    """Windows of at most `n_step` steps, as above."""
    ahead = jnp.minimum(jnp.arange(len(reward))[:, None] + jnp.arange(n_step), len(reward) - 1)
    ended_before = jnp.cumsum(ends[ahead], axis=1) - ends[ahead]
    alive = ended_before == 0
    taken = jnp.sum(alive, axis=1)
    powers = jnp.cumprod(jnp.concatenate([jnp.ones(1, discount.dtype), jnp.broadcast_to(discount, (n_step,))]))
    total = jnp.sum(reward[ahead] * alive * powers[:-1], axis=1)
    return total, powers[taken], jnp.arange(len(reward), dtype=jnp.int32) + taken.astype(jnp.int32) - 1


def read(replay: Replay, windows: Windows, index: jax.Array) -> Experience:
    """Reads transitions at flat indices, [B] int32, into the slots [C, T, E]; leaves [B, ...]."""
    slot, step, env = jnp.unravel_index(index, replay.rounds.reward.shape)
    last = windows.last[slot, step, env]
    return Experience(
        observation=jax.tree.map(lambda leaf: leaf[slot, step, env], replay.rounds.observation),
        action=replay.rounds.action[slot, step, env],
        reward=windows.reward[slot, step, env],
        discount=windows.discount[slot, step, env],
        next_observation=jax.tree.map(lambda leaf: leaf[slot, last, env], replay.rounds.next_observation),
        weight=(slot < replay.written).astype(jnp.float32),
    )


def batches(
    key: Key, replay: Replay, steps: int, batch_size: int, discount: jax.Array, n_step: int
) -> tuple[Callable[[Any], Experience], jax.Array | None]:
    """Prepares the batches of so many gradient steps, for a scan that closes over the buffer.

    Args:
      key: one key.
      replay: the buffer.
      steps: gradient steps.
      batch_size: transitions of a batch; 0 means every slot, those not written yet too, which carry no weight. Then all
        batches are the same one, which is read once.
      discount: [] float32.
      n_step: as in `look_ahead`.

    Returns:
      What reads a batch, given an entry of the second result, which is what to scan over: [steps, batch_size] int32
      indices, uniform over what is written; or None.
    """
    capacity, rollout_steps, envs = replay.rounds.reward.shape
    windows = look_ahead(replay.rounds, discount, n_step)
    if batch_size == 0:
        whole = read(replay, windows, jnp.arange(replay.rounds.reward.size))
        return lambda nothing: whole, None
    filled = jnp.minimum(replay.written, capacity) * rollout_steps * envs
    index = jax.random.randint(key, (steps, batch_size), 0, filled)
    return functools.partial(read, replay, windows), index


def experience(rollout: Rollout, discount: jax.Array, n_step: int) -> Experience:
    """Reads every step of one rollout as n-step transitions, leaves [T * E, ...]."""
    one_round = jax.tree.map(lambda leaf: leaf[None], transitions(rollout))
    replay = Replay(rounds=one_round, written=jnp.ones((), jnp.int32))
    return read(replay, look_ahead(one_round, discount, n_step), jnp.arange(rollout.reward.size))
