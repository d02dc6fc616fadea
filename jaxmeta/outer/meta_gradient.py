"""Outer rules that descend: on the meta-gradient of an objective, or on Reptile's displacement.

A rule turns an objective into `init` and `update` of a `MetaLearner` and knows nothing of the method it trains.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from jaxmeta.core import sharding as devices
from jaxmeta.core.types import TASK_IS_FINITE, Adapter, Key, MetaState, Metrics, Objective, PyTree, Task
from jaxmeta.outer.batching import mean_over_tasks
from jaxmeta.outer.optimizer import take_step

Init = Callable[[Key], MetaState]
Update = Callable[[Key, MetaState, PyTree], tuple[MetaState, Metrics]]
Pose = Callable[[Key, PyTree], Task]
Direction = Callable[[PyTree, Task, PyTree], tuple[PyTree, Metrics]]
"""`direction(meta, task, collected)`: one task's contribution to the meta-gradient, a tree like `meta`, and
metrics."""


def starting(adapter: Adapter, optimizer: optax.GradientTransformation) -> Init:
    """How a rule starts that carries nothing from step to step but what it learns and its optimizer's state."""

    def init(key: Key) -> MetaState:
        meta = adapter.init(key)
        return MetaState(meta=meta, optimizer=optimizer.init(meta), step=jnp.zeros((), jnp.int32), carried=None)

    return init


def meta_gradient(
    adapter: Adapter,
    objective: Objective,
    pose: Pose,
    optimizer: optax.GradientTransformation,
    tasks_per_group: int = 0,
) -> tuple[Init, Update]:
    """Descends on the gradient of the mean objective, differentiated through the adaptation.

    Args:
      adapter: how the learner lives; its `init` draws the first `meta`.
      objective: scores one lifetime.
      pose: what of a task the learner may see.
      optimizer: of `meta`; it is given the meta-gradient, averaged over tasks.
      tasks_per_group: as in `mean_over_tasks`.

    Returns:
      `init` and `update` of a `MetaLearner`. The update reports the objective's value as `loss`, and its metrics, means
      over tasks; the length of what the optimizer is given, as `meta_gradient_norm`, [] float32 each; and
      `TASK_IS_FINITE`.

    Reference: Finn, Abbeel and Levine (2017).
    """

    def direction(meta: PyTree, task: Task, collected: PyTree):
        def loss(meta):
            value, _, metrics = objective.score(meta, task, None, collected)
            return value, metrics

        (value, metrics), gradient = jax.value_and_grad(loss, has_aux=True)(meta)
        return gradient, {"loss": value, **metrics}

    return _descend(adapter, objective, direction, pose, optimizer, tasks_per_group)


def reptile(
    adapter: Adapter,
    objective: Objective,
    pose: Pose,
    optimizer: optax.GradientTransformation,
    tasks_per_group: int = 0,
) -> tuple[Init, Update]:
    """Moves the starting parameters towards where the tasks' lifetimes end.

    The displacement start - end takes the place of a gradient. The adapter's `meta` and `fast` must have a field
    `params`; no other part of `meta` is learned. The objective's value is reported, not differentiated.

    Takes and returns what `meta_gradient` does; the optimizer is given the displacement, averaged over tasks.

    Reference: Nichol, Achiam and Schulman (2018).
    """

    def direction(meta: PyTree, task: Task, collected: PyTree):
        value, life, metrics = objective.score(meta, task, None, collected)
        displacement = jax.tree.map(jnp.subtract, meta.params, life.fast.params)
        nothing = jax.tree.map(jnp.zeros_like, meta)
        return nothing.replace(params=displacement), {"loss": value, **metrics}

    return _descend(adapter, objective, direction, pose, optimizer, tasks_per_group)


def _descend(
    adapter: Adapter,
    objective: Objective,
    direction: Direction,
    pose: Pose,
    optimizer: optax.GradientTransformation,
    tasks_per_group: int,
) -> tuple[Init, Update]:
    def update(key: Key, state: MetaState, env_params: PyTree) -> tuple[MetaState, Metrics]:
        def prepare(key, env_params):
            task_key, direction_key = jax.random.split(key)
            task = pose(task_key, env_params)
            return task, objective.collect(direction_key, state.meta, task, None)

        def per_task(task, collected):
            return direction(state.meta, task, collected), None

        keys = jax.random.split(key, jax.tree.leaves(env_params)[0].shape[0])
        prepared = jax.vmap(prepare)(*devices.spread((keys, env_params)))
        (gradient, metrics), _, finite = mean_over_tasks(per_task, tasks_per_group)(*prepared)
        meta, optimizer_state, norm = take_step(optimizer, gradient, state.optimizer, state.meta)
        metrics = {**metrics, **norm, TASK_IS_FINITE: finite}
        return state.replace(meta=meta, optimizer=optimizer_state, step=state.step + 1), metrics

    return starting(adapter, optimizer), update
