"""The batch of tasks: vmapped within a group, group after group."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxmeta.core import sharding as devices
from jaxmeta.core.config import Count, Natural
from jaxmeta.core.errors import require
from jaxmeta.core.trees import is_finite
from jaxmeta.core.types import PyTree
from jaxmeta.outer.optimizer import OptimizerConfig


class BatchConfig(OptimizerConfig, frozen=True, kw_only=True):
    """The tasks of a meta-step, and the optimizer's step on what they contribute."""

    tasks_per_batch: Count = 20
    """Tasks of a meta-step."""
    tasks_per_group: Natural = 0
    """Tasks that are vmapped together, group after group; 0 puts the whole batch into one group."""

    def __post_init__(self):
        super().__post_init__()
        group = self.tasks_per_group
        rule = f"be 0 or divide tasks_per_batch = {self.tasks_per_batch}"
        require(group == 0 or self.tasks_per_batch % group == 0, "tasks_per_group", rule, group)


def num_tasks(batch: PyTree) -> int:
    """How many tasks a batch has, leaves [tasks, ...]."""
    return jax.tree.leaves(batch)[0].shape[0]


def each_is_finite(tree: PyTree) -> jax.Array:
    """Which tasks a tree of leaves [tasks, ...] is finite for, [tasks] bool."""
    return jax.vmap(is_finite)(tree)


def mean_over_tasks(per_task: Callable[..., tuple[PyTree, PyTree]], tasks_per_group: int) -> Callable[..., tuple]:
    """Turns a function of one task into the mean of its first result over a batch of tasks, and all of its second.

    Args:
      per_task: function of arguments without a batch axis, returning a pytree of floats to be averaged, and one to be
        kept for each task.
      tasks_per_group: tasks that a device takes together, vmapped, static; 0 means all. Groups run one after another,
        so that memory is bounded by one group and what is kept; of what is averaged only the running sum.

    Returns:
      A function of arguments with leaves [tasks, ...]. It returns the mean, what is kept with leaves [tasks, ...], and
      for which tasks what is averaged was finite, [tasks] bool.
    """

    def group_mean(arguments):
        averaged, kept = jax.vmap(per_task)(*devices.spread(arguments))
        return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), averaged), (kept, each_is_finite(averaged))

    def mean(*arguments):
        groups = _groups(num_tasks(arguments) // devices.in_use(), tasks_per_group)
        if groups == 1:
            averaged, (kept, finite) = group_mean(arguments)
            return averaged, kept, finite
        grouped = jax.tree.map(lambda leaf: _grouped(leaf, groups), arguments)
        first = jax.tree.map(lambda leaf: leaf[0], grouped)
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(group_mean, first)[0])

        def add(total, group):
            averaged, kept = group_mean(group)
            return jax.tree.map(lambda old, new: old + new / groups, total, averaged), kept

        averaged, kept = jax.lax.scan(add, zeros, grouped)
        kept, finite = jax.tree.map(_in_order, kept)
        return averaged, kept, finite

    return mean


def mean_over_shares(of_share: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """Turns a function of tasks that returns means over them into one that each device applies to its share of them.

    What devices exchange is the results, once. Left to the compiler, a derivative along a scan would be exchanged at
    every step of it.

    Args:
      of_share: function of arguments with leaves [tasks, ...], returning a pytree of means.
    """

    def mean(*arguments):
        count = devices.in_use()
        if count == 1:
            return of_share(*arguments)
        shares = jax.tree.map(lambda leaf: leaf.reshape(count, -1, *leaf.shape[1:]), arguments)
        return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), jax.vmap(of_share)(*devices.spread(shares)))

    return mean


def _groups(tasks: int, tasks_per_group: int) -> int:
    """Of equal size and of at most so many tasks, as few as there can be.

    >>> _groups(20, 2), _groups(20, 0), _groups(15, 2), _groups(3, 8)
    (10, 1, 15, 1)
    """
    most = tasks_per_group or tasks
    return next(groups for groups in range(1, tasks + 1) if tasks % groups == 0 and tasks // groups <= most)


def _grouped(leaf: jax.Array, groups: int) -> jax.Array:
    """[tasks, ...] as [groups, tasks in each, ...], where every device has its share of every group."""
    count = devices.in_use()
    by_device = leaf.reshape(count, groups, -1, *leaf.shape[1:])
    return jnp.moveaxis(by_device, 0, 1).reshape(groups, -1, *leaf.shape[1:])


def _in_order(leaf: jax.Array) -> jax.Array:
    """What `_grouped` was, before it."""
    groups, count = leaf.shape[0], devices.in_use()
    by_device = leaf.reshape(groups, count, -1, *leaf.shape[2:])
    return jnp.moveaxis(by_device, 0, 1).reshape(-1, *leaf.shape[2:])
