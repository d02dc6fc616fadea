"""What `same_numbers.py` calls of this checkout, with cases and settings by their earlier names."""

from typing import Any

import jax
from earlier_names import ALGORITHMS, PATHS, translated

from jaxmeta.algorithms import registry
from jaxmeta.core.errors import UsageError
from jaxmeta.core.settings import settings_of
from jaxmeta.core.types import MetaLearner, TaskDistribution, sample_tasks
from jaxmeta.evaluation.measurement import measure

__all__ = ["UsageError", "learner_of", "measure", "meta_step", "sample_tasks", "standard_settings"]


def learner_of(recipe: str, tasks: TaskDistribution, tiny: dict[str, Any], settings: dict[str, Any]) -> MetaLearner:
    """The learner with as many of the tiny settings as it reads."""
    name = ALGORITHMS.get(recipe, recipe)
    small = dict(tiny)
    if settings.get("outer_gradient") in ("es", "pes"):
        small["lives_per_task"] = 1
    if "agent" not in settings:
        agent = registry.agent_of(registry.configure(name, tasks))
        small |= {} if agent is None else {"agent": agent}
    return registry.make_learner(name, tasks, translated(name, small | settings))


def meta_step(learner: MetaLearner) -> Any:
    """One meta-step: `(key, state, env_params)` to the state, and metrics by name."""

    def update(key: Any, state: Any, env_params: Any) -> tuple[Any, dict[str, Any]]:
        keys = jax.random.split(key, jax.tree.leaves(env_params)[0].shape[0])
        state, info = learner.update(key, state, jax.vmap(learner.task)(keys, env_params))
        finite = {} if info.task_is_finite is None else {"task_is_finite": info.task_is_finite}
        return state, info.metrics | finite

    return update


def standard_settings(recipe: str, family: str) -> dict[str, Any]:
    """The complete settings on a family that the algorithm reads, by their earlier names."""
    flat = settings_of(registry.configure(ALGORITHMS.get(recipe, recipe), family))
    remat, region = flat.pop("outer.remat", None), flat.pop("outer.trust_region", ...)
    found = {}
    for name, paths in PATHS.items():
        path = next((path for path in paths if path in flat), None)
        if path is not None:
            found[name] = list(flat[path]) if isinstance(flat[path], tuple) else flat[path]
    if remat is not None:
        found |= {"remat": remat == "steps", "nested_remat": remat == "nested"}
    if region is None:
        found |= {"outer_update": "descent"}
    return found
