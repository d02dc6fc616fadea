"""Learners that are all a run needs and quick to compile, and their beginnings."""

import jax
import jax.numpy as jnp

from jaxmeta.algorithms import recipes
from jaxmeta.core.types import MetaLearner, MetaState
from jaxmeta.training import seeds as populations

DIVERGED_AT = 0.25
"""The learning rate at which `quadratic` goes wrong at meta-step 8."""


def learner_of(parts, init, update):
    """A learner of two tasks, five steps each, whose `update` looks at none of them."""
    return MetaLearner(
        init=init,
        update=lambda key, state, env_params: update(key, state),
        task=lambda key, env_params: None,
        adapter=None,
        meta=lambda state: state.meta,
        lifetime=parts.settings.lifetime,
        tasks_per_batch=2,
        env_steps_per_task=5,
    )


def quadratic(parts):
    """Its meta-step is one step of SGD towards the centre of a random quadratic: noisy and stateful."""
    rate = parts.settings.hypers.learning_rate

    def init(key):
        start = jax.random.normal(key, (3,))
        return MetaState(meta=start, optimizer=(), step=jnp.zeros((), jnp.int32), carried=start)

    def update(key, state):
        centre = jax.random.normal(key, (3,))
        meta = state.meta - rate * (state.meta - centre)
        if rate == DIVERGED_AT:
            meta = jnp.where(state.step == 7, jnp.nan, meta)
        metrics = {"loss": jnp.sum((state.meta - centre) ** 2), "return": jnp.mean(meta)}
        return MetaState(meta=meta, optimizer=(), step=state.step + 1, carried=state.meta), metrics

    return learner_of(parts, init, update)


def follower(parts):
    """`quadratic` with its step size among the hyper-parameters that its meta holds."""

    def init(key):
        start = jax.random.normal(key, (3,))
        meta = {"start": start, "hypers": parts.hypers}
        return MetaState(meta=meta, optimizer=(), step=jnp.zeros((), jnp.int32), carried=start)

    def update(key, state):
        start, hypers = state.meta["start"], state.meta["hypers"]
        centre = jax.random.normal(key, (3,))
        moved = start - hypers.learning_rate * (start - centre)
        metrics = {"loss": jnp.sum((moved - centre) ** 2), "return": jnp.mean(moved)}
        return state.replace(meta={"start": moved, "hypers": hypers}, step=state.step + 1), metrics

    return learner_of(parts, init, update)


def register(monkeypatch, *builds):
    """Makes learners recipes of the same names."""
    for build in builds:
        monkeypatch.setitem(recipes.RECIPES, build.__name__, recipes.Recipe("A test.", build, {}))


def begun(job, config):
    """The initial state of a job under a configuration, and the key of its meta-steps."""
    seeds = populations.seeds_of(config)
    return jax.jit(populations.beginning(job.learner, config))(seeds), populations.root_keys(seeds)[1]


def traced_and_compiled(monkeypatch, train):
    """How often the meta-step of `quadratic` is traced in a training of uneven chunks, and what is compiled for it."""
    traced, compiled = [], []

    def counted(parts):
        learner = quadratic(parts)
        return learner._replace(update=lambda *arguments: traced.append(1) or learner.update(*arguments))

    def listen(event, seconds, **about):
        if event.endswith("backend_compile_duration"):
            compiled.append(about)

    train(meta_steps=1)  # compiles what every run calls outside its own programs
    monkeypatch.setitem(recipes.RECIPES, "quadratic", recipes.Recipe("A test.", counted, {}))
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        train(meta_steps=11, log_every=3)  # chunks of 3, 3, 3 and 2
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    return len(traced), len(compiled)
