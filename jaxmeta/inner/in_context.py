"""Learning in context: nothing but the memory changes within a lifetime, so the memory is the learning algorithm.

The network is shown all that a learner perceives (observation, previous action, previous reward, first-step flag) and
the observation before, so that what it sees of a reward is the whole transition that led to it. Its memory lasts from
episode to episode; a lifetime's first step clears it.

References: Duan et al. (2016), RL^2; Wang et al. (2016), learning to reinforcement learn.
"""

from typing import cast

import jax
import jax.numpy as jnp

from jaxmeta.core.types import Adapter, Key, Percept, PyTree, Spec
from jaxmeta.nets.memories import Memory
from jaxmeta.nets.networks import features_of, nothing_seen
from jaxmeta.rl.distributions import ActionDistribution


def in_context(network: Memory, spec: Spec, actions: ActionDistribution) -> Adapter:
    """Builds the adapter.

    Args:
      network: puts out the numbers of `actions`.
      spec: shapes of observations and actions.
      actions: how numbers become actions.

    Returns:
      An `Adapter` whose meta is the network's parameters and whose fast is None. `act` reports `logits`, the numbers,
      and `value`.
    """

    def seen(percept: Percept) -> jax.Array:
        return features_of(spec, percept.observation)

    def features(before: jax.Array, percept: Percept) -> jax.Array:
        action = percept.previous_action
        if spec.num_actions is not None:
            action = jax.nn.one_hot(action, spec.num_actions)
        parts = [before, action, percept.previous_reward, percept.first, seen(percept)]
        return jnp.concatenate([jnp.ravel(part).astype(jnp.float32) for part in parts])

    def nothing_before() -> jax.Array:
        return jnp.zeros_like(features_of(spec, nothing_seen(spec)))

    def init(key: Key) -> PyTree:
        no_action = jnp.zeros(spec.action.shape, spec.action.dtype)
        nothing = Percept(nothing_seen(spec), no_action, jnp.zeros(()), jnp.zeros((), bool))
        return network.initial_parameters(key, features(nothing_before(), nothing))

    def reset(key: Key, meta: PyTree, context: PyTree):
        del key, meta, context
        return None, (nothing_before(), network.initial_memory())

    def act(noise: jax.Array, meta: PyTree, fast: None, memory: PyTree, percept: Percept):
        del fast
        before, remembered = memory
        remembered, numbers, value = cast(tuple, network.apply(meta, remembered, features(before, percept)))
        return actions.draw(noise, numbers), (seen(percept), remembered), {"logits": numbers, "value": value}

    def unroll(meta: PyTree, fast: None, memory: PyTree, percepts: Percept):
        del fast
        before, remembered = memory
        befores = jnp.concatenate([before[None], jax.vmap(seen)(percepts)[:-1]])
        shown = jax.vmap(features)(befores, percepts)
        _, numbers, values = cast(tuple, network.apply(meta, remembered, shown, method="unroll"))
        return {"logits": numbers, "value": values}

    return Adapter(init, reset, act, act, noise=actions.noise, unroll=unroll)
