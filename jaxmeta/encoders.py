"""Networks that read a set of transitions, in whatever order, as Flax modules."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmeta.base import Spec
from jaxmeta.networks import features_of
from jaxmeta.replay import Replay

ENCODERS = ("mean", "attention")


def elements_of(spec: Spec, replay: Replay) -> tuple[jax.Array, jax.Array]:
    """The transitions of a buffer as numbers, [N, F] float32, and whether each has been written, [N] bool.

    An element is an observation, the action, the reward, whether the episode terminated, and the next observation.
    """
    rounds = replay.rounds
    capacity, steps, envs = rounds.reward.shape
    num_actions = spec.num_actions
    assert num_actions is not None, "Q-learning has discrete actions"

    def one(observation, action, reward, terminated, next_observation):
        parts = [
            features_of(spec, observation),
            jax.nn.one_hot(action, num_actions),
            jnp.stack([reward, terminated.astype(jnp.float32)]),
            features_of(spec, next_observation),
        ]
        return jnp.concatenate(parts)

    def flat(leaf):
        return leaf.reshape(-1, *leaf.shape[3:])

    fields = (rounds.observation, rounds.action, rounds.reward, rounds.terminated, rounds.next_observation)
    elements = jax.vmap(one)(*jax.tree.map(flat, fields))
    written = jnp.repeat(jnp.arange(capacity) < replay.written, steps * envs)
    return elements, written


class SetEncoder(nn.Module):
    """From a set to numbers that do not depend on its order. The empty set is a set too.

    Attributes:
      width: W, units of the hidden layer and numbers that come out.
      pooling: `mean`, or `attention` by learned queries.
      heads: learned queries of `attention`, a divisor of `width`.
    """

    width: int
    pooling: str = "mean"
    heads: int = 4

    @nn.compact
    def __call__(self, elements, present):
        """Maps elements [N, F] float32, of which some are `present` [N] bool, to numbers [W] float32."""
        hidden = nn.relu(nn.Dense(self.width, name="element_0")(elements))
        hidden = nn.relu(nn.Dense(self.width, name="element_1")(hidden))
        if self.pooling == "mean":
            count = jnp.sum(present)
            pooled = jnp.sum(hidden * present[:, None], axis=0) / jnp.maximum(count, 1)
        else:
            pooled = self._attended(hidden, present)
        known = jnp.append(pooled, jnp.any(present))
        return nn.tanh(nn.Dense(self.width, name="summary")(known))

    def _attended(self, hidden, present):
        """What the queries read, [W]; beside the elements they may read nothing at all."""
        hidden = jnp.concatenate([jnp.zeros((1, self.width)), hidden])
        present = jnp.concatenate([jnp.ones(1, bool), present])
        query = self.param("query", nn.initializers.normal(), (self.heads, self.width // self.heads))
        key, value = (
            nn.Dense(self.width, name=name)(hidden).reshape(len(hidden), self.heads, -1) for name in ("key", "value")
        )
        scores = jnp.einsum("hd,nhd->hn", query, key) / jnp.sqrt(query.shape[1])
        weights = jax.nn.softmax(jnp.where(present, scores, -jnp.inf), axis=1)
        return jnp.einsum("hn,nhd->hd", weights, value).reshape(-1)
