"""Measures what a learner earns in tasks, round after round, and what that costs."""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.core import costs
from jaxmeta.core.rollout import Round, Runner
from jaxmeta.core.types import Key, LearnerState, MetaLearner, PyTree, TaskDistribution, sample_tasks

EPISODES = 16
"""Fresh episodes that each task's return after a round is estimated from."""
GROUP = 128
"""Most tasks that are measured at once: memory grows with these, and not with the number of tasks."""


class Measured(NamedTuple):
    """Returns of a batch of tasks, as they were computed or brought to the host."""

    returns: jax.Array | np.ndarray
    """[tasks, rounds + 1] float32, mean return of an episode after each round of adaptation; first, before any."""
    trial: jax.Array | np.ndarray
    """[tasks] float32, total reward of the lifetime itself, a mean over its environments."""


Result = TypeVar("Result")


class Meter:
    """Reports the progress of work whose parts are known before it starts.

    A part that is skipped, since its outcome is known, counts no more once a later one starts.
    """

    def __init__(self, parts: Mapping[str, float], report: Callable[[str, float], None] = lambda part, share: None):
        """Takes the parts in order, the relative time of each, and `report(part, share of all)`."""
        self._parts, self._report = dict(parts), report
        self._done: dict[str, float] = {}
        self._present = ""

    def begin(self, part: str) -> None:
        """Starts a part; those started before are done."""
        self._done = {**dict.fromkeys(self._done, 1.0), part: 0.0}
        self._present = part
        self.advance(0.0)

    def advance(self, share: float) -> None:
        """Notes which share of the present part is done, from 0 to 1."""
        self._done[self._present] = share
        names = list(self._parts)
        ahead = names[max(map(names.index, self._done)) + 1 :]
        done = sum(self._parts[name] * share for name, share in self._done.items())
        self._report(self._present, done / sum(self._parts[name] for name in [*self._done, *ahead]))


def in_groups(
    run: Callable[..., Result],
    batch: tuple[PyTree, ...],
    axis: int = 0,
    on_share: Callable[[float], None] = lambda share: None,
) -> Result:
    """Runs a program on `GROUP` tasks at a time, always as many, so that it is compiled once.

    Args:
      run: `run(*batch)`, compiled; it treats tasks independently, and its result has an axis of tasks.
      batch: leaves [tasks, ...].
      axis: where the result's leaves have it.
      on_share: receives after each group the share of the tasks that is done.

    Returns:
      What `run` would return of all tasks, on the host.
    """
    count = jax.tree.leaves(batch)[0].shape[0]
    if count <= GROUP:
        result = jax.device_get(run(*batch))
        on_share(1.0)
        return result
    parts = []
    for start in range(0, count, GROUP):
        members = np.arange(start, start + GROUP) % count  # the last group is filled up with the first tasks
        part = jax.device_get(run(*jax.tree.map(lambda leaf, members=members: leaf[members], batch)))
        own = np.arange(min(GROUP, count - start))
        parts.append(jax.tree.map(lambda leaf, own=own: np.take(leaf, own, axis), part))
        on_share(min(1.0, (start + GROUP) / count))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves, axis), *parts)


def measure(key: Key, learner: MetaLearner, meta: PyTree, tasks: TaskDistribution, env_params: PyTree) -> Measured:
    """Runs a lifetime in each task, with fresh evaluation episodes after each round.

    Args:
      key: one key.
      learner: what is measured.
      meta: its meta-parameters.
      tasks: where the environment comes from.
      env_params: leaves [tasks, ...].
    """

    def one(key, env_params):
        return measure_task(key, learner, meta, tasks, env_params)

    keys = jax.random.split(key, jax.tree.leaves(env_params)[0].shape[0])
    return jax.vmap(one)(keys, env_params)


def measure_task(key: Key, learner: MetaLearner, meta: PyTree, tasks: TaskDistribution, env_params: PyTree) -> Measured:
    """`measure` of one task.

    Args:
      key: one key.
      learner: what is measured.
      meta: its meta-parameters.
      tasks: where the environment comes from.
      env_params: leaves without a batch axis.

    Returns:
      `Measured` with `returns` [rounds + 1] float32, each a mean over `EPISODES` episodes, and `trial` [] float32, in
      the environment's units.
    """
    task_key, reset_key, first_key, adapt_key = jax.random.split(key, 4)
    runner, lifetime = Runner(tasks.env, learner.adapter), learner.lifetime
    task = learner.task(task_key, env_params)

    def episode_return(key: Key, learner_state: LearnerState) -> jax.Array:
        played = runner.evaluate_policy(key, meta, task, learner_state, EPISODES, tasks.horizon)
        return jnp.mean(played.episode_return)

    def observe(key, round_: Round):
        return episode_return(key, round_.after), jnp.sum(round_.rollout.reward) / lifetime.num_envs

    learner_state = runner.reset(reset_key, meta, task, lifetime.num_envs)
    before = episode_return(first_key, learner_state)
    _, (after, rewards) = runner.adapt_for(adapt_key, meta, task, learner_state, lifetime, observe)
    return Measured(jnp.concatenate([before[None], after]), jnp.sum(rewards))


def returns_by_round(
    key: Key, learner: MetaLearner, meta: PyTree, tasks: TaskDistribution, num_tasks: int, split: str = "test"
) -> np.ndarray:
    """Returns of an episode in fresh tasks before adaptation and after each round, [tasks, rounds + 1] float64.

    The same key gives the same tasks to every learner.
    """
    task_key, lifetime_key = jax.random.split(key)
    return make_evaluator(learner, tasks, num_tasks, split)(task_key, lifetime_key, meta)


def make_evaluator(
    learner: MetaLearner, tasks: TaskDistribution, num_tasks: int, split: str = "test"
) -> Callable[[Key, Key, PyTree], np.ndarray]:
    """`returns_by_round` for many meta-parameters, compiled once: `make_evaluator(...)(task_key, lifetime_key, meta)`.

    The first key says which tasks, the second what happens in them.
    """

    @jax.jit
    def returns(task_key, lifetime_key, meta):
        env_params = sample_tasks(task_key, tasks, split, num_tasks)
        return measure(lifetime_key, learner, meta, tasks, env_params).returns

    return lambda task_key, lifetime_key, meta: np.asarray(returns(task_key, lifetime_key, meta), np.float64)


def trials(
    key: Key, learner: MetaLearner, meta: PyTree, tasks: TaskDistribution, batch: int, split: str = "test"
) -> Iterator[np.ndarray]:
    """Runs lifetimes in fresh tasks, batch after batch without end; compiled once.

    The learner acts as it does while it learns, and nothing is played beside that. The same key gives the same tasks to
    every learner.

    Args:
      key: one key.
      learner: what is measured.
      meta: its meta-parameters.
      tasks: where tasks are drawn from.
      batch: tasks of a batch, with one lifetime each.
      split: whose tasks.

    Yields:
      Total reward of each lifetime, a mean over its environments, [batch] float32.
    """

    @jax.jit
    def run_batch(key, meta):
        task_key, lifetime_key = jax.random.split(key)
        env_params = sample_tasks(task_key, tasks, split, batch)
        keys = jax.random.split(lifetime_key, batch)
        return jax.vmap(lambda key, env_params: trial_of_task(key, learner, meta, tasks, env_params))(keys, env_params)

    for index in itertools.count():
        yield np.asarray(run_batch(jax.random.fold_in(key, index), meta))


def trial_of_task(
    key: Key, learner: MetaLearner, meta: PyTree, tasks: TaskDistribution, env_params: PyTree
) -> jax.Array:
    """The `trial` of `measure_task`, for the same key, without its evaluation episodes.

    It takes what `measure_task` takes.

    Returns:
      Total reward of the lifetime, a mean over its environments, [] float32.
    """
    task_key, reset_key, _, adapt_key = jax.random.split(key, 4)
    runner, lifetime = Runner(tasks.env, learner.adapter), learner.lifetime
    task = learner.task(task_key, env_params)
    learner_state = runner.reset(reset_key, meta, task, lifetime.num_envs)
    _, rewards = runner.adapt_for(
        adapt_key, meta, task, learner_state, lifetime, lambda _, round_: jnp.sum(round_.rollout.reward)
    )
    return jnp.sum(rewards) / lifetime.num_envs


def adaptation_cost(key: Key, learner: MetaLearner, meta: PyTree, tasks: TaskDistribution) -> dict[str, float | None]:
    """The cost of one lifetime in one training task, compiled.

    Args:
      key: one key.
      learner: what adapts.
      meta: its meta-parameters.
      tasks: the family.

    Returns:
      `flops`, floating-point operations of matrix products, see `costs.flops`; `seconds` by the clock, the median of
      five runs after a first; and bytes of temporary `memory`, None where the backend does not say.
    """
    sample_key, key = jax.random.split(key)
    env_params = tasks.sample(sample_key, "train")

    def adapt(key, meta, env_params):
        task_key, reset_key, adapt_key = jax.random.split(key, 3)
        task = learner.task(task_key, env_params)
        runner = Runner(tasks.env, learner.adapter)
        learner_state = runner.reset(reset_key, meta, task, learner.lifetime.num_envs)
        learner_state, _ = runner.adapt_for(adapt_key, meta, task, learner_state, learner.lifetime, lambda *_: None)
        return learner_state  # XLA drops what is not returned

    compiled = jax.jit(adapt).lower(key, meta, env_params).compile()
    jax.block_until_ready(compiled(key, meta, env_params))
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        jax.block_until_ready(compiled(key, meta, env_params))
        seconds.append(time.perf_counter() - start)
    memory = getattr(compiled.memory_analysis(), "temp_size_in_bytes", None)  # None where a backend does not say
    return {"flops": costs.flops(adapt, key, meta, env_params), "seconds": sorted(seconds)[2], "memory": memory}
