"""Q-networks that a new task is given before it has learned anything, in test tasks.

    python benchmarks/transfer.py --family grid_navi --out benchmarks/results/transfer_grid_navi.json

Scores are (return - random) / (oracle - random) of an episode before the first round, where nothing of the task has
been seen, and after each one. All methods have the same rounds in the same tasks with the same random numbers. The step
size of each method's gradient steps is chosen on validation tasks, with its first seed; where a family's validation
tasks are tasks of the bank too, that is done with another training that keeps some tasks from the bank. Copies come
from a bank that was trained as that of the map was. Cells (method, seed) stand in the file of results, which is added
to; trainings are kept under `--runs`, and taken up where they were left.
"""

import argparse
import functools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from record import FIRST_SEED, Record, by_method, cell, commands_of, train
from throughput import machine

import jaxmeta
from jaxmeta.algorithms.mapping import MappingConfig
from jaxmeta.algorithms.registry import configure, make_learner
from jaxmeta.core.settings import settings_of
from jaxmeta.core.types import PyTree, sample_tasks
from jaxmeta.evaluation import measurement, statistics
from jaxmeta.inner import privileged_task, random_policy
from jaxmeta.training.run_directory import write_text

RATES = [0.0, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1]
"""Of Adam, for what starts from given parameters; 0 leaves them as they are."""
MAML_RATES = [0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0]
COPY = {"map.form": "identity", "loss.bank_batch": 1, "outer.num_updates": 1}
TAUGHT = ("inner.optimizer", "inner.num_steps", "agent.batch_size", "agent.n_step", "agent.temperature")
"""Settings by which learning from scratch equals that after the transfer."""
LIVED = ("adaptation.num_envs", "adaptation.rollout_length", "adaptation.num_adaptations", "agent.hidden")
"""Settings that all methods share with the map."""


class Method(NamedTuple):
    """An algorithm, with settings of its own."""

    algorithm: str
    settings: dict[str, Any]
    rates: list[float] = RATES


def copy(reads: str, representation: str = "described") -> Method:
    """A copy out of a bank. The nearest of inferred tasks is that by an encoder as it was drawn, untrained."""
    return Method("mapping", {**COPY, "source_selection": reads, "task_embedding": representation})


BASELINES = {
    "scratch": Method("scratch", {path: settings_of(MappingConfig())[path] for path in TAUGHT}),
    "copy of a random source": copy("random"),
    "copy of the nearest source (described)": copy("nearest"),
    "average of the bank": copy("average"),
}


HYPERNETWORK = {"hypernetwork": Method("hypernetwork", {}, [0.0])}
"""It reads anew after every round, and takes no gradient step of its own."""
MAML = {"MAML": Method("maml", {}, MAML_RATES)}


class Family(NamedTuple):
    """Tasks, and what is compared in them."""

    tasks: str
    validated_in: str
    """Whose validation tasks step sizes are chosen in."""
    sources: int
    """Tasks of the bank there, no more than it has."""
    methods: dict[str, Method]


FAMILIES = {
    "grid_navi": Family(
        "grid_navi:goals=split",
        "grid_navi:goals=split,kept=5",
        9,
        {
            **{f"map, {form} (described)": Method("mapping", {"map.form": form}) for form in ("kronecker", "diagonal")},
            "map, low rank (described)": Method("mapping", {"map.form": "low_rank"}),
            **BASELINES,
            **MAML,
            **HYPERNETWORK,
        },
    ),
    "recommender": Family(
        "recommender",
        "recommender",
        32,
        {
            "map, attention (inferred)": Method("mapping", {}),
            "map, attention (described)": Method("mapping", {"task_embedding": "described"}),
            **HYPERNETWORK,
            "copy of the nearest source (inferred)": copy("nearest", "inferred"),
            **BASELINES,
            **MAML,
        },
    ),
    "tabular_mdp": Family(
        "tabular_mdp",
        "tabular_mdp",
        14,
        {
            "map, attention (inferred)": Method("mapping", {}),
            **{name: BASELINES[name] for name in ("scratch", "average of the bank")},
            **HYPERNETWORK,
        },
    ),
    "cartpole": Family("cartpole", "cartpole", 14, {"scratch": BASELINES["scratch"], **HYPERNETWORK}),
}
"""Tasks of `tabular_mdp` have next to nothing in common."""


def with_rate(meta: PyTree, rate: float) -> PyTree:
    """Meta-parameters whose learners take steps of that size."""
    start = getattr(meta, "start", meta)
    start = start.replace(hyperparams=start.hyperparams.replace(learning_rate=jnp.float32(rate)))
    return meta.replace(start=start) if hasattr(meta, "start") else start


class Bench:
    """One family, with the settings that are the same for all methods."""

    def __init__(self, family: Family, common: dict[str, Any], num_tasks: int, folder: Path):
        self.family = family
        self.common = common
        self.num_tasks = num_tasks
        self.folder = folder
        of_map = settings_of(configure("mapping", family.tasks, common))
        self.shared = {path: of_map[path] for path in LIVED}
        self.scale = functools.cache(self._scale)

    def settings(self, method: Method) -> dict[str, Any]:
        """All settings of a method that are not its algorithm's own."""
        of_map = self.common if method.algorithm == "mapping" else {}
        replay = {"agent.replay_capacity": self.shared["adaptation.num_adaptations"]}
        return replay | of_map | self.shared | method.settings

    def trained(self, name: str, seed: int, spec: str):
        """The learner, its meta-parameters and the tasks, of a training that is taken up where it was left."""
        method, tasks = self.family.methods[name], jaxmeta.make_tasks(spec)
        settings = self.settings(method)
        if method.algorithm == "mapping" and spec != self.family.tasks:
            settings["num_sources"] = min(settings.get("num_sources", self.family.sources), self.family.sources)
        if method.algorithm == "scratch":
            learner = make_learner("scratch", tasks, settings)
            return learner, learner.meta(learner.init(jax.random.key(seed))), tasks
        folder = "-".join(part for part in (name, spec, f"seed{seed}")).translate(str.maketrans(" :=,()", "------"))
        run_dir = self.folder / folder
        return *train(method.algorithm, tasks, seed, run_dir, settings), tasks

    def chosen_rate(self, name: str) -> dict[str, Any]:
        """The step size that is best on validation tasks, over all rounds."""
        learner, meta, tasks = self.trained(name, 0, self.family.validated_in)
        task_key, life_key = jax.random.split(jax.random.key(FIRST_SEED["validation"]))
        make_evaluator = measurement.make_evaluator(learner, tasks, self.num_tasks, "validation")
        rates = self.family.methods[name].rates
        means = [float(np.mean(make_evaluator(task_key, life_key, with_rate(meta, rate)))) for rate in rates]
        best = int(np.argmax(means))
        print(f"{name}: step size {rates[best]:g} of {means}", flush=True)
        return {"learning_rate": rates[best], "validation": means, "on_edge": best in (0, len(rates) - 1)}

    def _scale(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns of chance and of the oracle in a seed's test tasks, [tasks, 1] each, the same for all methods."""
        tasks = jaxmeta.make_tasks(self.family.tasks)
        task_key, _ = jax.random.split(jax.random.key(FIRST_SEED["test"] + seed))
        learner = make_learner("scratch", tasks, self.shared)
        by_chance = learner._replace(adapter=random_policy(tasks), task=privileged_task)
        random = measurement.make_evaluator(by_chance, tasks, self.num_tasks)(task_key, jax.random.key(0), None).mean(
            axis=1
        )
        assert tasks.oracle is not None, "a family with an oracle"
        oracle = jax.vmap(tasks.oracle)(sample_tasks(task_key, tasks, "test", self.num_tasks))
        return random[:, None], np.asarray(oracle, np.float64)[:, None]

    def scores(self, name: str, seed: int, rate: float) -> list[list[float]]:
        """In test tasks, [tasks][rounds + 1]."""
        learner, meta, tasks = self.trained(name, seed, self.family.tasks)
        task_key, life_key = jax.random.split(jax.random.key(FIRST_SEED["test"] + seed))
        returns = measurement.make_evaluator(learner, tasks, self.num_tasks)(task_key, life_key, with_rate(meta, rate))
        random, oracle = self.scale(seed)
        scores = ((returns - random) / (oracle - random)).round(3).tolist()
        print(f"{name}, seed {seed}: {np.round(np.mean(scores, axis=0), 2)}", flush=True)
        return scores


def rows_of(cells: dict[str, Any], methods: dict[str, Method]) -> list[dict[str, Any]]:
    """Means over tasks and seeds by round, and intervals."""
    rows = []
    grouped = by_method(cells)
    for name in filter(grouped.__contains__, methods):
        seeds = list(grouped[name].values())
        by_round = np.moveaxis(np.array(seeds), 2, 0)
        rows.append(
            {
                "method": name,
                "seeds": len(seeds),
                "scores": [statistics.mean(scores) for scores in by_round],
                "ci95": [statistics.bootstrap_interval(scores, trim=0, same_tasks=False) for scores in by_round],
            }
        )
    return rows


def table(record: dict[str, Any]) -> str:
    """Scores by round, as Markdown."""
    rounds = len(record["rows"][0]["scores"])
    lines = [
        f"# Transfer in {record['subject']['tasks']}\n",
        f"Scores of episodes in {record['subject']['num_tasks']} test tasks a seed, random 0 and oracle 1, and their "
        f"95 % intervals over seeds and tasks. Made by\n{commands_of(record)}\n",
        "| method | seeds | step size | before | " + " | ".join(f"round {index}" for index in range(1, rounds)) + " |",
        "|---|---|---|" + "---|" * rounds,
    ]
    for row in record["rows"]:
        numbers = [
            f"{score:.2f} ({low:.2f} to {high:.2f})"
            for score, (low, high) in zip(row["scores"], row["ci95"], strict=True)
        ]
        rate = record["tuned"][row["method"]]["learning_rate"]
        lines.append(f"| {row['method']} | {row['seeds']} | {rate:g} | " + " | ".join(numbers) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", required=True, choices=FAMILIES)
    parser.add_argument("--methods", nargs="*", help="by default all")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--sources", type=int, help="tasks of the bank")
    parser.add_argument("--num-tasks", type=int, default=128, help="test tasks of a seed, and validation tasks")
    parser.add_argument("--runs", type=Path, default=Path("runs/transfer"))
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()

    family = FAMILIES[options.family]
    common = {} if options.sources is None else {"num_sources": options.sources}
    subject = {"tasks": family.tasks, "num_tasks": options.num_tasks, **common}
    record = Record(options.out, subject)
    folder = options.runs / "-".join([options.family, *(str(value) for value in common.values())])
    bench = Bench(family, common, options.num_tasks, folder)
    for seed in range(options.seeds):
        for name in family.methods if options.methods is None else options.methods:
            rate = record.kept("tuned", name, functools.partial(bench.chosen_rate, name))["learning_rate"]
            record.kept("cells", cell(name, seed), functools.partial(bench.scores, name, seed, rate))
    content = record.close("transfer.py", machine=machine(), rows=rows_of(record.content["cells"], family.methods))
    write_text(options.out.with_suffix(".md"), table(content))
    print(table(content))


if __name__ == "__main__":
    main()
