"""Estimators of the gradient of a lifetime's loss in the meta-parameters, stretch by stretch; any may train any method.

A lifetime may be lived in stretches, one a meta-step, and a gradient is estimated from each. What a stretch hands to
the next is data to the next one's derivative, so that back-propagation and evolution strategies see what a stretch
owes to the meta-parameters within it: truncation biases them towards what pays soon. Persistent evolution strategies
do not forget which perturbations led to where a stretch starts, and are free of that bias.

| estimator | sees what epsilon and actions do | biased by | variance |
|---|---|---|---|
| `backpropagation` | no | truncation, and what no gradient passes | low, but explodes along long stretches |
| `evolution_strategies` | yes | truncation, and smoothing | grows with the number of parameters |
| `persistent_evolution_strategies` | yes | smoothing | the same, and with the number of stretches |
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxmeta.core.types import Key, LearnerState, Metrics, Objective, PyTree, Task
from jaxmeta.outer.meta_gradient import MetaGradientConfig

Begin = Callable[[Key, PyTree, Task], LearnerState]
"""`begin(key, meta, task)` starts a lifetime."""
Learned = Callable[[tuple], bool]
"""Whether the leaf of `meta` at a tree path is learned."""


class Estimator(NamedTuple):
    """How a gradient is estimated from the next stretch of one task's lifetime."""

    begin: Callable[[Key, PyTree, Task], PyTree]
    """`begin(key, meta, task)`: what is carried from stretch to stretch, at a lifetime's start."""
    gradient: Callable[[Key, PyTree, Task, PyTree, jax.Array], tuple[PyTree, PyTree, Metrics]]
    """`gradient(key, meta, task, carried, first)`: a tree like `meta`, what is carried on, and metrics. Where `first`,
    [] bool, a new lifetime begins and `carried` is of the one before; where `carried` is None, a lifetime is a single
    stretch."""
    lives: Callable[[bool], int]
    """`lives(whole)`: how many lives of a task a stretch is lived in; `whole` says whether it is the whole lifetime."""


def backpropagation(begin: Begin, objective: Objective) -> Estimator:
    """The derivative of a stretch's loss, with what the stretch starts from held constant: truncated where it is not
    the lifetime's first one, exact for a lifetime of a single stretch.
    """

    def gradient(key: Key, meta: PyTree, task: Task, carried: LearnerState | None, first: jax.Array):
        begin_key, score_key = jax.random.split(key)

        def loss(meta: PyTree):
            life = _begun_if(first, begin(begin_key, meta, task), carried)
            value, life, metrics = objective(score_key, meta, task, life)
            return value, (life, metrics)

        (value, (life, metrics)), gradient = jax.value_and_grad(loss, has_aux=True)(meta)
        return gradient, _kept(life, carried), {"loss": value, **metrics}

    return Estimator(begin, gradient, lives=lambda whole: 1)


def evolution_strategies(
    begin: Begin, objective: Objective, population: int, scale: float, learned: Learned
) -> Estimator:
    """Antithetic evolution strategies: how the loss differs between meta-parameters moved there and back.

    The mean over pairs of noise * (loss(meta + noise) - loss(meta - noise)) / (2 scale**2), noise ~ N(0, scale**2), is
    on average the derivative of the loss smoothed by that noise. Both of a pair meet the same random numbers. A life
    with unperturbed meta-parameters leads from stretch to stretch, and every perturbed one departs from it.

    Args:
      begin: starts a lifetime.
      objective: scores a stretch.
      population: perturbed lives of a task, even.
      scale: standard deviation of the perturbation.
      learned: which leaves of `meta` are perturbed; the others have a gradient of zero.

    Reference: Salimans et al. (2017); Vicol, Metz and Sohl-Dickstein (2021), algorithm 1.
    """

    def gradient(key: Key, meta: PyTree, task: Task, carried: LearnerState | None, first: jax.Array):
        begin_key, score_key, *keys = _keys(key, population)

        def pair(noise_key: Key, begin_key: Key, score_key: Key):
            noise = _noise(noise_key, meta, scale, learned)

            def score(sign: jax.typing.ArrayLike):
                moved = _moved(meta, noise, sign)
                life = _begun_if(first, begin(begin_key, moved, task), carried)
                value, _, metrics = objective(score_key, moved, task, life)
                return {"loss": value, **metrics}

            metrics = jax.vmap(score)(SIGNS)
            return _slope(noise, metrics["loss"], scale), metrics

        gradient, metrics = _mean(jax.vmap(pair)(*keys))
        if carried is None:
            return gradient, None, metrics
        life = _begun_if(first, begin(begin_key, meta, task), carried)
        return gradient, objective(score_key, meta, task, life)[1], metrics

    return Estimator(begin, gradient, lives=lambda whole: population + (not whole))


class Persistent(struct.PyTreeNode):
    """What persistent evolution strategies carry, for every pair."""

    lives: LearnerState
    """Leaves [pairs, 2, ...]."""
    noise: PyTree
    """All perturbations of the lifetime so far, added up; like `meta`, leaves [pairs, ...]."""


def persistent_evolution_strategies(
    begin: Begin, objective: Objective, population: int, scale: float, learned: Learned
) -> Estimator:
    """Evolution strategies whose perturbed lives go on, each credited with all of its perturbations so far.

    In place of a stretch's own noise stands the sum of the noise of all stretches since the lifetime began, which
    credits early perturbations with late losses. The arguments are those of `evolution_strategies`.

    Reference: Vicol, Metz and Sohl-Dickstein (2021), algorithm 2.
    """

    def begin_all(key: Key, meta: PyTree, task: Task) -> Persistent:
        def of_pair(key: Key):
            return jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), begin(key, meta, task))

        pairs = population // 2
        nothing = jax.tree.map(lambda leaf: jnp.zeros((pairs, *leaf.shape), leaf.dtype), meta)
        return Persistent(jax.vmap(of_pair)(jax.random.split(key, pairs)), nothing)

    def gradient(key: Key, meta: PyTree, task: Task, carried: Persistent | None, first: jax.Array):
        _, _, *keys = _keys(key, population)

        def pair(carried: Persistent | None, noise_key: Key, begin_key: Key, score_key: Key):
            noise = _noise(noise_key, meta, scale, learned)

            def score(sign: jax.typing.ArrayLike, life: LearnerState | None):
                moved = _moved(meta, noise, sign)
                life = _begun_if(first, begin(begin_key, moved, task), life)
                value, life, metrics = objective(score_key, moved, task, life)
                return life, {"loss": value, **metrics}

            lives, metrics = jax.vmap(score)(SIGNS, carried.lives if carried else None)
            total = noise
            if carried:
                total = jax.tree.map(lambda new, old: new + jnp.where(first, 0.0, old), noise, carried.noise)
            return (_slope(total, metrics["loss"], scale), metrics), _kept(Persistent(lives, total), carried)

        results, carried = jax.vmap(pair)(carried, *keys)
        gradient, metrics = _mean(results)
        return gradient, carried, metrics

    return Estimator(begin_all, gradient, lives=lambda whole: population)


ESTIMATORS: dict[str, Callable[[Begin, Objective, MetaGradientConfig, Learned], Estimator]] = {
    "backpropagation": lambda begin, objective, config, learned: backpropagation(begin, objective),
    "es": lambda begin, objective, config, learned: evolution_strategies(
        begin, objective, config.num_perturbations, config.perturbation_scale, learned
    ),
    "pes": lambda begin, objective, config, learned: persistent_evolution_strategies(
        begin, objective, config.num_perturbations, config.perturbation_scale, learned
    ),
}
"""By the name that settings give them."""

SIGNS = np.array([1.0, -1.0], np.float32)


def _keys(key: Key, population: int) -> tuple[Key, ...]:
    """To begin and to score with, unperturbed; and for each pair its noise, to begin and to score with."""
    begin_key, score_key, pairs_key = jax.random.split(key, 3)
    return begin_key, score_key, *jax.random.split(pairs_key, (3, population // 2))


def _noise(key: Key, meta: PyTree, scale: float, learned: Learned) -> PyTree:
    leaves, structure = jax.tree_util.tree_flatten_with_path(meta)
    keys = jax.random.split(key, len(leaves))
    noise = [
        scale * jax.random.normal(key, leaf.shape, leaf.dtype) if learned(path) else jnp.zeros_like(leaf)
        for key, (path, leaf) in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, noise)


def _moved(meta: PyTree, noise: PyTree, sign: jax.typing.ArrayLike) -> PyTree:
    return jax.tree.map(lambda leaf, change: leaf + sign * change, meta, noise)


def _slope(noise: PyTree, losses: jax.Array, scale: float) -> PyTree:
    """The gradient that one pair speaks for; losses are [2], there and back."""
    difference = (losses[0] - losses[1]) / (2 * scale**2)
    return jax.tree.map(lambda leaf: leaf * difference, noise)


def _mean(tree: PyTree) -> PyTree:
    """Over pairs; metrics, [pairs, 2], over both of a pair too."""
    gradient, metrics = tree
    return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), gradient), jax.tree.map(jnp.mean, metrics)


def _begun_if(first: jax.Array, fresh: LearnerState, carried: LearnerState | None) -> LearnerState:
    """A fresh life where a lifetime begins, else what is carried, to whose making no derivative reaches back."""
    if carried is None:
        return fresh
    carried = jax.lax.stop_gradient(carried)
    return jax.tree.map(lambda new, old: jnp.where(first, new, old), fresh, carried)


def _kept(life: PyTree, carried: PyTree) -> PyTree:
    """What is carried on, if anything is."""
    return None if carried is None else life
