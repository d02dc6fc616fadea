"""Cells that nobody measured, for tests of what is made of cells."""

import itertools

import numpy as np

from jaxmeta.reporting import cells, comparison, pooling

ROUNDS = 2


def cell(method, mean=0.5, *, tasks="grid_navi", kind="method", seeds=(0, 1, 2), num_tasks=16, noise=0.1, **changed):
    """A cell whose scores are about `mean`, after a third and all of its training."""
    rng = np.random.default_rng(sum(map(ord, method + tasks)))

    def point(env_steps, share, split="test"):
        scores = share * mean + noise * rng.normal(size=(len(seeds), num_tasks))
        ends = scores.mean(axis=1, keepdims=True)
        return {
            "split": split,
            "tasks_seen": split == "train",
            "env_steps": env_steps,
            "seed": 0,
            "returns": (10 * ends * np.linspace(0, 1, ROUNDS + 1)).tolist(),
            "scores": scores.tolist(),
            "steps_to_threshold": [40 if mean > 0.6 else None] * len(seeds),
        }

    content = {
        "kind": kind,
        "tasks": tasks,
        "method": method,
        "agent": comparison.MEMORY if method == "rl2" else "dqn",
        "hyperparams": {},
        "commands": [f"python benchmarks/scoreboard.py --only {tasks}/{method}"],
        "versions": {"jaxmeta": cells.metadata.version("jaxmeta")},
        "device": "1 x cpu",
        "settings": {"adaptation": {"num_adaptations": ROUNDS}},
        "sees_context": False,
        "seeds": list(seeds),
        "adaptation": {"env_steps": 80, "rounds": ROUNDS, "seconds": 0.01, "flops": 2e6, "memory": 10_000},
        "training": {"env_steps": 3000, "seconds": 12.0, "memory": 1e6},
        "points": [point(1000, 0.5), point(3000, 1.0), point(3000, 1.2, "train")],
    }
    return cells.sealed(content | changed)


def references(tasks="grid_navi"):
    """Chance and the oracle."""
    flat = [{"split": "test", "tasks_seen": False, "env_steps": 3000, "seed": 0, "steps_to_threshold": [None]}]
    return [
        cell(
            name,
            mean,
            tasks=tasks,
            kind="reference",
            seeds=(0,),
            training={},
            points=[flat[0] | {"returns": [[10.0 * mean] * (ROUNDS + 1)], "scores": [[float(mean)] * 16]}],
        )
        for name, mean in (("random", 0), ("oracle", 1))
    ]


def board(tasks=("grid_navi", "bandit")):
    """A whole scoreboard: a method that is better than the baseline, one that is worse, and one that is neither."""
    made = []
    for family in tasks:
        made += [cell("maml", 0.9, tasks=family), cell("reptile", 0.2, tasks=family), cell("rl2", 0.5, tasks=family)]
        made += [cell("scratch", 0.5, tasks=family, kind="baseline", training={}), *references(family)]
    return made


def write(folder, made):
    """Puts cells into a folder, as a scoreboard does."""
    for one in made:
        cells.write(folder / f"{one['tasks']}-{one['method']}.cell.json", one)


def rows_of(*evaluations):
    """The rows of what `evaluate` has returned."""
    made = [cells.of_evaluations([reported], cells.origin({}, ["a test"]), []) for reported in evaluations]
    found, _ = pooling.pooled(itertools.chain.from_iterable(made))
    return comparison.rows(found)
