"""Learning that was learned against Q-learning that was tuned, over long lifetimes in test tasks.

    python benchmarks/lifetimes.py rules --tasks grid_navi:goals=split --out benchmarks/results/rules_grid_navi.json
    python benchmarks/lifetimes.py governors --tasks tabular_mdp:varied=true --out benchmarks/results/governors.json
    python benchmarks/lifetimes.py rules --tasks cartpole --carried-from runs/lifetimes/rules-grid_navi-goals-split \
        --out benchmarks/results/rules_carried_to_cartpole.json

The last one learns nothing: rules learned in one family are used in another, or, with `--set hidden=64,64`, in a wider
network.

What is compared is the area under the curve of an episode's return over a lifetime, above that of random actions. All
live the same rounds in the same test tasks with the same random numbers, so that differences are paired; intervals are
over seeds and tasks. Everything is chosen on validation tasks: the hyper-parameters that ordinary learning has, and
that what is learned starts from. Every cell (method, seed) is kept in a folder of its own under `--runs` and taken up
again where it was left.
"""

import argparse
import functools
import itertools
import json
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from throughput import machine

import jaxmeta
from jaxmeta import measurement, recipes, statistics
from jaxmeta.base import MetaLearner, PyTree, TaskDistribution
from jaxmeta.runs import write_json, write_text
from jaxmeta.settings import parse_settings

FIRST_SEED = {"validation": 2_000_000, "test": 3_000_000}

Values = dict[str, float]
"""Hyper-parameters by name."""

RATES = {
    "sgd": [0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0],
    "rmsprop": [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1],
    "adam": [3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1],
}
COORDINATES = {
    "discount": [0.5, 0.7, 0.8, 0.9, 0.95, 0.99],
    "epsilon_decay": [0.8, 0.9, 0.94, 0.97, 0.98, 0.99],
    "target_step_size": [0.01, 0.03, 0.1, 0.3, 1.0],
}
GRIDS = {
    "tabular_q": {
        "learning_rate": [0.03, 0.1, 0.3, 1.0],
        "discount": [0.1, 0.3, 0.6, 0.8, 0.9],
        "epsilon": [0.2, 0.4, 0.6, 0.8, 1.0],
    },
    "dqn": {
        "learning_rate": [1e-3, 3e-3, 1e-2, 3e-2],
        "discount": [0.7, 0.8, 0.9, 0.95, 0.99],
        "epsilon": [0.1, 0.3, 0.5, 0.7, 0.9],
    },
}
"""Of ordinary Q-learning by agent, all with all."""
CHOOSING_LIVES = 3
"""Lives of a task in which its best setting is chosen, none of them the one that it is scored in."""
STRETCHES = 5
"""Of a lifetime, where an estimator lives one at a time; it then takes as many more meta-steps, of equal experience."""
ESTIMATORS: dict[str, dict[str, Any]] = {
    "es": {"outer_gradient": "es"},
    "pes": {"outer_gradient": "pes"},
    "truncated": {"outer_gradient": "backpropagation", "outer_loss": "td", "outer_learning_rate": 0.01},
}
"""Truncated back-propagation has no perturbed lives and lives in as many more tasks."""
RULES = [f"{rule}, {estimator}" for rule in ("structured", "recurrent", "attention") for estimator in ESTIMATORS]
IN_HINDSIGHT = "best of the grid in each task"
GOVERNORS: dict[str, dict[str, Any]] = {
    form: {"form": form} for form in ("online", "schedule", "static", "constant")
} | {"online, structure": {"form": "online", "structure": True}}


def cell(method: str, seed: int) -> str:
    """The folder of a method trained with a seed."""
    return f"{method.replace(', ', '-')}-seed{seed}"


class Bench:
    """A family of tasks, and how learners are measured in it."""

    def __init__(self, tasks: str, num_tasks: int, folder: Path, overrides: dict[str, Any], source: Path | None):
        self.tasks: TaskDistribution = jaxmeta.make_tasks(tasks)
        self.num_tasks = num_tasks
        self.folder = folder
        self.overrides = overrides
        self.source = source
        """Where rules were learned, if not here."""

    def settings(self, recipe: str) -> dict[str, Any]:
        """All settings of a recipe here."""
        return recipes.resolve_settings(recipe, self.tasks, **self.overrides)

    def curves(self, learner: MetaLearner, split: str) -> Callable[..., np.ndarray]:
        """`curves(seed, meta, life=0)`: returns before and after each round, [tasks, rounds + 1]; compiled once."""
        gauge = measurement.gauge(learner, self.tasks, self.num_tasks, split)

        def curves(seed: int, meta: PyTree, life: int = 0) -> np.ndarray:
            task_key, *life_keys = jax.random.split(jax.random.key(FIRST_SEED[split] + seed), 2 + CHOOSING_LIVES)
            return gauge(task_key, life_keys[life], meta)

        return curves

    def ordinary(self, settings: dict[str, Any]) -> MetaLearner:
        """Q-learning from fresh parameters, in the lifetimes of the method that it is compared with."""
        return jaxmeta.make_recipe("scratch", self.tasks, **settings)

    def measured(self, method: str, seeds: int, make: Callable[[int], np.ndarray]) -> np.ndarray:
        """A method's curves, [seeds, tasks, rounds + 1], a cell for each seed."""

        def of_seed(seed: int) -> np.ndarray:
            curves = np.array(self.kept(f"{cell(method, seed)}/returns", lambda: make(seed).tolist()))
            print(f"{method}, seed {seed}: {np.mean(curves):.3f}", flush=True)
            return curves

        return np.stack([of_seed(seed) for seed in range(seeds)])

    def kept(self, name: str, make: Callable[[], Any]) -> Any:
        """What a file of the folder holds; made and written if there is none."""
        path = self.folder / f"{name}.json"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, make())
        return json.loads(path.read_text())

    def learned(self, recipe: str, method: str, seeds: int, settings: dict[str, Any]) -> np.ndarray:
        """The curves of what was trained with each seed."""
        chosen = self.overrides | settings

        def train_and_measure(seed: int) -> np.ndarray:
            run_dir = self.folder / cell(method, seed) / "run"
            resume = (run_dir / "config.json").is_file()
            learner, state = jaxmeta.train(recipe, self.tasks, seed=seed, run_dir=run_dir, resume=resume, **chosen)
            return self.curves(learner, "test")(seed, learner.meta(state))

        return self.measured(method, seeds, train_and_measure)

    def carried(self, source: Path, method: str, seeds: int, tuned: dict[str, Any]) -> np.ndarray:
        """The curves of rules learned elsewhere, with the hyper-parameters that suit what they started from here."""

        def restore_and_measure(seed: int) -> np.ndarray:
            teacher, state, _, config = jaxmeta.restore(source / cell(method, seed) / "run")
            rule = {name: config["settings"][name] for name in ("rule", "rule_base", "rule_width", "rule_cell")}
            learner = jaxmeta.make_recipe("learned_rule", self.tasks, **self.overrides, **rule)
            meta = learner.init(jax.random.key(0)).meta.replace(rule=teacher.meta(state).rule)
            return self.curves(learner, "test")(seed, with_values(meta, tuned[rule["rule_base"]]["values"]))

        return self.measured(method, seeds, restore_and_measure)


def with_values(meta: PyTree, values: Values) -> PyTree:
    hypers = meta.hypers.replace(**{name: jnp.float32(value) for name, value in values.items()})
    return meta.replace(hypers=hypers)


def by_coordinates(bench: Bench, settings: dict[str, Any], optimizer: str) -> dict[str, Any]:
    """Tunes one optimizer: its step size, then each coordinate in turn, all of them twice."""
    learner = bench.ordinary(settings | {"inner_optimizer": optimizer})
    meta = learner.init(jax.random.key(0)).meta
    curves = bench.curves(learner, "validation")
    tried: dict[tuple, float] = {}

    def area(values: Values) -> float:
        key = tuple(sorted(values.items()))
        if key not in tried:
            tried[key] = float(np.mean(curves(0, with_values(meta, values))))
        return tried[key]

    grids = {"learning_rate": RATES[optimizer]} | COORDINATES
    best = {name: settings[name] for name in grids}
    for name in [*grids, *grids]:
        best = max(({**best, name: value} for value in grids[name]), key=area)
    edges = [name for name, value in best.items() if value in (min(grids[name]), max(grids[name]))]
    print(f"{optimizer}: {best}, area {area(best):.3f}, on an edge: {edges}", flush=True)
    return {"values": best, "validation": area(best), "on_edge": edges, "tried": len(tried)}


def settings_of(method: str, resolved: dict[str, Any]) -> dict[str, Any]:
    """What sets a rule and its estimator apart."""
    rule, estimator = method.split(", ")
    settings = {"rule": rule} | ESTIMATORS[estimator]
    if estimator != "es":
        settings |= {"stretch": resolved["rounds"] // STRETCHES, "meta_steps": STRETCHES * resolved["meta_steps"]}
    if estimator == "truncated":
        group = resolved["tasks_per_batch"]
        settings |= {"tasks_per_group": group, "tasks_per_batch": group * resolved["population"]}
    return settings


def compare_rules(bench: Bench, methods: list[str], seeds: int) -> dict[str, Any]:
    """Learned update rules beside three optimizers, the best of which is what they are before they have learned."""
    resolved = bench.settings("learned_rule")
    tuned = {
        name: bench.kept(f"tuned-{name}", functools.partial(by_coordinates, bench, resolved, name)) for name in RATES
    }
    curves: dict[str, np.ndarray] = {}
    for name in RATES:
        learner = bench.ordinary(resolved | {"inner_optimizer": name})
        meta = with_values(learner.init(jax.random.key(0)).meta, tuned[name]["values"])
        run = bench.curves(learner, "test")
        curves[name] = bench.measured(name, seeds, functools.partial(run, meta=meta))
    best = max(RATES, key=lambda name: tuned[name]["validation"])
    start = {"rule_base": best} | tuned[best]["values"]
    for method in methods:
        if bench.source is None:
            curves[method] = bench.learned("learned_rule", method, seeds, start | settings_of(method, resolved))
        else:
            curves[method] = bench.carried(bench.source, method, seeds, tuned)
    return {"tuned": tuned, "baseline": best, "rows": rows_of(curves, best, random_return(bench))}


def compare_governors(bench: Bench, methods: list[str], seeds: int) -> dict[str, Any]:
    """Policies over hyper-parameters beside the best of a grid of settings, which they start from."""
    resolved = bench.settings("hyper_policy")
    axes = GRIDS[resolved["agent"]]
    learner = bench.ordinary(resolved)
    start = learner.init(jax.random.key(0)).meta
    grid = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    metas = [with_values(start, values | {"epsilon_decay": 1.0}) for values in grid]
    run = bench.curves(learner, "validation")
    validation = np.array(bench.kept("grid", lambda: [run(0, meta).mean(axis=1).tolist() for meta in metas]))
    best = int(np.argmax(validation.mean(axis=1)))
    edges = [name for name, value in grid[best].items() if value in (min(axes[name]), max(axes[name]))]
    print(f"best of {len(grid)}: {grid[best]}, area {validation[best].mean():.3f}, on an edge: {edges}", flush=True)

    run = bench.curves(learner, "test")
    curves = {"best of the grid": bench.measured("fixed", seeds, lambda seed: run(seed, metas[best]))}
    for method in methods:
        if method == IN_HINDSIGHT:
            curves[method] = bench.measured("hindsight", seeds, lambda seed: in_hindsight(run, seed, metas))
        else:
            curves[method] = bench.learned("hyper_policy", method, seeds, grid[best] | GOVERNORS[method])
    tuned = {"values": grid[best], "settings": len(grid), "on_edge": edges}
    rows = rows_of(curves, "best of the grid", random_return(bench))
    return {"tuned": tuned, "baseline": "best of the grid", "rows": rows}


def in_hindsight(run: Callable[..., np.ndarray], seed: int, metas: list[PyTree]) -> np.ndarray:
    """Curves of the setting that is best in each task, chosen in other lives than it is scored in."""
    scored, chosen_by = [], []
    for meta in metas:
        scored.append(run(seed, meta))
        others = [run(seed, meta, life) for life in range(1, 1 + CHOOSING_LIVES)]
        chosen_by.append(np.mean(others, axis=(0, 2)))
    best = np.argmax(np.stack(chosen_by), axis=0)
    return np.stack(scored)[best, np.arange(len(best))]


def random_return(bench: Bench) -> float:
    """Mean return of an episode of random actions in test tasks."""
    from jaxmeta.adapters import pose_openly, random_policy

    learner = bench.ordinary({})._replace(adapter=random_policy(bench.tasks), task=pose_openly)
    return float(np.mean(bench.curves(learner, "test")(0, None)))


def rows_of(curves: dict[str, np.ndarray], baseline: str, random: float) -> list[dict[str, Any]]:
    """What seeds and tasks say of each method; curves are [seeds, tasks, rounds + 1]."""
    reference = curves[baseline].mean(axis=2) - random
    rows = []
    for method, returns in curves.items():
        area = returns.mean(axis=2) - random
        difference = area - reference
        rows.append(
            {
                "method": method,
                "seeds": len(returns),
                "area": statistics.mean(area),
                "area_ci95": statistics.bootstrap_interval(area, statistics.mean),
                "area_by_seed": area.mean(axis=1).tolist(),
                "difference": statistics.mean(difference),
                "difference_ci95": statistics.bootstrap_interval(difference, statistics.mean),
                "gain": statistics.mean(difference) / statistics.mean(reference),
                "curve": returns.mean(axis=(0, 1)).tolist(),
            }
        )
    return rows


def table(title: str, result: dict[str, Any]) -> str:
    over = f"{result['rows'][0]['seeds']} seeds of {result['num_tasks']} test tasks"
    lines = [
        f"# {title}\n",
        f"Area under the curve of (return - random), {over}, and paired differences to {result['baseline']}. "
        f"Made by `{result['command']}`.\n",
        "| method | area | 95 % | difference | 95 % | gain | by seed |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in sorted(result["rows"], key=lambda row: -row["area"]):
        area, difference = (" to ".join(f"{x:.3f}" for x in row[f"{name}_ci95"]) for name in ("area", "difference"))
        by_seed = " ".join(f"{value:.2f}" for value in row["area_by_seed"])
        lines.append(
            f"| {row['method']} | {row['area']:.3f} | {area} | {row['difference']:+.3f} | {difference} "
            f"| {100 * row['gain']:+.1f} % | {by_seed} |"
        )
    return "\n".join(lines) + "\n"


COMPARISONS = {"rules": (compare_rules, RULES), "governors": (compare_governors, [*GOVERNORS, IN_HINDSIGHT])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparison", choices=COMPARISONS)
    parser.add_argument("--tasks", required=True)
    parser.add_argument("--methods", nargs="*", help="by default all")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--num-tasks", type=int, default=128, help="test tasks of a seed, and validation tasks")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings of every learner")
    parser.add_argument("--carried-from", type=Path, metavar="DIR", help="where the rules were learned, if not here")
    parser.add_argument("--runs", type=Path, default=Path("runs/lifetimes"))
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()

    compare, methods = COMPARISONS[options.comparison]
    name = re.sub(r"[:=,]", "-", "-".join([options.comparison, options.tasks, *options.set]))
    overrides = parse_settings(dict(pair.split("=", 1) for pair in options.set))
    if options.carried_from is not None:
        name += "-carried"
    bench = Bench(options.tasks, options.num_tasks, options.runs / name, overrides, options.carried_from)
    result = compare(bench, list(methods) if options.methods is None else options.methods, options.seeds)
    command = "python benchmarks/lifetimes.py " + shlex.join(sys.argv[1:])
    result = {"command": command, "machine": machine(), "num_tasks": options.num_tasks, **result}
    write_json(options.out, result)
    title = " ".join([options.comparison, "on", options.tasks, *options.set])
    write_text(options.out.with_suffix(".md"), table(title, result))
    print(table(title, result))


if __name__ == "__main__":
    main()
