"""Meta-training: compiled chunks of meta-steps, and a host that logs, saves and stops between them."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxmeta.core import compilation_cache
from jaxmeta.core.compilation import compiler_options
from jaxmeta.core.sharding import everywhere, use, whole
from jaxmeta.core.types import Key, MetaLearner, MetaState, TaskDistribution
from jaxmeta.training import checkpoints, interrupts
from jaxmeta.training import seeds as populations
from jaxmeta.training.bookkeeping import Bookkeeping
from jaxmeta.training.chunks import make_chunk, summary
from jaxmeta.training.distributed import any_of_all, is_first
from jaxmeta.training.jobs import Job, prepare

OnLog = Callable[[dict[str, Any]], None]


def train(
    recipe: str | None = None,
    tasks: str | TaskDistribution | None = None,
    *,
    seed: int | None = None,
    seeds: Sequence[int] | None = None,
    sweep: Mapping[str, Sequence[float]] | None = None,
    run_dir: str | Path | None = None,
    resume: bool = False,
    allow_import: bool = False,
    log_every: int | None = None,
    checkpoint_every: int | None = None,
    keep: int | None = None,
    on_nonfinite: str | None = None,
    on_write_error: str | None = None,
    devices: int | None = None,
    on_log: OnLog | None = None,
    **settings: Any,
) -> tuple[MetaLearner, MetaState]:
    """Meta-trains a recipe on a task distribution.

    Args:
      recipe: a name that `jaxmeta list` shows; by default `maml`.
      tasks: a specification such as `grid_navi:size=4`, or a task distribution; by default `grid_navi`.
      seed: of everything random, at least 0; by default 0.
      seeds: several in its place, 2 at least, each of them trained as it would be alone, all in one program. The state
        then has leaves [members, ...], and `jaxmeta.members` takes it apart.
      sweep: by name of a traced hyper-parameter, a field of `core.types.Hypers`, its values: a member for each of them
        and each seed.
      run_dir: a new or empty folder for configuration, metrics and checkpoints; by default nothing is written.
      resume: go on from the newest checkpoint in `run_dir`, to the bit as if the run had never stopped. What is not
        given is taken from that run; more `meta_steps` are welcome, a change of anything else is refused.
      allow_import: let the folder of a resumed run name a `package.module:name`, which is then imported.
      log_every: meta-steps between log points, whose metrics are means over the meta-steps since the one before.
      checkpoint_every: meta-steps after which the next log point saves a checkpoint; the last meta-step always does.
      keep: how many of the newest checkpoints stay, beside the one with the highest return; by default 3.
      on_nonfinite: `stop`, the default, where a metric or the state is not finite; or `skip` that meta-step and count
        it among the metrics, as `skipped`, unless all between two log points were.
      on_write_error: `continue`, the default, and try again later where something could not be written, or `stop`.
      devices: over how many the tasks of a batch are spread; by default all. Another run may go on on others.
      on_log: called with each line of `metrics.jsonl`, with or without a folder.
      **settings: the recipe's own, `meta_steps` among them; see `jaxmeta.core.config`.

    Returns:
      The learner and its trained state.

    Raises:
      UsageError: a mistake in the arguments; nothing was written.
      NonFiniteError: a metric or the state stopped being finite; nothing that came after it was kept.
      StorageError: something could not be written; the checkpoints before are as they were.
      Interrupted: Ctrl-C or SIGTERM; a checkpoint was written first if there is a `run_dir`. It is a KeyboardInterrupt.
    """
    compilation_cache.enable()
    job = prepare(
        recipe,
        tasks,
        seed=seed,
        seeds=seeds,
        sweep=sweep,
        settings=settings,
        log_every=log_every,
        checkpoint_every=checkpoint_every,
        keep=keep,
        on_nonfinite=on_nonfinite,
        on_write_error=on_write_error,
        devices=devices,
        run_dir=run_dir,
        resume=resume,
        allow_import=allow_import,
    )
    return job.learner, run_job(job, on_log)


def run_job(
    job: Job, on_log: OnLog | None = None, on_compiled: Callable[[Any], None] = lambda program: None
) -> MetaState:
    """Trains what `prepare` has composed, from its start or its newest checkpoint to its end; see `train`.

    Args:
      job: what to train.
      on_log: called with each log point.
      on_compiled: called with the compiled program, a `jax.stages.Compiled`, before it runs; not at all where the run
        has come to its end already.

    Returns:
      The state after `meta_steps`, of a population with leaves [members, ...].

    Raises:
      UsageError: another process trains in the folder, or it has been used since `prepare`.
      NonFiniteError: a metric or the state stopped being finite; nothing that came after it was kept.
      StorageError: something could not be written, or, of a resumed run, no checkpoint verifies.
      Interrupted: Ctrl-C or SIGTERM; a checkpoint was written first if the job has a folder.
    """
    with interrupts.deferred() as interrupted, contextlib.ExitStack() as stack:
        stack.enter_context(use(job.mesh))
        if job.run and job.resume and is_first():
            stack.enter_context(job.run.claimed(unused=False))
        start, key = starting_state(job), step_key(job)
        step, meta_steps = start.steps_taken, job.config["meta_steps"]
        if step == meta_steps:
            return start
        # Traced before anything is written: what cannot be traced leaves no folder behind.
        program = lowered(job, start, key)
        if job.run and not job.resume and is_first():
            stack.enter_context(job.run.claimed(unused=True))
        books = stack.enter_context(Bookkeeping(job.run, job.config, step)) if job.run else None
        state = start
        began = time.perf_counter() - (books.seconds if books else 0.0)
        chunk = program.compile()
        on_compiled(chunk)
        for state, record in _chunks(job, chunk, start, key, began, interrupted):
            if books:
                books.log_point(state, record)
            if on_log:
                on_log(record)
        if books:
            books.finish(state)
        if any_of_all(interrupted()):
            kept = "and saved" if books else "and nothing was saved, for want of a run_dir"
            raise interrupts.Interrupted(f"Interrupted at meta-step {state.steps_taken} of {meta_steps}, {kept}.")
        return state


def starting_state(job: Job) -> MetaState:
    """The newest checkpoint of a resumed run, else, also where that run ended before its first one, a fresh state."""
    begin = populations.beginning(job.learner, job.config)

    def begin_on_devices(seeds: np.ndarray) -> MetaState:
        state = begin(seeds)
        meta, optimizer, step = everywhere((state.meta, state.optimizer, state.step))
        return state.replace(meta=meta, optimizer=optimizer, step=step)

    fresh = jax.jit(begin_on_devices, compiler_options=compiler_options())(populations.seeds_of(job.config))
    if job.run and job.resume:
        return checkpoints.restore(job.run.checkpoints, fresh) or fresh
    return fresh


def step_key(job: Job) -> Key:
    """What each meta-step folds its number into."""

    def draw(seeds: np.ndarray) -> Key:
        return populations.root_keys(seeds)[1]

    seeds = populations.seeds_of(job.config)
    return jax.jit(draw, out_shardings=whole(job.mesh))(seeds) if job.mesh else draw(seeds)


def lowered(job: Job, start: MetaState, key: Key) -> Any:
    """The program, traced and not yet compiled; it leaves a state on devices where it found it."""
    placement = job.mesh and (jax.tree.map(lambda leaf: leaf.sharding, start), whole(job.mesh))
    skip = job.config["on_nonfinite"] == "skip"
    chunk = make_chunk(job.learner, job.tasks, job.config["log_every"], skip, placement)
    return chunk.lower(start, key, np.int32(0))


def _chunks(
    job: Job, chunk: Any, state: MetaState, key: Key, began: float, interrupted: Callable[[], bool]
) -> Iterator[tuple[MetaState, dict[str, Any]]]:
    """Yields the state at each log point, which the next one donates, and what there is to tell about it."""
    step, meta_steps, log_every = state.steps_taken, job.config["meta_steps"], job.config["log_every"]
    skip, members = job.config["on_nonfinite"] == "skip", populations.members_of(job.config)
    env_steps_per_meta_step = job.learner.tasks_per_batch * job.learner.env_steps_per_task
    while step < meta_steps and not any_of_all(interrupted()):
        length = min(meta_steps, (step // log_every + 1) * log_every) - step
        chunk_start = time.perf_counter()
        state, log = chunk(state, key, np.int32(length))
        metrics = summary(jax.device_get(log), step, length, skip, members)
        now = time.perf_counter()
        step += length
        yield (
            state,
            {
                "meta_step": step,
                "env_steps": step * env_steps_per_meta_step,
                "seconds": round(now - began, 3),
                "env_steps_per_second": round(length * env_steps_per_meta_step / (now - chunk_start), 1),
                **metrics,
            },
        )
