"""MAML and its kin, and the baselines that learn by gradient steps without having learned to learn."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from jaxmeta import outer
from jaxmeta.algorithms.composition import Parts, compose, learner_by_gradient, learner_of, no_context
from jaxmeta.core.config import LifetimeConfig
from jaxmeta.core.errors import require
from jaxmeta.core.rollout import Runner
from jaxmeta.core.types import MetaLearner, MetaState
from jaxmeta.inner.gradient import gradient_steps
from jaxmeta.inner.optimizers import BY_HAND, learned_step_sizes


def trained_by(rule: Callable, **options: Any) -> Callable[[Parts], MetaLearner]:
    """A gradient-based method: an outer rule, and what sets its adapter apart."""

    def build(parts: Parts) -> MetaLearner:
        return compose(parts, learner_by_gradient(parts, **options), rule)

    return build


def meta_sgd(parts: Parts) -> MetaLearner:
    """The start is learned, and with it a step size for every parameter."""
    rule = learned_step_sizes(parts.settings.hypers.learning_rate)
    return compose(parts, learner_by_gradient(parts, rule=rule))


def reptile(parts: Parts) -> MetaLearner:
    """Reptile has no gradient that a second life could be the baseline of."""
    lives = parts.settings.outer.lives_per_task
    require(lives == 1, "lives_per_task", "be 1 for reptile, which does not learn to explore", lives)
    return trained_by(outer.reptile)(parts)


def scratch(parts: Parts) -> MetaLearner:
    """Nothing is learned across tasks: every lifetime starts from fresh parameters."""
    settings = parts.settings
    rule = BY_HAND[settings.inner.inner_optimizer]
    adapter = gradient_steps(
        parts.agent, parts.spec, settings.lifetime, settings.inner, parts.hypers, rule=rule, fresh=True
    )

    def init(key):
        return MetaState(meta=adapter.init(key), optimizer=None, step=jnp.zeros((), jnp.int32), carried=None)

    def update(key, state, env_params):
        del key, env_params
        nothing = jnp.zeros(())
        return state.replace(step=state.step + 1), {"loss": nothing, "return": nothing}

    return learner_of(parts, adapter, init, update, env_steps_per_task=0)


def finetune(parts: Parts) -> MetaLearner:
    """One learner trained on all tasks at once, then adapted as it stands."""
    tasks, spec, settings, agent, hypers = parts.tasks, parts.spec, parts.settings, parts.agent, parts.hypers
    lifetime, batch = settings.lifetime, settings.outer.tasks_per_batch
    wide = LifetimeConfig(envs=lifetime.envs * batch, steps=lifetime.steps, rounds=lifetime.rounds)
    rule = BY_HAND[settings.inner.inner_optimizer]
    learner = gradient_steps(agent, spec, wide, settings.inner, hypers, rule=rule)
    init, update = outer.pretraining(Runner(tasks.env, learner), no_context, lifetime)
    adapter = gradient_steps(agent, spec, lifetime, settings.inner, hypers, rule=rule)
    return learner_of(parts, adapter, init, update, lifetime.envs * lifetime.steps)
