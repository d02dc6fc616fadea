"""Looks at a run: what it is, how far it got, what of it can be trusted, what it costs.

Costs are those of the program that training itself runs, compiled on this machine. Nothing in a run's folder is
changed.
"""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmeta import checkpoints, costs, jobs
from jaxmeta.base import MetaLearner, MetaState, TaskDistribution
from jaxmeta.runs import RunDirectory
from jaxmeta.settings import Settings
from jaxmeta.training import make_chunk, strongly_typed

OnStage = Callable[[str], None]


def inspect_run(run_dir: str | Path, on_stage: OnStage = lambda stage: None) -> dict[str, Any]:
    """What there is to tell about a run, JSON-able.

    Args:
      run_dir: the folder of the run.
      on_stage: told in a few words what takes long.

    Raises:
      UsageError: the folder holds no run, or one that has saved no checkpoint yet.
      CheckpointError: it holds checkpoints, and none of them can be trusted; each is told as a logged warning.
    """
    learner, state, tasks, config = jobs.restore(run_dir)
    run = RunDirectory(Path(run_dir))
    records = run.read_metrics()
    shelf = checkpoints.shelf(run.checkpoints)
    return {
        "run_dir": str(run_dir),
        "config": config,
        "changed_settings": changed_settings(config["settings"]),
        "meta_step": int(state.step),
        "state_digest": checkpoints.state_digest(state),
        "last_log_point": records[-1] if records else None,
        "checkpoints": verify(run.checkpoints, state),
        "checkpoints_damaged": sorted(path.name for path in shelf.iterdir()) if shelf.is_dir() else [],
        **_requirements(learner, _compile(learner, tasks, config.get("log_every", 1), on_stage)),
    }


def verify(folder: Path, like: MetaState) -> list[dict[str, Any]]:
    """Reads every checkpoint in a folder, oldest first, and changes none.

    Args:
      folder: where `checkpoints.save` wrote.
      like: a state of the same structure.

    Returns:
      Of each its `step`, whether it is `intact`, if not the `problem` in a few words, and its `bytes` on disk.
    """
    found = []
    for step in checkpoints.finished_steps(folder):
        problem = None
        try:
            checkpoints.read(folder, step, like)
        except checkpoints.CheckpointError as error:
            problem = str(error)
        size = sum(path.stat().st_size for path in (folder / str(step)).rglob("*") if path.is_file())
        found.append({"step": step, "intact": problem is None, "problem": problem, "bytes": size})
    return found


def changed_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Those that differ from the defaults in `jaxmeta.config`, whoever set them: a user, the recipe or the family.

    >>> changed_settings({"rounds": 77, "inner_steps": 1})
    {'rounds': 77}
    """
    defaults = Settings.from_flat({}).flat()
    return {name: value for name, value in settings.items() if value != defaults[name]}


def parameters_by_part(learner: MetaLearner, state: MetaState) -> dict[str, int]:
    """How many numbers there are in each part of what a learner adapts with, such as `params`, `rule` or `policy`.

    Args:
      learner: whose `meta` says what that is.
      state: of arrays or of `jax.ShapeDtypeStruct`.
    """
    parts: Counter[str] = Counter()
    for path, leaf in jax.tree_util.tree_leaves_with_path(jax.eval_shape(learner.meta, state)):
        parts[jax.tree_util.keystr(path[:1], simple=True) or "meta"] += leaf.size
    return dict(parts)


def device_layout(learner: MetaLearner) -> dict[str, Any]:
    """Which devices there are, and how the tasks of a batch lie on them: all on the first."""
    device = jax.devices()[0]
    return {
        "platform": device.platform,
        "kind": device.device_kind,
        "visible": jax.device_count(),
        "used": 1,
        "tasks_per_batch": learner.tasks_per_batch,
        "tasks_per_device": learner.tasks_per_batch,
    }


class _Program(NamedTuple):
    """What training runs, compiled."""

    chunk: Any
    """Before it was compiled, as `make_chunk` made it."""
    arguments: tuple[MetaState, jax.Array, np.int32]
    """What it was compiled for; the state in shapes alone."""
    compiled: Any


def _compile(learner: MetaLearner, tasks: TaskDistribution, log_every: int, on_stage: OnStage) -> _Program:
    on_stage("compiling the meta-step")
    key = jax.random.key(0)
    state = jax.eval_shape(lambda key: strongly_typed(learner.init(key)), key)
    chunk, arguments = make_chunk(learner, tasks, log_every), (state, key, np.int32(0))
    return _Program(chunk, arguments, chunk.lower(*arguments).compile())


def _requirements(learner: MetaLearner, program: _Program) -> dict[str, Any]:
    """Sizes, and what a meta-step takes. A chunk is a loop of unknown length, so its operations are one meta-step's."""
    state, memory = program.arguments[0], program.compiled.memory_analysis()  # None where a backend does not say
    parts = parameters_by_part(learner, state)
    return {
        "parameters": sum(parts.values()),
        "parameters_by_part": parts,
        "env_steps_per_meta_step": learner.tasks_per_batch * learner.env_steps_per_task,
        "flops_per_meta_step": costs.flops(program.chunk, *program.arguments),
        "memory": {
            "state_bytes": sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state)),
            "temporary_bytes": getattr(memory, "temp_size_in_bytes", None),
            "argument_bytes": getattr(memory, "argument_size_in_bytes", None),
            "output_bytes": getattr(memory, "output_size_in_bytes", None),
        },
        "devices": device_layout(learner),
    }
