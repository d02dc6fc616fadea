"""Several processes, on one host or on many, that train one run together.

All of them run the same program, each with its share of the devices. The first one writes what is written once.
"""

import os

import jax
import numpy as np

from jaxmeta.core.errors import require


def join(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Makes this process one of several, if it is. Must come before anything else uses a JAX device.

    Args:
      coordinator: HOST:PORT of the first process; None where the cluster says, as Slurm and TPU pods do, or where this
        process is alone.
      num_processes: how many there are.
      process_id: which one this is, from 0.

    Raises:
      UsageError: one of the three is given without the others, or out of range.
    """
    given = (coordinator, num_processes, process_id)
    if any(part is not None for part in given):
        require(None not in given, "coordinator", "come with num_processes and process_id, and they with it", given)
        host, _, port = str(coordinator).rpartition(":")
        require(bool(host) and port.isdigit() and int(port) < 2**16, "coordinator", "be HOST:PORT", coordinator)
        require(
            0 <= (process_id or 0) < (num_processes or 1),
            "process_id",
            f"be below num_processes = {num_processes}",
            process_id,
        )
        jax.distributed.initialize(coordinator, num_processes, process_id)
    elif _in_a_cluster():
        jax.distributed.initialize()


def _in_a_cluster() -> bool:
    """Whether Slurm or a TPU pod has started several processes of which this is one."""
    tasks = os.environ.get("SLURM_STEP_NUM_TASKS", os.environ.get("SLURM_NTASKS", "1"))
    slurm = "SLURM_PROCID" in os.environ and tasks.isdigit() and int(tasks) > 1
    return slurm or "," in os.environ.get("TPU_WORKER_HOSTNAMES", "")


def are_several() -> bool:
    """Whether more than this process takes part."""
    return jax.process_count() > 1


def is_first() -> bool:
    """Whether this is the process that writes what is written once."""
    return jax.process_index() == 0


def wait_for_all(reason: str) -> None:
    """Returns when every process has come here."""
    if are_several():
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(reason)


def any_of_all(flag: bool) -> bool:
    """Whether a flag is up in any process; all must ask."""
    return bool(_gathered(np.array([flag])).any()) if are_several() else flag


def to_host(array: jax.Array) -> jax.Array | np.ndarray:
    """The same values as an array of this process alone; all must ask where it is spread over processes."""
    if getattr(array, "is_fully_addressable", True):
        return array
    return np.asarray(array) if array.is_fully_replicated else _gathered(array)


def _gathered(array: jax.typing.ArrayLike) -> np.ndarray:
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(array, tiled=True))
