"""Flax's layers with parameters in the precision that JAX is set to, where Flax's own are always single."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


def float_dtype() -> Any:
    """float32, or float64 where JAX is set to double precision."""
    return jax.dtypes.canonicalize_dtype(jnp.float64)


def dense(features: int, **options: Any) -> nn.Dense:
    """A linear layer."""
    return nn.Dense(features, param_dtype=float_dtype(), **options)


def layer_norm(name: str) -> nn.LayerNorm:
    """Layer normalisation."""
    return nn.LayerNorm(name=name, param_dtype=float_dtype())
