"""What an outer gradient through long inner learning costs, by length and by estimator: seconds and memory.

    python benchmarks/unrolls.py --out benchmarks/results/unrolls.json

A structured learned rule trains DQN with two layers of 64 on GridNavi, in 16 tasks at once, by so many gradient steps
on minibatches of 32 from one round's replay; the loss is that of the parameters at the end. Memory is what the compiled
program needs beside its arguments; seconds are of the fastest of three calls. Evolution strategies live each task
twice, in one antithetic pair.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import jax
from throughput import fastest, machine

from jaxmeta.algorithms import recipes
from jaxmeta.core import tasks
from jaxmeta.core.types import sample_tasks
from jaxmeta.training.run_directory import write_json, write_text

SETTINGS: dict[str, Any] = {
    "rule": "structured",
    "hidden": (64, 64),
    "envs": 4,
    "rounds": 1,
    "replay_rounds": 1,
    "batch_size": 32,
    "tasks_per_batch": 16,
    "outer_loss": "td",
    "query_envs": 4,
    "population": 2,
}
ESTIMATORS: dict[str, dict[str, Any]] = {
    "back-propagation": {"outer_gradient": "backpropagation"},
    "the same, remat": {"outer_gradient": "backpropagation", "remat": True},
    "the same, nested remat": {"outer_gradient": "backpropagation", "nested_remat": True},
    "es": {"outer_gradient": "es"},
    "pes": {"outer_gradient": "pes"},
}
STEPS = (25, 100, 400)
MOST_MEGABYTES = 8000
"""Programs that need more are not run."""


def cost(estimator: str, steps: int) -> dict[str, Any]:
    """Of one meta-step."""
    distribution = tasks.make_tasks("grid_navi")
    settings = SETTINGS | ESTIMATORS[estimator] | {"inner_steps": steps}
    learner = recipes.make_recipe("learned_rule", distribution, **settings)
    state = jax.jit(learner.init)(jax.random.key(0))
    env_params = sample_tasks(jax.random.key(1), distribution, "train", learner.tasks_per_batch)
    start = time.perf_counter()
    compiled = jax.jit(learner.update).lower(jax.random.key(2), state, env_params).compile()
    memory = compiled.memory_analysis()
    assert memory is not None, "this platform does not report memory"
    row = {
        "estimator": estimator,
        "steps": steps,
        "megabytes": memory.temp_size_in_bytes / 1e6,
        "seconds_to_compile": time.perf_counter() - start,
        "seconds": None,
    }
    if row["megabytes"] < MOST_MEGABYTES:
        row["seconds"] = fastest(lambda: compiled(jax.random.key(2), state, env_params), times=3)
    print(row, flush=True)
    return row


def table(rows: list[dict[str, Any]]) -> str:
    lines = ["# Cost of an outer gradient by length\n", "Made by `benchmarks/unrolls.py`: megabytes and seconds.\n"]
    lines += [f"| estimator | {' | '.join(f'{steps} steps' for steps in STEPS)} |", "|---|" + "---|" * len(STEPS)]
    for estimator in ESTIMATORS:
        cells = []
        for row in rows:
            if row["estimator"] == estimator:
                seconds = "not run" if row["seconds"] is None else f"{row['seconds']:.2f} s"
                cells.append(f"{row['megabytes']:,.0f} MB, {seconds}")
        lines.append(f"| {estimator} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    rows = [cost(estimator, steps) for estimator in ESTIMATORS for steps in STEPS]
    command = f"python benchmarks/unrolls.py --out {options.out}"
    write_json(options.out, {"command": command, "machine": machine(), "settings": SETTINGS, "rows": rows})
    write_text(options.out.with_suffix(".md"), table(rows))


if __name__ == "__main__":
    main()
