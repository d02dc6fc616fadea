"""The batch of tasks: vmapped within a group, group after group."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxmeta.base import PyTree


def mean_over_tasks(per_task: Callable[..., tuple[PyTree, PyTree]], tasks_per_group: int) -> Callable[..., tuple]:
    """Turns a function of one task into the mean of its first result over a batch of tasks, and all of its second.

    Args:
      per_task: function of arguments without a batch axis, returning a pytree of floats to be averaged, and one to be
        kept for each task.
      tasks_per_group: tasks that are vmapped together, static; 0 means all. Groups run one after another, so that
        memory is bounded by one group and what is kept; of what is averaged only the running sum.

    Returns:
      A function of arguments with leaves [tasks, ...]; the number of tasks must be a multiple of the group size. It
      returns the mean, and what is kept with leaves [tasks, ...].
    """

    def group_mean(arguments):
        averaged, kept = jax.vmap(per_task)(*arguments)
        return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), averaged), kept

    def mean(*arguments):
        tasks = jax.tree.leaves(arguments)[0].shape[0]
        groups = tasks // (tasks_per_group or tasks)
        if groups == 1:
            return group_mean(arguments)
        grouped = jax.tree.map(lambda leaf: leaf.reshape(groups, -1, *leaf.shape[1:]), arguments)
        first = jax.tree.map(lambda leaf: leaf[0], grouped)
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(group_mean, first)[0])

        def add(total, group):
            averaged, kept = group_mean(group)
            return jax.tree.map(lambda old, new: old + new / groups, total, averaged), kept

        averaged, kept = jax.lax.scan(add, zeros, grouped)
        return averaged, jax.tree.map(lambda leaf: leaf.reshape(tasks, *leaf.shape[2:]), kept)

    return mean
