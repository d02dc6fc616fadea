"""Methods that give a new task a Q-network before it has learned anything."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from msgspec.structs import replace

from jaxmeta.algorithms.composition import (
    Parts,
    compose,
    learner_by_gradient,
    learner_of,
    posing,
    size_of_description,
)
from jaxmeta.algorithms.settings import Settings
from jaxmeta.core.errors import require
from jaxmeta.core.rollout import Runner
from jaxmeta.core.types import Key, MetaLearner, PyTree
from jaxmeta.inner import generated
from jaxmeta.inner import hypernetwork as hypernetworks
from jaxmeta.inner import mapping as mappings
from jaxmeta.inner import parameter_maps as maps
from jaxmeta.inner.gradient import gradient_steps
from jaxmeta.inner.optimizers import BY_HAND
from jaxmeta.nets import generators
from jaxmeta.nets.encoders import SetEncoder
from jaxmeta.outer.optimizer import outer_optimizer
from jaxmeta.outer.transfer import carrying


def encoder_of(settings: Settings) -> SetEncoder:
    """What reads the transitions of a task."""
    config = settings.hypernetwork
    divides = config.encoder != "attention" or config.encoder_width % SetEncoder.heads == 0
    rule = f"be a multiple of {SetEncoder.heads} under encoder 'attention'"
    require(divides, "encoder_width", rule, config.encoder_width)
    return SetEncoder(config.encoder_width, config.encoder)


def hypernetwork(parts: Parts) -> MetaLearner:
    """Trained through what it generates; fine-tuning, where there is any, is differentiated too."""
    config, agent = parts.settings.hypernetwork, parts.settings.agent
    rule = "have action values for hypernetwork, which puts out a Q-network"
    require(not parts.agent.on_policy, "agent", rule, agent.agent)
    forms: dict[str, nn.Module] = {
        "whole": generators.Whole(),
        "low_rank": generators.LowRank(config.rank),
        "film": generators.Film(),
    }
    source = hypernetworks.hypernetwork(parts.spec, encoder_of(parts.settings), forms[config.generated])
    learner = learner_by_gradient(parts, slow_targets=True)
    return compose(parts, generated(learner, source, config.renewed, config.fine_tuned))


def mapping(parts: Parts) -> MetaLearner:
    """Sources live on beside the map, from one start; a new task's learner starts from what is carried to it."""
    tasks, spec, settings, agent, hypers = parts.tasks, parts.spec, parts.settings, parts.agent, parts.hypers
    config, inner, lifetime = settings.mapping, settings.inner, settings.lifetime
    rule = "have action values for mapping, which carries a Q-network"
    require(not agent.on_policy, "agent", rule, settings.agent.agent)
    described = config.representation == "described"
    size = size_of_description(tasks)
    rule = f"be 'inferred' for {tasks.name}, whose tasks have no description"
    require(not described or size > 0, "representation", rule, config.representation)
    forms: dict[str, nn.Module] = {
        "full": maps.Full(config.map_width),
        "diagonal": maps.Diagonal(config.map_width),
        "kronecker": maps.Kronecker(config.map_width),
        "low_rank": maps.LowRank(config.map_width, config.map_rank),
        "identity": maps.Identity(),
    }
    encoder = None if described else encoder_of(settings)
    carrier = mappings.mapping(
        spec, forms[config.map_form], config.reads, config.sources, size, encoder, config.map_width
    )
    learner = gradient_steps(agent, spec, lifetime, inner, hypers, rule=BY_HAND[inner.inner_optimizer])
    adapter = generated(learner, carrier.source, "never" if described else settings.hypernetwork.renewed, steps=True)

    one_round = replace(lifetime, rounds=1)
    teaching = replace(inner, inner_steps=config.source_steps, replay_rounds=config.source_replay_rounds)
    taught = hypers.replace(
        learning_rate=jnp.float32(config.source_learning_rate),
        epsilon=jnp.float32(config.source_epsilon),
        epsilon_decay=jnp.float32(1.0),
    )
    source = gradient_steps(agent, spec, one_round, teaching, hypers, rule=BY_HAND["adam"])

    def begin(key: Key, start: PyTree, context: PyTree):
        return source.begin(key, start.replace(hypers=taught), context)

    init, update = carrying(
        Runner(tasks.env, adapter),
        source._replace(begin=begin),
        mappings.bank_loss(carrier, agent, config, inner, hypers),
        lambda bank, fast, env_params: mappings.bank_of(bank, fast, jax.vmap(tasks.describe)(env_params)),
        lambda key: mappings.drawn_apart(key, tasks, config.sources, described),
        outer_optimizer(settings.outer, config.map_steps),
        config.map_steps,
        one_round,
    )
    lives = config.sources if described else 2 * config.sources
    env_steps, pose = lifetime.envs * lifetime.steps * lives, posing(tasks, described)
    # A bank's tasks are drawn once, and those of a batch are not lived in.
    return learner_of(parts, adapter, init, update, env_steps, pose, tasks_per_batch=1)
