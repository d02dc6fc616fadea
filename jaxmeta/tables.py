"""Results as tables on a terminal."""

import itertools
from typing import Any

from rich.console import Console
from rich.table import Table

ABSENT = "–"


def show_evaluation(console: Console, evaluation: dict[str, Any]) -> None:
    """Prints a learner's returns by round beside its baselines'."""
    seen = ", which training has seen" if evaluation["tasks_seen"] else ""
    rounds = [f"round {index}" for index in range(len(evaluation["returns"]))]
    table = _table(["", "score", "95 %", *rounds], left=1)
    for name, report in {evaluation["recipe"]: evaluation, **evaluation["baselines"]}.items():
        table.add_row(name, *_score(report), *map(_number, report["returns"]))
    _print(console, f"{evaluation['num_tasks']} {evaluation['split']} tasks of {evaluation['tasks']}{seen}", "bold")
    console.print(table)
    _print(console, "Score: 0 is random, 1 the oracle. Rounds: mean return of an episode after each.", "dim")


def show_comparison(console: Console, rows: list[dict[str, Any]]) -> None:
    """Prints rows of `jaxmeta.compare`, a table for each task family and split."""
    for (tasks, split), group in itertools.groupby(rows, key=lambda row: (row["tasks"], row["split"])):
        table = _table(["", "agent", "seeds", "training steps", "score", "95 %", "before", "after"], left=2)
        for row in group:
            numbers = (str(row["seeds"]), f"{row['meta_env_steps']:,}", *_score(row))
            returns = (_number(row["returns"][0]), _number(row["returns"][-1]))
            table.add_row(row["name"], row["agent"], *numbers, *returns)
        _print(console, f"{split} tasks of {tasks}", "bold")
        console.print(table)
    _print(console, "Before and after: mean return of an episode before and after adaptation.", "dim")


def show_inspection(console: Console, content: dict[str, Any]) -> None:
    """Prints what a run is and how far it got."""
    config = content["config"]
    facts = {
        "run": content["run_dir"],
        "recipe": config["recipe"],
        "tasks": config["tasks"],
        "seed": config["seed"],
        "checkpoint": f"meta-step {content['meta_step']} of {config['meta_steps']}",
        "state_digest": content["state_digest"],
        "parameters": f"{content['parameters']:,}",
        **(content["last_log_point"] or {}),
        **{f"settings.{name}": value for name, value in config["settings"].items()},
        **{f"versions.{name}": value for name, value in config.get("versions", {}).items()},
    }
    if "python" in config:
        facts["python"] = config["python"]
    if device := config.get("device"):
        facts["device"] = f"{device['count']} x {device['kind']} ({device['platform']})"
    width = max(map(len, facts))
    for name, value in facts.items():
        _print(console, f"{name:{width}}  {value}")


def _table(headings: list[str], left: int) -> Table:
    """An empty table; its first `left` columns hold text, the others numbers."""
    table = Table(box=None, pad_edge=False)
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="left" if index < left else "right", no_wrap=True)
    return table


def _print(console: Console, line: str, style: str = "") -> None:
    """Prints a line as it is, of whatever length."""
    console.print(line, style=style, soft_wrap=True, markup=False, highlight=False)


def _score(report: dict[str, Any]) -> tuple[str, str]:
    interval = report["ci95"]
    return _number(report["score"]), ABSENT if interval is None else " to ".join(map(_number, interval))


def _number(value: float | None) -> str:
    return ABSENT if value is None else f"{round(value, 2) + 0.0:.2f}"  # adding zero makes -0.0 a plain zero
