"""Meta-reinforcement learning in JAX: pure functions, one compiled meta-step.

The names below are loaded when they are first used, so that `import jaxmeta` and `jaxmeta --help` stay fast.
"""

from importlib import metadata
from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from jaxmeta.algorithms.recipes import make_recipe as make_recipe
    from jaxmeta.core.compilation_cache import use_compilation_cache as use_compilation_cache
    from jaxmeta.core.errors import NonFiniteError as NonFiniteError
    from jaxmeta.core.errors import StorageError as StorageError
    from jaxmeta.core.errors import UsageError as UsageError
    from jaxmeta.core.tasks import make_tasks as make_tasks
    from jaxmeta.core.types import MetaLearner as MetaLearner
    from jaxmeta.core.types import MetaState as MetaState
    from jaxmeta.core.types import TaskDistribution as TaskDistribution
    from jaxmeta.evaluation.evaluate import evaluate as evaluate
    from jaxmeta.reporting.comparison import compare as compare
    from jaxmeta.reporting.plots import plot_adaptation as plot_adaptation
    from jaxmeta.reporting.plots import plot_comparison as plot_comparison
    from jaxmeta.reporting.plots import plot_scores as plot_scores
    from jaxmeta.reporting.plots import plot_training as plot_training
    from jaxmeta.training.checkpoints import CheckpointError as CheckpointError
    from jaxmeta.training.checkpoints import state_digest as state_digest
    from jaxmeta.training.export import export_rule as export_rule
    from jaxmeta.training.jobs import restore as restore
    from jaxmeta.training.loop import train as train
    from jaxmeta.training.seeds import members as members

__version__ = metadata.version("jaxmeta")
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "algorithms.recipes": ["make_recipe"],
        "core.compilation_cache": ["use_compilation_cache"],
        "core.errors": ["NonFiniteError", "StorageError", "UsageError"],
        "core.tasks": ["make_tasks"],
        "core.types": ["MetaLearner", "MetaState", "TaskDistribution"],
        "evaluation.evaluate": ["evaluate"],
        "reporting.comparison": ["compare"],
        "reporting.plots": ["plot_adaptation", "plot_comparison", "plot_scores", "plot_training"],
        "training.checkpoints": ["CheckpointError", "state_digest"],
        "training.export": ["export_rule"],
        "training.jobs": ["restore"],
        "training.loop": ["train"],
        "training.seeds": ["members"],
    },
)
