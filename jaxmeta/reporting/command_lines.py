"""What was asked of a run, as the command lines that ask for it anew."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxmeta.algorithms import recipes
from jaxmeta.algorithms.settings import default_of
from jaxmeta.core import tasks as task_specs
from jaxmeta.core.errors import UsageError
from jaxmeta.core.tasks import spell_value
from jaxmeta.training import seeds as populations
from jaxmeta.training.jobs import ON_NONFINITE


def of_training(config: Mapping[str, Any], run_dir: Path) -> str | None:
    """The command that trains a run anew: settings are named where they differ from what the recipe would take.

    Where the recipe or the tasks are somebody's own code, which is not run for this, all of them are named, but for
    those that a recipe of ours does not read.

    Returns:
      The command; None where the tasks were made in Python and no specification names them.
    """
    try:
        usual = _usual_settings(config)
    except UsageError:
        return None
    settings = _settings_read(config)
    # Of the ways to train, the one that changes what is learnt; the others change what is logged and kept.
    on_nonfinite = config.get("on_nonfinite", ON_NONFINITE[0])
    options = {
        "--recipe": config["recipe"],
        "--tasks": config["tasks"],
        "--agent": settings.pop("agent", None),
        "--meta-steps": settings.pop("meta_steps", config["meta_steps"]),
        **({"--seeds": populations.spell_seeds(config["seeds"])} if "seeds" in config else {"--seed": config["seed"]}),
        "--on-nonfinite": None if on_nonfinite == ON_NONFINITE[0] else on_nonfinite,
    }
    swept = [f"{name}={spell_value(values)}" for name, values in config.get("sweep", {}).items()]
    own = [f"{name}={spell_value(value)}" for name, value in settings.items() if usual.get(name, ...) != value]
    words = _words(options)
    for flag, pairs in (("--sweep", swept), ("--set", own)):
        words += [flag, *pairs] if pairs else []
    return shlex.join(["jaxmeta", "train", *words, "--run-dir", str(run_dir)])


def of_evaluation(told: Mapping[str, Any], run_dir: Path) -> str:
    """The command that evaluates a run as it was evaluated."""
    words = _words({"--split": told["split"], "--num-tasks": told["num_tasks"], "--seed": told["seed"]})
    tuned = any("tuned" in report for report in told["baselines"].values())
    words += [*(["--best"] if told.get("best") else []), "--baselines" if tuned else "--no-baselines"]
    return shlex.join(["jaxmeta", "evaluate", str(run_dir), *words])


def _words(options: Mapping[str, Any]) -> list[str]:
    """Options and their values, but for those without one."""
    return [str(word) for name, value in options.items() if value is not None for word in (name, value)]


def _usual_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run of this recipe, agent and tasks that names none; of code that is not ours, none."""
    if recipes.is_imported(config["recipe"]) or task_specs.is_imported(config["tasks"]):
        return {}
    agent = {name: value for name, value in _settings_read(config).items() if name == "agent"}
    return recipes.resolve_settings(config["recipe"], task_specs.make_tasks(config["tasks"]), **agent)


def _settings_read(config: Mapping[str, Any]) -> dict[str, Any]:
    """Those settings of a run that its recipe reads; of a recipe that is not ours, all."""
    settings = config["settings"]
    if recipes.is_imported(config["recipe"]):
        return dict(settings)
    read = recipes.settings_read(config["recipe"], {"agent": default_of("agent"), **settings})
    return {name: value for name, value in settings.items() if name in read}
