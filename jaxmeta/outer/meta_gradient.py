"""Outer rules that descend: on the meta-gradient of an objective, or on Reptile's displacement.

A rule turns an objective into `init` and `update` of a `MetaLearner` and does not depend on the algorithm.
"""

from collections.abc import Callable
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import optax
from msgspec import Meta

from jaxmeta.core import sharding as devices
from jaxmeta.core.config import Natural, Positive
from jaxmeta.core.errors import require
from jaxmeta.core.scans import Remat
from jaxmeta.core.types import Adapter, Key, MetaState, Metrics, Objective, PyTree, StepInfo, Task
from jaxmeta.outer.batching import BatchConfig, mean_over_tasks, num_tasks
from jaxmeta.outer.epochs import TrustRegionConfig
from jaxmeta.outer.optimizer import take_step


class MetaGradientConfig(BatchConfig, frozen=True, kw_only=True):
    """How the gradient of a lifetime in the meta-parameters is estimated and descended on."""

    remat: Remat = "none"
    """What the backward pass computes anew instead of storing it: `none`; `steps`, each gradient step, and each
    rollout of a long lifetime, for less memory and one more pass; or `nested`, at two levels: memory grows with the
    square root of the number of steps, for two more passes."""
    gradient_estimator: Literal["backpropagation", "es", "pes"] = "backpropagation"
    """`backpropagation`, `es` (antithetic evolution strategies) or `pes` (persistent ones)."""
    truncation_length: Natural = 0
    """Adaptations of a lifetime that a meta-step takes; 0 stands for all of them."""
    num_perturbations: Annotated[int, Meta(ge=2)] = 16
    """Perturbed lifetimes of each task under `es` and `pes`, in antithetic pairs."""
    perturbation_scale: Positive = 0.1
    """Standard deviation of the perturbation of meta-parameters under `es` and `pes`."""
    trust_region: TrustRegionConfig | None = None
    """Take several optimizer steps on lifetimes that were collected once, within a trust region (ProMP), where policies
    are adapted; none: one step a meta-step."""

    def __post_init__(self):
        super().__post_init__()
        count = self.num_perturbations
        require(count % 2 == 0, "num_perturbations", "be even, for antithetic pairs", count)


Init = Callable[[Key], MetaState]
Update = Callable[[Key, MetaState, Task], tuple[MetaState, StepInfo]]
Direction = Callable[[PyTree, Task, PyTree], tuple[PyTree, Metrics]]
"""`direction(meta, task, collected)`: one task's contribution to the meta-gradient, a tree like `meta`, and
metrics."""


def starting(adapter: Adapter, optimizer: optax.GradientTransformation) -> Init:
    """The initial state of a rule without auxiliary state."""

    def init(key: Key) -> MetaState:
        meta = adapter.init(key)
        return MetaState(meta=meta, optimizer=optimizer.init(meta), step=jnp.zeros((), jnp.int32), aux_state=None)

    return init


def meta_gradient(
    adapter: Adapter,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    tasks_per_group: int = 0,
) -> tuple[Init, Update]:
    """Descends on the gradient of the mean objective, differentiated through the adaptation.

    Args:
      adapter: how the learner adapts; its `init` draws the first `meta`.
      objective: scores one lifetime.
      optimizer: of `meta`; it is given the meta-gradient, averaged over tasks.
      tasks_per_group: as in `mean_over_tasks`.

    Returns:
      `init` and `update` of a `MetaLearner`. The update reports the objective's value as `loss`, and its metrics, means
      over tasks; and the length of what the optimizer is given, as `meta_gradient_norm`, [] float32 each.

    Reference: Finn, Abbeel and Levine (2017).
    """

    def direction(meta: PyTree, task: Task, collected: PyTree):
        def loss(meta):
            value, _, metrics = objective.score(meta, task, None, collected)
            return value, metrics

        (value, metrics), gradient = jax.value_and_grad(loss, has_aux=True)(meta)
        return gradient, {"loss": value, **metrics}

    return _descend(adapter, objective, direction, optimizer, tasks_per_group)


def reptile(
    adapter: Adapter,
    objective: Objective,
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
        value, learner_state, metrics = objective.score(meta, task, None, collected)
        displacement = jax.tree.map(jnp.subtract, meta.params, learner_state.fast.params)
        nothing = jax.tree.map(jnp.zeros_like, meta)
        return nothing.replace(params=displacement), {"loss": value, **metrics}

    return _descend(adapter, objective, direction, optimizer, tasks_per_group)


def _descend(
    adapter: Adapter,
    objective: Objective,
    direction: Direction,
    optimizer: optax.GradientTransformation,
    tasks_per_group: int,
) -> tuple[Init, Update]:
    def update(key: Key, state: MetaState, tasks: Task) -> tuple[MetaState, StepInfo]:
        def collect(key: Key, task: Task):
            return objective.collect(key, state.meta, task, None)

        def per_task(task: Task, collected: PyTree):
            return direction(state.meta, task, collected), None

        keys, tasks = devices.spread((jax.random.split(key, num_tasks(tasks)), tasks))
        collected = jax.vmap(collect)(keys, tasks)
        (gradient, metrics), _, finite = mean_over_tasks(per_task, tasks_per_group)(tasks, collected)
        meta, optimizer_state, norm = take_step(optimizer, gradient, state.optimizer, state.meta)
        state = state.replace(meta=meta, optimizer=optimizer_state, step=state.step + 1)
        return state, StepInfo({**metrics, **norm}, finite)

    return starting(adapter, optimizer), update
