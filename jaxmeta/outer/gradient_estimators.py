"""Estimators of the gradient of a lifetime's loss in the meta-parameters, segment by segment, for any algorithm.

A long lifetime is truncated into segments, one a meta-step, and a gradient is estimated from each. The state at the
start of a segment is constant to its derivative, so back-propagation and evolution strategies miss the effect of the
meta-parameters on later segments: truncation biases them towards short-term gains. Persistent evolution strategies
accumulate the perturbations of all segments so far, and are free of that bias.

| estimator | sees the effect of epsilon and actions | biased by | variance |
|---|---|---|---|
| `backpropagation` | no | truncation, and what has no gradient | low, but explodes along long segments |
| `evolution_strategies` | yes | truncation, and smoothing | grows with the number of parameters |
| `persistent_evolution_strategies` | yes | smoothing | the same, and with the number of segments |
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxmeta.core.types import Key, LearnerState, Metrics, Objective, PyTree, Task
from jaxmeta.outer.meta_gradient import MetaGradientConfig

Reset = Callable[[Key, PyTree, Task], LearnerState]
"""`reset(key, meta, task)` starts a lifetime."""
Learned = Callable[[tuple], bool]
"""Whether the leaf of `meta` at a tree path is learned."""


class Estimator(NamedTuple):
    """How a gradient is estimated from the next segment of one task's lifetime."""

    reset: Callable[[Key, PyTree, Task], PyTree]
    """`reset(key, meta, task)`: the state between segments, at a lifetime's start."""
    gradient: Callable[[Key, PyTree, Task, PyTree, jax.Array], tuple[PyTree, PyTree, Metrics]]
    """`gradient(key, meta, task, previous, first)`: a tree like `meta`, the next state, and metrics. Where `first`,
    [] bool, a new lifetime starts and `previous` is ignored; where `previous` is None, a lifetime is a single
    segment."""
    lifetimes_per_task: Callable[[bool], int]
    """`lifetimes_per_task(complete)`: lifetimes of a task that an estimate takes; `complete` says whether a segment is
    the whole lifetime."""


def backpropagation(reset: Reset, objective: Objective) -> Estimator:
    """The derivative of a segment's loss with its initial state held constant: truncated, and exact for the first
    segment of a lifetime.
    """

    def gradient(key: Key, meta: PyTree, task: Task, previous: LearnerState | None, first: jax.Array):
        reset_key, score_key = jax.random.split(key)

        def loss(meta: PyTree):
            learner_state = _reset_where(first, reset(reset_key, meta, task), previous)
            value, learner_state, metrics = objective(score_key, meta, task, learner_state)
            return value, (learner_state, metrics)

        (value, (learner_state, metrics)), gradient = jax.value_and_grad(loss, has_aux=True)(meta)
        return gradient, _kept(learner_state, previous), {"loss": value, **metrics}

    return Estimator(reset, gradient, lifetimes_per_task=lambda complete: 1)


def evolution_strategies(
    reset: Reset, objective: Objective, num_perturbations: int, scale: float, learned: Learned
) -> Estimator:
    """Antithetic evolution strategies: the difference of the loss between perturbations of opposite sign.

    The mean over pairs of noise * (loss(meta + noise) - loss(meta - noise)) / (2 scale**2), noise ~ N(0, scale**2), is
    on average the derivative of the loss smoothed by that noise. Both of a pair use the same random numbers. The
    lifetime itself runs with unperturbed meta-parameters, and every perturbed segment starts from its state.

    Args:
      reset: starts a lifetime.
      objective: scores a segment.
      num_perturbations: perturbed lifetimes of a task, even.
      scale: standard deviation of the perturbation.
      learned: which leaves of `meta` are perturbed; the others have a gradient of zero.

    Reference: Salimans et al. (2017); Vicol, Metz and Sohl-Dickstein (2021), algorithm 1.
    """

    def gradient(key: Key, meta: PyTree, task: Task, previous: LearnerState | None, first: jax.Array):
        reset_key, score_key, *keys = _keys(key, num_perturbations)

        def pair(noise_key: Key, reset_key: Key, score_key: Key):
            noise = _noise(noise_key, meta, scale, learned)

            def score(sign: jax.typing.ArrayLike):
                moved = _moved(meta, noise, sign)
                learner_state = _reset_where(first, reset(reset_key, moved, task), previous)
                value, _, metrics = objective(score_key, moved, task, learner_state)
                return {"loss": value, **metrics}

            metrics = jax.vmap(score)(SIGNS)
            return _slope(noise, metrics["loss"], scale), metrics

        gradient, metrics = _mean(jax.vmap(pair)(*keys))
        if previous is None:
            return gradient, None, metrics
        learner_state = _reset_where(first, reset(reset_key, meta, task), previous)
        return gradient, objective(score_key, meta, task, learner_state)[1], metrics

    return Estimator(reset, gradient, lifetimes_per_task=lambda complete: num_perturbations + (not complete))


class Persistent(struct.PyTreeNode):
    """The state of persistent evolution strategies between segments, for every pair."""

    learner_states: LearnerState
    """Leaves [pairs, 2, ...]."""
    noise: PyTree
    """All perturbations of the lifetime so far, added up; like `meta`, leaves [pairs, ...]."""


def persistent_evolution_strategies(
    reset: Reset, objective: Objective, num_perturbations: int, scale: float, learned: Learned
) -> Estimator:
    """Evolution strategies with persistent perturbed lifetimes, each credited with all of its perturbations so far.

    The sum of the noise of all segments since the lifetime started takes the place of the segment's own noise, which
    credits early perturbations with late losses. The arguments are those of `evolution_strategies`.

    Reference: Vicol, Metz and Sohl-Dickstein (2021), algorithm 2.
    """

    def reset_all(key: Key, meta: PyTree, task: Task) -> Persistent:
        def of_pair(key: Key):
            return jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), reset(key, meta, task))

        pairs = num_perturbations // 2
        nothing = jax.tree.map(lambda leaf: jnp.zeros((pairs, *leaf.shape), leaf.dtype), meta)
        return Persistent(jax.vmap(of_pair)(jax.random.split(key, pairs)), nothing)

    def gradient(key: Key, meta: PyTree, task: Task, previous: Persistent | None, first: jax.Array):
        _, _, *keys = _keys(key, num_perturbations)

        def pair(previous: Persistent | None, noise_key: Key, reset_key: Key, score_key: Key):
            noise = _noise(noise_key, meta, scale, learned)

            def score(sign: jax.typing.ArrayLike, learner_state: LearnerState | None):
                moved = _moved(meta, noise, sign)
                learner_state = _reset_where(first, reset(reset_key, moved, task), learner_state)
                value, learner_state, metrics = objective(score_key, moved, task, learner_state)
                return learner_state, {"loss": value, **metrics}

            learner_states, metrics = jax.vmap(score)(SIGNS, previous.learner_states if previous else None)
            total = noise
            if previous:
                total = jax.tree.map(lambda new, old: new + jnp.where(first, 0.0, old), noise, previous.noise)
            return (_slope(total, metrics["loss"], scale), metrics), _kept(Persistent(learner_states, total), previous)

        results, previous = jax.vmap(pair)(previous, *keys)
        gradient, metrics = _mean(results)
        return gradient, previous, metrics

    return Estimator(reset_all, gradient, lifetimes_per_task=lambda complete: num_perturbations)


ESTIMATORS: dict[str, Callable[[Reset, Objective, MetaGradientConfig, Learned], Estimator]] = {
    "backpropagation": lambda reset, objective, config, learned: backpropagation(reset, objective),
    "es": lambda reset, objective, config, learned: evolution_strategies(
        reset, objective, config.num_perturbations, config.perturbation_scale, learned
    ),
    "pes": lambda reset, objective, config, learned: persistent_evolution_strategies(
        reset, objective, config.num_perturbations, config.perturbation_scale, learned
    ),
}
"""By the name that settings give them."""

SIGNS = np.array([1.0, -1.0], np.float32)


def _keys(key: Key, num_perturbations: int) -> tuple[Key, ...]:
    """Keys to reset and to score with, unperturbed; then of each pair those of its noise, its reset and its score."""
    reset_key, score_key, pairs_key = jax.random.split(key, 3)
    return reset_key, score_key, *jax.random.split(pairs_key, (3, num_perturbations // 2))


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
    """The gradient estimate of one pair; losses are [2], of plus and minus the noise."""
    difference = (losses[0] - losses[1]) / (2 * scale**2)
    return jax.tree.map(lambda leaf: leaf * difference, noise)


def _mean(tree: PyTree) -> PyTree:
    """Over pairs; metrics, [pairs, 2], over both of a pair too."""
    gradient, metrics = tree
    return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), gradient), jax.tree.map(jnp.mean, metrics)


def _reset_where(first: jax.Array, fresh: LearnerState, previous: LearnerState | None) -> LearnerState:
    """The fresh state where a lifetime starts, else the previous one, without gradient."""
    if previous is None:
        return fresh
    previous = jax.lax.stop_gradient(previous)
    return jax.tree.map(lambda new, old: jnp.where(first, new, old), fresh, previous)


def _kept(learner_state: PyTree, previous: PyTree) -> PyTree:
    """The next state, or None where lifetimes are single segments."""
    return None if previous is None else learner_state
