"""Linear maps of a network's parameters, W theta, whose matrix is put out by a network, as Flax modules.

All of them start at the identity: an untrained map copies. They differ in what
of the matrix they can set: everything (`Full`), a factor for every parameter (`Diagonal`), a left and a right factor of
every layer's matrix (`Kronecker`), or something of low rank beside the identity (`LowRank`).
"""

import math
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from jaxmeta.core.config import Config, Count
from jaxmeta.core.errors import UsageError
from jaxmeta.core.trees import path_name
from jaxmeta.core.types import Params
from jaxmeta.nets.layers import dense
from jaxmeta.nets.networks import zero_at_first

LARGEST = 2**30
"""Bytes that the weights of a `Full` map may take."""


class MapConfig(Config, frozen=True, kw_only=True):
    """What a map of parameters can set."""

    form: Literal["full", "diagonal", "kronecker", "low_rank", "identity"] = "kronecker"
    """`full`, `diagonal`, `kronecker`, `low_rank`, or `identity`, a copy, with nothing to learn."""
    width: Count = 32
    """Units of the hidden layer of what puts out the map, and numbers that attention compares."""
    rank: Count = 4
    """Of `low_rank` maps."""


def make_map(config: MapConfig) -> nn.Module:
    """The module that a configuration describes."""
    width = config.width
    forms: dict[str, nn.Module] = {
        "full": Full(width),
        "diagonal": Diagonal(width),
        "kronecker": Kronecker(width),
        "low_rank": LowRank(width, config.rank),
        "identity": Identity(),
    }
    return forms[config.form]


class Identity(nn.Module):
    """A copy."""

    @nn.compact
    def __call__(self, pair: jax.Array, params: Params) -> Params:
        """Maps the representations of target and source, [2 D] float32, and the source's parameters to the target's."""
        del pair
        return params


class Full(nn.Module):
    """A literal matrix over all parameters, [P, P], for tables and small networks.

    Attributes:
      width: units of the hidden layer.

    Raises (when it meets parameters):
      UsageError: its weights would not fit in memory.
    """

    width: int

    @nn.compact
    def __call__(self, pair: jax.Array, params: Params) -> Params:
        """See `Identity`."""
        vector, unravel = ravel_pytree(params)
        size = 4 * (self.width + 1) * vector.size**2
        if size > LARGEST:
            rule = f"be another than 'full' for {vector.size:,} parameters, whose map would have weights of"
            raise UsageError("map.form", f"{rule} {size / 1e9:.1f} GB", "full")
        change = zero_at_first(vector.size**2, "matrix")(_hidden(self.width, pair))
        return unravel(vector + change.reshape(vector.size, vector.size) @ vector)


class Diagonal(nn.Module):
    """A factor for every parameter.

    Attributes:
      width: units of the hidden layer.
    """

    width: int

    @nn.compact
    def __call__(self, pair: jax.Array, params: Params) -> Params:
        """See `Identity`."""
        vector, unravel = ravel_pytree(params)
        return unravel(vector * (1 + zero_at_first(vector.size, "diagonal")(_hidden(self.width, pair))))


class Kronecker(nn.Module):
    """A left and a right factor for every layer: of a matrix K it makes L K R, of a bias b it makes b R.

    As a matrix over K's entries, row by row, that is the Kronecker product of L and the transpose of R.

    Attributes:
      width: units of the hidden layer.
    """

    width: int

    @nn.compact
    def __call__(self, pair: jax.Array, params: Params) -> Params:
        """See `Identity`."""
        hidden = _hidden(self.width, pair)

        def factor(size: int, name: str) -> jax.Array:
            return jnp.eye(size) + zero_at_first(size * size, name)(hidden).reshape(size, size)

        def carry(path, leaf):
            name = path_name(path)
            right = factor(leaf.shape[-1], f"{name}_right")
            return leaf @ right if leaf.ndim == 1 else factor(leaf.shape[0], f"{name}_left") @ leaf @ right

        return jax.tree_util.tree_map_with_path(carry, params)


class LowRank(nn.Module):
    """The identity plus something of low rank, for every matrix and every bias: theta + U (V' theta).

    Attributes:
      width: units of the hidden layer.
      rank: R, columns of U and V.
    """

    width: int
    rank: int

    @nn.compact
    def __call__(self, pair: jax.Array, params: Params) -> Params:
        """See `Identity`."""
        hidden = _hidden(self.width, pair)

        def carry(path, leaf):
            name = path_name(path)
            vector = leaf.ravel()
            into = dense(vector.size * self.rank, name=f"{name}_in")(hidden).reshape(vector.size, self.rank)
            out = zero_at_first(vector.size * self.rank, f"{name}_out")(hidden).reshape(vector.size, self.rank)
            return (vector + out @ (into.T @ vector) / math.sqrt(vector.size)).reshape(leaf.shape)

        return jax.tree_util.tree_map_with_path(carry, params)


def _hidden(width: int, pair: jax.Array) -> jax.Array:
    return nn.tanh(dense(width, name="hidden")(pair))
