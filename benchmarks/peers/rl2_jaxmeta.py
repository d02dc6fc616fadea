"""RL^2 by the engine, and the speed of its environment alone."""

import time
from typing import Any

import jax
import jax.numpy as jnp
from recurrent import serve_updates

from jaxmeta.algorithms.registry import make_learner
from jaxmeta.core import tasks
from jaxmeta.core.types import batch_of_tasks, sample_tasks


def build(task_family: str, settings: dict[str, Any], trial: int, window: int):
    """`init(key)`, a training state; `update(key, state)`, which lives one trial of fresh tasks; and the parameters."""
    del trial, window  # a trial is as long as the settings say, and learned from as a whole
    distribution = tasks.make_tasks(task_family)
    learner = make_learner("rl2", distribution, settings)

    def update(key, state):
        task_key, update_key = jax.random.split(key)
        state, info = learner.update(update_key, state, batch_of_tasks(task_key, learner, distribution))
        return state, info.metrics["trial_return"]

    return learner.init, update, learner.meta


def random_actions(task_family: str, envs: int, steps: int, times: int = 5) -> dict[str, Any]:
    """Seconds of stepping environments of as many tasks by random actions, the fastest of several times."""
    distribution = tasks.make_tasks(task_family)
    env = distribution.env

    def one(key, params):
        def step(state, key):
            act_key, step_key = jax.random.split(key)
            action = env.action_space(params).sample(act_key)
            _, state, reward, *_ = env.step(step_key, state, action, params)
            return state, reward

        _, state = env.reset(key, params)
        return jnp.sum(jax.lax.scan(step, state, jax.random.split(key, steps))[1])

    env_params = sample_tasks(jax.random.key(0), distribution, "train", envs)
    keys = jax.random.split(jax.random.key(1), envs)
    every = jax.jit(jax.vmap(one)).lower(keys, env_params).compile()
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        jax.block_until_ready(every(keys, env_params))
        taken.append(time.perf_counter() - start)
    return {"seconds": min(taken)}


if __name__ == "__main__":
    serve_updates(build, random_actions=random_actions)
