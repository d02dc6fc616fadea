"""What may be known of a task distribution before anything is learned: shapes, and descriptions of tasks."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.core.types import Key, PyTree, Spec, Task, TaskDistribution

MakeTask = Callable[[Key, PyTree], Task]
"""`make_task(key, env_params)`: the `Task` that a learner receives."""


def spec_of(tasks: TaskDistribution) -> Spec:
    """Reads shapes and dtypes off one task of a distribution by tracing; the range of continuous actions off two."""
    sizes = []

    def look(key):
        env_params = tasks.sample(key, "train")
        observations, actions = tasks.env.observation_space(env_params), tasks.env.action_space(env_params)
        sizes.extend([getattr(observations, "n", None), getattr(actions, "n", None)])
        return tasks.env.reset(key, env_params)[0], actions.sample(key)

    observation, action = jax.eval_shape(look, jax.random.key(0))
    num_observations, num_actions = sizes
    action_range = None if num_actions is not None else _range_of_actions(tasks, action.shape)
    return Spec(observation, action, num_observations, num_actions, action_range)


def description_size(tasks: TaskDistribution) -> int:
    """How many numbers describe a task, 0 where nothing does."""
    return jax.eval_shape(lambda key: tasks.describe(tasks.sample(key, "train")), jax.random.key(0)).size


def hidden(key: Key, env_params: PyTree) -> Task:
    """A task of which a learner sees nothing but what it perceives."""
    del key
    return Task(env_params, None)


def described(tasks: TaskDistribution) -> MakeTask:
    """Tasks of a privileged learner: their context is a description of the parameters."""
    return lambda key, env_params: Task(env_params, tasks.describe(env_params))


def _range_of_actions(tasks: TaskDistribution, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray] | None:
    def bounds(key):
        space = tasks.env.action_space(tasks.sample(key, "train"))
        return jnp.broadcast_to(space.low, shape), jnp.broadcast_to(space.high, shape)

    (low, other_low), (high, other_high) = map(
        np.asarray, jax.jit(jax.vmap(bounds))(jax.random.split(jax.random.key(0)))
    )
    shared = np.array_equal(low, other_low) and np.array_equal(high, other_high)
    return (low, high) if shared and np.all(np.isfinite(high - low)) else None
