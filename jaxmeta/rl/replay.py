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

from jaxmeta.core.types import Experience, Key, PyTree, Rollout, Spec
from jaxmeta.nets.networks import features_of


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

    rollouts: Transitions
    """Leaves [C, T, E, ...], C rounds of T steps in E environments."""
    written: jax.Array | int
    """[] int32, rounds written so far; an int where that is known while the program is built."""


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


def empty(spec: Spec, capacity: int, steps: int, num_envs: int) -> Replay:
    """A buffer of `capacity` rounds that holds nothing yet."""
    shape = (capacity, steps, num_envs)

    def zeros(leaf: jax.ShapeDtypeStruct) -> jax.Array:
        return jnp.zeros(shape + leaf.shape, leaf.dtype)

    return Replay(
        rollouts=Transitions(
            observation=jax.tree.map(zeros, spec.observation),
            action=zeros(spec.action),
            reward=jnp.zeros(shape, jnp.float32),
            terminated=jnp.zeros(shape, bool),
            truncated=jnp.zeros(shape, bool),
            next_observation=jax.tree.map(zeros, spec.observation),
        ),
        written=0,
    )


def add(replay: Replay, rollout: Rollout) -> Replay:
    """Writes a round over the oldest one."""
    slot = replay.written % replay.rollouts.reward.shape[0]
    rounds = jax.tree.map(lambda ring, new: ring.at[slot].set(new), replay.rollouts, transitions(rollout))
    return Replay(rollouts=rounds, written=replay.written + 1)


class Windows(NamedTuple):
    """What follows stored steps, as far as a target looks ahead. Leaves [B], or [C, T, E] for every stored step."""

    reward: jax.Array
    """float32, discounted sum of the rewards in the window."""
    discount: jax.Array
    """float32, weight of the value at the window's far end: 0 where the episode terminated there."""
    last: jax.Array
    """int32, the window's last step."""


LookAhead = Callable[[jax.Array, jax.Array, jax.Array], Windows]
"""`look(slot, step, env)` takes positions in the buffer, [B] int32 each, and gives windows with leaves [B]."""


def look_ahead(rounds: Transitions, discount: jax.Array, n_step: int) -> LookAhead:
    """Prepares to look ahead from stored steps.

    A window ends after `n_step` steps, at the end of its episode, or at the end of its round, whichever comes first.
    The value at its far end is bootstrapped unless the episode terminated there. Windows that reach to the end of the
    round are summed for every stored step at once, shorter ones when they are read.

    Args:
      rounds: leaves [C, T, E, ...].
      discount: [] float32.
      n_step: rewards of a window at most; 0 means as many as the round has.
    """
    if 0 < n_step < rounds.reward.shape[1]:
        return functools.partial(_n_steps, rounds, discount, n_step)
    ends = (rounds.terminated | rounds.truncated).at[:, -1].set(True)
    of_round = jax.vmap(_to_the_end, (1, 1, 1, None), 1)
    windows = jax.vmap(of_round, (0, 0, 0, None))(rounds.reward, rounds.terminated, ends, discount)
    return lambda *position: jax.tree.map(lambda leaf: leaf[position], windows)


def _to_the_end(reward: jax.Array, terminated: jax.Array, ends: jax.Array, discount: jax.Array) -> Windows:
    """Windows of one environment's round up to the episode's end, leaves [T]."""

    def backwards(later: Windows, now: tuple[jax.Array, ...]) -> tuple[Windows, Windows]:
        reward, terminated, end, step = now
        window = Windows(
            reward=reward + jnp.where(end, 0.0, discount * later.reward),
            discount=discount * jnp.where(end, ~terminated, later.discount),
            last=jnp.where(end, step, later.last),
        )
        return window, window

    nothing = jnp.zeros((), jnp.result_type(reward, discount))
    start = Windows(nothing, nothing, jnp.zeros((), jnp.int32))
    steps = jnp.arange(len(reward), dtype=jnp.int32)
    return jax.lax.scan(backwards, start, (reward, terminated, ends, steps), reverse=True)[1]


def _n_steps(
    rounds: Transitions, discount: jax.Array, n_step: int, slot: jax.Array, step: jax.Array, env: jax.Array
) -> Windows:
    """Windows of at most `n_step` steps from positions in the buffer, leaves [B]."""
    final = rounds.reward.shape[1] - 1
    ahead = jnp.minimum(step[:, None] + jnp.arange(n_step), final)
    window = (slot[:, None], ahead, env[:, None])
    ends = rounds.terminated[window] | rounds.truncated[window] | (ahead == final)
    alive = jnp.cumsum(ends, axis=1) - ends == 0
    taken = jnp.sum(alive, axis=1, dtype=jnp.int32)
    last = step + taken - 1
    powers = jnp.cumprod(jnp.concatenate([jnp.ones(1, discount.dtype), jnp.broadcast_to(discount, (n_step,))]))
    total = jnp.sum(rounds.reward[window] * alive * powers[:-1], axis=1)
    return Windows(reward=total, discount=powers[taken] * ~rounds.terminated[slot, last, env], last=last)


def read(replay: Replay, look: LookAhead, index: jax.Array) -> Experience:
    """Reads transitions at flat indices, [B] int32, into the slots [C, T, E]; leaves [B, ...]."""
    slot, step, env = jnp.unravel_index(index, replay.rollouts.reward.shape)
    window = look(slot, step, env)
    return Experience(
        observation=jax.tree.map(lambda leaf: leaf[slot, step, env], replay.rollouts.observation),
        action=replay.rollouts.action[slot, step, env],
        reward=window.reward,
        discount=window.discount,
        next_observation=jax.tree.map(lambda leaf: leaf[slot, window.last, env], replay.rollouts.next_observation),
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
      batch_size: transitions of a batch; 0 means every slot, where it is not known how many are written those not
        written yet too, which carry no weight. Then all batches are the same one, which is read once.
      discount: [] float32.
      n_step: as in `look_ahead`.

    Returns:
      What reads a batch, given an entry of the second result, which is what to scan over: [steps, batch_size] int32
      indices, uniform over what is written; or None.
    """
    capacity, rollout_steps, num_envs = replay.rollouts.reward.shape
    look = look_ahead(replay.rollouts, discount, n_step)
    if batch_size == 0:
        rounds = min(replay.written, capacity) if isinstance(replay.written, int) else capacity
        everything = read(replay, look, jnp.arange(rounds * rollout_steps * num_envs))
        return lambda nothing: everything, None
    filled = jnp.minimum(replay.written, capacity) * rollout_steps * num_envs
    index = jax.random.randint(key, (steps, batch_size), 0, filled)
    return functools.partial(read, replay, look), index


def experience(rollout: Rollout, discount: jax.Array, n_step: int) -> Experience:
    """Reads every step of one rollout as n-step transitions, leaves [T * E, ...]."""
    one_round = jax.tree.map(lambda leaf: leaf[None], transitions(rollout))
    replay = Replay(rollouts=one_round, written=jnp.ones((), jnp.int32))
    return read(replay, look_ahead(one_round, discount, n_step), jnp.arange(rollout.reward.size))


def elements_of(spec: Spec, replay: Replay) -> tuple[jax.Array, jax.Array]:
    """The transitions of a buffer as numbers, [N, F] float32, and whether each has been written, [N] bool.

    An element is an observation, the action, the reward, whether the episode terminated, and the next observation.
    """
    rounds = replay.rollouts
    capacity, steps, num_envs = rounds.reward.shape
    num_actions = spec.num_actions
    assert num_actions is not None, "Q-learning has discrete actions"

    def one(observation, action, reward, terminated, next_observation):
        parts = [
            features_of(spec, observation),
            jax.nn.one_hot(action, num_actions),
            jnp.stack([reward, terminated.astype(jnp.float32)]),
            features_of(spec, next_observation),
        ]
        return jnp.concatenate(parts)

    def flat(leaf):
        return leaf.reshape(-1, *leaf.shape[3:])

    fields = (rounds.observation, rounds.action, rounds.reward, rounds.terminated, rounds.next_observation)
    elements = jax.vmap(one)(*jax.tree.map(flat, fields))
    written = jnp.repeat(jnp.arange(capacity) < replay.written, steps * num_envs)
    return elements, written
