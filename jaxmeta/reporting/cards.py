"""The card of a run that is exported: what was trained, how, and to what effect."""

from typing import TYPE_CHECKING, Any

from jaxmeta.reporting import command_lines
from jaxmeta.training.run_directory import RunDirectory

if TYPE_CHECKING:
    from jaxmeta.reporting.run import Run


def of_run(run: "Run", member: int) -> dict[str, Any]:
    """The facts of a run for `learner_files.save`: summary, versions, the command that trains it, and its scores.

    Args:
      run: a run, in memory or with a folder.
      member: of several seeds, the one that is exported.
    """
    config = run.config
    env_steps = run.state.steps_taken * run.learner.tasks_per_batch * run.learner.env_steps_per_task
    card: dict[str, Any] = {
        "summary": f"{config['algorithm']} on {run.tasks.name}, after {env_steps:,} environment steps.",
        "versions": {**config["versions"], "python": config["python"]},
    }
    if run.path is not None:
        command = command_lines.of_training(config, run.path)
        card["commands"] = [command] if command else []
        directory = RunDirectory(run.path)
        if directory.evaluation.is_file():
            card["figures"] = _figures(directory.load_evaluation(), member)
    return card


def _figures(evaluation: dict[str, Any], member: int) -> dict[str, Any]:
    """The scores of an evaluation, of one member where there are several."""
    own = evaluation["members"][member] if evaluation.get("members") else evaluation
    figures = {"split": evaluation["split"], "num_tasks": evaluation["num_tasks"], "returns": own["returns"]}
    return figures | ({"score": own["score"], "ci95": own["ci95"]} if own.get("score") is not None else {})
