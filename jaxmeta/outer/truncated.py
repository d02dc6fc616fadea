"""The outer rule of long lifetimes: every meta-step takes each of them one stretch further."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxmeta.core import sharding as devices
from jaxmeta.core.types import TASK_IS_FINITE, Adapter, Key, MetaState, Metrics, PyTree, Task
from jaxmeta.outer.batching import mean_over_tasks
from jaxmeta.outer.gradient_estimators import Estimator
from jaxmeta.outer.meta_gradient import Init, Pose, Update
from jaxmeta.outer.optimizer import take_step


class Unfinished(struct.PyTreeNode):
    """Lifetimes between two meta-steps, leaves [tasks, ...]."""

    task: Task
    lives: PyTree
    """What the estimator carries."""
    age: jax.Array
    """[tasks] int32, stretches lived; 0 where the next one begins a new lifetime in a new task."""


def by_stretches(
    adapter: Adapter,
    estimator: Estimator,
    pose: Pose,
    sample: Callable[[Key], PyTree],
    optimizer: optax.GradientTransformation,
    stretches: int,
    tasks_per_batch: int,
    tasks_per_group: int = 0,
) -> tuple[Init, Update]:
    """Descends on an estimate from the next stretch of every lifetime.

    Lifetimes are staggered: the first ones of a run end early, each at another age, so that from then on every batch
    holds young and old learners, and of as many lifetimes as there are stretches one begins at every meta-step. A task
    stays with its lifetime; of the batch that an update is given, those tasks are taken up whose turn it is.

    Args:
      adapter: how the learner lives.
      estimator: one of `outer.gradient_estimators`.
      pose: what of a task the learner may see.
      sample: draws the `EnvParams` of one training task, for the first lifetimes.
      optimizer: of the meta-parameters.
      stretches: of a lifetime.
      tasks_per_batch: lifetimes side by side.
      tasks_per_group: as in `mean_over_tasks`.
    """

    def init(key: Key) -> MetaState:
        meta_key, sample_key, pose_key, begin_key = jax.random.split(key, 4)
        meta = adapter.init(meta_key)
        state = MetaState(meta=meta, optimizer=optimizer.init(meta), step=jnp.zeros((), jnp.int32), carried=None)
        if stretches == 1:
            return state
        keys = [jax.random.split(key, tasks_per_batch) for key in (sample_key, pose_key, begin_key)]
        task = jax.vmap(pose)(keys[1], jax.vmap(sample)(keys[0]))
        lives = jax.vmap(estimator.begin, (0, None, 0))(keys[2], meta, task)
        age = jnp.arange(tasks_per_batch, dtype=jnp.int32) % stretches
        return state.replace(carried=devices.spread(Unfinished(task, lives, age)))

    def update(key: Key, state: MetaState, env_params: PyTree) -> tuple[MetaState, Metrics]:
        pose_key, gradient_key = jax.random.split(key)
        task = jax.vmap(pose)(*devices.spread((jax.random.split(pose_key, tasks_per_batch), env_params)))
        carried = state.carried
        first = jnp.ones(tasks_per_batch, bool)
        if carried is not None:
            first = carried.age == 0
            task = jax.vmap(lambda first, *tasks: jax.tree.map(lambda *leaf: jnp.where(first, *leaf), *tasks))(
                first, task, carried.task
            )

        def per_task(key: Key, task: Task, lives: PyTree, first: jax.Array):
            gradient, lives, metrics = estimator.gradient(key, state.meta, task, lives, first)
            return (gradient, metrics), lives

        keys = jax.random.split(gradient_key, tasks_per_batch)
        (gradient, metrics), lives, finite = mean_over_tasks(per_task, tasks_per_group)(
            keys, task, carried and carried.lives, first
        )
        if carried is not None:
            carried = devices.spread(Unfinished(task, lives, (carried.age + 1) % stretches))
        meta, optimizer_state, norm = take_step(optimizer, gradient, state.optimizer, state.meta)
        metrics = {**metrics, **norm, TASK_IS_FINITE: finite}
        return state.replace(meta=meta, optimizer=optimizer_state, step=state.step + 1, carried=carried), metrics

    return init, update
