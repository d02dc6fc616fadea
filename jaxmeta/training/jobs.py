"""What is asked of a run, checked and composed before anything is compiled or written."""

import platform
from collections.abc import Collection, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from jaxmeta.algorithms import recipes
from jaxmeta.core import tasks as task_specs
from jaxmeta.core.errors import UsageError, as_kind, require, require_known
from jaxmeta.core.sharding import mesh_of, require_even
from jaxmeta.core.types import MetaLearner, MetaState, TaskDistribution
from jaxmeta.training import checkpoints
from jaxmeta.training import seeds as populations
from jaxmeta.training.distributed import are_several, is_first
from jaxmeta.training.run_directory import RunDirectory

RECIPE = "maml"
TASKS = "grid_navi"
LOG_POINTS = 100
"""Log points of a run, unless it is so long that more than `MOST_STEPS_BETWEEN` meta-steps would lie between them."""
MOST_STEPS_BETWEEN = 100
LOG_POINTS_PER_CHECKPOINT = 5
ON_NONFINITE = ("stop", "skip")
ON_WRITE_ERROR = ("continue", "stop")
"""What to do where a number is not finite, and where something could not be written. The first is the default."""
PACKAGES = ("jaxmeta", "jax", "flax", "optax", "gymnax", "orbax-checkpoint")


class Job(NamedTuple):
    """A run that can start."""

    learner: MetaLearner
    tasks: TaskDistribution
    config: dict[str, Any]
    """What `config.json` holds."""
    run: RunDirectory | None
    """Where it is kept, if anywhere."""
    resume: bool
    """Whether it goes on from what `run` holds."""
    mesh: Mesh | None
    """The devices that tasks are spread over, None where it is one."""


def prepare(
    recipe: str | None = None,
    tasks: str | TaskDistribution | None = None,
    *,
    seed: int | None = None,
    seeds: Sequence[int] | None = None,
    sweep: Mapping[str, Sequence[float]] | None = None,
    settings: Mapping[str, Any] | None = None,
    log_every: int | None = None,
    checkpoint_every: int | None = None,
    keep: int | None = None,
    on_nonfinite: str | None = None,
    on_write_error: str | None = None,
    evaluate: bool | None = None,
    baselines: bool | None = None,
    devices: int | None = None,
    run_dir: str | Path | None = None,
    resume: bool = False,
    allow_import: bool = False,
) -> Job:
    """Checks and composes a run; reads the folder of one that is resumed, and writes nothing.

    What is None is taken from the run that is resumed, or else from the defaults. A resumed run may be given more
    `meta_steps`, other devices, and other ways of logging, saving and meeting faults; whatever else differs is refused.
    Its folder may name a `package.module:name` only where `allow_import` says so, or where the same path is given
    here.

    Args:
      recipe: a name, or `package.module:name`; `RECIPE` by default.
      tasks: a specification, or a task distribution; `TASKS` by default.
      seed: of everything random, 0 to 2^31 - 1.
      seeds: several in its place.
      sweep: by name of a traced hyper-parameter, its values.
      settings: the recipe's own, by name; see `jaxmeta.core.config`.
      log_every: meta-steps between log points, at least 1.
      checkpoint_every: meta-steps between checkpoints, at least 1.
      keep: how many of the newest checkpoints stay, at least 1.
      on_nonfinite: one of `ON_NONFINITE`.
      on_write_error: one of `ON_WRITE_ERROR`.
      evaluate: whether the command line evaluates the run after training.
      baselines: whether it measures `scratch` and `finetune` where it evaluates the run.
      devices: over how many the tasks of a batch are spread; by default all.
      run_dir: a new or empty folder, or that of the run that is resumed; None: nothing will be written.
      resume: go on from what `run_dir` holds.
      allow_import: import what the resumed folder names by path, which runs code of whoever wrote it.

    Returns:
      The `Job`, with every setting resolved in its `config`; a state is neither drawn nor restored yet.

    Raises:
      UsageError: an unknown name, a setting that the recipe does not read, a value out of range, a folder in use, or a
        resumed run configured otherwise.
    """
    ways = {
        "log_every": log_every,
        "checkpoint_every": checkpoint_every,
        "keep": keep,
        "on_nonfinite": on_nonfinite,
        "on_write_error": on_write_error,
        "evaluate": evaluate,
        "baselines": baselines,
    }
    if not (tasks is None or isinstance(tasks, str)):
        tasks = task_specs.as_distribution(tasks)
    options = {"recipe": recipe, "tasks": getattr(tasks, "name", tasks), "seed": seed, **ways}
    kinds = {
        "recipe": str,
        "tasks": str,
        "on_nonfinite": str,
        "on_write_error": str,
        "evaluate": bool,
        "baselines": bool,
    }
    given = {name: as_kind(name, value, kinds.get(name, int)) for name, value in options.items() if value is not None}
    given |= populations.asked(seed, seeds, sweep)
    count = _devices_of(devices)
    run = None if run_dir is None else RunDirectory(Path(run_dir))
    stored: dict[str, Any] = {}
    if resume:
        if run is None:
            raise UsageError("resume", "come with a run_dir", None)
        stored = run.load_config()
        _require_same({"seeds": None, "sweep": None} | stored, given, but=ways)
        if not allow_import:
            _require_registered(run, stored, but=given)
        run.read_metrics()
    elif run is not None and is_first():
        run.require_unused()
    if run is not None:
        run.require_writable()

    config = populations.completed({"recipe": RECIPE, "tasks": TASKS, "seed": 0, "settings": {}} | stored | given)
    require(0 <= config["seed"] < 2**31, "seed", "be from 0 to 2147483647", config["seed"])
    distribution = tasks if isinstance(tasks, TaskDistribution) else task_specs.make_tasks(config["tasks"])
    resolved = recipes.resolve_settings(config["recipe"], distribution, **{**config["settings"], **(settings or {})})
    if resume and run is not None:
        _require_same(stored["settings"], resolved, but=("meta_steps",))
        taken = max(checkpoints.finished_steps(run.checkpoints), default=0)
        enough = resolved["meta_steps"] >= taken
        require(enough, "meta_steps", f"be at least {taken}, which the run has taken", resolved["meta_steps"])
    learner = recipes.compose(config["recipe"], distribution, resolved)
    if not resume:  # else every value is the run's own, whatever was read when it began
        recipes.require_read(config["recipe"], settings or (), resolved)
    require_even(learner.tasks_per_batch, count)
    if "sweep" in config and not resume:
        populations.require_sweepable(config["recipe"], distribution, resolved, config["sweep"])
        recipes.require_read(config["recipe"], config["sweep"], resolved)

    config |= {"meta_steps": resolved["meta_steps"], "settings": resolved, "devices": count, **_surroundings()}
    return Job(learner, distribution, _with_ways(config), run, resume, mesh_of(count))


def restore(
    run_dir: str | Path, tasks: str | TaskDistribution | None = None, *, best: bool = False, allow_import: bool = False
) -> tuple[MetaLearner, MetaState, TaskDistribution, dict[str, Any]]:
    """Brings back a run: its learner, its newest state that verifies, its tasks, and what `config.json` holds.

    The state of a population has leaves [members, ...]; `jaxmeta.members` takes it apart.

    Args:
      run_dir: the folder of the run.
      tasks: the distribution that it was trained on, or its specification; by default what the folder names.
      best: the checkpoint with the highest return while training, instead of the newest.
      allow_import: import the recipe or the tasks where the folder names them as `package.module:name`. That runs
        the code of whoever wrote the folder's `config.json`.

    Raises:
      UsageError: the folder holds no run, or one that has saved no checkpoint yet, or one that asks for an import.
      CheckpointError: it holds checkpoints, and none of them can be trusted.
    """
    run = RunDirectory(Path(run_dir))
    config = populations.completed(run.load_config())
    if not allow_import:
        _require_registered(run, config, but=() if tasks is None else ("tasks",))
    tasks = task_specs.as_distribution(config["tasks"] if tasks is None else tasks)
    config["settings"] = recipes.resolve_settings(config["recipe"], tasks, **config["settings"])
    learner = recipes.compose(config["recipe"], tasks, config["settings"])
    like = jax.eval_shape(populations.beginning(learner, config), populations.seeds_of(config))
    state = checkpoints.restore(run.checkpoints, like, best)
    if state is None:
        raise UsageError("run_dir", "hold a checkpoint", str(run_dir))
    return learner, state, tasks, config


def _devices_of(devices: int | None) -> int:
    """How many devices are asked for, all if nobody says."""
    available = jax.device_count()
    count = as_kind("devices", available if devices is None else devices, int)
    require(1 <= count <= available, "devices", f"be from 1 to {available}", devices)
    every = count == available or not are_several()
    require(every, "devices", f"be all {available} where several processes take part", devices)
    return count


def _with_ways(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration that says how its run logs, saves and meets faults."""
    config.setdefault("log_every", min(max(1, config["meta_steps"] // LOG_POINTS), MOST_STEPS_BETWEEN))
    config.setdefault("checkpoint_every", LOG_POINTS_PER_CHECKPOINT * config["log_every"])
    config.setdefault("keep", checkpoints.KEPT)
    for name in ("log_every", "checkpoint_every", "keep"):
        require(config[name] >= 1, name, "be at least 1", config[name])
    for name, choices in (("on_nonfinite", ON_NONFINITE), ("on_write_error", ON_WRITE_ERROR)):
        require_known(name, config.setdefault(name, choices[0]), choices)
    for name in ("evaluate", "baselines"):
        config.setdefault(name, True)
    return config


def _require_registered(run: RunDirectory, stored: Mapping[str, Any], but: Collection[str]) -> None:
    """Refuses a run directory that names functions to import: to open one must not run somebody else's code."""
    kinds = {
        "recipe": ("recipe", recipes.is_imported),
        "tasks": ("task distribution", task_specs.is_imported),
    }
    for name, (kind, is_imported) in kinds.items():
        rule = f"name a registered {kind}, or be loaded with --allow-import"
        registered = name in but or not is_imported(stored[name])
        require(registered, f"config.json of {str(run.path)!r}", rule, stored[name])


def _require_same(stored: Mapping[str, Any], asked: Mapping[str, Any], but: Collection[str]) -> None:
    for name, value in asked.items():
        if name not in but and stored.get(name, value) != value:
            raise UsageError(name, f"be {stored[name]!r}, as in the run that is resumed", value)


def _surroundings() -> dict[str, Any]:
    device = jax.devices()[0]
    return {
        "versions": {name: metadata.version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "device": {"platform": device.platform, "kind": device.device_kind, "count": jax.device_count()},
    }
