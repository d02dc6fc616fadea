"""What was learned, for use elsewhere."""

from pathlib import Path

import optax

from jaxmeta.algorithms.learned_optimizer import LearnedOptimizerConfig
from jaxmeta.core.errors import UsageError, require
from jaxmeta.core.types import TaskDistribution
from jaxmeta.inner.learned_optimizers import as_optax, make_update_rule
from jaxmeta.training import seeds as multi_seed
from jaxmeta.training.jobs import restore


def export_optimizer(
    run_dir: str | Path,
    learning_rate: float | None = None,
    tasks: str | TaskDistribution | None = None,
    *,
    member: int = 0,
    allow_import: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """What a run of `learned_optimizer` has learned, as an optax transformation.

    Its `update(gradient, state, params, value=loss, progress=share)` takes the loss and the share of training that has
    passed, from 0 to 1. Its `init` refuses parameters that the rule does not fit: those without a matrix and, for a
    structured rule, another number of layers than it was learned with; any width will do.

    Args:
      run_dir: the folder of the run.
      learning_rate: what its steps are multiplied by; by default the one that it was learned with.
      member: with several seeds, the number of the member, from 0.
      tasks: the distribution that it was trained on, or its specification; by default what the folder names.
      allow_import: import what the folder names as `package.module:name`; see `restore`.

    Raises:
      UsageError: the folder holds no such run, or one without a checkpoint yet, or one that needs an import.
      CheckpointError: it holds checkpoints, and none of them can be trusted.
    """
    learner, state, _, config = restore(run_dir, tasks, allow_import=allow_import)
    settings, algorithm = learner.config, config["algorithm"]
    if not isinstance(settings, LearnedOptimizerConfig):
        raise UsageError("run_dir", "hold a run of learned_optimizer", algorithm)
    states = multi_seed.members(state)
    require(0 <= member < len(states), "member", f"be from 0 to {len(states) - 1}", member)
    meta = learner.meta(states[member])
    rate = float(meta.hyperparams.learning_rate) if learning_rate is None else learning_rate
    return as_optax(make_update_rule(settings.rule), meta.rule, rate)
