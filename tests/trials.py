"""Trials lived by a policy."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta import lifetime as living
from jaxmeta.base import Task, sample_tasks


def trial_returns(tasks, policy, lifetime, number):
    """Total reward of a lifetime, a mean over its environments, in each of `number` test tasks; [number]."""

    def one(key, env_params):
        begin_key, live_key = jax.random.split(key)
        task = Task(env_params, None)
        life = living.begin(begin_key, tasks.env, policy, None, task, lifetime.envs)
        args = (tasks.env, policy, None, task, life, lifetime)
        _, rewards = living.live(live_key, *args, lambda key, lived: jnp.sum(lived.rollout.reward))
        return jnp.sum(rewards) / lifetime.envs

    task_key, life_key = jax.random.split(jax.random.key(0))
    env_params = sample_tasks(task_key, tasks, "test", number)
    return np.asarray(jax.jit(jax.vmap(one))(jax.random.split(life_key, number), env_params))
