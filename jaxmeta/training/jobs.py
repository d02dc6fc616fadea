"""A run's options, checked and composed before anything is compiled or written."""

import platform
from collections.abc import Collection, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, TypedDict, Unpack

import jax
from jax.sharding import Mesh

from jaxmeta.algorithms import registry
from jaxmeta.core import tasks as task_specs
from jaxmeta.core.config import AlgorithmConfig
from jaxmeta.core.errors import UsageError, as_kind, require, require_known
from jaxmeta.core.settings import flattened, nested, replaced, settings_of
from jaxmeta.core.sharding import mesh_of, require_even
from jaxmeta.core.types import MetaLearner, MetaState, TaskDistribution
from jaxmeta.training import checkpoints
from jaxmeta.training import seeds as multi_seed
from jaxmeta.training.distributed import are_several, is_first
from jaxmeta.training.run_directory import RunDirectory

ALGORITHM = "maml"
TASKS = "grid_navi"
LOG_POINTS = 100
"""Log points of a run, unless it is so long that more than `MOST_STEPS_BETWEEN` meta-steps would lie between them."""
MOST_STEPS_BETWEEN = 100
LOG_POINTS_PER_CHECKPOINT = 5
ON_NONFINITE = ("stop", "skip")
ON_WRITE_ERROR = ("continue", "stop")
"""What to do where a number is not finite, and where something could not be written. The first is the default."""
PACKAGES = ("jaxmeta", "jax", "flax", "optax", "gymnax", "orbax-checkpoint")
NOTHING: Mapping[str, Any] = MappingProxyType({})


class RunOptions(TypedDict, total=False):
    """How an algorithm is trained, whichever it is. What is left out is taken from a run that is resumed, or else from
    the defaults.
    """

    seed: int | None
    """Of everything random, 0 to 2^31 - 1; by default 0."""
    seeds: Sequence[int] | None
    """Several in its place, 2 at least, each of them trained as it would be alone, all in one program."""
    sweep: Mapping[str, Sequence[float]] | None
    """By name of a traced hyper-parameter, its values: a member for each of them and each seed."""
    meta_steps: int | None
    """Meta-steps of the whole run; by default what the algorithm's settings say."""
    log_every: int | None
    """Meta-steps between log points, whose metrics are means over the meta-steps since the one before."""
    checkpoint_every: int | None
    """Meta-steps after which the next log point saves a checkpoint; the last meta-step always does."""
    evaluate_every: int | None
    """Meta-steps after which the next log point measures the learner on validation tasks; by default none does."""
    keep: int | None
    """How many of the newest checkpoints stay, beside the one with the highest return; by default 3."""
    on_nonfinite: Literal["stop", "skip"] | None
    """`stop`, the default, where a metric or the state is not finite; or `skip` that meta-step and count it among the
    metrics, as `skipped`, unless all between two log points were."""
    on_write_error: Literal["continue", "stop"] | None
    """`continue`, the default, and try again later where something could not be written, or `stop`."""
    evaluate: bool | None
    """Whether the command line evaluates the run after training; by default it does."""
    baselines: bool | None
    """Whether it measures `scratch` and `finetune` where it evaluates the run; by default it does."""
    devices: int | None
    """Over how many the tasks of a batch are spread; by default all. Another run may go on on others."""
    run_dir: str | Path | None
    """A new or empty folder for configuration, metrics and checkpoints, or that of the run that is resumed; by default
    nothing is written."""
    resume: bool
    """Go on from the newest checkpoint in `run_dir`, to the bit as if the run had never stopped. More `meta_steps` are
    welcome, other devices, and other ways of logging, saving and meeting faults; a change of anything else is
    refused."""
    allow_import: bool
    """Let the folder of a resumed run name a `package.module:name`, which is then imported: that runs code of whoever
    wrote it."""


WAYS = (
    "log_every",
    "checkpoint_every",
    "evaluate_every",
    "keep",
    "on_nonfinite",
    "on_write_error",
    "evaluate",
    "baselines",
)
"""Options that a run that is resumed may be given anew."""
KINDS: dict[str, type] = dict.fromkeys(("algorithm", "tasks", "on_nonfinite", "on_write_error"), str)
KINDS |= dict.fromkeys(("evaluate", "baselines"), bool)
"""Of options that are no integers."""


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

    def kept_in(self, folder: str | Path) -> "Job":
        """The same in a folder.

        Raises:
          UsageError: it is in use, or cannot be written.
        """
        return self._replace(run=_unused(folder))


def prepare(
    algorithm: str | None = None,
    tasks: str | TaskDistribution | None = None,
    settings: Mapping[str, Any] | AlgorithmConfig = NOTHING,
    **options: Unpack[RunOptions],
) -> Job:
    """Checks and composes a run; reads the folder of one that is resumed, and writes nothing.

    Args:
      algorithm: a name, or `package.module:name`; `ALGORITHM` by default.
      tasks: a specification, or a task distribution; `TASKS` by default.
      settings: the algorithm's own, by path or its last words, nested as a file holds them, or a whole configuration.
      **options: see `RunOptions`.

    Returns:
      The `Job`, with every setting resolved in its `config`; a state is neither drawn nor restored yet.

    Raises:
      UsageError: an unknown name, a setting that the algorithm does not read, a value out of range, a folder in use, or
        a resumed run configured otherwise.
    """
    for name in options:
        require_known("option", name, RunOptions.__annotations__)
    if not (tasks is None or isinstance(tasks, str)):
        tasks = task_specs.as_distribution(tasks)
    requested = {"algorithm": algorithm, "tasks": getattr(tasks, "name", tasks), "seed": options.get("seed")}
    requested |= {name: options.get(name) for name in WAYS}
    given = {name: as_kind(name, value, KINDS.get(name, int)) for name, value in requested.items() if value is not None}
    given |= multi_seed.requested(options.get("seed"), options.get("seeds"))
    count = _devices_of(options.get("devices"))
    resume, run_dir = options.get("resume", False), options.get("run_dir")
    stored: dict[str, Any] = {}
    if resume:
        if run_dir is None:
            raise UsageError("resume", "come with a run_dir", None)
        run, stored = _stored(run_dir, given, options.get("allow_import", False))
    else:
        run = None if run_dir is None else _unused(run_dir)

    config = {"algorithm": ALGORITHM, "tasks": TASKS, "seed": 0, "settings": {}} | stored | given
    require(0 <= config["seed"] < 2**31, "seed", "be from 0 to 2147483647", config["seed"])
    distribution = tasks if isinstance(tasks, TaskDistribution) else task_specs.make_tasks(config["tasks"])
    complete = _settings(config, distribution, settings, options.get("meta_steps"))
    if (sweep := options.get("sweep")) is not None:
        config["sweep"] = multi_seed.swept(sweep, complete)
        _require_same({"sweep": None} | stored if resume else {}, {"sweep": config["sweep"]}, but=())
    if resume and run is not None:
        before, now = (_plain(settings_of(each)) for each in (_settings(stored, distribution, {}, None), complete))
        _require_same(dict.fromkeys(now) | before, dict.fromkeys(before) | now, but=("meta_steps",))
        taken = max(checkpoints.finished_steps(run.checkpoints), default=0)
        enough = complete.meta_steps >= taken
        require(enough, "meta_steps", f"be at least {taken}, which the run has taken", complete.meta_steps)
    config = multi_seed.validated(config)
    learner = multi_seed.compose(config, distribution, complete)
    require_even(learner.tasks_per_batch, count)
    config |= {"meta_steps": complete.meta_steps, "settings": nested(complete), "devices": count, **_surroundings()}
    return Job(learner, distribution, _with_ways(config), run, resume, mesh_of(count))


def restore(
    run_dir: str | Path, tasks: str | TaskDistribution | None = None, *, best: bool = False, allow_import: bool = False
) -> tuple[MetaLearner, MetaState, TaskDistribution, dict[str, Any]]:
    """Brings back a run: its learner, its newest state that verifies, its tasks, and what `config.json` holds.

    With several seeds the state has leaves [members, ...]; `seeds.members` separates them.

    Args:
      run_dir: the folder of the run.
      tasks: the distribution that it was trained on, or its specification; by default what the folder names.
      best: the checkpoint with the highest return while training, instead of the newest.
      allow_import: import the algorithm or the tasks where the folder names them as `package.module:name`. That runs
        the code of whoever wrote the folder's `config.json`.

    Raises:
      UsageError: the folder holds no run, or one without a checkpoint yet, or one that needs an import.
      CheckpointError: it holds checkpoints, and none of them can be trusted.
    """
    run = RunDirectory(Path(run_dir))
    config = multi_seed.validated(run.load_config())
    if not allow_import:
        _require_registered(run, config, but=() if tasks is None else ("tasks",))
    tasks = task_specs.as_distribution(config["tasks"] if tasks is None else tasks)
    learner = multi_seed.compose(config, tasks, registry.configure(config["algorithm"], tasks, config["settings"]))
    like = jax.eval_shape(multi_seed.make_initial_state(learner, config), multi_seed.seeds_of(config))
    state = checkpoints.restore(run.checkpoints, like, best)
    if state is None:
        raise UsageError("run_dir", "hold a checkpoint", str(run_dir))
    return learner, state, tasks, config


def _unused(folder: str | Path) -> RunDirectory:
    """The folder of a new run."""
    run = RunDirectory(Path(folder))
    if is_first():
        run.require_unused()
    run.require_writable()
    return run


def _stored(folder: str | Path, given: Mapping[str, Any], allow_import: bool) -> tuple[RunDirectory, dict[str, Any]]:
    """The folder of a run that is resumed, and what it was configured as."""
    run = RunDirectory(Path(folder))
    stored = run.load_config()
    _require_same({"seeds": None} | stored, given, but=WAYS)
    if not allow_import:
        _require_registered(run, stored, but=given)
    run.read_metrics()
    run.require_writable()
    return run, stored


def _settings(
    config: Mapping[str, Any],
    tasks: TaskDistribution,
    settings: Mapping[str, Any] | AlgorithmConfig,
    meta_steps: int | None,
) -> AlgorithmConfig:
    """The complete settings of a run: those that are given now, over those that it was stored with."""
    if not isinstance(settings, AlgorithmConfig):
        stored, given = flattened(config["settings"]), flattened(settings)
        _require_same({path: name for path, name in stored.items() if isinstance(name, str)}, given, but=())
        settings = {**stored, **given}
    complete = registry.configure(config["algorithm"], tasks, settings)
    return complete if meta_steps is None else replaced(complete, {"meta_steps": meta_steps})


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """As a file holds them."""
    return {path: list(value) if isinstance(value, tuple) else value for path, value in settings.items()}


def _devices_of(devices: int | None) -> int:
    """The number of devices, by default all."""
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
    for name in ("log_every", "checkpoint_every", "evaluate_every", "keep"):
        require(config.get(name, 1) >= 1, name, "be at least 1", config.get(name))
    for name, choices in (("on_nonfinite", ON_NONFINITE), ("on_write_error", ON_WRITE_ERROR)):
        require_known(name, config.setdefault(name, choices[0]), choices)
    for name in ("evaluate", "baselines"):
        config.setdefault(name, True)
    return config


def _require_registered(run: RunDirectory, stored: Mapping[str, Any], but: Collection[str]) -> None:
    """Refuses a run directory that names functions to import: opening one must not run its author's code."""
    kinds = {
        "algorithm": ("algorithm", registry.is_imported),
        "tasks": ("task distribution", task_specs.is_imported),
    }
    for name, (kind, is_imported) in kinds.items():
        rule = f"name a registered {kind}, or be loaded with --allow-import"
        registered = name in but or not is_imported(stored[name])
        require(registered, f"config.json of {str(run.path)!r}", rule, stored[name])


def _require_same(stored: Mapping[str, Any], given: Mapping[str, Any], but: Collection[str]) -> None:
    for name, value in given.items():
        if name in stored and name not in but and stored[name] != value:
            raise UsageError(name, f"be {stored[name]!r}, as in the run that is resumed", value)


def _surroundings() -> dict[str, Any]:
    device = jax.devices()[0]
    return {
        "versions": {name: metadata.version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "device": {"platform": device.platform, "kind": device.device_kind, "count": jax.device_count()},
    }
