"""The task axis over several devices.

A mesh is in use while a program is traced under `jax.set_mesh`; without one, or with one device, nothing here does
anything. What has a leading axis of tasks is spread over the mesh, everything else is the same on every device, and the
compiler works out what has to be exchanged.
"""

import contextlib
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxmeta.core.errors import require
from jaxmeta.core.types import PyTree

TASKS = "tasks"
"""The axis of the mesh."""


def mesh_of(count: int) -> Mesh | None:
    """A mesh of the first devices that there are; of a single one there is none."""
    if count == 1:
        return None
    return jax.make_mesh((count,), (TASKS,), axis_types=(AxisType.Auto,), devices=jax.devices()[:count])


def use(mesh: Mesh | None) -> contextlib.AbstractContextManager[Any]:
    """Within it programs are traced for a mesh, if there is one."""
    return contextlib.nullcontext() if mesh is None else jax.set_mesh(mesh)


def in_use() -> int:
    """Devices of the mesh that a program is being traced under, 1 where there is none."""
    return jax.sharding.get_abstract_mesh().shape.get(TASKS, 1)


def spread(tree: PyTree) -> PyTree:
    """The same values, leaves [tasks, ...], with as many tasks on each device of the mesh in use."""
    return _constrained(tree, PartitionSpec(TASKS))


def everywhere(tree: PyTree) -> PyTree:
    """The same values, whole on each device of the mesh in use."""
    return _constrained(tree, PartitionSpec())


def _constrained(tree: PyTree, spec: PartitionSpec) -> PyTree:
    if in_use() == 1:
        return tree
    return jax.tree.map(lambda leaf: jax.lax.with_sharding_constraint(leaf, spec), tree)


def whole(mesh: Mesh) -> NamedSharding:
    """How an array lies that every device of a mesh has all of."""
    return NamedSharding(mesh, PartitionSpec())


def require_even(tasks_per_batch: int, count: int) -> None:
    """Refuses a batch that cannot be spread evenly, and names the nearest that can; a single task stays in one piece.

    >>> require_even(10, 8)
    Traceback (most recent call last):
        ...
    jaxmeta.core.errors.UsageError: tasks_per_batch must be a multiple of devices = 8, such as 8 or 16, got 10.
    """
    below = tasks_per_batch // count * count
    nearest = " or ".join(str(size) for size in (below, below + count) if size)
    even = below == tasks_per_batch or tasks_per_batch == 1
    require(even, "tasks_per_batch", f"be a multiple of devices = {count}, such as {nearest}", tasks_per_batch)
