"""Trees of arrays."""

import jax
import jax.numpy as jnp
import numpy as np


def drawn(tree, seed=0):
    """A tree of the same shapes, of normal numbers."""
    leaves, structure = jax.tree.flatten(tree)
    rng = np.random.default_rng(seed)
    return jax.tree.unflatten(structure, [jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype) for leaf in leaves])
