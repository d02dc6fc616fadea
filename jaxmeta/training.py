"""Meta-training: one compiled program that takes any number of meta-steps, and a host that only looks on between.

A callback from every step of a compiled loop is slow; a host loop over compiled chunks costs next to nothing. So the
program takes a chunk of meta-steps, and the host logs, saves and stops between chunks. The length of a chunk is an
argument: one program serves all.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta import checkpoints, interrupts
from jaxmeta.base import Key, MetaLearner, MetaState, Metrics, TaskDistribution, sample_tasks
from jaxmeta.errors import NonFiniteError
from jaxmeta.jobs import Job, prepare
from jaxmeta.journal import Journal

OnLog = Callable[[dict[str, Any]], None]
Logs = tuple[Metrics, jax.Array]
"""Metrics by name, [log_every] float32 each, and whether the state was finite, [log_every] bool."""


def train(
    recipe: str | None = None,
    tasks: str | TaskDistribution | None = None,
    *,
    seed: int | None = None,
    run_dir: str | Path | None = None,
    resume: bool = False,
    log_every: int | None = None,
    checkpoint_every: int | None = None,
    on_log: OnLog | None = None,
    **settings: Any,
) -> tuple[MetaLearner, MetaState]:
    """Meta-trains a recipe on a task distribution.

    Args:
      recipe: a name that `jaxmeta list` shows; by default `maml`.
      tasks: a specification such as `grid_navi:size=4`, or a task distribution; by default `grid_navi`.
      seed: of everything random, at least 0; by default 0.
      run_dir: a new or empty folder for configuration, metrics and checkpoints; by default nothing is written.
      resume: go on from the newest checkpoint in `run_dir`, to the bit as if the run had never stopped. What is not
        given is taken from that run; more `meta_steps` are welcome, a change of anything else is refused.
      log_every: meta-steps between log points, whose metrics are means over the meta-steps since the one before.
      checkpoint_every: meta-steps after which the next log point saves a checkpoint; the last meta-step always does.
      on_log: called with each line of `metrics.jsonl`, with or without a folder.
      **settings: the recipe's own, `meta_steps` among them; see `jaxmeta.config`.

    Returns:
      The learner and its trained state.

    Raises:
      UsageError: a mistake in the arguments; nothing was written.
      NonFiniteError: a metric or the state stopped being finite; nothing that came after it was kept.
      Interrupted: Ctrl-C or SIGTERM; a checkpoint was written first if there is a `run_dir`. It is a KeyboardInterrupt.
    """
    job = prepare(
        recipe,
        tasks,
        seed=seed,
        settings=settings,
        log_every=log_every,
        checkpoint_every=checkpoint_every,
        run_dir=run_dir,
        resume=resume,
    )
    return job.learner, run_job(job, on_log)


def run_job(job: Job, on_log: OnLog | None = None) -> MetaState:
    """Trains what `prepare` has composed, from its start or its newest checkpoint to its end; see `train`."""
    with interrupts.deferred() as interrupted:
        state = _advance(job, _starting_state(job), on_log, interrupted)
        if interrupted():
            step, meta_steps = int(state.step), job.config["meta_steps"]
            if job.run and step not in checkpoints.finished_steps(job.run.checkpoints):
                checkpoints.save(job.run.checkpoints, state)
            kept = "and saved" if job.run else "and nothing was saved, for want of a run_dir"
            raise interrupts.Interrupted(f"Interrupted at meta-step {step} of {meta_steps}, {kept}.")
    return state


def make_chunk(learner: MetaLearner, tasks: TaskDistribution, log_every: int) -> Any:
    """The jitted program `(state, step_key, length) -> (state, logs)`; length, [] int32, is at most `log_every`.

    Its state is donated. Each meta-step draws its own tasks, from a key that depends on `step_key` and `state.step`
    alone: how meta-steps fall into chunks changes nothing.
    """

    def meta_step(state: MetaState, step_key: Key) -> tuple[MetaState, Logs]:
        task_key, update_key = jax.random.split(jax.random.fold_in(step_key, state.step))
        env_params = sample_tasks(task_key, tasks, "train", learner.tasks_per_batch)
        state, metrics = learner.update(update_key, state, env_params)
        return strongly_typed(state), (metrics, _all_finite(state))

    meta_step = jax.jit(meta_step, inline=True)  # traced once, for the shapes below and for the loop

    def chunk(state: MetaState, step_key: Key, length: jax.Array) -> tuple[MetaState, Logs]:
        def body(index, carry):
            state, logs = carry
            state, log = meta_step(state, step_key)
            return state, jax.tree.map(lambda buffer, value: buffer.at[index].set(value), logs, log)

        _, shapes = jax.eval_shape(meta_step, state, step_key)
        logs = jax.tree.map(lambda shape: jnp.zeros((log_every, *shape.shape), shape.dtype), shapes)
        return jax.lax.fori_loop(0, length, body, (state, logs))

    return jax.jit(chunk, donate_argnums=0)


def average_metrics(logs: Logs, step: int, length: int) -> dict[str, float]:
    """Means over a chunk that took `length` meta-steps after `step`.

    Raises:
      NonFiniteError: naming what stopped being finite, and the meta-step.
    """
    metrics, state_is_finite = logs
    for index in range(length):
        for name, values in metrics.items():
            if not np.isfinite(values[index]):
                raise NonFiniteError(f"{name} became {values[index]} at meta-step {step + index + 1}.")
        if not state_is_finite[index]:
            raise NonFiniteError(f"The state stopped being finite at meta-step {step + index + 1}.")
    return {name: float(np.mean(values[:length], dtype=np.float64)) for name, values in metrics.items()}


def strongly_typed(tree: Any) -> Any:
    """The same arrays without weak types, which would make the second chunk another program than the first."""
    return jax.tree.map(lambda x: jnp.asarray(x, x.dtype) if getattr(x, "weak_type", False) else x, tree)


def _starting_state(job: Job) -> MetaState:
    """The newest checkpoint of a resumed run, else, also where that run ended before its first one, a fresh state."""
    key = jax.random.split(jax.random.key(job.config["seed"]))[0]
    fresh = jax.jit(lambda key: strongly_typed(job.learner.init(key)))(key)
    if job.run and job.resume:
        return checkpoints.restore(job.run.checkpoints, fresh) or fresh
    return fresh


def _advance(job: Job, start: MetaState, on_log: OnLog | None, interrupted: Callable[[], bool]) -> MetaState:
    """Trains to the end or an interrupt, and logs and saves on the way."""
    state, step, meta_steps = start, int(start.step), job.config["meta_steps"]
    if step == meta_steps:
        return state
    # Traced before anything is written: what cannot be traced leaves no folder behind.
    chunk = make_chunk(job.learner, job.tasks, job.config["log_every"])
    program = chunk.lower(start, _step_key(job), np.int32(0))
    if job.run:
        job.run.write_config(job.config)
        checkpoints.set_aside(job.run.checkpoints, newer_than=step)

    with Journal(job.run, step) if job.run else contextlib.nullcontext() as journal:
        seconds = journal.seconds if journal else 0.0
        for state, record in _chunks(job, program, start, seconds, interrupted):
            if journal:
                journal.write(record)
            if on_log:
                on_log(record)
            before, step = step, record["meta_step"]
            every = job.config["checkpoint_every"]
            if job.run and (step // every > before // every or step == meta_steps):
                checkpoints.save(job.run.checkpoints, state)
    return state


def _step_key(job: Job) -> Key:
    """What each meta-step folds its number into."""
    return jax.random.split(jax.random.key(job.config["seed"]))[1]


def _chunks(
    job: Job, program: Any, state: MetaState, seconds: float, interrupted: Callable[[], bool]
) -> Iterator[tuple[MetaState, dict[str, Any]]]:
    """Yields the state at each log point, which the next one donates, and what there is to tell about it."""
    start = time.perf_counter()
    chunk = program.compile()
    step_key = _step_key(job)
    step, meta_steps, log_every = int(state.step), job.config["meta_steps"], job.config["log_every"]
    env_steps_per_meta_step = job.learner.tasks_per_batch * job.learner.env_steps_per_task
    while step < meta_steps and not interrupted():
        length = min(meta_steps, (step // log_every + 1) * log_every) - step
        chunk_start = time.perf_counter()
        state, logs = chunk(state, step_key, np.int32(length))
        metrics = average_metrics(jax.device_get(logs), step, length)
        now = time.perf_counter()
        step += length
        yield (
            state,
            {
                "meta_step": step,
                "env_steps": step * env_steps_per_meta_step,
                "seconds": round(seconds + now - start, 3),
                "env_steps_per_second": round(length * env_steps_per_meta_step / (now - chunk_start), 1),
                **metrics,
            },
        )


def _all_finite(tree: Any) -> jax.Array:
    """Whether every floating-point leaf is finite, [] bool."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))
