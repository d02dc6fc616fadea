"""Parameter trees: arithmetic that stays differentiable where optax's does not, and names."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxmeta.core.types import PyTree


def scale_down(tree: PyTree, max_norm: float) -> PyTree:
    """Scales a tree down to a global norm, if it is longer.

    Unlike `optax.clip_by_global_norm` it has a finite derivative where the tree is zero.

    Args:
      tree: leaves of any shape, float.
      max_norm: static; 0 leaves the tree as it is.

    >>> scale_down(jnp.array([3.0, 4.0]), 1.0).round(3).tolist()
    [0.6000000238418579, 0.800000011920929]
    """
    if max_norm == 0:
        return tree
    squared = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree))
    scale = max_norm / jnp.sqrt(jnp.maximum(squared, max_norm**2))
    return jax.tree.map(lambda leaf: scale * leaf, tree)


def path_name(path: tuple) -> str:
    """The place of a leaf in a tree of dicts, as one word."""
    return "_".join(str(entry.key) for entry in path)


def is_finite(tree: PyTree) -> jax.Array:
    """Whether every number of a tree is finite, [] bool; leaves that are not floating-point are.

    >>> bool(is_finite({"a": jnp.ones(2), "b": jnp.array(3)})), bool(is_finite([jnp.array([0.0, jnp.nan])]))
    (True, False)
    """
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))


def by_path(tree: PyTree) -> dict[str, Any]:
    """Its leaves by their path, written as text."""
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def strongly_typed(tree: PyTree) -> PyTree:
    """The same arrays without weak types, which would make the second call of a program another one than the first."""
    return jax.tree.map(lambda x: jnp.asarray(x, x.dtype) if getattr(x, "weak_type", False) else x, tree)
