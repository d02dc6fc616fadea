"""Meta-reinforcement learning in JAX: pure functions, one compiled meta-step.

The names below are loaded when they are first used, so that `import jaxmeta` and `jaxmeta --help` stay fast.
"""

import importlib
from typing import TYPE_CHECKING, Any

from jaxmeta.errors import NonFiniteError, StorageError, UsageError

if TYPE_CHECKING:
    from jaxmeta.base import MetaLearner, MetaState, TaskDistribution
    from jaxmeta.checkpoints import CheckpointError, state_digest
    from jaxmeta.comparison import compare
    from jaxmeta.compilation_cache import use_compilation_cache
    from jaxmeta.evaluation import evaluate
    from jaxmeta.exports import export_rule
    from jaxmeta.jobs import restore
    from jaxmeta.plots import plot_adaptation, plot_comparison, plot_scores, plot_training
    from jaxmeta.populations import members
    from jaxmeta.recipes import make_recipe
    from jaxmeta.tasks import make as make_tasks
    from jaxmeta.training import train

__all__ = [
    "CheckpointError",
    "MetaLearner",
    "MetaState",
    "NonFiniteError",
    "StorageError",
    "TaskDistribution",
    "UsageError",
    "compare",
    "evaluate",
    "export_rule",
    "make_recipe",
    "make_tasks",
    "members",
    "plot_adaptation",
    "plot_comparison",
    "plot_scores",
    "plot_training",
    "restore",
    "state_digest",
    "train",
    "use_compilation_cache",
]

_HOMES = {
    "CheckpointError": ("jaxmeta.checkpoints", "CheckpointError"),
    "MetaLearner": ("jaxmeta.base", "MetaLearner"),
    "MetaState": ("jaxmeta.base", "MetaState"),
    "TaskDistribution": ("jaxmeta.base", "TaskDistribution"),
    "compare": ("jaxmeta.comparison", "compare"),
    "evaluate": ("jaxmeta.evaluation", "evaluate"),
    "export_rule": ("jaxmeta.exports", "export_rule"),
    "make_recipe": ("jaxmeta.recipes", "make_recipe"),
    "make_tasks": ("jaxmeta.tasks", "make"),
    "members": ("jaxmeta.populations", "members"),
    "plot_adaptation": ("jaxmeta.plots", "plot_adaptation"),
    "plot_comparison": ("jaxmeta.plots", "plot_comparison"),
    "plot_scores": ("jaxmeta.plots", "plot_scores"),
    "plot_training": ("jaxmeta.plots", "plot_training"),
    "restore": ("jaxmeta.jobs", "restore"),
    "state_digest": ("jaxmeta.checkpoints", "state_digest"),
    "train": ("jaxmeta.training", "train"),
    "use_compilation_cache": ("jaxmeta.compilation_cache", "use_compilation_cache"),
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib import metadata

        return metadata.version("jaxmeta")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    dunders = [name for name in globals() if name.startswith("__") and name.endswith("__")]
    return sorted({*dunders, *__all__, "__version__"})
