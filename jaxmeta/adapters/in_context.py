"""Learning in context: nothing but the memory changes within a lifetime, so the memory is the learning algorithm.

The network is shown all that a learner perceives (observation, previous action, previous reward, first-step flag) and
its memory lasts from episode to episode; a lifetime's first step clears it.

References: Duan et al. (2016), RL^2; Wang et al. (2016), learning to reinforcement learn.
"""

from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmeta.base import Adapter, Key, Percept, PyTree, Rollout, Spec
from jaxmeta.distributions import ActionDistribution
from jaxmeta.networks import features_of, nothing_seen


def in_context(network: nn.Module, spec: Spec, actions: ActionDistribution) -> Adapter:
    """Builds the adapter.

    Args:
      network: maps (memory, features [F] float32) to (memory, numbers of `actions` [N], value []), and has a method
        `initial_memory()`.
      spec: shapes of observations and actions.
      actions: how numbers become actions.

    Returns:
      An `Adapter` whose meta is the network's parameters and whose fast is None. `act` reports `logits`, the numbers,
      and `value`.
    """

    def features(percept: Percept) -> jax.Array:
        action = percept.previous_action
        if spec.num_actions is not None:
            action = jax.nn.one_hot(action, spec.num_actions)
        parts = [features_of(spec, percept.observation), action, percept.previous_reward, percept.first]
        return jnp.concatenate([jnp.ravel(part).astype(jnp.float32) for part in parts])

    def init(key: Key) -> PyTree:
        no_action = jnp.zeros(spec.action.shape, spec.action.dtype)
        nothing = Percept(nothing_seen(spec), no_action, jnp.zeros(()), jnp.zeros((), bool))
        return network.init(key, network.initial_memory(), features(nothing))

    def begin(key: Key, meta: PyTree, context: PyTree):
        del key, meta, context
        return None, network.initial_memory()

    def act(noise: jax.Array, meta: PyTree, fast: None, memory: PyTree, percept: Percept):
        del fast
        memory, numbers, value = cast(tuple, network.apply(meta, memory, features(percept)))
        return actions.draw(noise, numbers), memory, {"logits": numbers, "value": value}

    def adapt(key: Key, meta: PyTree, fast: None, rollout: Rollout):
        del key, meta, rollout
        return fast, {}

    return Adapter(init, begin, act, act, adapt, actions.noise)
