"""Q-networks of known tasks, and what is learned from all of them, updated in turns.

A meta-step runs every source for one round, puts its parameters into the bank, and then descends, for some steps,
on the error of generating each source's parameters from those of the others. Where the task embedding is inferred from
transitions, a fresh learner collects a first round in each source's task too, since an experienced source visits other
states than a fresh learner in a new task.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxmeta.core import sharding as devices
from jaxmeta.core.config import AdaptationConfig
from jaxmeta.core.rollout import Round, Runner
from jaxmeta.core.types import (
    Adapter,
    Key,
    LearnerState,
    MetaState,
    Metrics,
    PyTree,
    Rollout,
    StepInfo,
    Task,
)
from jaxmeta.outer.batching import each_is_finite
from jaxmeta.outer.meta_gradient import Init, Update
from jaxmeta.outer.optimizer import take_step
from jaxmeta.rl.replay import add

BankLoss = Callable[[Key, PyTree, PyTree], tuple[jax.Array, Metrics]]
"""`loss(key, meta, sources)`: a scalar to minimise in `meta.weights`; `sources` are the sources' `fast`, [S, ...]."""


class SourceBank(NamedTuple):
    """What sources are, and what is learned from them."""

    draw: Callable[[Key], PyTree]
    """`draw(key)`: their tasks, leaves [S, ...]."""
    bank_of: Callable[[PyTree, PyTree, PyTree], PyTree]
    """`bank_of(bank, fast, env_params)`: the bank with what they have become, leaves [S, ...]."""
    loss: BankLoss
    """Of the weights."""


class Sources(struct.PyTreeNode):
    """The tasks of a bank, and the learners in them. Leaves [S, ...]."""

    env_params: PyTree
    learner_states: LearnerState


def transfer_between_tasks(
    runner: Runner,
    learner: Adapter,
    bank: SourceBank,
    optimizer: optax.GradientTransformation,
    steps: int,
    lifetime: AdaptationConfig,
) -> tuple[Init, Update]:
    """Trains sources, and a map between them.

    Args:
      runner: the environment, and the adapter of a new task; its meta has `weights`, `bank` and `start`. If the bank
        has a replay, what newcomers see is kept there.
      learner: how the sources adapt, from one shared initialisation.
      bank: their tasks, what is kept of them, and the loss of the weights.
      optimizer: of the weights.
      steps: of the optimizer in a meta-step.
      lifetime: of a source in a meta-step, one round.
    """
    of_sources = Runner(runner.env, learner)

    def tasks_of(env_params: PyTree) -> Task:
        return Task(env_params, None)

    def observe(key: Key, round_: Round) -> Metrics:
        """What the sources learn, and the return of an episode while they explore."""
        del key
        return {**round_.metrics, "return": jnp.mean(round_.rollout.episode_return)}

    def newcomer(key: Key, meta: PyTree, env_params: PyTree) -> Rollout:
        """The first rollout of a new lifetime."""
        reset_key, rollout_key = jax.random.split(key)
        task = tasks_of(env_params)
        learner_state = runner.reset(reset_key, meta, task, lifetime.num_envs)
        return runner.rollout(rollout_key, meta, task, learner_state, lifetime.rollout_length)[1]

    def init(key: Key) -> MetaState:
        init_key, draw_key, reset_key = jax.random.split(key, 3)
        meta = runner.adapter.init(init_key)
        env_params = bank.draw(draw_key)
        keys = jax.random.split(reset_key, jax.tree.leaves(env_params)[0].shape[0])

        def reset(key, env_params):
            return of_sources.reset(key, meta.start, tasks_of(env_params), lifetime.num_envs)

        learner_states = jax.vmap(reset)(keys, env_params)
        return MetaState(
            meta=meta.replace(bank=bank.bank_of(meta.bank, learner_states.fast, env_params)),
            optimizer=optimizer.init(meta.weights),
            step=jnp.zeros((), jnp.int32),
            aux_state=_spread(Sources(env_params, learner_states)),
        )

    def update(key: Key, state: MetaState, tasks: Task) -> tuple[MetaState, StepInfo]:
        del tasks
        adapt_key, newcomer_key, loss_key = jax.random.split(key, 3)
        sources: Sources = state.aux_state
        meta = state.meta

        def adapt(key, env_params, learner_state):
            return of_sources.adapt_for(key, meta.start, tasks_of(env_params), learner_state, lifetime, observe)

        count = jax.tree.leaves(sources.env_params)[0].shape[0]
        keys = jax.random.split(adapt_key, count)
        learner_states, learned = jax.vmap(adapt)(*_spread((keys, sources.env_params, sources.learner_states)))
        # Every target attends to all of the bank, so that each device needs it whole.
        known = devices.everywhere(bank.bank_of(meta.bank, learner_states.fast, sources.env_params))
        if known.replay is not None:
            keys = jax.random.split(newcomer_key, count)
            seen = jax.vmap(newcomer, (0, None, 0))(keys, meta, sources.env_params)
            known = known.replace(replay=jax.vmap(add)(known.replay, seen))
        meta = meta.replace(bank=known)

        def step(carry, key):
            weights, optimizer_state = carry

            def value_of(weights):
                return bank.loss(key, meta.replace(weights=weights), learner_states.fast)

            (value, metrics), gradient = jax.value_and_grad(value_of, has_aux=True)(weights)
            weights, optimizer_state, norm = take_step(optimizer, gradient, optimizer_state, weights)
            return (weights, optimizer_state), {**metrics, **norm, "loss": value}

        start = (meta.weights, state.optimizer)
        (weights, optimizer_state), metrics = jax.lax.scan(step, start, jax.random.split(loss_key, steps))
        metrics = jax.tree.map(jnp.mean, {**learned, **metrics})
        state = state.replace(
            meta=meta.replace(weights=weights),
            optimizer=optimizer_state,
            step=state.step + 1,
            aux_state=_spread(Sources(sources.env_params, learner_states)),
        )
        return state, StepInfo(metrics, each_is_finite(learner_states.fast))

    return init, update


def _spread(tree: PyTree) -> PyTree:
    """Leaves [S, ...] over the devices, where sources divide evenly."""
    count = jax.tree.leaves(tree)[0].shape[0]
    return devices.spread(tree) if count % devices.in_use() == 0 else devices.everywhere(tree)
