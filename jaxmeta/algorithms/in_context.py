"""Policies whose memory does the learning."""

import math
from collections.abc import Callable

import optax
from msgspec.structs import replace

from jaxmeta import inner as adapters
from jaxmeta import outer
from jaxmeta.algorithms.composition import Parts, learner_of, no_context, require_minibatches
from jaxmeta.algorithms.settings import Settings
from jaxmeta.core.config import LifetimeConfig
from jaxmeta.core.errors import require
from jaxmeta.core.rollout import Runner
from jaxmeta.core.types import MetaLearner
from jaxmeta.nets.memories import Attentive, ContentAddressed, Memory, Recurrent
from jaxmeta.outer.optimizer import outer_optimizer
from jaxmeta.rl import distributions


def trained_in_context(network_of: Callable[[Settings, int], Memory]) -> Callable[[Parts], MetaLearner]:
    """A policy with a memory, trained on whole trials; `network_of(settings, outputs)` has the memory."""

    def build(parts: Parts) -> MetaLearner:
        tasks, spec, settings = parts.tasks, parts.spec, parts.settings
        trial, config = _trial(settings), settings.proximal
        require_minibatches(settings.outer, config)
        actions = distributions.of_actions(spec)
        adapter = adapters.in_context(network_of(settings, actions.size), spec, actions)
        discount = settings.hypers.discount
        optimizer = outer_optimizer(settings.outer, config.epochs * config.minibatches)
        entropy = optax.linear_schedule(
            settings.outer.entropy, settings.outer.entropy * config.entropy_left, settings.outer.meta_steps
        )
        init, update = outer.policy_optimisation(
            Runner(tasks.env, adapter),
            actions,
            no_context,
            optimizer,
            trial,
            trial.rounds * math.ceil(trial.steps / tasks.horizon),
            config,
            settings.policy,
            discount,
            entropy,
        )
        return learner_of(parts, adapter, init, update, trial.rounds * trial.envs * trial.steps)

    return build


def _trial(settings: Settings) -> LifetimeConfig:
    """What a memory is trained on: a lifetime, or more rounds than that."""
    lifetime, rounds = settings.lifetime, settings.memory.trial_rounds
    rule = f"be 0 or at least rounds = {lifetime.rounds}, which a lifetime has"
    require(rounds == 0 or rounds >= lifetime.rounds, "trial_rounds", rule, rounds)
    return replace(lifetime, rounds=rounds or lifetime.rounds)


def _steps_of_trial(settings: Settings) -> int:
    trial = _trial(settings)
    return trial.rounds * trial.steps


def _span(settings: Settings) -> int:
    return settings.memory.span or _steps_of_trial(settings)


def recurrent(settings: Settings, outputs: int) -> Memory:
    """The memory of RL^2."""
    memory = settings.memory
    return Recurrent(outputs, memory.cell, memory.memory_width, memory.reading, _span(settings))


def content_addressed(settings: Settings, outputs: int) -> Memory:
    """The memory of MANN."""
    memory = settings.memory
    require(memory.slots >= memory.heads, "slots", f"be at least heads = {memory.heads}, a read each", memory.slots)
    return ContentAddressed(outputs, memory.memory_width, memory.slots, memory.word, memory.heads, _span(settings))


def attentive(settings: Settings, outputs: int) -> Memory:
    """The memory of SNAIL."""
    memory, trial = settings.memory, _steps_of_trial(settings)
    context = memory.context or trial
    require(context >= trial, "context", f"be at least {trial}, the steps of a trial", context)
    divides = memory.memory_width % memory.heads == 0
    require(divides, "heads", f"divide memory_width = {memory.memory_width}", memory.heads)
    # After a lifetime, what it led to is asked for in a round more.
    asked = (settings.lifetime.rounds + 1) * settings.lifetime.steps
    return Attentive(outputs, memory.memory_width, memory.attention_layers, memory.heads, max(context, asked))
