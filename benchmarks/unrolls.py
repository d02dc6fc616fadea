"""What an outer gradient through long inner learning costs, by length and by estimator: seconds and memory.

    python benchmarks/unrolls.py --out benchmarks/results/unrolls.json

A structured learned rule trains DQN with two layers of 64 on GridNavi, in 16 tasks at once, by so many gradient steps
on minibatches of 32 from one round's replay; the loss is that of the parameters at the end. Memory is what the compiled
program needs beside its arguments; seconds are of the fastest of three calls. Evolution strategies run each task
twice, in one antithetic pair.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import jax
from throughput import fastest, machine

from jaxmeta.algorithms.registry import make_learner
from jaxmeta.core import tasks
from jaxmeta.core.types import Task, sample_tasks
from jaxmeta.training.run_directory import write_json, write_text

SETTINGS: dict[str, Any] = {
    "adaptation.num_envs": 4,
    "adaptation.num_adaptations": 1,
    "agent.hidden": (64, 64),
    "agent.replay_capacity": 1,
    "agent.batch_size": 32,
    "rule.network": "structured",
    "objective.loss": "td",
    "objective.num_query_envs": 4,
    "outer.tasks_per_batch": 16,
    "outer.num_perturbations": 2,
}
ESTIMATORS: dict[str, dict[str, Any]] = {
    "back-propagation": {"outer.gradient_estimator": "backpropagation"},
    "the same, remat": {"outer.gradient_estimator": "backpropagation", "outer.remat": "steps"},
    "the same, nested remat": {"outer.gradient_estimator": "backpropagation", "outer.remat": "nested"},
    "es": {"outer.gradient_estimator": "es"},
    "pes": {"outer.gradient_estimator": "pes"},
}
STEPS = (25, 100, 400)
MOST_MEGABYTES = 8000
"""Programs that need more are not run."""


def cost(estimator: str, steps: int) -> dict[str, Any]:
    """Of one meta-step."""
    distribution = tasks.make_tasks("grid_navi")
    settings = SETTINGS | ESTIMATORS[estimator] | {"inner.num_steps": steps}
    learner = make_learner("learned_optimizer", distribution, settings)
    state = jax.jit(learner.init)(jax.random.key(0))
    env_params = sample_tasks(jax.random.key(1), distribution, "train", learner.tasks_per_batch)
    start = time.perf_counter()
    compiled = jax.jit(learner.update).lower(jax.random.key(2), state, Task(env_params, None)).compile()
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
