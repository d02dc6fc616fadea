"""Learning that was learned against Q-learning that was tuned, over long lifetimes in test tasks.

    python benchmarks/lifetimes.py rules --tasks grid_navi:goals=split --out benchmarks/results/rules_grid_navi.json
    python benchmarks/lifetimes.py governors --tasks tabular_mdp:varied=true --out benchmarks/results/governors.json

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
from jaxmeta.base import MetaLearner, PyTree, TaskDistribution, sample_tasks
from jaxmeta.runs import write_json, write_text

VALIDATION_SEED, TEST_SEED = 2_000_000, 3_000_000
NUM_TASKS = 128

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
GRID = {
    "learning_rate": [0.03, 0.1, 0.3, 1.0],
    "discount": [0.1, 0.3, 0.6, 0.8, 0.9],
    "epsilon": [0.2, 0.4, 0.6, 0.8, 1.0],
}
"""Of ordinary Q-learning, all with all."""
RULES = {
    "structured, es": {"rule": "structured", "outer_gradient": "es"},
    "structured, pes": {"rule": "structured", "outer_gradient": "pes", "stretch": 25},
    "recurrent, es": {"rule": "recurrent", "outer_gradient": "es"},
    "recurrent, pes": {"rule": "recurrent", "outer_gradient": "pes", "stretch": 25},
    "attention, es": {"rule": "attention", "outer_gradient": "es"},
    "attention, pes": {"rule": "attention", "outer_gradient": "pes", "stretch": 25},
}
GOVERNORS = {form: {"form": form} for form in ("online", "schedule", "static", "constant")}


def cell(method: str, seed: int) -> str:
    """The folder of a method trained with a seed."""
    return f"{method.replace(', ', '-')}-seed{seed}"


class Bench:
    """A family of tasks, and how learners are measured in it."""

    def __init__(self, tasks: str, folder: Path):
        self.tasks: TaskDistribution = jaxmeta.make_tasks(tasks)
        self.folder = folder

    def curves(self, learner: MetaLearner, split: str) -> Callable[[int, PyTree], np.ndarray]:
        """`curves(seed, meta)`: returns before and after each round, [tasks, rounds + 1]; compiled once."""

        @jax.jit
        def run(key, meta):
            task_key, life_key = jax.random.split(key)
            env_params = sample_tasks(task_key, self.tasks, split, NUM_TASKS)
            return measurement.measure(life_key, learner, meta, self.tasks, env_params).returns

        return lambda seed, meta: np.asarray(run(jax.random.key(seed), meta), np.float64)

    def ordinary(self, settings: dict[str, Any]) -> MetaLearner:
        """Q-learning from fresh parameters, in the lifetimes of the method that it is compared with."""
        return jaxmeta.make_recipe("scratch", self.tasks, **settings)

    def measured(self, method: str, seed: int, make: Callable[[], np.ndarray]) -> np.ndarray:
        """A cell's curves, [tasks, rounds + 1], from its folder if they are already there."""
        curves = np.array(self.kept(f"{cell(method, seed)}/returns", lambda: make().tolist()))
        print(f"{method}, seed {seed}: {np.mean(curves):.3f}", flush=True)
        return curves

    def kept(self, name: str, make: Callable[[], Any]) -> Any:
        """What a file of the folder holds; made and written if there is none."""
        path = self.folder / f"{name}.json"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, make())
        return json.loads(path.read_text())

    def learned(self, recipe: str, method: str, seed: int, settings: dict[str, Any]) -> np.ndarray:
        """The curves of what was trained with a seed, on that seed's test tasks."""

        def train_and_measure() -> np.ndarray:
            run_dir = self.folder / cell(method, seed) / "run"
            resume = (run_dir / "config.json").is_file()
            learner, state = jaxmeta.train(recipe, self.tasks, seed=seed, run_dir=run_dir, resume=resume, **settings)
            return self.curves(learner, "test")(TEST_SEED + seed, learner.meta(state))

        return self.measured(method, seed, train_and_measure)


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
            tried[key] = float(np.mean(curves(VALIDATION_SEED, with_values(meta, values))))
        return tried[key]

    grids = {"learning_rate": RATES[optimizer]} | COORDINATES
    best = {name: settings[name] for name in grids}
    for name in [*grids, *grids]:
        best = max(({**best, name: value} for value in grids[name]), key=area)
    edges = [name for name, value in best.items() if value in (min(grids[name]), max(grids[name]))]
    print(f"{optimizer}: {best}, area {area(best):.3f}, on an edge: {edges}", flush=True)
    return {"values": best, "validation": area(best), "on_edge": edges, "tried": len(tried)}


def compare_rules(bench: Bench, methods: list[str], seeds: int) -> dict[str, Any]:
    """Learned update rules beside three optimizers, the best of which is what they are before they have learned."""
    resolved = recipes.resolve_settings("learned_rule", bench.tasks)
    tuned = {
        name: bench.kept(f"tuned-{name}", functools.partial(by_coordinates, bench, resolved, name)) for name in RATES
    }
    curves: dict[str, np.ndarray] = {}
    for name in RATES:
        learner = bench.ordinary(resolved | {"inner_optimizer": name})
        meta = with_values(learner.init(jax.random.key(0)).meta, tuned[name]["values"])
        run = bench.curves(learner, "test")
        curves[name] = np.stack(
            [bench.measured(name, seed, functools.partial(run, TEST_SEED + seed, meta)) for seed in range(seeds)]
        )
    best = max(RATES, key=lambda name: tuned[name]["validation"])
    start = {"rule_base": best} | tuned[best]["values"]
    for method in methods:
        chosen = start | RULES[method]
        curves[method] = np.stack([bench.learned("learned_rule", method, seed, chosen) for seed in range(seeds)])
    return {"tuned": tuned, "baseline": best, "rows": rows_of(curves, best, random_return(bench))}


def compare_governors(bench: Bench, methods: list[str], seeds: int) -> dict[str, Any]:
    """Policies over hyper-parameters beside the best of a grid of settings, which they start from."""
    resolved = recipes.resolve_settings("hyper_policy", bench.tasks)
    learner = bench.ordinary(resolved)
    meta = learner.init(jax.random.key(0)).meta
    grid = [dict(zip(GRID, values, strict=True)) for values in itertools.product(*GRID.values())]

    def areas(split: str, seed: int) -> np.ndarray:
        """Of every setting in every task, [settings, tasks]."""
        run = bench.curves(learner, split)
        return np.stack([run(seed, with_values(meta, values)).mean(axis=1) for values in grid])

    validation = np.array(bench.kept("grid", lambda: areas("validation", VALIDATION_SEED).tolist()))
    best = int(np.argmax(validation.mean(axis=1)))
    edges = [name for name, value in grid[best].items() if value in (min(GRID[name]), max(GRID[name]))]
    run = bench.curves(learner, "test")
    fixed = with_values(meta, grid[best])
    curves = {
        "best of the grid": np.stack(
            [bench.measured("fixed", seed, functools.partial(run, TEST_SEED + seed, fixed)) for seed in range(seeds)]
        )
    }
    for method in methods:
        chosen = grid[best] | GOVERNORS[method]
        curves[method] = np.stack([bench.learned("hyper_policy", method, seed, chosen) for seed in range(seeds)])
    tuned = {"values": grid[best], "settings": len(grid), "on_edge": edges}
    rows = rows_of(curves, "best of the grid", random_return(bench))
    return {"tuned": tuned, "baseline": "best of the grid", "rows": rows}


def random_return(bench: Bench) -> float:
    """Mean return of an episode of random actions in test tasks."""
    from jaxmeta.adapters import pose_openly, random_policy

    learner = bench.ordinary({})._replace(adapter=random_policy(bench.tasks), task=pose_openly)
    return float(np.mean(bench.curves(learner, "test")(TEST_SEED, None)))


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
    lines = [
        f"# {title}\n",
        f"Area under the curve of (return - random), {result['rows'][0]['seeds']} seeds of {NUM_TASKS} test tasks, and "
        f"paired differences to {result['baseline']}. Made by `{result['command']}`.\n",
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


COMPARISONS = {"rules": (compare_rules, RULES), "governors": (compare_governors, GOVERNORS)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparison", choices=COMPARISONS)
    parser.add_argument("--tasks", required=True)
    parser.add_argument("--methods", nargs="*", help="by default all")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--runs", type=Path, default=Path("runs/lifetimes"))
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()

    compare, methods = COMPARISONS[options.comparison]
    folder = options.runs / f"{options.comparison}-{options.tasks.replace(':', '-').replace('=', '-')}"
    chosen = list(methods) if options.methods is None else options.methods
    result = compare(Bench(options.tasks, folder), chosen, options.seeds)
    result = {"command": "python benchmarks/lifetimes.py " + " ".join(sys.argv[1:]), "machine": machine(), **result}
    write_json(options.out, result)
    write_text(options.out.with_suffix(".md"), table(f"{options.comparison} on {options.tasks}", result))
    print(table(options.tasks, result))


if __name__ == "__main__":
    main()
