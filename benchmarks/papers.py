"""Reproduces the rows of the papers: ours beside the published figure and beside what can be earned at most.

    python benchmarks/papers.py
    python benchmarks/papers.py --only bandit-10 --methods rl2 gittins

Learners train with the settings of their family and are measured at the last checkpoint, on fresh tasks of the split
`test`; what learns nothing across tasks is measured in the same way, on the same tasks. Standard errors are over tasks,
of a single training.

Every row is kept in a folder of its own under `--runs`: a training that was interrupted goes on, what is measured is
not measured again, so other `--trials` or `--set` take another `--runs`. Rows of the report (JSON, Markdown and a plot)
that are not named stay as they are.
"""

import argparse
import functools
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import matplotlib.pyplot as plt
import numpy as np
from published import BATCH, PROBLEMS, TEST_SEED, Problem
from record import read_settings
from throughput import machine

import jaxmeta
from jaxmeta.algorithms.registry import make_learner
from jaxmeta.core.types import MetaLearner, PyTree, TaskDistribution
from jaxmeta.evaluation import measurement
from jaxmeta.inner import privileged_task, random_policy
from jaxmeta.reporting.looks import BLUE, GREY, INK, ORANGE, PLOT_STYLE
from jaxmeta.training.run_directory import RunDirectory, read_json, write_json, write_text

ALARM = 3.0
"""Standard errors above what can be earned at most from which on a row is an error: the learner must see its task."""


def standard_error(samples: np.ndarray) -> np.ndarray:
    return samples.std(axis=0, ddof=1) / np.sqrt(len(samples))


def measured(
    problem: Problem, learner: MetaLearner, meta: PyTree, tasks: TaskDistribution, trials: int | None
) -> np.ndarray:
    """A number for each test task, or one before and one after each round: [tasks, 1 or rounds + 1] float64."""
    key = jax.random.key(TEST_SEED)
    least, largest_error = (problem.trials, problem.standard_error) if trials is None else (trials, math.inf)
    if problem.by_step:
        return measurement.returns_by_round(key, learner, meta, tasks, least)
    totals = np.empty(0)
    batches = measurement.trials(key, learner, meta, tasks, min(BATCH, least))
    while len(totals) < least or standard_error(totals) > largest_error:
        totals = np.append(totals, next(batches))
    return totals[:, None]


def summarised(samples: np.ndarray) -> dict[str, Any]:
    """What is kept of a measurement, with where and how it was made."""
    return {
        "trials": len(samples),
        "means": samples.mean(axis=0).tolist(),
        "standard_errors": standard_error(samples).tolist(),
        "machine": machine() | {"jaxmeta": jaxmeta.__version__},
        "command": command(),
    }


def command() -> str:
    """The command, without its folders."""
    words = iter(sys.argv[1:])
    given = [word for word in words if word not in ("--runs", "--out") or not next(words, None)]
    return " ".join(["python benchmarks/papers.py", *given])


def trained(
    problem: Problem, algorithm: str, tasks: TaskDistribution, run_dir: Path, options: argparse.Namespace
) -> dict[str, Any]:
    """The measurement of a learner, which is trained first, or to the end."""
    resume = (run_dir / "config.json").is_file()
    settings = {**problem.settings, **options.set}
    run = jaxmeta.train(
        algorithm, tasks, settings, show_progress=False, seed=options.seed, run_dir=run_dir, resume=resume
    )
    folder = RunDirectory(run_dir)
    config, last = folder.load_config(), folder.read_metrics()[-1]
    return summarised(measured(problem, run.learner, run.learner.meta(run.state), tasks, options.trials)) | {
        "seed": options.seed,
        "meta_steps": last["meta_step"],
        "env_steps": last["env_steps"],
        "training_seconds": last["seconds"],
        "trained_on": config["device"],
        "versions": config["versions"],
    }


def untrained(
    problem: Problem, policy: MetaLearner, tasks: TaskDistribution, options: argparse.Namespace
) -> dict[str, Any]:
    """The measurement of what learns nothing across tasks, nor by inner steps: their number makes no difference."""
    samples = measured(problem, policy, None, tasks, options.trials)
    return summarised(samples.mean(axis=1, keepdims=True))


def policies(problem: Problem, tasks: TaskDistribution, options: argparse.Namespace) -> dict[str, MetaLearner]:
    """The baselines without meta-learning, in the same lifetimes."""
    settings = {**problem.settings, **options.set}
    learner = make_learner(problem.learners[0], tasks, settings)
    blind = {"random": random_policy(tasks), **{name: make(tasks) for name, make in problem.policies.items()}}
    adapters = tasks.policies(learner.lifetime)
    return {
        **{name: learner._replace(adapter=adapter, task=privileged_task) for name, adapter in blind.items()},
        **{name: learner._replace(adapter=adapter) for name, adapter in adapters.items()},
    }


def kept(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What the file holds; made and written if there is none."""
    if not path.is_file():
        content = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, content)
    return read_json(path)


def measurements(name: str, options: argparse.Namespace) -> dict[str, Callable[[], dict[str, Any]]]:
    """By method, what finds or makes its measurement."""
    problem, folder = PROBLEMS[name], options.runs / name
    tasks = jaxmeta.make_tasks(problem.tasks)
    folders = {algorithm: folder / f"{algorithm}-seed{options.seed}" for algorithm in problem.learners}
    makers = {
        algorithm: functools.partial(trained, problem, algorithm, tasks, run_dir, options)
        for algorithm, run_dir in folders.items()
    }
    for method, policy in policies(problem, tasks, options).items():
        folders[method] = folder / method
        makers[method] = functools.partial(untrained, problem, policy, tasks, options)
    return {
        method: functools.partial(kept, folders[method] / "measurement.json", make)
        for method, make in makers.items()
        if options.methods is None or method in options.methods
    }


def rows_of(name: str, method: str, content: dict[str, Any], limit: float) -> list[dict[str, Any]]:
    """The rows of a measurement: one, or one for each number of inner steps."""
    content = dict(content)
    estimates = list(zip(content.pop("means"), content.pop("standard_errors"), strict=True))
    rows = []
    for step, (mean, error) in enumerate(estimates):
        row = method if len(estimates) == 1 else f"{method} after {step}"
        figure, source = PROBLEMS[name].published.get(row, (None, None))
        rows.append(
            {
                "problem": name,
                "method": method,
                "row": row,
                "mean": mean,
                "standard_error": error,
                "published": figure,
                "source": source,
                "limit": limit,
                "limit_is_exact_optimum": PROBLEMS[name].limit.exact,
                "standard_errors_above_limit": (mean - limit) / error if mean > limit and error > 0 else None,
                "above_optimum": mean - limit > ALARM * error,
                **content,
            }
        )
    return rows


def table(name: str, rows: list[dict[str, Any]]) -> str:
    """The rows of a problem in Markdown, best first, then what was published of methods that are not ours."""
    problem = PROBLEMS[name]
    kind = "Exact optimum" if problem.limit.exact else "Upper bound"
    what = "return of an episode" if problem.by_step else "total reward of a trial"
    lines = [
        f"## {problem.title}\n",
        f"`{problem.tasks}`, {what}. {kind} {rows[0]['limit']:.4f} ({problem.limit.why}).\n",
        f"| | ours | trials | paper | ours - {kind.lower()} | meta-steps | environment steps | training seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: -row["mean"]):
        gap, above = f"{row['mean'] - row['limit']:+.3f}", row["standard_errors_above_limit"]
        if above is not None:
            gap += f" ({above:.1f} s.e.)"
        cells = [row["row"], f"{row['mean']:.3f} ± {row['standard_error']:.3f}", f"{row['trials']:,}"]
        cells += [f"{row['published']} ({row['source']})" if row["source"] else ""]
        cells += [f"**ABOVE: {gap}**" if row["above_optimum"] else gap]
        cells += [f"{row[key]:,.0f}" if key in row else "" for key in ("meta_steps", "env_steps", "training_seconds")]
        lines.append(f"| {' | '.join(cells)} |")
    ours = {row["row"] for row in rows}
    others = [(name, *figure) for name, figure in problem.published.items() if name not in ours]
    lines += [f"| {name} | | | {figure} ({source}) | | | | |" for name, figure, source in others]
    return "\n".join(lines) + "\n"


def plot(by_problem: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """A panel a problem: our means with 95 % intervals, published figures as hollow markers, the limit as a line."""
    columns = min(3, len(by_problem))
    panels = math.ceil(len(by_problem) / columns)
    with plt.rc_context(PLOT_STYLE):
        figure, grid = plt.subplots(panels, columns, figsize=(4.6 * columns, 3.8 * panels), squeeze=False)
        figure.set_layout_engine("constrained")
        for axes in grid.flat[len(by_problem) :]:
            axes.remove()
        for axes, (name, rows) in zip(grid.flat, by_problem.items(), strict=False):
            problem = PROBLEMS[name]
            figures = {row["row"]: row["mean"] for row in rows}
            figures = {other: figure for other, (figure, _) in problem.published.items()} | figures
            heights = {row: height for height, row in enumerate(sorted(figures, key=figures.__getitem__))}
            for row in rows:
                colour = BLUE if "meta_steps" in row else GREY
                interval = 1.96 * row["standard_error"]
                axes.errorbar(row["mean"], heights[row["row"]], xerr=interval, fmt="o", color=colour, capsize=3)
            for row, (value, _) in problem.published.items():
                axes.plot(value, heights[row], "o", markersize=9, markerfacecolor="none", markeredgecolor=ORANGE)
            style = "-" if problem.limit.exact else (0, (6, 3))
            axes.axvline(rows[0]["limit"], color=INK, linestyle=style, linewidth=1.2)
            axes.set_yticks(list(heights.values()), list(heights))
            axes.set_title(problem.title)
            axes.set_xlabel("Return of an episode" if problem.by_step else "Total reward of a trial")
        figure.suptitle(
            "Blue: ours, trained. Grey: ours, without meta-training. Bars: 95 %. Hollow: published. "
            "Line: exact optimum; dashed: upper bound.",
            fontsize=9,
        )
        figure.savefig(path)
        plt.close(figure)


def report(rows: list[dict[str, Any]], out: Path) -> None:
    """Writes all rows as JSON, and as a table and a plot for people."""
    by_problem = {name: [row for row in rows if row["problem"] == name] for name in PROBLEMS}
    by_problem = {name: found for name, found in by_problem.items() if found}
    write_json(out, {"rows": [row for found in by_problem.values() for row in found]})
    heading = "# Rows of the papers\n\nMade by `benchmarks/papers.py`; the JSON file holds the command of each row.\n"
    write_text(out.with_suffix(".md"), "\n".join([heading, *(table(*found) for found in by_problem.items())]))
    plot(by_problem, out.with_suffix(".png"))


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=list(PROBLEMS), choices=PROBLEMS, help="problems")
    parser.add_argument("--methods", nargs="+", help="learners and policies; by default all of a problem")
    parser.add_argument("--runs", type=Path, default=Path("runs/papers"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/papers.json"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", type=int, help="test tasks of every row at least, whatever its standard error")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="settings of the learners")
    options = parser.parse_args()
    if options.trials is not None and options.trials < 2:
        parser.error("--trials must be at least 2")
    options.set = read_settings(options.set)
    return options


def main() -> None:
    options = read_options()
    rows = json.loads(options.out.read_text())["rows"] if options.out.is_file() else []
    for name in options.only:
        limit = PROBLEMS[name].limit.value()
        for method, measurement_of in measurements(name, options).items():
            made = rows_of(name, method, measurement_of(), limit)
            rows = [row for row in rows if (row["problem"], row["method"]) != (name, method)] + made
            report(rows, options.out)
            for row in made:
                alarm = "  ABOVE WHAT CAN BE EARNED" if row["above_optimum"] else ""
                print(f"{name} {row['row']}: {row['mean']:.4f} +- {row['standard_error']:.4f}{alarm}", flush=True)


if __name__ == "__main__":
    main()
