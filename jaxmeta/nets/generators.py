"""Networks whose outputs are the parameters of another network, as Flax modules.

What they put out is a change of shared parameters, and zero at first: before anything has been learned, every task gets
the shared ones.

References: Ha, Dai and Le (2017), hypernetworks; Perez et al. (2018), FiLM; Hu et al. (2022), low-rank changes.
"""

import math
from typing import Literal

import flax.linen as nn
import jax

from jaxmeta.core.config import Config, Count
from jaxmeta.core.trees import path_name
from jaxmeta.core.types import Params
from jaxmeta.nets.layers import dense
from jaxmeta.nets.networks import zero_at_first


class GeneratorConfig(Config, frozen=True, kw_only=True):
    """What of a network's parameters is generated."""

    form: Literal["whole", "low_rank", "film"] = "film"
    """The parameters as a `whole`, or, of shared ones, changes of `low_rank`, or a scale and a shift for every unit
    (`film`)."""
    rank: Count = 4
    """Of `low_rank` changes."""


def make_generator(config: GeneratorConfig) -> nn.Module:
    """The module that a configuration describes."""
    return {"whole": Whole(), "low_rank": LowRank(config.rank), "film": Film()}[config.form]


class Whole(nn.Module):
    """Every parameter of its own."""

    @nn.compact
    def __call__(self, summary: jax.Array, shared: Params) -> Params:
        """Maps a summary [W] float32 and shared parameters to parameters of the same shapes."""

        def generate(path, leaf):
            change = zero_at_first(leaf.size, path_name(path))(summary)
            return leaf + change.reshape(leaf.shape)

        return jax.tree_util.tree_map_with_path(generate, shared)


class LowRank(nn.Module):
    """Changes of low rank for matrices, changes of every number for the rest.

    Attributes:
      rank: R of the change of each matrix.
    """

    rank: int

    @nn.compact
    def __call__(self, summary: jax.Array, shared: Params) -> Params:
        """See `Whole`."""

        def generate(path, leaf):
            if leaf.ndim != 2:
                return leaf + zero_at_first(leaf.size, path_name(path))(summary).reshape(leaf.shape)
            rows, columns = leaf.shape
            left = dense(rows * self.rank, name=f"{path_name(path)}_left")(summary).reshape(rows, self.rank)
            right = zero_at_first(self.rank * columns, f"{path_name(path)}_right")(summary).reshape(self.rank, columns)
            return leaf + left @ right / math.sqrt(self.rank)

        return jax.tree_util.tree_map_with_path(generate, shared)


class Film(nn.Module):
    """A scale and a shift for every unit: columns of matrices and biases are scaled, biases shifted."""

    @nn.compact
    def __call__(self, summary: jax.Array, shared: Params) -> Params:
        """See `Whole`."""

        def generate(path, leaf):
            units = leaf.shape[-1]
            scaled = leaf * (1 + zero_at_first(units, f"{path_name(path)}_scale")(summary))
            return scaled if leaf.ndim > 1 else scaled + zero_at_first(units, f"{path_name(path)}_shift")(summary)

        return jax.tree_util.tree_map_with_path(generate, shared)
