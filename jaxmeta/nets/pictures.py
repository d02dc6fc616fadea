"""Encoders of observations that are pictures, [H, W, C]: one convolution, before whatever reads flat features.

A picture is any observation of rank 3; all others are flattened. One layer of 16 filters of 3 x 3 is what DQN has on
MinAtar (Young and Tian, 2019).
"""

from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmeta.core.types import Spec
from jaxmeta.nets.layers import float_dtype

FILTERS, SIDE = 16, 3
Shape = tuple[int, ...]
"""(H, W, C), or () where an observation is no picture."""


def picture_of(spec: Spec) -> Shape:
    """The shape of an observation that is a picture, else ()."""
    leaves = jax.tree.leaves(spec.observation)
    return tuple(leaves[0].shape) if len(leaves) == 1 and len(leaves[0].shape) == 3 else ()


class Convolution(nn.Module):
    """A convolution of stride 1 with zeros around the picture, and ReLU.

    On a CPU it is a matrix product over unfolded patches, since the gradient of XLA's convolution within `lax.scan`
    takes 3.6 times as long there (64 steps of 16 pictures of 10 x 10 x 4); elsewhere it is XLA's. Both are the same
    function of the same parameters, and a program takes the form of the platform that it is compiled for.
    """

    @nn.compact
    def __call__(self, picture: jax.Array) -> jax.Array:
        """Maps [H, W, C] float32 to features [H * W * 16] float32."""
        shape = (SIDE, SIDE, picture.shape[-1], FILTERS)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape, float_dtype())
        bias = self.param("bias", nn.initializers.zeros, (FILTERS,), float_dtype())
        convolved = jax.lax.platform_dependent(picture, kernel, cpu=unfolded, default=convolution)
        return jnp.ravel(nn.relu(cast(jax.Array, convolved) + bias))


def unfolded(picture: jax.Array, kernel: jax.Array) -> jax.Array:
    """A convolution of [H, W, C] with [3, 3, C, N] to [H, W, N], as one matrix product."""
    height, width, channels = picture.shape
    padded = jnp.pad(picture, ((SIDE // 2, SIDE // 2), (SIDE // 2, SIDE // 2), (0, 0)))
    shifts = [padded[y : y + height, x : x + width] for y in range(SIDE) for x in range(SIDE)]
    return jnp.concatenate(shifts, axis=-1) @ kernel.reshape(SIDE * SIDE * channels, -1)


def convolution(picture: jax.Array, kernel: jax.Array) -> jax.Array:
    """The same by XLA's convolution."""
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(picture[None], kernel, (1, 1), "SAME", dimension_numbers=layout)[0]


def encoded(features: jax.Array, picture: Shape, name: str = "picture") -> jax.Array:
    """Flat features of an observation, [D] float32, encoded by a `Convolution` where the observation is a picture.

    To be called in a compact method of a Flax module.
    """
    return Convolution(name=name)(features.reshape(picture)) if picture else features
