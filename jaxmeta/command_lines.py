"""What was asked of a run, as the command lines that ask for it anew."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxmeta import populations, recipes
from jaxmeta import tasks as task_specs
from jaxmeta.errors import UsageError

DECIDES = {"on_nonfinite": "stop"}
"""Ways of training that change what is learnt, with their defaults; all others change what is logged and kept."""


def of_training(config: Mapping[str, Any], run_dir: Path) -> str | None:
    """The command that trains a run anew: settings are named where they differ from what the recipe would take.

    Where the recipe or the tasks are somebody's own code, which is not run for this, all of them are named.

    Returns:
      The command; None where the tasks were made in Python and no specification names them.
    """
    whose = {"--seeds": populations.spell_seeds(config["seeds"])} if "seeds" in config else {"--seed": config["seed"]}
    ways = {
        f"--{name.replace('_', '-')}": config[name]
        for name in DECIDES
        if config.get(name, DECIDES[name]) != DECIDES[name]
    }
    settings = dict(config["settings"])
    try:
        usual = _usual_settings(config)
    except UsageError:
        return None
    named = {"--agent": settings.pop("agent", None), "--meta-steps": settings.pop("meta_steps", config["meta_steps"])}
    options = {"--recipe": config["recipe"], "--tasks": config["tasks"], **named, **whose, **ways}
    words = [str(word) for name, value in options.items() if value is not None for word in (name, value)]
    swept = [f"{name}={_spelled(list(values))}" for name, values in config.get("sweep", {}).items()]
    own = [f"{name}={_spelled(value)}" for name, value in settings.items() if usual.get(name, ...) != value]
    for flag, pairs in (("--sweep", swept), ("--set", own)):
        words += [flag, *pairs] if pairs else []
    return shlex.join(["jaxmeta", "train", *words, "--run-dir", str(run_dir)])


def of_evaluation(told: Mapping[str, Any], run_dir: Path) -> str:
    """The command that evaluates a run as it was evaluated."""
    how = {"--split": told["split"], "--num-tasks": told["num_tasks"], "--seed": told["seed"]}
    words = [str(word) for pair in how.items() for word in pair]
    return shlex.join(["jaxmeta", "evaluate", str(run_dir), *words, *(["--best"] if told.get("best") else [])])


def _usual_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run of this recipe, agent and tasks that names none; of code that is not ours, none."""
    if recipes.is_imported(config["recipe"]) or task_specs.is_imported(config["tasks"]):
        return {}
    agent = {"agent": config["settings"]["agent"]} if "agent" in config["settings"] else {}
    return recipes.resolve_settings(config["recipe"], task_specs.make(config["tasks"]), **agent)


def _spelled(value: Any) -> str:
    """A value as `tasks.read_value` reads it.

    >>> _spelled([64, 64]), _spelled(True), _spelled(0.1)
    ('64,64', 'true', '0.1')
    """
    if isinstance(value, list | tuple):
        return ",".join(map(_spelled, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
