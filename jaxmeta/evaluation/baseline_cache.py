"""What is known of tuned baselines: how they adapt, and what they earned.

Tuning a baseline takes minutes, and its outcome follows from what it is given. Two kinds of result are kept, each under
the content that it follows from:

- A *choice* says how `scratch` or `finetune` adapts. The package ships those of the standard families
  (`tuned_baselines.json`); others are kept in the user's cache folder.
- A *measurement* says what a baseline earned in given tasks. It is kept in the user's cache folder alone, under a key
  that covers the engine's source code, the versions of JAX and the device, so that a change of any measures anew.

`jaxmeta evaluate --retune` reads neither, and replaces what the user's folder holds.
"""

import functools
import hashlib
import json
import logging
from collections.abc import Mapping
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxmeta
from jaxmeta.core.compilation_cache import user_cache
from jaxmeta.core.errors import UsageError
from jaxmeta.core.types import Key, PyTree, TaskDistribution
from jaxmeta.evaluation.measurement import Measured
from jaxmeta.training.run_directory import read_json, write_json

Content = Mapping[str, Any]
"""What a result follows from, JSON-able."""
SHIPPED = "tuned_baselines.json"

_log = logging.getLogger(__name__)


def shipped_choice(content: Content) -> dict[str, Any] | None:
    """The entry of the package's own table with this content: `choice` and `validation_return`; None if there is none.

    The table is keyed by the name of a family. What a user derives from a family of ours keeps its name, so a choice
    that ships may have been tuned on other dynamics than it is used on; it says how to adapt, and nothing is reported
    that was not measured on the tasks at hand.
    """
    return _shipped().get(_canonical(content))


def find(content: Content) -> dict[str, Any] | None:
    """What `keep` stored under this content, or None. A file that cannot be read counts as none."""
    path = _path(content)
    try:
        stored = read_json(path)
        if stored["content"] == json.loads(_canonical(content)):
            return stored["result"]
    except (OSError, UsageError, KeyError, TypeError):
        pass
    return None


def keep(content: Content, result: Mapping[str, Any]) -> None:
    """Stores a result, JSON-able, in the user's cache folder; warns where that cannot be written."""
    path = _path(content)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"content": json.loads(_canonical(content)), "result": dict(result)})
    except OSError as error:
        _log.warning("Tuned baselines are not kept: %r cannot be written (%s).", str(path.parent), error.strerror)


def packed(entries: list[Measured]) -> dict[str, Any]:
    """Measurements, JSON-able; `unpacked` gives back the same float32 numbers."""
    return {name: [np.asarray(getattr(entry, name)).tolist() for entry in entries] for name in Measured._fields}


def unpacked(result: Mapping[str, Any]) -> list[Measured]:
    """What `packed` was given."""
    columns = zip(*(result[name] for name in Measured._fields), strict=True)
    return [Measured(*(np.asarray(values, np.float32) for values in entry)) for entry in columns]


def of_tasks(tasks: TaskDistribution) -> str:
    """A digest of what a family computes: how tasks are drawn, reset and stepped."""

    def everything(key: Key) -> PyTree:
        env_params = {split: tasks.sample(key, split) for split in tasks.splits}
        one = env_params["train"]
        observation, state = tasks.env.reset(key, one)
        return env_params, observation, tasks.env.step(key, state, tasks.env.action_space(one).sample(key), one)

    return hashlib.sha256(jax.jit(everything).lower(jax.random.key(0)).as_text().encode()).hexdigest()


def of_arrays(tree: PyTree) -> str:
    """A digest of arrays and keys: their values, shapes and dtypes."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        array = np.asarray(jax.random.key_data(leaf) if is_key else leaf)
        digest.update(f"{array.shape} {array.dtype}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


@functools.cache
def of_engine() -> Content:
    """What a measurement depends on beside its arguments: source code, versions, device."""
    digest, home = hashlib.sha256(), Path(jaxmeta.__file__).parent
    for path in sorted(home.rglob("*.py")):
        digest.update(str(path.relative_to(home)).encode())
        digest.update(path.read_bytes())
    device = jax.devices()[0]
    return {
        "source": digest.hexdigest(),
        **{name: metadata.version(name) for name in ("jax", "jaxlib")},
        "device": f"{device.platform} {device.device_kind}",
    }


@functools.cache
def _shipped() -> dict[str, dict[str, Any]]:
    text = resources.files("jaxmeta.evaluation").joinpath(SHIPPED).read_text(encoding="utf-8")
    return {_canonical(entry["content"]): entry for entry in json.loads(text)}


def _canonical(content: Content) -> str:
    return json.dumps(content, sort_keys=True)


def _path(content: Content) -> Path:
    name = hashlib.sha256(_canonical(content).encode()).hexdigest()[:32]
    return user_cache() / "baselines" / f"{name}.json"
