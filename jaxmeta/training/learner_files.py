"""A trained learner as two files: `card.json`, with what was trained, how and to what effect, and `meta.safetensors`,
the leaves of what it adapts with, by their path. They lie in a folder or in a zip file.

There is no pickle, no optimizer state and no data in them: a learner is used, and its training is not continued.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import msgspec
import numpy as np

from jaxmeta.algorithms import registry
from jaxmeta.core import fields
from jaxmeta.core import tasks as task_specs
from jaxmeta.core.errors import UsageError, require
from jaxmeta.core.trees import by_path
from jaxmeta.core.types import MetaLearner, MetaState, PyTree, TaskDistribution
from jaxmeta.training import checkpoints
from jaxmeta.training.checkpoints import CheckpointError
from jaxmeta.training.run_directory import CONFIG

CARD, ARRAYS = "card.json", "meta.safetensors"
CONTENT = fields.record({"summary": fields.text, "digest": fields.text, "config": CONFIG})
"""What a card must hold."""
LARGEST_CARD = 2**20
"""Bytes of a card, and of what the arrays may have beside their values."""
DATED = (1980, 1, 1, 0, 0, 0)
"""The time of every member of a zip file, so that equal learners are equal files."""


def is_learner(path: Path) -> bool:
    """Whether a path is a folder with a card, or a zip file."""
    return (path / CARD).is_file() if path.is_dir() else path.is_file() and zipfile.is_zipfile(path)


def save(path: Path, learner: MetaLearner, state: MetaState, config: Mapping[str, Any], **about: Any) -> None:
    """Writes a learner.

    Args:
      path: a new folder, or a file that ends in `.zip`, which is replaced.
      learner: what was trained.
      state: of one member.
      config: as in `config.json`, of that member alone.
      **about: more for the card: `summary`, `commands`, `figures`, `versions`.

    Raises:
      UsageError: the folder is there already.
    """
    from safetensors.numpy import save as serialised

    meta = jax.device_get(learner.meta(state))
    digest = checkpoints.state_digest(jax.tree.map(jnp.asarray, meta))
    card = msgspec.json.format(msgspec.json.encode({**about, "config": dict(config), "digest": digest}), indent=2)
    contents = {
        CARD: card + b"\n",
        ARRAYS: serialised({name: np.asarray(leaf) for name, leaf in by_path(meta).items()}),
    }
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in contents.items():
                archive.writestr(zipfile.ZipInfo(name, DATED), content, zipfile.ZIP_DEFLATED)
        return
    require(not path.exists(), "The folder of a learner", "be new", str(path))
    path.mkdir(parents=True)
    for name, content in contents.items():
        (path / name).write_bytes(content)


def read_card(path: Path) -> dict[str, Any]:
    """The card of a learner.

    Raises:
      CheckpointError: it is damaged.
    """
    try:
        card = msgspec.json.decode(_content(path, CARD, LARGEST_CARD))
        CONTENT(repr(str(path / CARD)), card)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile, UsageError) as error:
        raise CheckpointError(f"{str(path)!r} has no card that can be read: {error}") from error
    return card


def load(
    path: Path, allow_import: bool = False
) -> tuple[MetaLearner, MetaState, TaskDistribution, dict[str, Any], dict[str, Any]]:
    """Brings back a learner as `jobs.restore` does a run, with its card; the state holds only what it adapts with.

    Args:
      path: a folder, or a zip file.
      allow_import: import the algorithm or the tasks where the card names them as `package.module:name`. That runs the
        code of whoever wrote the card.

    Raises:
      UsageError: the card needs an import that is not allowed.
      CheckpointError: it is damaged, or this version composes another network than the one that was trained.
    """
    card = read_card(path)
    config = dict(card["config"])
    for name, is_imported in (("algorithm", registry.is_imported), ("tasks", task_specs.is_imported)):
        allowed = allow_import or not is_imported(config[name])
        require(allowed, f"{name} of {str(path)!r}", "be registered, or be loaded with --allow-import", config[name])
    tasks = task_specs.make_tasks(config["tasks"])
    learner = registry.make_learner(config["algorithm"], tasks, config["settings"])
    like = jax.eval_shape(lambda key: learner.meta(learner.init(key)), jax.random.key(0))
    meta = _read_arrays(path, like)
    if checkpoints.state_digest(meta) != card["digest"]:
        raise CheckpointError(f"{str(path)!r} is not what its card says: the digest differs.")
    state = MetaState(meta=meta, optimizer=None, step=jnp.array(config["meta_steps"], jnp.int32), aux_state=None)
    return learner._replace(meta=lambda state: state.meta), state, tasks, config, card


def _content(path: Path, name: str, largest: int) -> bytes:
    """One of the two files, which is read only if it is not larger than it may be."""
    if path.is_dir():
        size = (path / name).stat().st_size
        if size <= largest:
            return (path / name).read_bytes()
    else:
        with zipfile.ZipFile(path) as archive:
            size = archive.getinfo(name).file_size
            if size <= largest:
                return archive.read(name)
    raise ValueError(f"{name} has {size:,} bytes, more than the {largest:,} that it may have")


def _read_arrays(path: Path, like: PyTree) -> PyTree:
    from safetensors import SafetensorError
    from safetensors.numpy import load as deserialised

    leaves_like = by_path(like)
    expected_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves_like.values())
    try:
        stored = deserialised(_content(path, ARRAYS, expected_bytes + LARGEST_CARD))
        leaves = {name: jnp.asarray(stored[name]) for name in leaves_like}
    except (OSError, KeyError, ValueError, zipfile.BadZipFile, SafetensorError) as error:
        raise CheckpointError(f"{str(path)!r} could not be read: {error}.") from error
    for name, expected in leaves_like.items():
        if (leaves[name].shape, leaves[name].dtype) != (expected.shape, expected.dtype):
            raise CheckpointError(
                f"{str(path)!r} is of another network than this version composes: {name} is {leaves[name].shape} "
                f"{leaves[name].dtype}, not {expected.shape} {expected.dtype}."
            )
    return jax.tree.unflatten(jax.tree.structure(like), leaves.values())
