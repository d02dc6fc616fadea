"""Checkpoints: a state beside a digest of itself, and a restore that believes nothing it cannot verify.

A checkpoint damaged after it was written can restore without a complaint and with wrong numbers. Hence the digests, of
the state and of each file: what does not verify is reported and passed over in favour of the newest that does. Nothing
damaged is ever deleted. Files are checked first: on a damaged one, Orbax leaves tasks behind that fail noisily later.
"""

import contextlib
import hashlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.base import MetaState
from jaxmeta.runs import write_json

KEPT = 3
"""Newest checkpoints that stay; older ones make room."""
FILES = "files.json"
"""Lies in a checkpoint's folder, and holds the SHA-256 of each other file by its path."""

_log = logging.getLogger(__name__)


class CheckpointError(RuntimeError):
    """A checkpoint could not be written, or there are some and none of them can be trusted."""


def state_digest(state: Any) -> str:
    """SHA-256, in hexadecimal, over every leaf's path, shape, dtype and bytes.

    >>> state_digest({"w": np.zeros(2, np.float32)})[:8]
    '8ac3d1bc'
    """
    digest = hashlib.sha256()
    for path, leaf in _leaves(state).items():
        raw = jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
        digest.update(f"{path} {leaf.shape} {leaf.dtype}\n".encode())
        digest.update(np.ascontiguousarray(raw).tobytes())
    return digest.hexdigest()


def save(folder: Path, state: MetaState) -> None:
    """Writes a checkpoint of `state`, named by its step, and returns when it is on disk."""
    import orbax.checkpoint as ocp

    step = int(state.step)
    stored = {path: leaf for path, leaf in _leaves(state).items() if leaf.size}  # Orbax refuses empty arrays
    items = ocp.args.Composite(
        state=ocp.args.StandardSave(stored),
        meta=ocp.args.JsonSave({"step": step, "digest": state_digest(state)}),
    )
    with _manager(folder, create=True) as manager:
        if not manager.save(step, args=items):
            raise CheckpointError(f"Checkpoint {step} in {str(folder)!r} could not be written: it is there already.")
    write_json(folder / str(step) / FILES, _file_digests(folder / str(step)))


def restore(folder: Path, like: MetaState) -> MetaState | None:
    """Reads the newest checkpoint that verifies.

    Args:
      folder: where `save` wrote.
      like: a state of the same structure, of arrays or of `jax.ShapeDtypeStruct`.

    Returns:
      The state, or None where no checkpoint was ever finished. Each one passed over is told as a logged warning.

    Raises:
      CheckpointError: there are checkpoints, and none verifies.
    """
    steps = finished_steps(folder)
    for step in reversed(steps):
        try:
            return read(folder, step, like)
        except CheckpointError as error:
            _log.warning("Checkpoint %d in %r was passed over: %s", step, str(folder), error)
    if steps:
        raise CheckpointError(f"No checkpoint in {str(folder)!r} can be trusted: all of {steps} are damaged.")
    return None


def read(folder: Path, step: int, like: MetaState) -> MetaState:
    """Reads one checkpoint, and changes nothing.

    Raises:
      CheckpointError: it does not verify; the message says in a few words what is wrong with it.
    """
    try:
        return _restore_step(folder, step, like)
    except Exception as error:  # a damaged file raises whatever its reader happened to trip over
        raise CheckpointError(str(error).strip().split("\n")[0][:200] or type(error).__name__) from error


def shelf(folder: Path) -> Path:
    """Where `set_aside` puts what it takes out of a folder of checkpoints."""
    return folder.with_name(f"{folder.name}-damaged")


def finished_steps(folder: Path) -> list[int]:
    """Steps that were saved to the end, oldest first, whether or not they still verify."""
    if not folder.is_dir():
        return []
    with _manager(folder) as manager:
        return sorted(manager.all_steps())


def set_aside(folder: Path, newer_than: int) -> None:
    """Moves checkpoints newer than a step next door, so that the run can save those steps again."""
    for step in finished_steps(folder):
        if step > newer_than:
            shelf(folder).mkdir(exist_ok=True)
            place = shelf(folder) / str(step)
            while place.exists():
                place = place.with_name(place.name + "-again")
            (folder / str(step)).rename(place)
            _log.warning("Checkpoint %d was moved to %r.", step, str(place))


def _restore_step(folder: Path, step: int, like: MetaState) -> MetaState:
    import orbax.checkpoint as ocp

    _require_intact(folder / str(step))
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    wanted = {
        path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device)
        for path, leaf in _leaves(like).items()
        if leaf.size
    }
    items = ocp.args.Composite(state=ocp.args.StandardRestore(wanted), meta=ocp.args.JsonRestore())
    with _manager(folder) as manager:
        restored = manager.restore(step, args=items)
    leaves = [
        restored.state[path] if leaf.size else jnp.zeros(leaf.shape, leaf.dtype) for path, leaf in _leaves(like).items()
    ]
    state = jax.tree.unflatten(jax.tree.structure(like), leaves)
    if state_digest(state) != restored.meta["digest"]:
        raise ValueError("its contents do not match the digest saved with them.")
    return state


def _require_intact(checkpoint: Path) -> None:
    """Raises ValueError where a file is not what was saved. A save killed before it listed its files is let pass."""
    if not (checkpoint / FILES).is_file():
        return
    found = _file_digests(checkpoint)
    for path, digest in json.loads((checkpoint / FILES).read_text(encoding="utf-8")).items():
        if found.get(path) != digest:
            raise ValueError(f"{path} is {'damaged' if path in found else 'missing'}.")


def _file_digests(checkpoint: Path) -> dict[str, str]:
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file() and path.name != FILES)
    return {path.relative_to(checkpoint).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _leaves(state: Any) -> dict[str, Any]:
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(state)}


@contextlib.contextmanager
def _manager(folder: Path, create: bool = False) -> Iterator[Any]:
    import orbax.checkpoint as ocp  # imported where it is used: it takes more than a second

    # Saved in the foreground: what a signal or the next, donating, meta-step must not touch is then out of reach.
    options = ocp.CheckpointManagerOptions(max_to_keep=KEPT, create=create, enable_async_checkpointing=False)
    with ocp.CheckpointManager(folder.absolute(), options=options) as manager:
        yield manager
