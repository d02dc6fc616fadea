"""Checks what a user's own function returned: its type, and by tracing, what its functions take and return.

Nothing is compiled. Each violation is one sentence, raised before a run starts.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxmeta.core.errors import UsageError, Words, reported, require
from jaxmeta.core.types import MetaLearner, MetaState, StepInfo, TaskDistribution, batch_of_tasks

SPLITS = ("train", "validation", "test")
METRICS = ("loss", "return")


def require_tasks(path: str, made: Any) -> TaskDistribution:
    """Refuses what is no task distribution, or one that the engine cannot run.

    Args:
      path: where it comes from, `package.module:name`, with which errors start.
      made: what the function returned, or what stands there.

    Returns:
      `made`, as it is.

    Raises:
      UsageError: it is of another type; a split is missing; `sample`, `reset` or `step` cannot be traced; or shapes,
        dtypes or tree structures do not fit together.
    """
    require(isinstance(made, TaskDistribution), path, "return a TaskDistribution", made)
    require(
        isinstance(made.horizon, int) and made.horizon >= 1,
        f"{path} horizon",
        "be an integer of at least 1",
        made.horizon,
    )
    require(set(SPLITS) <= set(made.splits), f"{path} splits", f"hold {', '.join(SPLITS)}", made.splits)
    key = jax.random.key(0)
    env_params = {
        split: _traced(f"{path} sample", lambda key, split=split: made.sample(key, split), key) for split in made.splits
    }
    for split, params in env_params.items():
        _require_same(
            f"{path} sample of the split {split!r}", "give what the split 'train' gives", params, env_params["train"]
        )

    params = env_params["train"]
    observation, state = _traced(f"{path} env.reset", made.env.reset, key, params)
    action = _traced(
        f"{path} env.action_space", lambda key, params: made.env.action_space(params).sample(key), key, params
    )
    taken = _traced(f"{path} env.step", made.env.step, key, state, action, params)
    rule = "return observation, state, reward, terminated, truncated and info"
    require(isinstance(taken, tuple) and len(taken) == 6, f"{path} env.step", rule, f"{len(taken)} values")
    shown, state_after, reward, terminated, truncated, info = taken
    _require_same(f"{path} env.step observation", "be like that of env.reset", shown, observation)
    _require_same(f"{path} env.step state", "be like that of env.reset", state_after, state)
    require(reward.shape == (), f"{path} env.step reward", "be a scalar", reward)
    for name, flag in (("terminated", terminated), ("truncated", truncated)):
        require(flag.shape == () and flag.dtype == bool, f"{path} env.step {name}", "be one boolean", flag)
    known = "final_observation" in info
    require(known, f"{path} env.step info", "hold 'final_observation', the successor before a reset", sorted(info))
    _require_same(
        f"{path} env.step final_observation", "be like an observation", info["final_observation"], observation
    )
    return made


def require_learner(path: str, made: Any, tasks: TaskDistribution) -> MetaLearner:
    """Refuses what is no meta-learner, or one whose meta-step could not be repeated.

    Args:
      path: where it comes from, `package.module:name`, with which errors start.
      made: what the function returned.
      tasks: what it was made for.

    Returns:
      `made`, as it is.

    Raises:
      UsageError: it is of another type; `init` or `update` cannot be traced; `update` returns a state unlike the one it
        takes; or its metrics lack `loss` or `return`, or are not scalars.
    """
    require(isinstance(made, MetaLearner), path, "return a MetaLearner", made)
    key = jax.random.key(0)
    state = _traced(f"{path} init", made.init, key)
    require(isinstance(state, MetaState), f"{path} init", "return a MetaState", type(state).__name__)
    batch = _traced(f"{path} task", lambda key: batch_of_tasks(key, made, tasks), key)
    updated = _traced(f"{path} update", made.update, key, state, batch)
    pair = isinstance(updated, tuple) and len(updated) == 2 and isinstance(updated[1], StepInfo)
    require(pair, f"{path} update", "return a MetaState and a StepInfo", type(updated).__name__)
    after, info = updated
    _require_same(f"{path} update", "return a state like the one it takes", after, state)
    found = sorted(info.metrics)
    require(set(METRICS) <= set(found), f"{path} update", f"report {' and '.join(METRICS)}", found)
    for name, metric in info.metrics.items():
        require(metric.shape == (), f"{path} update metric {name!r}", "be a scalar", metric)
    return made


def require_evaluable(learner: Any, state: Any) -> None:
    """Refuses what cannot be evaluated, because it is of another kind.

    Raises:
      UsageError: a learner or a state is none.
    """
    require(isinstance(learner, MetaLearner), "learner", "be a MetaLearner", learner)
    require(isinstance(state, MetaState), "state", "be a MetaState", state)


def _traced(what: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Shapes and dtypes of what a function returns."""
    try:
        return jax.eval_shape(function, *arguments)
    except Exception as error:
        raise UsageError(what, "be traceable by JAX", Words(reported(error).rstrip("."))) from error


def _require_same(what: str, rule: str, got: Any, wanted: Any) -> None:
    """Refuses a tree of other structure, shapes or dtypes."""
    same = jax.tree.structure(got) == jax.tree.structure(wanted) and all(
        (one.shape, one.dtype) == (other.shape, other.dtype)
        for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True)
    )
    if not same:
        raise UsageError(what, f"{rule}, {_told(wanted)}", Words(_told(got)))


def _told(tree: Any) -> str:
    """A tree's leaves in a few words."""
    leaves = [f"{jnp.dtype(leaf.dtype).name}{list(leaf.shape)}" for leaf in jax.tree.leaves(tree)[:4]]
    more = len(jax.tree.leaves(tree)) - len(leaves)
    return ", ".join(leaves) + (f" and {more} more" if more else "")
