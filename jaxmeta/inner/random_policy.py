"""The adapter that acts at random and learns nothing: the zero of every score."""

import jax
import jax.numpy as jnp

from jaxmeta.core.errors import UsageError, Words
from jaxmeta.core.types import Adapter, Key, PyTree, Task, TaskDistribution
from jaxmeta.inner.without_learning import without_learning


def random_policy(tasks: TaskDistribution) -> Adapter:
    """Draws actions uniformly from the action space, as the space itself draws them; meta and memory are None.

    The bounds of a space may be part of a task, so `fast` is the context, which must be the task's `EnvParams`:
    `privileged_task` makes such tasks. No `logits` are reported, for a continuous space has none.

    Args:
      tasks: where the environment comes from.

    Raises:
      UsageError: the space is unbounded, so that nothing is uniform on it.
    """
    env = tasks.env

    def draw(key: Key) -> jax.Array:
        task_key, action_key = jax.random.split(key)
        return env.action_space(tasks.sample(task_key, "train")).sample(action_key)

    key = jax.random.key(0)
    continuous = jnp.issubdtype(jax.eval_shape(draw, key).dtype, jnp.floating)
    # Between infinite bounds no draw is finite, nor between the largest numbers, for their distance overflows.
    if continuous and not jnp.all(jnp.isfinite(jax.jit(draw)(key))):
        raise UsageError(
            "random_policy", "be given a bounded action space", Words(f"that of {tasks.name}, which is unbounded")
        )

    def act(key, meta, fast, memory, percept):
        del meta, percept
        return env.action_space(fast).sample(key), memory, {}

    return without_learning(lambda key, meta, context: (context, None), act, act)


def privileged_task(key: Key, env_params: PyTree) -> Task:
    """A task whose `EnvParams` are its context: for what may know the task, as no learner may."""
    del key
    return Task(env_params, env_params)
