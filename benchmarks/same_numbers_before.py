"""What `same_numbers.py` calls of a checkout as it was when algorithms were recipes with settings of one list."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
from typing import Any

try:
    from jaxmeta.algorithms import recipes
    from jaxmeta.core.errors import UsageError
    from jaxmeta.core.types import sample_tasks
    from jaxmeta.evaluation.measurement import measure
except ImportError:  # as modules were called until they were put into packages
    from jaxmeta.base import sample_tasks
    from jaxmeta.errors import UsageError
    from jaxmeta.measurement import measure

    from jaxmeta import recipes

__all__ = ["UsageError", "learner_of", "measure", "meta_step", "sample_tasks", "standard_settings"]


def learner_of(recipe: str, tasks: Any, tiny: dict[str, Any], settings: dict[str, Any]) -> Any:
    """The learner with as many of the tiny settings as it reads."""
    agent = recipes.resolve_settings(recipe, tasks, **{k: v for k, v in settings.items() if k == "agent"})["agent"]
    read = recipes.settings_read(recipe, {"agent": agent})
    small = {name: value for name, value in tiny.items() if name in read}
    if "lives_per_task" in read and settings.get("outer_gradient") in ("es", "pes"):
        small["lives_per_task"] = 1
    return recipes.make_recipe(recipe, tasks, **small | settings)


def meta_step(learner: Any) -> Any:
    """One meta-step: `(key, state, env_params)` to the state, and metrics by name."""
    return learner.update


def standard_settings(recipe: str, family: str) -> dict[str, Any]:
    """The complete settings on a family that the recipe reads, by name."""
    resolved = recipes.resolve_settings(recipe, family)
    read = recipes.settings_read(recipe, resolved)
    return {name: value for name, value in resolved.items() if name in read}
