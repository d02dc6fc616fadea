"""Learners that are all a run needs and quick to compile, and their beginnings."""

from typing import Annotated

import jax
import jax.numpy as jnp

from jaxmeta.algorithms import registry
from jaxmeta.core.config import TRACED, AgentConfig, AlgorithmConfig
from jaxmeta.core.types import MetaLearner, MetaState, StepInfo, Task
from jaxmeta.rl import hyperparameters
from jaxmeta.training import seeds as multi_seed

DIVERGED_AT = 0.25
"""The learning rate at which `quadratic` goes wrong at meta-step 8."""


class QuadraticConfig(AlgorithmConfig, frozen=True, kw_only=True):
    """Its step size is part of the program."""

    learning_rate: float = 0.1


class FollowerConfig(AlgorithmConfig, frozen=True, kw_only=True):
    """Its step size is among the hyper-parameters that its meta holds."""

    learning_rate: Annotated[float, TRACED] = 0.1


def learner_of(config, init, update):
    """A learner of two tasks, five steps each, whose `update` looks at none of them."""
    return MetaLearner(
        init=init,
        update=lambda key, state, tasks: update(key, state),
        task=lambda key, env_params: Task(None, None),
        adapter=None,
        meta=lambda state: state.meta,
        lifetime=config.adaptation,
        tasks_per_batch=2,
        env_steps_per_task=5,
        config=config,
    )


def quadratic(tasks, config: QuadraticConfig = QuadraticConfig()):
    """Its meta-step is one step of SGD towards the centre of a random quadratic: noisy and stateful."""
    rate = config.learning_rate

    def init(key):
        start = jax.random.normal(key, (3,))
        return MetaState(meta=start, optimizer=(), step=jnp.zeros((), jnp.int32), aux_state=start)

    def update(key, state):
        centre = jax.random.normal(key, (3,))
        meta = state.meta - rate * (state.meta - centre)
        if rate == DIVERGED_AT:
            meta = jnp.where(state.step == 7, jnp.nan, meta)
        metrics = {"loss": jnp.sum((state.meta - centre) ** 2), "return": jnp.mean(meta)}
        return MetaState(meta=meta, optimizer=(), step=state.step + 1, aux_state=state.meta), StepInfo(metrics)

    return learner_of(config, init, update)


def follower(tasks, config: FollowerConfig = FollowerConfig()):
    """`quadratic` with its step size among the hyper-parameters that its meta holds."""

    def init(key):
        start = jax.random.normal(key, (3,))
        meta = {"start": start, "hyperparams": hyperparameters(AgentConfig(), config.learning_rate)}
        return MetaState(meta=meta, optimizer=(), step=jnp.zeros((), jnp.int32), aux_state=start)

    def update(key, state):
        start, hyperparams = state.meta["start"], state.meta["hyperparams"]
        centre = jax.random.normal(key, (3,))
        moved = start - hyperparams.learning_rate * (start - centre)
        metrics = {"loss": jnp.sum((moved - centre) ** 2), "return": jnp.mean(moved)}
        return state.replace(meta={"start": moved, "hyperparams": hyperparams}, step=state.step + 1), StepInfo(metrics)

    return learner_of(config, init, update)


def register(monkeypatch, *makes, **named):
    """Makes learners algorithms of the same names, or of others."""
    own = {make.__name__: make for make in makes} | named
    resolve = registry.pkgutil.resolve_name
    for name in own:
        monkeypatch.setitem(registry.ALGORITHMS, name, name)
    monkeypatch.setattr(registry.pkgutil, "resolve_name", lambda path: own[path] if path in own else resolve(path))


def begun(job, config):
    """The initial state of a job under a configuration, and the key of its meta-steps."""
    seeds = multi_seed.seeds_of(config)
    return jax.jit(multi_seed.make_initial_state(job.learner, config))(seeds), multi_seed.root_keys(seeds)[1]


def traced_and_compiled(monkeypatch, train):
    """How often the meta-step of `quadratic` is traced in a training of uneven chunks, and what is compiled for it."""
    traced, compiled = [], []

    def counted(tasks, config: QuadraticConfig = QuadraticConfig()):
        learner = quadratic(tasks, config)
        return learner._replace(update=lambda *arguments: traced.append(1) or learner.update(*arguments))

    def listen(event, seconds, **about):
        if event.endswith("backend_compile_duration"):
            compiled.append(about)

    train(meta_steps=1)  # compiles what every run calls outside its own programs
    register(monkeypatch, quadratic=counted)
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        train(meta_steps=11, log_every=3)  # chunks of 3, 3, 3 and 2
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    return len(traced), len(compiled)
