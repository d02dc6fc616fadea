"""Trained meta-parameters that come with the library: small enough to ship, with a card that says where they are from.

An artefact is a folder: `card.json`, with what was trained, how, on what and to what effect, and `meta.npz`, the
leaves of what the learner adapts with, by their path. Neither optimizer nor data are in it: it is to be used, not gone
on with.
"""

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.algorithms import registry
from jaxmeta.core import fields
from jaxmeta.core import tasks as task_specs
from jaxmeta.core.errors import UsageError, require_known
from jaxmeta.core.trees import by_path
from jaxmeta.core.types import MetaLearner, MetaState, PyTree, TaskDistribution
from jaxmeta.training import checkpoints
from jaxmeta.training.run_directory import CONFIG, read_json, write_json

HOME = Path(__file__).parent / "artefacts"
CARD, ARRAYS = "card.json", "meta.npz"
CONTENT = fields.record({"summary": fields.text, "digest": fields.text, "config": CONFIG})
"""What a card must hold."""


def available(home: Path = HOME) -> dict[str, str]:
    """Names of the artefacts, each with one line about it: of a damaged one, that it is."""
    reported = {}
    for path in _cards(home):
        try:
            reported[path.parent.name] = _read_card(path)["summary"]
        except checkpoints.CheckpointError as error:
            reported[path.parent.name] = str(error)
    return reported


def card(name: str, home: Path = HOME) -> dict[str, Any]:
    """What there is to know of an artefact.

    Raises:
      UsageError: there is none of that name.
      CheckpointError: its card is damaged.
    """
    require_known("--pretrained", name, [path.parent.name for path in _cards(home)])
    return _read_card(home / name / CARD)


def load(name: str, home: Path = HOME) -> tuple[MetaLearner, MetaState, TaskDistribution, dict[str, Any]]:
    """Brings back an artefact as `jobs.restore` does a run; the state holds what is adapted with, and no more.

    Args:
      name: one of `available()`.
      home: the folder of all artefacts.

    Raises:
      UsageError: there is none of that name.
      CheckpointError: it is damaged, or this version composes another network than the one it was trained for.
    """
    reported = card(name, home)
    config = dict(reported["config"])
    tasks = task_specs.make_tasks(config["tasks"])
    learner = registry.make_learner(config["algorithm"], tasks, config["settings"])
    like = jax.eval_shape(lambda key: learner.meta(learner.init(key)), jax.random.key(0))
    meta = _read(home / name / ARRAYS, like)
    if checkpoints.state_digest(meta) != reported["digest"]:
        raise checkpoints.CheckpointError(f"The pretrained {name!r} is not what its card says: its digest differs.")
    state = MetaState(meta=meta, optimizer=None, step=jnp.array(config["meta_steps"], jnp.int32), aux_state=None)
    return learner._replace(meta=lambda state: state.meta), state, tasks, config


def save(folder: Path, learner: MetaLearner, state: MetaState, config: Mapping[str, Any], **about: Any) -> None:
    """Writes an artefact.

    Args:
      folder: a new one, whose name is the artefact's.
      learner: what was trained.
      state: of one member.
      config: as in `config.json`, of that member alone.
      **about: more for the card: `summary`, `commands`, `figures`.

    Raises:
      UsageError: the folder is there already.
    """
    if folder.exists():
        raise UsageError("The folder of an artefact", "be new", str(folder))
    meta = jax.device_get(learner.meta(state))
    folder.mkdir(parents=True)
    np.savez_compressed(folder / ARRAYS, allow_pickle=False, **by_path(meta))
    digest = checkpoints.state_digest(jax.tree.map(jnp.asarray, meta))
    write_json(folder / CARD, {**about, "config": dict(config), "digest": digest})


def _cards(home: Path) -> list[Path]:
    return sorted(home.glob(f"*/{CARD}"))


def _read_card(path: Path) -> dict[str, Any]:
    try:
        reported = read_json(path)
        CONTENT(repr(str(path)), reported)
    except (OSError, UsageError) as error:
        raise checkpoints.CheckpointError(f"A pretrained learner has a card that says nothing: {error}") from error
    return reported


def _read(path: Path, like: PyTree) -> PyTree:
    leaves_like = by_path(like)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            leaves = {name: jnp.asarray(stored[name]) for name in leaves_like}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise checkpoints.CheckpointError(f"{str(path)!r} could not be read: {error}.") from error
    for name, expected in leaves_like.items():
        if (leaves[name].shape, leaves[name].dtype) != (expected.shape, expected.dtype):
            raise checkpoints.CheckpointError(
                f"{str(path)!r} is of another network than this version composes: {name} is {leaves[name].shape} "
                f"{leaves[name].dtype}, not {expected.shape} {expected.dtype}."
            )
    return jax.tree.unflatten(jax.tree.structure(like), leaves.values())
