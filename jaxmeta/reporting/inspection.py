"""Looks at a run, or at one that is only planned: what it is, how far it got, what of it can be trusted, what it costs.

Costs are those of the program that training itself runs, compiled on this machine for one device; a plan also takes a
few meta-steps and reads the clock. Nothing in a run's folder is changed.
"""

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmeta.algorithms.registry import changed_settings
from jaxmeta.core import compilation_cache, costs
from jaxmeta.core.types import MetaLearner, MetaState, TaskDistribution
from jaxmeta.evaluation import evaluate as evaluation
from jaxmeta.training import checkpoints, jobs
from jaxmeta.training import seeds as multi_seed
from jaxmeta.training.chunks import make_chunk
from jaxmeta.training.run_directory import RunDirectory

TIMED_META_STEPS = 3
"""Meta-steps that a plan times, after one that it does not."""

EVALUATION_TASKS = 128
"""Tasks of the evaluation that a plan estimates, as many as an evaluation takes by default."""

OnStage = Callable[[str], None]


def inspect_run(
    run_dir: str | Path, allow_import: bool = False, on_stage: OnStage = lambda stage: None
) -> dict[str, Any]:
    """The facts of a run, JSON-able.

    Args:
      run_dir: the folder of the run.
      allow_import: as for `jobs.restore`.
      on_stage: receives the name of each slow stage.

    Raises:
      UsageError: the folder holds no run, or one that has saved no checkpoint yet.
      CheckpointError: it holds checkpoints, and none of them can be trusted; each is logged as a warning.
    """
    learner, state, tasks, config = jobs.restore(run_dir, allow_import=allow_import)
    run = RunDirectory(Path(run_dir))
    records = run.read_metrics()
    quarantine_dir = checkpoints.quarantine_dir(run.checkpoints)
    return {
        "run_dir": str(run_dir),
        "config": config,
        "changed_settings": changed_settings(config["algorithm"], tasks, learner.config),
        "meta_step": state.steps_taken,
        "state_digest": checkpoints.state_digest(state),
        "last_log_point": records[-1] if records else None,
        "checkpoints": verify(run.checkpoints, state),
        "checkpoints_damaged": sorted(path.name for path in quarantine_dir.iterdir())
        if quarantine_dir.is_dir()
        else [],
        **_requirements(learner, config, _compile(learner, tasks, config, on_stage)),
        "devices": device_layout(learner, config.get("devices", 1)),
    }


def plan(job: jobs.Job, on_stage: OnStage = lambda stage: None) -> dict[str, Any]:
    """What a run would need before it is run, JSON-able. Compiles anew, whatever cache of programs there is.

    Args:
      job: what `jobs.prepare` has composed.
      on_stage: receives the name of each slow stage.

    Returns:
      Among the rest `compile_seconds`, of tracing and compiling; `seconds_per_meta_step`, the median of
      `timed_meta_steps`; and `estimated_seconds`, what training would take in all on this machine, its checkpoints and
      evaluation not counted.
    """
    with compilation_cache.bypassed():
        start = time.perf_counter()
        program = _compile(job.learner, job.tasks, job.config, on_stage)
        compile_seconds = time.perf_counter() - start
        on_stage(f"timing {TIMED_META_STEPS} meta-steps")
        seconds = _seconds_per_meta_step(job, program)
    needed = _requirements(job.learner, job.config, program)
    meta_steps = job.config["meta_steps"]
    return {
        "config": job.config,
        "changed_settings": changed_settings(job.config["algorithm"], job.tasks, job.learner.config),
        **needed,
        "devices": device_layout(job.learner, job.config["devices"]),
        "env_steps": meta_steps * needed["env_steps_per_meta_step"],
        "flops": meta_steps * needed["flops_per_meta_step"],
        "checkpoint_bytes": needed["memory"]["state_bytes"],
        "compile_seconds": compile_seconds,
        "timed_meta_steps": TIMED_META_STEPS,
        "seconds_per_meta_step": seconds,
        "estimated_seconds": compile_seconds + meta_steps * seconds,
    }


def plan_evaluation(job: jobs.Job, on_stage: OnStage = lambda stage: None) -> dict[str, float]:
    """What a first evaluation of such a run would take, beside what `plan` says; past every cache of programs.

    Args:
      job: what `jobs.prepare` has composed.
      on_stage: receives the name of each slow stage.

    Returns:
      `evaluation_seconds`, on `EVALUATION_TASKS` tasks, and `baseline_seconds`, the part of these that goes to tuning
      the baselines, where it is not known yet how they adapt best, and to measuring them.
    """
    on_stage("timing the parts of an evaluation")
    with compilation_cache.bypassed():
        adapting = evaluation.estimated_seconds(job.learner, job.tasks, EVALUATION_TASKS)
        baselines = evaluation.baselines_of(job.learner, job.tasks).estimated_seconds(EVALUATION_TASKS)
    return {"evaluation_seconds": adapting + baselines, "baseline_seconds": baselines}


def verify(folder: Path, like: MetaState) -> list[dict[str, Any]]:
    """Reads every checkpoint in a folder, oldest first, and changes none.

    Args:
      folder: where a `checkpoints.Keeper` wrote.
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


def device_layout(learner: MetaLearner, count: int) -> dict[str, Any]:
    """Which devices there are, and how the tasks of a batch lie on so many of them."""
    device = jax.devices()[0]
    return {
        "platform": device.platform,
        "kind": device.device_kind,
        "visible": jax.device_count(),
        "used": count,
        "tasks_per_batch": learner.tasks_per_batch,
        "tasks_per_device": max(1, learner.tasks_per_batch // count),
    }


class _Program(NamedTuple):
    """What training runs, compiled."""

    chunk: Any
    """Before it was compiled, as `make_chunk` made it."""
    arguments: tuple[MetaState, jax.Array, np.int32]
    """What it was compiled for; the state in shapes alone."""
    compiled: Any


def _compile(learner: MetaLearner, tasks: TaskDistribution, config: dict[str, Any], on_stage: OnStage) -> _Program:
    on_stage("compiling the meta-step")
    seeds = multi_seed.seeds_of(config)
    state = jax.eval_shape(multi_seed.make_initial_state(learner, config), seeds)
    _, step_key = multi_seed.root_keys(seeds)
    chunk, arguments = make_chunk(learner, tasks, config.get("log_every", 1)), (state, step_key, np.int32(0))
    return _Program(chunk, arguments, chunk.lower(*arguments).compile())


def _requirements(learner: MetaLearner, config: dict[str, Any], program: _Program) -> dict[str, Any]:
    """The facts of runs and plans. A chunk is a loop of unknown length, so its operations are one meta-step's.

    With several seeds operations and memory are those of all members, parameters and environment steps those of each.
    """
    state, memory = program.arguments[0], program.compiled.memory_analysis()  # None where a backend does not say
    parts = parameters_by_part(learner, jax.eval_shape(lambda state: multi_seed.members(state)[0], state))
    return {
        "members": max(1, len(multi_seed.members_of(config))),
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
    }


def _seconds_per_meta_step(job: jobs.Job, program: _Program) -> float:
    """Takes meta-steps from a fresh state; the first, which also allocates, is not timed."""
    _, step_key, _ = program.arguments
    state = jax.jit(multi_seed.make_initial_state(job.learner, job.config))(multi_seed.seeds_of(job.config))
    seconds = []
    for _ in range(1 + TIMED_META_STEPS):
        start = time.perf_counter()
        state, _ = jax.block_until_ready(program.compiled(state, step_key, np.int32(1)))
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds[1:]))
