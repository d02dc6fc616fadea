"""Learners with generated parameters: from the task's context, or from the transitions so far.

    params = generate(context, transitions so far)

as a lifetime starts and, if `regenerate` says so, after rounds of it. Gradient steps may follow from the generated
parameters. The algorithm supplies the generator: a hypernetwork, or a map from the parameters of other tasks.

References: Ha, Dai and Le (2017), hypernetworks; Zaheer et al. (2017), sets; Beck et al. (2022), hypernetworks in
meta-reinforcement learning.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from jaxmeta.core.types import Adapter, Key, Params, Percept, PyTree, Rollout
from jaxmeta.inner.gradient import Initialisation, InnerState, after_round
from jaxmeta.rl.replay import Replay, add


class Generating(Protocol):
    """The `meta`: what generates, and a learner's start."""

    @property
    def start(self) -> Initialisation:
        """Shared parameters, and the learner's hyper-parameters."""
        ...


class Source(NamedTuple):
    """Where parameters come from."""

    init: Callable[[Key, Initialisation, Replay], Generating]
    """`init(key, start, replay)`: the meta-parameters, for an empty replay of this shape."""
    generate: Callable[[Any, PyTree, Replay], Params]
    """`generate(meta, context, replay)`: an agent's parameters. After the start of a lifetime `context` is None."""


def generated(learner: Adapter, source: Source, renewed: str, steps: bool) -> Adapter:
    """Builds the adapter.

    Args:
      learner: made by `gradient_steps` over an agent that learns from a replay.
      source: generates the parameters of a lifetime.
      renewed: after which rounds parameters are generated anew: `never`, the `first` alone, or `every`.
      steps: let the learner take its gradient steps, from what was generated.

    Returns:
      An `Adapter` with the meta of `source` and fast `InnerState`.
    """

    def acting_by(fast: InnerState, params: Params) -> InnerState:
        # Targets are data: what generates them is not taught to make them easy.
        return fast.replace(params=params, target_params=jax.lax.stop_gradient(params))

    def init(key: Key) -> Generating:
        start_key, reset_key, source_key = jax.random.split(key, 3)
        start = learner.init(start_key)
        fast, _ = learner.reset(reset_key, start, None)
        return source.init(source_key, start, fast.replay)

    def reset(key: Key, meta: Generating, context: PyTree):
        fast, memory = learner.reset(key, meta.start, context)
        return acting_by(fast, source.generate(meta, context, fast.replay)), memory

    def act(noise: PyTree, meta: Generating, fast: InnerState, memory: PyTree, percept: Percept):
        return learner.act(noise, meta.start, fast, memory, percept)

    def eval_policy(noise: PyTree, meta: Generating, fast: InnerState, memory: PyTree, percept: Percept):
        return learner.eval_policy(noise, meta.start, fast, memory, percept)

    def adapt(key: Key, meta: Generating, fast: InnerState, rollout: Rollout):
        assert fast.replay is not None, "an agent without a replay"
        buffer = add(fast.replay, rollout)
        if renewed != "never":
            new = acting_by(fast, source.generate(meta, None, buffer))
            if renewed == "first":
                is_first = fast.replay.written == 0
                new = jax.tree.map(lambda new, old: jnp.where(is_first, new, old), new, fast)
            fast = new
        if steps:
            return learner.adapt(key, meta.start, fast, rollout)
        return fast.replace(replay=buffer, hyperparams=after_round(fast.hyperparams)), {}

    return Adapter(init, reset, act, eval_policy, adapt, learner.noise)
