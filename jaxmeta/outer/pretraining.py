"""Learning all training tasks at once with one learner: where the baseline `finetune` starts from."""

import jax
import jax.numpy as jnp

from jaxmeta.core import sharding as devices
from jaxmeta.core.config import AdaptationConfig, Config, Count
from jaxmeta.core.rollout import Runner, reset
from jaxmeta.core.types import Key, LearnerState, MetaState, StepInfo, Task
from jaxmeta.outer.batching import each_is_finite, num_tasks
from jaxmeta.outer.meta_gradient import Init, Update


class PretrainingConfig(Config, frozen=True, kw_only=True):
    """The tasks that are learned at once."""

    tasks_per_batch: Count = 20
    """Tasks of a meta-step."""


def pretraining(runner: Runner, lifetime: AdaptationConfig) -> tuple[Init, Update]:
    """One long lifetime of one learner, whose environments belong to different tasks.

    Each update plays one round from a reset in every task of the batch with the same `fast`, lays the tasks'
    environments side by side, and adapts once.

    Args:
      runner: the environment, and an adapter built for `tasks * lifetime.num_envs` environments; its `meta` and `fast`
        must have a field `params`, and it must report `inner_loss`.
      lifetime: environments of each task, and the steps of an update in each; its rounds play no part.

    Returns:
      `init` and `update` of a `MetaLearner`. `meta.params` are the trained parameters; its `fast` is kept in
      the state. The update reports what the adaptation does, `inner_loss` also as `loss`, and `return`, the mean of
      the first episodes that it played while learning, [] float32 each.
    """
    adapter = runner.adapter

    def init(key: Key) -> MetaState:
        init_key, reset_key = jax.random.split(key)
        meta = adapter.init(init_key)
        fast, _ = adapter.reset(reset_key, meta, None)
        return MetaState(meta=meta, optimizer=None, step=jnp.zeros((), jnp.int32), aux_state=fast)

    def update(key: Key, state: MetaState, tasks: Task) -> tuple[MetaState, StepInfo]:
        def play(key: Key, task: Task):
            reset_key, rollout_key = jax.random.split(key)
            env_state, percept = reset(reset_key, runner.env, task.env_params, lifetime.num_envs)
            learner_state = LearnerState(fast=state.aux_state, memory=None, env_state=env_state, percept=percept)
            return runner.rollout(rollout_key, state.meta, task, learner_state, lifetime.rollout_length)[1]

        play_key, adapt_key = jax.random.split(key)
        keys = jax.random.split(play_key, num_tasks(tasks))
        rollouts = jax.vmap(play)(*devices.spread((keys, tasks)))
        # The one learner's replay holds what was done in all tasks, whole on every device.
        rollout = jax.tree.map(_side_by_side, devices.everywhere(rollouts))
        fast, metrics = adapter.adapt(adapt_key, state.meta, state.aux_state, rollout)
        metrics = {**metrics, "loss": metrics["inner_loss"], "return": jnp.mean(rollout.episode_return)}
        state = state.replace(meta=state.meta.replace(params=fast.params), aux_state=fast, step=state.step + 1)
        return state, StepInfo(metrics, each_is_finite(rollouts))

    return init, update


def _side_by_side(leaf: jax.Array) -> jax.Array:
    """[tasks, T, E, ...] to [T, tasks * E, ...]."""
    return jnp.moveaxis(leaf, 0, 1).reshape(leaf.shape[1], -1, *leaf.shape[3:])
