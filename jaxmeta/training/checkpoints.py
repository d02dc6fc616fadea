"""Checkpoints: a state beside a digest of itself, and a restore that believes nothing it cannot verify.

A checkpoint damaged after it was written can restore without a complaint and with wrong numbers. Hence the digests, of
the state and of each file: what does not verify is reported and passed over in favour of the next that does. Nothing
damaged is ever deleted. Files are checked first: on a damaged one, Orbax leaves tasks behind that fail noisily later.

`Keeper` writes in the background, while training goes on, and keeps the newest and the best.
"""

import contextlib
import hashlib
import json
import logging
import math
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.core.errors import StorageError
from jaxmeta.core.trees import by_path
from jaxmeta.core.types import MetaState
from jaxmeta.training import distributed as hosts
from jaxmeta.training.run_directory import write_json

KEPT = 3
"""Newest checkpoints that stay by default; of older ones only the best does."""
FILES = "files.json"
"""Lies in a checkpoint's folder, and holds the SHA-256 of each other file by its path."""

_log = logging.getLogger(__name__)


class CheckpointError(StorageError):
    """A checkpoint could not be written, or there are some and none of them can be trusted."""


def state_digest(state: Any) -> str:
    """SHA-256, in hexadecimal, over every leaf's path, shape, dtype and bytes.

    >>> state_digest({"w": np.zeros(2, np.float32)})[:8]
    '8ac3d1bc'
    """
    digest = hashlib.sha256()
    for path, leaf in by_path(state).items():
        raw = hosts.to_host(jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf)
        digest.update(f"{path} {leaf.shape} {leaf.dtype}\n".encode())
        digest.update(np.ascontiguousarray(raw).tobytes())
    return digest.hexdigest()


class Keeper:
    """Writes the checkpoints of a run in the background, and keeps the newest and the best. A context manager.

    Args:
      folder: where to; it need not exist.
      keep: how many of the newest stay.
    """

    def __init__(self, folder: Path, keep: int = KEPT):
        self.folder = folder
        self.keep = keep
        self._manager: Any = None
        self._writing: int | None = None
        self._scores: dict[int, float] = {}

    def save(self, state: MetaState, score: float | None = None) -> None:
        """Begins to write a checkpoint, named by its step; when it returns, `state` may be donated.

        Args:
          state: what to write.
          score: what the best checkpoint has the highest of.

        Raises:
          CheckpointError: it could not start, or one of that step is there already.
        """
        import orbax.checkpoint as ocp

        assert self._writing is None, "settled before"
        step = state.steps_taken
        stored = {path: leaf for path, leaf in by_path(state).items() if leaf.size}  # Orbax refuses empty arrays
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(stored),
            meta=ocp.args.JsonSave({"step": step, "digest": state_digest(state), "score": score}),
        )
        with self._telling(step):
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass  # where nothing can be made, Orbax's threads wait minutes for a folder, and a process for them
            if self._manager is None:
                self._manager = _open(self.folder, create=True, policy=_NewestAndBest(self.keep, self._scores))
                self._scores |= _scores(self._manager)
            if score is not None:
                self._scores[step] = score
            if not self._manager.save(step, args=items):
                raise FileExistsError("it is there already")
        self._writing = step

    def settle(self, wait: bool = False) -> None:
        """Seals the checkpoint that is being written, if it has been written or `wait` says to wait for it.

        Raises:
          CheckpointError: it could not be written; the ones before it are as they were.
        """
        if self._writing is None or (self._manager.is_saving_in_progress() and not wait):
            return
        step, self._writing = self._writing, None
        with self._telling(step):
            self._manager.wait_until_finished()
            if hosts.is_first():
                write_json(self.folder / str(step) / FILES, _file_digests(self.folder / str(step)))

    @contextlib.contextmanager
    def _telling(self, step: int) -> Iterator[None]:
        """Turns whatever goes wrong into one sentence, and starts afresh with the next checkpoint."""
        try:
            yield
        except Exception as error:  # Orbax raises whatever its many writers trip over
            self._close()
            self._scores.pop(step, None)
            raise CheckpointError(
                f"Checkpoint {step} in {str(self.folder)!r} could not be written: {_in_short(error)}."
            ) from error

    def _close(self) -> None:
        manager, self._manager = self._manager, None
        if manager is not None:
            with contextlib.suppress(Exception):  # what failed once, fails again as it is closed
                manager.close()

    def __enter__(self) -> "Keeper":
        return self

    def __exit__(self, *exception: object) -> None:
        with contextlib.suppress(CheckpointError):  # who cares settles before
            self.settle(wait=True)
        self._close()


class _NewestAndBest:
    """Which checkpoints Orbax leaves in place. Its own rule for the best forgets what it knew when a run is resumed."""

    def __init__(self, keep: int, scores: Mapping[int, float]):
        self.keep = keep
        self.scores = scores

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """One answer for each of the checkpoints, oldest first."""
        del context
        steps = [checkpoint.step for checkpoint in checkpoints]
        best = max(self.scores.keys() & steps, key=lambda step: (self.scores[step], step), default=None)
        return [step in steps[-self.keep :] or step == best for step in steps]


def restore(folder: Path, like: MetaState, best: bool = False) -> MetaState | None:
    """Reads the newest checkpoint that verifies, or the best.

    Args:
      folder: where a `Keeper` wrote.
      like: a state of the same structure, of arrays or of `jax.ShapeDtypeStruct`, which lies on devices as it is to.
      best: prefer the highest score, and of equals the newest.

    Returns:
      The state, or None where no checkpoint was ever finished. Each one passed over is logged as a warning.

    Raises:
      CheckpointError: there are checkpoints, and none verifies.
    """
    steps = finished_steps(folder)
    if best and steps:
        with _open(folder) as manager:
            scores = _scores(manager)
        steps.sort(key=lambda step: (scores.get(step, -math.inf), step))
    for step in reversed(steps):
        try:
            return read(folder, step, like)
        except CheckpointError as error:
            _log.warning("Checkpoint %d in %r was passed over: %s.", step, str(folder), error)
    if steps:
        raise CheckpointError(f"No checkpoint in {str(folder)!r} can be trusted: all of {sorted(steps)} are damaged.")
    return None


def read(folder: Path, step: int, like: MetaState) -> MetaState:
    """Reads one checkpoint, and changes nothing.

    Raises:
      CheckpointError: it does not verify; the message says in a few words what is wrong with it.
    """
    try:
        return _restore_step(folder, step, like)
    except Exception as error:  # a damaged file raises whatever its reader happened to trip over
        raise CheckpointError(_in_short(error)) from error


def quarantine_dir(folder: Path) -> Path:
    """Where `set_aside` puts what it takes out of a folder of checkpoints."""
    return folder.with_name(f"{folder.name}-damaged")


def finished_steps(folder: Path) -> list[int]:
    """Steps that were saved to the end, oldest first, whether or not they still verify."""
    if not folder.is_dir():
        return []
    with _open(folder) as manager:
        return sorted(manager.all_steps())


def set_aside(folder: Path, newer_than: int) -> None:
    """Moves checkpoints newer than a step next door, so that the run can save those steps again."""
    for step in finished_steps(folder):
        if step > newer_than and hosts.is_first():
            quarantine_dir(folder).mkdir(exist_ok=True)
            place = quarantine_dir(folder) / str(step)
            while place.exists():
                place = place.with_name(place.name + "-again")
            (folder / str(step)).rename(place)
            _log.warning("Checkpoint %d was moved to %r.", step, str(place))


def _restore_step(folder: Path, step: int, like: MetaState) -> MetaState:
    import orbax.checkpoint as ocp

    _require_intact(folder / str(step))
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    wanted = {
        path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding or device)
        for path, leaf in by_path(like).items()
        if leaf.size
    }
    items = ocp.args.Composite(state=ocp.args.StandardRestore(wanted), meta=ocp.args.JsonRestore())
    with _open(folder) as manager:
        restored = manager.restore(step, args=items)
    leaves = [
        restored.state[path] if leaf.size else jnp.zeros(leaf.shape, leaf.dtype) for path, leaf in by_path(like).items()
    ]
    state = jax.tree.unflatten(jax.tree.structure(like), leaves)
    if state_digest(state) != restored.meta["digest"]:
        raise ValueError("its contents do not match the digest saved with them")
    return state


def _require_intact(checkpoint: Path) -> None:
    """Raises ValueError where a file is not what was saved. A save killed before it listed its files is let pass."""
    if not (checkpoint / FILES).is_file():
        return
    found = _file_digests(checkpoint)
    for path, digest in json.loads((checkpoint / FILES).read_text(encoding="utf-8")).items():
        if found.get(path) != digest:
            raise ValueError(f"{path} is {'damaged' if path in found else 'missing'}")


def _file_digests(checkpoint: Path) -> dict[str, str]:
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file() and path.name != FILES)
    return {path.relative_to(checkpoint).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _scores(manager: Any) -> dict[int, float]:
    """By step, for those that have one and can be read."""
    import orbax.checkpoint as ocp

    scores = {}
    for step in manager.all_steps():
        with contextlib.suppress(Exception):  # a damaged one is passed over and reported on restore
            score = manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())).meta.get("score")
            if score is not None:
                scores[step] = score
    return scores


def _in_short(error: Exception) -> str:
    """What an error says in its first line, or of the operating system's the reason alone, as the end of a sentence."""
    if code := re.search(r"os_error_code='(\d+)'", str(error)):
        return os.strerror(int(code.group(1)))
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).strip().split("\n")[0][:200] or type(error).__name__).rstrip(".")


def _open(folder: Path, create: bool = False, policy: Any = None) -> Any:
    import orbax.checkpoint as ocp  # imported where it is used: it takes more than a second

    options = ocp.CheckpointManagerOptions(create=create, preservation_policy=policy)
    return ocp.CheckpointManager(folder.absolute(), options=options)
