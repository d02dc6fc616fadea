"""The batch of tasks: vmapped within a group, group after group."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxmeta.base import PyTree


def mean_over_tasks(per_task: Callable[..., PyTree], tasks_per_group: int) -> Callable[..., PyTree]:
    """Turns a function of one task into the mean of its results over a batch of tasks.

    Args:
      per_task: function of arguments without a batch axis, returning a pytree of floats.
      tasks_per_group: tasks that are vmapped together, static; 0 means all. Groups run one after another, so that
        memory is bounded by one group; only the running sum is kept between them.

    Returns:
      A function of arguments with leaves [tasks, ...]; the number of tasks must be a multiple of the group size.
    """

    def group_mean(arguments):
        return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), jax.vmap(per_task)(*arguments))

    def mean(*arguments):
        tasks = jax.tree.leaves(arguments)[0].shape[0]
        groups = tasks // (tasks_per_group or tasks)
        if groups == 1:
            return group_mean(arguments)
        grouped = jax.tree.map(lambda leaf: leaf.reshape(groups, -1, *leaf.shape[1:]), arguments)
        zeros = jax.tree.map(
            lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
            jax.eval_shape(group_mean, jax.tree.map(lambda leaf: leaf[0], grouped)),
        )

        def add(total, group):
            return jax.tree.map(lambda old, new: old + new / groups, total, group_mean(group)), None

        return jax.lax.scan(add, zeros, grouped)[0]

    return mean
