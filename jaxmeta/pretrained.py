"""Trained meta-parameters that come with the library: small enough to ship, with a card that says where they are from.

An artefact is a folder: `card.json`, with what was trained, how, on what and to what effect, and `meta.npz`, the
leaves of what the learner adapts with, by their path. Neither optimizer nor data are in it: it is to be used, not gone
on with.
"""

import json
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta import checkpoints, recipes
from jaxmeta import tasks as task_specs
from jaxmeta.base import MetaLearner, MetaState, PyTree, TaskDistribution
from jaxmeta.errors import UsageError, require_known
from jaxmeta.runs import write_json
from jaxmeta.trees import by_path

HOME = Path(__file__).parent / "artefacts"
CARD, ARRAYS = "card.json", "meta.npz"


def available(home: Path = HOME) -> dict[str, str]:
    """Names of the artefacts, each with one line about it."""
    cards = {path.parent.name: json.loads(path.read_text(encoding="utf-8")) for path in sorted(home.glob(f"*/{CARD}"))}
    return {name: told["summary"] for name, told in cards.items()}


def card(name: str, home: Path = HOME) -> dict[str, Any]:
    """What there is to know of an artefact.

    Raises:
      UsageError: there is none of that name.
    """
    require_known("--pretrained", name, available(home))
    return json.loads((home / name / CARD).read_text(encoding="utf-8"))


def load(name: str, home: Path = HOME) -> tuple[MetaLearner, MetaState, TaskDistribution, dict[str, Any]]:
    """Brings back an artefact as `jaxmeta.restore` does a run; the state holds what is adapted with, and no more.

    Args:
      name: one of `available()`.
      home: the folder of all artefacts.

    Raises:
      UsageError: there is none of that name.
      CheckpointError: it is damaged, or this version composes another network than the one it was trained for.
    """
    told = card(name, home)
    config = told["config"]
    tasks = task_specs.make(config["tasks"])
    learner = recipes.make_recipe(config["recipe"], tasks, **config["settings"])
    like = jax.eval_shape(lambda key: learner.meta(learner.init(key)), jax.random.key(0))
    meta = _read(home / name / ARRAYS, like)
    if checkpoints.state_digest(meta) != told["digest"]:
        raise checkpoints.CheckpointError(f"The pretrained {name!r} is not what its card says: its digest differs.")
    state = MetaState(meta=meta, optimizer=None, step=jnp.array(config["meta_steps"], jnp.int32), carried=None)
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
        raise UsageError(f"The folder of an artefact must be new, got {str(folder)!r}.")
    meta = jax.device_get(learner.meta(state))
    folder.mkdir(parents=True)
    np.savez_compressed(folder / ARRAYS, allow_pickle=False, **by_path(meta))
    digest = checkpoints.state_digest(jax.tree.map(jnp.asarray, meta))
    write_json(folder / CARD, {**about, "config": dict(config), "digest": digest})


def _read(path: Path, like: PyTree) -> PyTree:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            leaves = [jnp.asarray(stored[name]) for name in by_path(like)]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise checkpoints.CheckpointError(f"{str(path)!r} could not be read: {error}.") from error
    return jax.tree.unflatten(jax.tree.structure(like), leaves)
