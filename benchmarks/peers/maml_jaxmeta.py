"""A meta-step of MAML by the engine, on tasks that are goals."""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from wire import peak_megabytes, serve

from jaxmeta.algorithms.registry import make_learner
from jaxmeta.core import tasks
from jaxmeta.core.types import Task

kept: dict[str, Any] = {}


def prepare(task_family: str, settings: dict[str, Any], seed: int, inputs: str) -> dict[str, Any]:
    """Builds the learner and the tasks of the goals in a file; nothing is compiled yet."""
    distribution = tasks.make_tasks(task_family)
    learner = make_learner("maml", distribution, settings)
    goals = jnp.asarray(np.load(inputs)["goals"])
    env_params = jax.vmap(lambda goal: distribution.sample(jax.random.key(0), "train").replace(goal=goal))(goals)
    kept.update(
        update=jax.jit(learner.update),
        env_params=env_params,
        key=jax.random.key(seed),
        state=jax.jit(learner.init)(jax.random.key(seed)),
    )
    return {"jax": jax.__version__}


def meta_step() -> dict[str, Any]:
    """One meta-step from where the last one ended, timed."""
    kept["key"], key = jax.random.split(kept["key"])
    start = time.perf_counter()
    kept["state"], _ = jax.block_until_ready(kept["update"](key, kept["state"], Task(kept["env_params"], None)))
    return {"seconds": time.perf_counter() - start, "peak_megabytes": peak_megabytes()}


if __name__ == "__main__":
    serve({"prepare": prepare, "meta_step": meta_step})
