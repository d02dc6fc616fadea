"""The outer rule of long lifetimes: every meta-step runs each of them one segment further."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxmeta.core import sharding as devices
from jaxmeta.core.types import Adapter, Key, MetaState, PyTree, StepInfo, Task
from jaxmeta.outer.batching import BatchConfig, mean_over_tasks
from jaxmeta.outer.gradient_estimators import Estimator
from jaxmeta.outer.meta_gradient import Init, Update
from jaxmeta.outer.optimizer import take_step


class Unfinished(struct.PyTreeNode):
    """Lifetimes between two meta-steps, leaves [tasks, ...]."""

    task: Task
    learner_states: PyTree
    """The estimator's states."""
    age: jax.Array
    """[tasks] int32, segments so far; 0 where the next one starts a new lifetime in a new task."""


def truncated_unrolls(
    adapter: Adapter,
    estimator: Estimator,
    sample: Callable[[Key], Task],
    optimizer: optax.GradientTransformation,
    num_unrolls: int,
    config: BatchConfig,
) -> tuple[Init, Update]:
    """Descends on an estimate from the next segment of every lifetime.

    Lifetimes are staggered: the first ones of a run end early, each at another age, so that from then on every batch
    holds young and old learners, and of as many lifetimes as there are segments one starts at every meta-step. A task
    stays with its lifetime; of the batch that an update is given, those tasks are taken up whose turn it is.

    Args:
      adapter: how the learner adapts.
      estimator: one of `outer.gradient_estimators`.
      sample: draws a training task, for the first lifetimes.
      optimizer: of the meta-parameters.
      num_unrolls: segments of a lifetime.
      config: lifetimes side by side, and how many of them are vmapped together.
    """
    tasks_per_batch = config.tasks_per_batch

    def init(key: Key) -> MetaState:
        meta_key, sample_key, reset_key = jax.random.split(key, 3)
        meta = adapter.init(meta_key)
        state = MetaState(meta=meta, optimizer=optimizer.init(meta), step=jnp.zeros((), jnp.int32), aux_state=None)
        if num_unrolls == 1:
            return state
        sample_keys, reset_keys = (jax.random.split(key, tasks_per_batch) for key in (sample_key, reset_key))
        task = jax.vmap(sample)(sample_keys)
        learner_states = jax.vmap(estimator.reset, (0, None, 0))(reset_keys, meta, task)
        age = jnp.arange(tasks_per_batch, dtype=jnp.int32) % num_unrolls
        return state.replace(aux_state=devices.spread(Unfinished(task, learner_states, age)))

    def update(key: Key, state: MetaState, tasks: Task) -> tuple[MetaState, StepInfo]:
        task, unfinished = devices.spread(tasks), state.aux_state
        first = jnp.ones(tasks_per_batch, bool)
        if unfinished is not None:
            first = unfinished.age == 0
            task = jax.vmap(lambda first, *tasks: jax.tree.map(lambda *leaf: jnp.where(first, *leaf), *tasks))(
                first, task, unfinished.task
            )

        def per_task(key: Key, task: Task, learner_states: PyTree, first: jax.Array):
            gradient, learner_states, metrics = estimator.gradient(key, state.meta, task, learner_states, first)
            return (gradient, metrics), learner_states

        keys = jax.random.split(key, tasks_per_batch)
        (gradient, metrics), learner_states, finite = mean_over_tasks(per_task, config.tasks_per_group)(
            keys, task, unfinished and unfinished.learner_states, first
        )
        if unfinished is not None:
            unfinished = devices.spread(Unfinished(task, learner_states, (unfinished.age + 1) % num_unrolls))
        meta, optimizer_state, norm = take_step(optimizer, gradient, state.optimizer, state.meta)
        state = state.replace(meta=meta, optimizer=optimizer_state, step=state.step + 1, aux_state=unfinished)
        return state, StepInfo({**metrics, **norm}, finite)

    return init, update
