"""What `same_numbers.py` calls of the checkout at hand."""

from typing import Any

try:
    from jaxmeta.algorithms import recipes
    from jaxmeta.core.types import sample_tasks
    from jaxmeta.evaluation.measurement import measure
except ImportError:  # as modules were called until they were put into packages
    from jaxmeta.base import sample_tasks  # pyright: ignore[reportMissingImports]
    from jaxmeta.measurement import measure  # pyright: ignore[reportMissingImports]

    from jaxmeta import recipes  # pyright: ignore[reportAttributeAccessIssue]

__all__ = ["learner_of", "measure", "sample_tasks", "standard_settings"]


def learner_of(recipe: str, tasks: Any, tiny: dict[str, Any], settings: dict[str, Any]) -> Any:
    """The learner with as many of the tiny settings as it reads."""
    agent = recipes.resolve_settings(recipe, tasks, **{k: v for k, v in settings.items() if k == "agent"})["agent"]
    read = recipes.settings_read(recipe, {"agent": agent})
    small = {name: value for name, value in tiny.items() if name in read}
    if "lives_per_task" in read and settings.get("outer_gradient") in ("es", "pes"):
        small["lives_per_task"] = 1
    return recipes.make_recipe(recipe, tasks, **small | settings)


def standard_settings(recipe: str, family: str) -> dict[str, Any]:
    """The complete settings on a family that the recipe reads, by name."""
    resolved = recipes.resolve_settings(recipe, family)
    read = recipes.settings_read(recipe, resolved)
    return {name: value for name, value in resolved.items() if name in read}
