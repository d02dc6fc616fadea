"""Learning that was learned against Q-learning that was tuned, over long lifetimes in test tasks.

    python benchmarks/lifetimes.py rules --tasks grid_navi:goals=split --out benchmarks/results/rules_grid_navi.json
    python benchmarks/lifetimes.py hyper_policies --tasks tabular_mdp:varied=true \
        --out benchmarks/results/hyper_policy_tabular_mdp.json
    python benchmarks/lifetimes.py rules --tasks cartpole \
        --transferred-from runs/lifetimes/rules-grid_navi-goals-split \
        --out benchmarks/results/rules_transferred_to_cartpole.json

The last one learns nothing: rules learned in one family are used in another, or, with `--set hidden=64,64`, in a wider
network.

What is compared is the area under the curve of an episode's return over a lifetime, above that of random actions. All
have the same rounds in the same test tasks with the same random numbers, so that differences are paired; intervals are
over seeds and tasks. Everything is chosen on validation tasks: the hyper-parameters that ordinary learning has, and
that what is learned starts from. What was tuned and measured stands in the file of results, and is not made again: run
with other methods or more seeds to add to it. Trainings are kept under `--runs`, and taken up where they were left.
"""

import argparse
import functools
import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from msgspec import structs
from record import FIRST_SEED, Record, by_method, cell, commands_of, read_settings, train
from throughput import machine

import jaxmeta
from jaxmeta.algorithms.baselines import ScratchConfig
from jaxmeta.algorithms.hyper_policy import HyperPolicyConfig
from jaxmeta.algorithms.learned_optimizer import LearnedOptimizerConfig
from jaxmeta.algorithms.registry import agent_of, configure, make_learner
from jaxmeta.core.settings import settings_of
from jaxmeta.core.types import MetaLearner, PyTree, TaskDistribution
from jaxmeta.evaluation import measurement, statistics
from jaxmeta.inner.gradient import GradientConfig, InnerOptimizerConfig
from jaxmeta.training.run_directory import write_text
from jaxmeta.training.seeds import last_word

Values = dict[str, float]
"""Hyper-parameters by the path of their settings."""

RATES = {
    "sgd": [0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0],
    "rmsprop": [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1],
    "adam": [3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1],
}
COORDINATES = {
    "agent.discount": [0.5, 0.7, 0.8, 0.9, 0.95, 0.99],
    "agent.epsilon_decay": [0.8, 0.9, 0.94, 0.97, 0.98, 0.99],
    "agent.target_step_size": [0.01, 0.03, 0.1, 0.3, 1.0],
}
GRIDS = {
    "tabular_q": {
        "inner.learning_rate": [0.03, 0.1, 0.3, 1.0],
        "agent.discount": [0.1, 0.3, 0.6, 0.8, 0.9],
        "agent.epsilon": [0.2, 0.4, 0.6, 0.8, 1.0],
    },
    "dqn": {
        "inner.learning_rate": [1e-3, 3e-3, 1e-2, 3e-2],
        "agent.discount": [0.7, 0.8, 0.9, 0.95, 0.99],
        "agent.epsilon": [0.1, 0.3, 0.5, 0.7, 0.9],
    },
}
"""Of ordinary Q-learning by agent, all with all."""
CHOOSING_LIVES = 3
"""Lives of a task in which its best setting is chosen, none of them the one that it is scored in."""
STRETCHES = 5
"""Where an estimator runs one lifetime at a time; it then takes as many more meta-steps, of equal experience."""
ESTIMATORS: dict[str, dict[str, Any]] = {
    "es": {"outer.gradient_estimator": "es"},
    "pes": {"outer.gradient_estimator": "pes"},
    "truncated": {"outer.gradient_estimator": "backpropagation", "objective.loss": "td", "outer.learning_rate": 0.01},
}
"""Truncated back-propagation has no perturbed lifetimes and takes as many more tasks."""
RULES = [f"{rule}, {estimator}" for rule in ("structured", "recurrent", "attention") for estimator in ESTIMATORS]
IN_HINDSIGHT = "best of the grid in each task"
HYPER_POLICIES: dict[str, dict[str, Any]] = {
    form: {"policy.form": form} for form in ("online", "schedule", "static", "constant")
} | {"online, structure": {"policy.form": "online", "agent.structure": True}}


def folder_of(method: str, seed: int) -> str:
    """The folder of a method trained with a seed."""
    return f"{method.replace(', ', '-')}-seed{seed}"


class Bench:
    """A family of tasks, and how learners are measured in it."""

    def __init__(self, subject: dict[str, Any], folder: Path, results: Path):
        self.tasks: TaskDistribution = jaxmeta.make_tasks(subject["tasks"])
        self.num_tasks: int = subject["num_tasks"]
        self.overrides = read_settings(subject["set"])
        self.source = subject["transferred_from"] and Path(subject["transferred_from"])
        """Where rules were learned, if not here."""
        self.folder = folder
        self.record = Record(results, subject)
        self.kept = self.record.kept

    def learned_optimizer(self) -> LearnedOptimizerConfig:
        """All settings of the learned optimizer here."""
        config = configure("learned_optimizer", self.tasks, self.overrides)
        assert isinstance(config, LearnedOptimizerConfig)
        return config

    def hyper_policy(self) -> HyperPolicyConfig:
        """All settings of the policy over hyper-parameters here."""
        config = configure("hyper_policy", self.tasks, self.overrides)
        assert isinstance(config, HyperPolicyConfig)
        return config

    def curves(self, learner: MetaLearner, split: str) -> Callable[..., np.ndarray]:
        """`curves(seed, meta, learner_state=0)`: returns before and after each round, [tasks, rounds + 1]."""
        make_evaluator = measurement.make_evaluator(learner, self.tasks, self.num_tasks, split)

        def curves(seed: int, meta: PyTree, learner_state: int = 0) -> np.ndarray:
            task_key, *life_keys = jax.random.split(jax.random.key(FIRST_SEED[split] + seed), 2 + CHOOSING_LIVES)
            return make_evaluator(task_key, life_keys[learner_state], meta)

        return curves

    def ordinary(self, config: LearnedOptimizerConfig | HyperPolicyConfig, optimizer: str) -> MetaLearner:
        """Q-learning from fresh parameters, in the lifetimes of the method that it is compared with."""
        own = {name: getattr(config.inner, name) for name in GradientConfig.__struct_fields__}
        inner = structs.replace(InnerOptimizerConfig(**own), optimizer=optimizer)
        ordinary = ScratchConfig(adaptation=config.adaptation, agent=config.agent, inner=inner)
        return make_learner("scratch", self.tasks, ordinary)

    def measure(self, method: str, seeds: int, make: Callable[[int], np.ndarray]) -> None:
        """Adds cells of a method, one for each seed; `make(seed)` makes curves [tasks, rounds + 1]."""

        def of_seed(seed: int) -> dict[str, list[float]]:
            curves = make(seed)
            areas = [round(float(area), 4) for area in curves.mean(axis=1)]
            return {"areas": areas, "curve": curves.mean(axis=0).round(4).tolist()}

        for seed in range(seeds):
            areas = self.kept("cells", cell(method, seed), functools.partial(of_seed, seed))["areas"]
            print(f"{method}, seed {seed}: {np.mean(areas):.3f}", flush=True)

    def learn(self, algorithm: str, method: str, seeds: int, settings: dict[str, Any]) -> None:
        """Adds what was trained with each seed."""

        def train_and_measure(seed: int) -> np.ndarray:
            run_dir = self.folder / folder_of(method, seed) / "run"
            learner, meta = train(algorithm, self.tasks, seed, run_dir, self.overrides | settings)
            return self.curves(learner, "test")(seed, meta)

        self.measure(method, seeds, train_and_measure)

    def carry(self, source: Path, method: str, seeds: int, tuned: dict[str, Any]) -> None:
        """Adds rules learned elsewhere, with the hyper-parameters that suit what they started from here."""

        def restore_and_measure(seed: int) -> np.ndarray:
            teacher = jaxmeta.load(source / folder_of(method, seed) / "run")
            learned = teacher.learner.config
            assert isinstance(learned, LearnedOptimizerConfig)
            config = structs.replace(self.learned_optimizer(), rule=learned.rule)
            learner = make_learner("learned_optimizer", self.tasks, config)
            meta = learner.init(jax.random.key(0)).meta.replace(rule=teacher.learner.meta(teacher.state).rule)
            return self.curves(learner, "test")(seed, with_values(meta, tuned[learned.rule.base]["values"]))

        self.measure(method, seeds, restore_and_measure)


def with_values(meta: PyTree, values: Values) -> PyTree:
    """Meta-parameters with other hyper-parameters."""
    hyperparams = meta.hyperparams.replace(**{last_word(path): jnp.float32(value) for path, value in values.items()})
    return meta.replace(hyperparams=hyperparams)


def by_coordinates(bench: Bench, config: LearnedOptimizerConfig, optimizer: str) -> dict[str, Any]:
    """Tunes one optimizer: its step size, then each coordinate in turn, all of them twice."""
    learner = bench.ordinary(config, optimizer)
    meta = learner.init(jax.random.key(0)).meta
    curves = bench.curves(learner, "validation")
    tried: dict[tuple, float] = {}

    def area(values: Values) -> float:
        key = tuple(sorted(values.items()))
        if key not in tried:
            tried[key] = float(np.mean(curves(0, with_values(meta, values))))
        return tried[key]

    grids = {"inner.learning_rate": RATES[optimizer]} | COORDINATES
    settings = settings_of(config)
    best = {name: settings[name] for name in grids}
    for name in [*grids, *grids]:
        best = max(({**best, name: value} for value in grids[name]), key=area)
    edges = [name for name, value in best.items() if value in (min(grids[name]), max(grids[name]))]
    print(f"{optimizer}: {best}, area {area(best):.3f}, on an edge: {edges}", flush=True)
    return {"values": best, "validation": area(best), "on_edge": edges, "tried": len(tried)}


def apart(method: str, config: LearnedOptimizerConfig) -> dict[str, Any]:
    """The settings that set a rule and its estimator apart."""
    rule, estimator = method.split(", ")
    settings = {"rule.network": rule} | ESTIMATORS[estimator]
    if estimator != "es":
        settings |= {
            "outer.truncation_length": config.adaptation.num_adaptations // STRETCHES,
            "meta_steps": STRETCHES * config.meta_steps,
        }
    if estimator == "truncated":
        group = config.outer.tasks_per_batch
        settings |= {"outer.tasks_per_group": group, "outer.tasks_per_batch": group * config.outer.num_perturbations}
    return settings


def compare_rules(bench: Bench, methods: list[str], seeds: int) -> str:
    """Learned update rules beside three optimizers, the best of which is what they are before they have learned.

    Returns:
      The name of the best.
    """
    config = bench.learned_optimizer()
    tuned = {name: bench.kept("tuned", name, functools.partial(by_coordinates, bench, config, name)) for name in RATES}
    for name in RATES:
        learner = bench.ordinary(config, name)
        meta = with_values(learner.init(jax.random.key(0)).meta, tuned[name]["values"])
        run = bench.curves(learner, "test")
        bench.measure(name, seeds, functools.partial(run, meta=meta))
    best = max(RATES, key=lambda name: tuned[name]["validation"])
    start = {"rule.base": best} | tuned[best]["values"]
    for method in methods:
        if bench.source is None:
            bench.learn("learned_optimizer", method, seeds, start | apart(method, config))
        else:
            bench.carry(bench.source, method, seeds, tuned)
    return best


def compare_hyper_policies(bench: Bench, methods: list[str], seeds: int) -> str:
    """Policies over hyper-parameters beside the best of a grid of settings, which they start from.

    Returns:
      The name of that baseline.
    """
    config = bench.hyper_policy()
    axes = GRIDS[agent_of(config) or ""]
    learner = bench.ordinary(config, config.inner.optimizer)
    start = learner.init(jax.random.key(0)).meta
    grid = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    metas = [with_values(start, values | {"agent.epsilon_decay": 1.0}) for values in grid]
    run = bench.curves(learner, "validation")
    validation = bench.kept("tuned", "grid", lambda: [float(np.mean(run(0, meta))) for meta in metas])
    best = int(np.argmax(validation))
    edges = [name for name, value in grid[best].items() if value in (min(axes[name]), max(axes[name]))]
    bench.kept("tuned", "best", lambda: {"values": grid[best], "settings": len(grid), "on_edge": edges})
    print(f"best of {len(grid)}: {grid[best]}, area {validation[best]:.3f}, on an edge: {edges}", flush=True)

    baseline = "best of the grid"
    run = bench.curves(learner, "test")
    bench.measure(baseline, seeds, lambda seed: run(seed, metas[best]))
    for method in methods:
        if method == IN_HINDSIGHT:
            bench.measure(method, seeds, lambda seed: in_hindsight(run, seed, metas))
        else:
            bench.learn("hyper_policy", method, seeds, grid[best] | HYPER_POLICIES[method])
    return baseline


def in_hindsight(run: Callable[..., np.ndarray], seed: int, metas: list[PyTree]) -> np.ndarray:
    """Curves of the setting that is best in each task, chosen in other lifetimes than those that score it."""
    scored, chosen_by = [], []
    for meta in metas:
        scored.append(run(seed, meta))
        others = [run(seed, meta, learner_state) for learner_state in range(1, 1 + CHOOSING_LIVES)]
        chosen_by.append(np.mean(others, axis=(0, 2)))
    best = np.argmax(np.stack(chosen_by), axis=0)
    return np.stack(scored)[best, np.arange(len(best))]


def random_return(bench: Bench) -> float:
    """Mean return of an episode of random actions in test tasks."""
    from jaxmeta.inner import privileged_task, random_policy

    learner = make_learner("scratch", bench.tasks)._replace(adapter=random_policy(bench.tasks), task=privileged_task)
    return float(np.mean(bench.curves(learner, "test")(0, None)))


def rows_of(cells: dict[str, dict[str, Any]], baseline: str, random: float) -> list[dict[str, Any]]:
    """What seeds and tasks say of each method, best first; a method is held against the baseline on its own seeds."""
    rows = []
    for method, seeds in by_method(cells).items():
        area, reference = (
            np.array([cells[cell(name, seed)]["areas"] for seed in seeds]) - random for name in (method, baseline)
        )
        difference = area - reference
        rows.append(
            {
                "method": method,
                "seeds": len(seeds),
                "area": statistics.mean(area),
                "area_ci95": statistics.bootstrap_interval(area, trim=0, same_tasks=False),
                "area_by_seed": area.mean(axis=1).tolist(),
                "difference": statistics.mean(difference),
                "difference_ci95": statistics.bootstrap_interval(difference, trim=0, same_tasks=False),
                "gain": statistics.mean(difference) / statistics.mean(reference),
            }
        )
    return sorted(rows, key=lambda row: -row["gain"])


def table(title: str, record: dict[str, Any]) -> str:
    lines = [
        f"# {title}\n",
        f"Area under the curve of (return - random) in {record['subject']['num_tasks']} test tasks a seed, and paired "
        f"differences to {record['baseline']} on the same seeds. Made by\n{commands_of(record)}\n",
        "| method | seeds | area | 95 % | difference | 95 % | gain | by seed |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in record["rows"]:
        area, difference = (" to ".join(f"{x:.3f}" for x in row[f"{name}_ci95"]) for name in ("area", "difference"))
        by_seed = " ".join(f"{value:.2f}" for value in row["area_by_seed"])
        lines.append(
            f"| {row['method']} | {row['seeds']} | {row['area']:.3f} | {area} | {row['difference']:+.3f} "
            f"| {difference} | {100 * row['gain']:+.1f} % | {by_seed} |"
        )
    return "\n".join(lines) + "\n"


COMPARISONS = {
    "rules": (compare_rules, RULES),
    "hyper_policies": (compare_hyper_policies, [*HYPER_POLICIES, IN_HINDSIGHT]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparison", choices=COMPARISONS)
    parser.add_argument("--tasks", required=True)
    parser.add_argument("--methods", nargs="*", help="by default all")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--num-tasks", type=int, default=128, help="test tasks of a seed, and validation tasks")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings of every learner")
    parser.add_argument("--transferred-from", metavar="DIR", help="where the rules were learned, if not here")
    parser.add_argument("--runs", type=Path, default=Path("runs/lifetimes"))
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()

    subject = {
        "comparison": options.comparison,
        "tasks": options.tasks,
        "num_tasks": options.num_tasks,
        "set": options.set,
        "transferred_from": options.transferred_from,
    }
    names = [options.comparison, options.tasks, *options.set]
    compare, methods = COMPARISONS[options.comparison]
    bench = Bench(subject, options.runs / re.sub(r"[:=,]", "-", "-".join(names)), options.out)
    baseline = compare(bench, methods if options.methods is None else options.methods, options.seeds)
    random = bench.kept("baselines", "random", lambda: random_return(bench))
    rows = rows_of(bench.record.content["cells"], baseline, random)
    record = bench.record.close("lifetimes.py", machine=machine(), baseline=baseline, rows=rows)
    title = " ".join(names) + (f", transferred from {options.transferred_from}" if options.transferred_from else "")
    write_text(options.out.with_suffix(".md"), table(title, record))
    print(table(title, record))


if __name__ == "__main__":
    main()
