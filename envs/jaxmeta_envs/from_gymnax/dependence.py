"""Finds out, without running an environment, which of its parameters can ever show in what a learner perceives.

An episode is traced: a reset, and one step from any state. A parameter has an effect if it reaches an observation, a
reward or a termination, at once or through the state. What it does to the time limit does not count, nor what it does
to parts of the state that reach none of these, such as a count of the regret.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend.core import Jaxpr, Literal

from jaxmeta.core.types import PyTree


def effective_fields(env: Any, prepare: Callable[[PyTree], PyTree], params: PyTree) -> set[str]:
    """Names of the parameters that have an effect.

    Args:
      env: a gymnax environment.
      prepare: applied to the parameters first, inside the trace: computes those that follow from others.
      params: a dataclass of arrays.

    Raises:
      jax.errors.JAXTypeError: the environment uses a parameter as a Python value, such as in an `if`.
    """
    key = jax.random.key(0)

    def reset(params):
        return env.reset_env(key, prepare(params))

    def step(params, state, action):
        observation, state, reward, terminated, _ = env.step_env(key, state, action, prepare(params))
        return (observation, reward, terminated), state

    observation, state = jax.eval_shape(reset, params)
    action = jax.eval_shape(lambda params: env.action_space(params).sample(key), params)
    seen_at_reset = len(jax.tree.leaves(observation))
    state_leaves = len(jax.tree.leaves(state))
    reset_jaxpr = jax.make_jaxpr(reset)(params).jaxpr
    step_jaxpr = jax.make_jaxpr(step)(params, state, action).jaxpr
    seen_at_step = len(step_jaxpr.outvars) - state_leaves

    def has_effect(given: list[bool]) -> bool:
        reached = outputs_reached(reset_jaxpr, given)
        shows, carried = any(reached[:seen_at_reset]), reached[seen_at_reset:]
        while not shows:
            reached = outputs_reached(step_jaxpr, [*given, *carried, False])
            shows = any(reached[:seen_at_step])
            further = [before or after for before, after in zip(carried, reached[seen_at_step:], strict=True)]
            if further == carried:
                break
            carried = further
        return shows

    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    return {path[0].name for path in paths if has_effect([other == path for other in paths])}


def untraceable_fields(env: Any, prepare: Callable[[PyTree], PyTree], params: PyTree) -> list[str]:
    """Names of the parameters that cannot be arrays under a trace, each tried with the others as they are."""

    def traceable(name):
        try:
            effective_fields(env, lambda traced: prepare(params.replace(**{name: getattr(traced, name)})), params)
        except jax.errors.JAXTypeError:
            return False
        return True

    return [name for name in params.__dataclass_fields__ if not traceable(name)]


def outputs_reached(jaxpr: Jaxpr, given: Sequence[bool]) -> list[bool]:
    """Which outputs of a program may depend on the given ones of its inputs.

    A nested `jit` is followed inside; of any other nested program every output depends on every input.

    >>> program = jax.make_jaxpr(lambda x, y: (x + 1, jax.numpy.where(x > 0, y, 0.0)))(1.0, 2.0)
    >>> outputs_reached(program.jaxpr, [False, True])
    [False, True]
    """
    reached = {variable for variable, is_given in zip(jaxpr.invars, given, strict=True) if is_given}

    def depends(variables):
        return [not isinstance(variable, Literal) and variable in reached for variable in variables]

    for equation in jaxpr.eqns:
        inputs = depends(equation.invars)
        if equation.primitive.name == "jit":
            outputs = outputs_reached(equation.params["jaxpr"].jaxpr, inputs)
        else:
            outputs = [any(inputs)] * len(equation.outvars)
        reached.update(variable for variable, is_reached in zip(equation.outvars, outputs, strict=True) if is_reached)
    return depends(jaxpr.outvars)
