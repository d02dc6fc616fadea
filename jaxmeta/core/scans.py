"""Loops with the signature of `jax.lax.scan` that keep less for the backward pass."""

import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxmeta.core.types import PyTree

Body = Callable[[PyTree, PyTree], tuple[PyTree, PyTree]]
Scan = Callable[..., tuple[Any, Any]]
"""`scan(body, carry, xs, length=None)`, as `jax.lax.scan`."""


Remat = Literal["none", "steps", "nested"]
"""How much the backward pass of a loop computes anew."""


def scan_of(remat: Remat) -> Scan:
    """The loop that settings ask for: `jax.lax.scan`, `rematerialised` or `nested_scan`."""
    return {"none": jax.lax.scan, "steps": rematerialised, "nested": nested_scan}[remat]


def rematerialised(body: Body, carry: PyTree, xs: PyTree = None, length: int | None = None) -> tuple[PyTree, PyTree]:
    """Keeps the carry of every step and computes the inside of each anew: memory N * carry + step, one more pass.

    A pass is the forward computation of all steps; nothing changes where nothing is differentiated.

    Args:
      body: `body(carry, x)` gives the next carry and what to stack.
      carry: at first.
      xs: leaves [N, ...], or None.
      length: N, static; read off `xs` if not given.

    Returns:
      The last carry, and what `body` gave, stacked: leaves [N, ...]. The same as of `jax.lax.scan`.
    """
    return jax.lax.scan(jax.checkpoint(body, prevent_cse=False), carry, xs, length)


def nested_scan(body: Body, carry: PyTree, xs: PyTree = None, length: int | None = None) -> tuple[PyTree, PyTree]:
    """Keeps the carry once every sqrt(N) steps: memory 2 * sqrt(N) * carry + step, two more passes.

    The steps fall into blocks of floor(sqrt(N)), the last of which may be shorter. Within a block, while its backward
    pass runs, only the carry of every step is kept.

    Args:
      body: `body(carry, x)` gives the next carry and what to stack.
      carry: at first.
      xs: leaves [N, ...], or None where `length` is given.
      length: N, static; read off `xs` if not given.

    Returns:
      The last carry, and what `body` gave, stacked: leaves [N, ...]. The same as of `jax.lax.scan`.

    Reference: Chen et al. (2016), sublinear memory; Griewank and Walther (2000) for the recursion.
    """
    steps = jax.tree.leaves(xs)[0].shape[0] if length is None else length
    block = max(1, math.isqrt(steps))
    whole = steps // block * block

    run = jax.checkpoint(lambda carry, xs, steps: rematerialised(body, carry, xs, steps), static_argnums=2)

    def next_block(carry: PyTree, xs: PyTree):
        return run(carry, xs, block)

    blocks = jax.tree.map(lambda leaf: leaf[:whole].reshape(-1, block, *leaf.shape[1:]), xs)
    carry, ys = jax.lax.scan(next_block, carry, blocks, whole // block)
    ys = jax.tree.map(lambda leaf: leaf.reshape(whole, *leaf.shape[2:]), ys)
    if whole == steps:
        return carry, ys
    carry, rest = run(carry, jax.tree.map(lambda leaf: leaf[whole:], xs), steps - whole)
    return carry, jax.tree.map(lambda *parts: jnp.concatenate(parts), ys, rest)
