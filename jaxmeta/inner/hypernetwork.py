"""Data in, Q-parameters out: an encoder reads the transitions of a task, a generator puts out its network."""

import flax.linen as nn
import jax
from flax import struct

from jaxmeta.core.types import Key, Params, PyTree, Spec
from jaxmeta.inner.generated import Source
from jaxmeta.inner.gradient import Initialisation
from jaxmeta.nets.encoders import SetEncoder
from jaxmeta.rl.replay import Replay, elements_of


class Hypernetwork(struct.PyTreeNode):
    """The `meta`: what generates, and what is changed by it."""

    encoder: PyTree
    """Weights of the set encoder."""
    generator: PyTree
    """Weights of what makes parameters of its summary."""
    start: Initialisation
    """Shared parameters, and the learner's hyper-parameters."""


def hypernetwork(spec: Spec, encoder: SetEncoder, generator: nn.Module) -> Source:
    """Generates from transitions alone; nothing else of a task is read.

    Args:
      spec: shapes of observations and actions.
      encoder: reads the transitions.
      generator: maps the encoder's summary and the shared parameters of the network to those of a task.
    """

    def init(key: Key, start: Initialisation, empty: Replay) -> Hypernetwork:
        encoder_key, generator_key = jax.random.split(key)
        elements = elements_of(spec, empty)
        weights = encoder.init(encoder_key, *elements)
        summary = encoder.apply(weights, *elements)
        return Hypernetwork(weights, generator.init(generator_key, summary, start.params["network"]), start)

    def generate(meta: Hypernetwork, context: PyTree, buffer: Replay) -> Params:
        del context
        summary = encoder.apply(meta.encoder, *elements_of(spec, buffer))
        network = generator.apply(meta.generator, summary, meta.start.params["network"])
        return {**meta.start.params, "network": network}

    return Source(init, generate)
