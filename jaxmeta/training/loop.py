"""Meta-training: compiled chunks of meta-steps, and a host that logs, saves and stops between them."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmeta.core.compilation import compiler_options
from jaxmeta.core.sharding import everywhere, use, whole
from jaxmeta.core.types import Key, MetaState
from jaxmeta.training import checkpoints, interrupts
from jaxmeta.training import seeds as multi_seed
from jaxmeta.training.bookkeeping import Bookkeeping
from jaxmeta.training.chunks import make_chunk, summary
from jaxmeta.training.distributed import any_of_all, is_first
from jaxmeta.training.jobs import Job

OnLog = Callable[[dict[str, Any]], None]


def _nothing(*arguments: Any) -> None:
    """What a hook does that is not set."""


class Hooks(NamedTuple):
    """What is called while a run trains."""

    on_log: OnLog = _nothing
    """`on_log(record)` with each line of `metrics.jsonl`, with or without a folder."""
    measure: Callable[[MetaState], dict[str, float]] = lambda state: {}
    """`measure(state)` every `evaluate_every` meta-steps: what it returns is part of the log point."""
    on_checkpoint: Callable[[MetaState, dict[str, Any]], None] = _nothing
    """`on_checkpoint(state, record)` at log points where a checkpoint is due, with or without a folder, and at the end;
    the state is not to be kept, for the next meta-step takes its place."""
    should_stop: Callable[[dict[str, Any]], bool] = lambda record: False
    """`should_stop(record)` after each log point: whether the run is to end there, saved as at its end."""
    on_compiled: Callable[[Any], None] = _nothing
    """`on_compiled(program)` with the compiled program, a `jax.stages.Compiled`, before it runs; not at all where the
    run has come to its end already."""


def run_job(job: Job, hooks: Hooks = Hooks()) -> MetaState:
    """Trains what `prepare` has composed, from its start or its newest checkpoint to its end; see `jaxmeta.train`.

    Args:
      job: what to train.
      hooks: what is called while it trains.

    Returns:
      The state after `meta_steps`, or where it was stopped; with several seeds leaves are [members, ...].

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
        hooks.on_compiled(chunk)
        every, evaluate_every, before = job.config["checkpoint_every"], job.config.get("evaluate_every"), step
        for state, record in _chunks(job, chunk, start, key, began, interrupted):
            if evaluate_every and record["meta_step"] // evaluate_every > before // evaluate_every:
                record |= hooks.measure(state)
            if books:
                books.log_point(state, record)
            hooks.on_log(record)
            stops = hooks.should_stop(record)
            if stops or record["meta_step"] // every > before // every or record["meta_step"] == meta_steps:
                hooks.on_checkpoint(state, record)
            before = record["meta_step"]
            if stops:
                break
        if books:
            books.finish(state)
        if any_of_all(interrupted()):
            kept = "and saved" if books else "and nothing was saved, for want of a run_dir"
            raise interrupts.Interrupted(f"Interrupted at meta-step {state.steps_taken} of {meta_steps}, {kept}.")
        return state


def starting_state(job: Job) -> MetaState:
    """The newest checkpoint of a resumed run, else, also where that run ended before its first one, a fresh state."""
    initial_state = multi_seed.make_initial_state(job.learner, job.config)

    def begin_on_devices(seeds: np.ndarray) -> MetaState:
        state = initial_state(seeds)
        meta, optimizer, step = everywhere((state.meta, state.optimizer, state.step))
        return state.replace(meta=meta, optimizer=optimizer, step=step)

    fresh = jax.jit(begin_on_devices, compiler_options=compiler_options())(multi_seed.seeds_of(job.config))
    if job.run and job.resume:
        return checkpoints.restore(job.run.checkpoints, fresh) or fresh
    return fresh


def step_key(job: Job) -> Key:
    """What each meta-step folds its number into."""

    def draw(seeds: np.ndarray) -> Key:
        return multi_seed.root_keys(seeds)[1]

    seeds = multi_seed.seeds_of(job.config)
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
    """Yields the state at each log point, which the next one donates, and its log record."""
    step, meta_steps, log_every = state.steps_taken, job.config["meta_steps"], job.config["log_every"]
    skip, members = job.config["on_nonfinite"] == "skip", multi_seed.members_of(job.config)
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
