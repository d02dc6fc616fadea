"""Networks that read a set of transitions, in whatever order, as Flax modules."""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmeta.core.config import Config, Count
from jaxmeta.core.errors import require
from jaxmeta.nets.layers import dense


class EncoderConfig(Config, frozen=True, kw_only=True):
    """How a set of transitions becomes a summary."""

    pooling: Literal["mean", "attention"] = "mean"
    """`mean`, or `attention` by learned queries."""
    width: Count = 64
    """Units of the layers, and numbers of a summary."""

    def __post_init__(self):
        super().__post_init__()
        divides = self.pooling != "attention" or self.width % SetEncoder.heads == 0
        require(divides, "width", f"be a multiple of {SetEncoder.heads} under pooling 'attention'", self.width)


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
        hidden = nn.relu(dense(self.width, name="element_0")(elements))
        hidden = nn.relu(dense(self.width, name="element_1")(hidden))
        if self.pooling == "mean":
            count = jnp.sum(present)
            pooled = jnp.sum(hidden * present[:, None], axis=0) / jnp.maximum(count, 1)
        else:
            pooled = self._attended(hidden, present)
        known = jnp.append(pooled, jnp.any(present))
        return nn.tanh(dense(self.width, name="summary")(known))

    def _attended(self, hidden, present):
        """What the queries read, [W]; beside the elements they may read nothing at all."""
        hidden = jnp.concatenate([jnp.zeros((1, self.width)), hidden])
        present = jnp.concatenate([jnp.ones(1, bool), present])
        query = self.param("query", nn.initializers.normal(), (self.heads, self.width // self.heads))
        key, value = (
            dense(self.width, name=name)(hidden).reshape(len(hidden), self.heads, -1) for name in ("key", "value")
        )
        scores = jnp.einsum("hd,nhd->hn", query, key) / jnp.sqrt(query.shape[1])
        weights = jax.nn.softmax(jnp.where(present, scores, -jnp.inf), axis=1)
        return jnp.einsum("hn,nhd->hd", weights, value).reshape(-1)
