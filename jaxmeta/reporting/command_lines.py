"""The command lines that repeat a run."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxmeta.algorithms import registry
from jaxmeta.core import tasks as task_specs
from jaxmeta.core.errors import UsageError
from jaxmeta.core.settings import flattened
from jaxmeta.core.tasks import spell_value
from jaxmeta.training import seeds as multi_seed
from jaxmeta.training.jobs import ON_NONFINITE


def of_training(config: Mapping[str, Any], run_dir: Path) -> str | None:
    """The command that trains a run anew: settings are named where they differ from what the algorithm would take.

    Where the algorithm or the tasks are the user's own code, which is not run for this, all settings are named.

    Returns:
      The command; None where the tasks were made in Python and no specification names them.
    """
    try:
        settings = _changed(config)
    except UsageError:
        return None
    # Of the ways to train, the one that changes what is learnt; the others change what is logged and kept.
    on_nonfinite = config.get("on_nonfinite", ON_NONFINITE[0])
    agent, meta_steps = flattened(config["settings"]).get("agent"), settings.pop("meta_steps", config["meta_steps"])
    settings.pop("agent", None)
    options = {
        "--agent": agent,
        "--meta-steps": meta_steps,
        **({"--seeds": multi_seed.spell_seeds(config["seeds"])} if "seeds" in config else {"--seed": config["seed"]}),
        "--on-nonfinite": None if on_nonfinite == ON_NONFINITE[0] else on_nonfinite,
    }
    swept = [f"{name}={spell_value(values)}" for name, values in config.get("sweep", {}).items()]
    own = [f"{name}={spell_value(value)}" for name, value in settings.items()]
    words = [config["algorithm"], config["tasks"], *_words(options)]
    for flag, pairs in (("--sweep", swept), ("--set", own)):
        words += [flag, *pairs] if pairs else []
    return shlex.join(["jaxmeta", "train", *words, "--run-dir", str(run_dir)])


def of_evaluation(reported: Mapping[str, Any], run_dir: Path) -> str:
    """The command that evaluates a run as it was evaluated."""
    words = _words({"--split": reported["split"], "--num-tasks": reported["num_tasks"], "--seed": reported["seed"]})
    tuned = any("tuned" in report for report in reported["baselines"].values())
    words += [*(["--best"] if reported.get("best") else []), "--baselines" if tuned else "--no-baselines"]
    return shlex.join(["jaxmeta", "evaluate", str(run_dir), *words])


def _words(options: Mapping[str, Any]) -> list[str]:
    """Options and their values, but for those without one."""
    return [str(word) for name, value in options.items() if value is not None for word in (name, value)]


def _changed(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run that differ from those of one that names none; of code that is not ours, all."""
    algorithm, settings = config["algorithm"], flattened(config["settings"])
    if registry.is_imported(algorithm) or task_specs.is_imported(config["tasks"]):
        return settings
    tasks = task_specs.make_tasks(config["tasks"])
    return registry.changed_settings(algorithm, tasks, registry.configure(algorithm, tasks, settings))
