"""The adapter that acts at random and learns nothing: the zero of every score."""

import jax
import jax.numpy as jnp

from jaxmeta.base import Adapter, Spec
from jaxmeta.errors import UsageError


def random_policy(spec: Spec) -> Adapter:
    """Draws actions uniformly from a discrete space; meta, fast and memory are None.

    Raises:
      UsageError: actions are continuous.
    """
    num_actions = spec.num_actions
    if num_actions is None:
        raise UsageError("random_policy must be given discrete actions, got continuous ones.")

    def act(key, meta, fast, memory, percept):
        del meta, fast, percept
        action = jax.random.randint(key, spec.action.shape, 0, num_actions, spec.action.dtype)
        return action, memory, {"logits": jnp.zeros(num_actions)}

    return Adapter(
        init=lambda key: None,
        begin=lambda key, meta, context: (None, None),
        act=act,
        exploit=act,
        adapt=lambda key, meta, fast, rollout: (fast, {}),
    )
