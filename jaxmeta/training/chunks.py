"""The compiled part of meta-training: one program that takes any number of meta-steps, and what it says of them.

A callback from every step of a compiled loop is slow; a host loop over compiled chunks costs next to nothing. So the
program takes a chunk of meta-steps, and the host logs, saves and stops between chunks. The length of a chunk is an
argument: one program serves all.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.core.compilation import compiler_options
from jaxmeta.core.errors import NonFiniteError
from jaxmeta.core.trees import is_finite, strongly_typed
from jaxmeta.core.types import Key, MetaLearner, MetaState, Metrics, TaskDistribution, batch_of_tasks

BY_MEMBER = ("loss", "return")
"""Metrics that a log point has for each member."""


class Log(NamedTuple):
    """The record of a meta-step; of a chunk, leaves are [log_every, ...], or [log_every, members, ...]."""

    metrics: Metrics
    """By name, [] float32 each."""
    state_is_finite: jax.Array
    """[] bool, of what the meta-step led to, whether or not that was kept."""
    task_is_finite: jax.Array | None
    """[tasks] bool, if the outer rule reports it."""

    def of_member(self, member: int) -> "Log":
        """The record of one member, in a chunk."""
        return jax.tree.map(lambda leaf: leaf[:, member], self)

    def first_fault(self, index: int) -> str | None:
        """What stopped being finite in one meta-step of a chunk, if anything did."""
        found = [name for name, values in self.metrics.items() if not np.isfinite(values[index])]
        if found:
            return f"{found[0]} became {self.metrics[found[0]][index]}"
        return None if self.state_is_finite[index] else "The state stopped being finite"

    def faulty_tasks(self, index: int) -> str:
        """In which tasks, as the end of a sentence."""
        if self.task_is_finite is None or self.task_is_finite[index].all():
            return ""
        faulty = np.flatnonzero(~self.task_is_finite[index]).tolist()
        return f", in {'task' if len(faulty) == 1 else 'tasks'} {', '.join(map(str, faulty))} of its batch"


def make_chunk(
    learner: MetaLearner, tasks: TaskDistribution, log_every: int, skip: bool = False, placement: Any = None
) -> Any:
    """The jitted program `(state, step_key, length) -> (state, log)`; length, [] int32, is at most `log_every`.

    Its state is donated. Each meta-step draws its own tasks, from a key that depends on `step_key` and `state.step`
    alone: how meta-steps fall into chunks changes nothing. Given keys [members] and a state of as many, every member
    takes its own meta-steps.

    Args:
      learner: what is trained.
      tasks: on which.
      log_every: meta-steps of the longest chunk.
      placement: how the state and the log lie on devices, where these are several.
      skip: count a meta-step that leads to numbers that are not finite, and leave what was learned as it was.
    """

    def meta_step(state: MetaState, step_key: Key) -> tuple[MetaState, Log]:
        task_key, update_key = keys_of_meta_step(step_key, state.step)
        updated, info = learner.update(update_key, state, batch_of_tasks(task_key, learner, tasks))
        metrics = dict(info.metrics)
        log = Log(metrics, is_finite(updated), info.task_is_finite)
        if skip:
            good = log.state_is_finite & is_finite(metrics)
            kept = state.replace(step=state.step + 1)
            updated = jax.tree.map(lambda new, old: jnp.where(good, new, old), updated, kept)
        return strongly_typed(updated), log

    meta_step = jax.jit(meta_step, inline=True)  # traced once, for the shapes below and for the loop

    def chunk(state: MetaState, step_key: Key, length: jax.Array) -> tuple[MetaState, Log]:
        step = jax.vmap(meta_step) if step_key.ndim else meta_step

        def body(index, carry):
            state, logs = carry
            state, log = step(state, step_key)
            return state, jax.tree.map(lambda buffer, value: buffer.at[index].set(value), logs, log)

        _, shapes = jax.eval_shape(step, state, step_key)
        logs = jax.tree.map(lambda shape: jnp.zeros((log_every, *shape.shape), shape.dtype), shapes)
        return jax.lax.fori_loop(0, length, body, (state, logs))

    return jax.jit(chunk, donate_argnums=0, out_shardings=placement, compiler_options=compiler_options())


def keys_of_meta_step(step_key: Key, step: jax.Array | int) -> tuple[Key, Key]:
    """What the meta-step after `step` others draws its tasks with, by `batch_of_tasks`, and what it is taken with.

    With the first, the batch of a non-finite meta-step can be drawn again.
    """
    task_key, update_key = jax.random.split(jax.random.fold_in(step_key, step))
    return task_key, update_key


def summary(log: Log, step: int, length: int, skip: bool = False, members: Sequence[object] = ()) -> dict[str, Any]:
    """Means over a chunk that took `length` meta-steps after `step`.

    Args:
      log: on the host, leaves [log_every, ...], with several seeds [log_every, members, ...].
      step: meta-steps before the chunk.
      length: of the chunk.
      skip: leave out meta-steps that were not finite, and say how many they are as `skipped`.
      members: with several seeds, their names. Means are then over them too; of `BY_MEMBER` each one's own is
        reported too, and `skipped` is a sum.

    Raises:
      NonFiniteError: naming what stopped being finite, the meta-step, the member and the tasks; where meta-steps are
        skipped only if all of the chunk were.
    """
    if not members:
        return _means(log, step, length, skip, "")
    each = [
        _means(log.of_member(index), step, length, skip, f" of the member with {member}")
        for index, member in enumerate(members)
    ]
    means: dict[str, Any] = {name: float(np.mean([of_one[name] for of_one in each])) for name in each[0]}
    if skip:
        means["skipped"] = sum(of_one["skipped"] for of_one in each)
    return means | {f"{name}_by_member": [of_one[name] for of_one in each] for name in BY_MEMBER if name in means}


def _means(log: Log, step: int, length: int, skip: bool, whose: str) -> dict[str, float]:
    faults = {index: fault for index in range(length) if (fault := log.first_fault(index))}
    if faults and not (skip and len(faults) < length):
        index, fault = next(iter(faults.items()))
        reported = f"{fault} at meta-step {step + index + 1}{whose}{log.faulty_tasks(index)}"
        rest = f"; none of the {length} meta-steps up to {step + length} could be kept" if skip else ""
        raise NonFiniteError(f"{reported}{rest}.")
    good = [index for index in range(length) if index not in faults]
    means = {name: float(np.mean(values[good], dtype=np.float64)) for name, values in log.metrics.items()}
    return means | ({"skipped": len(faults)} if skip else {})
