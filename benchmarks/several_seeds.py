"""What it costs to train several seeds in one program, beside as many runs of one seed each.

    python benchmarks/several_seeds.py --out benchmarks/results/several_seeds

Both take the same meta-steps at the same settings, in one process, in alternating pairs. Compilation is timed once for
each, from tracing on; a run of its own compiles anew unless a cache of programs serves it.
"""

import argparse
import functools
import json
import os
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from throughput import machine, ratio_of

from jaxmeta.training import jobs
from jaxmeta.training import loop as training
from jaxmeta.training.run_directory import write_json, write_text

SEEDS = 8
PAIRS = 15
META_STEPS = 5
"""Of a timed call."""
SUBJECTS = {
    "maml": (
        "grid_navi:size=4,horizon=10",
        {
            "adaptation.num_envs": 4,
            "adaptation.num_adaptations": 1,
            "agent.hidden": (32,),
            "objective.num_query_envs": 4,
            "outer.tasks_per_batch": 8,
        },
    ),
    "rl2": (
        "bandit:arms=5,pulls=10",
        {
            "memory.width": 32,
            "outer.tasks_per_batch": 32,
            "outer.trust_region.epochs": 2,
            "outer.trust_region.minibatches": 2,
        },
    ),
}
"""By algorithm, tasks and settings, all of them small."""


def program(algorithm: str, tasks: str, settings: dict[str, Any], **whose: Any) -> tuple[Any, list[Any], float]:
    """What takes `META_STEPS`, with its arguments but for the length, and how long it took to compile."""
    job = jobs.prepare(algorithm, tasks, settings=settings, log_every=META_STEPS, devices=1, **whose)
    arguments = [training.starting_state(job), training.step_key(job)]
    start = time.perf_counter()
    compiled = training.lowered(job, *arguments).compile()
    return compiled, arguments, time.perf_counter() - start


def advance(compiled: Any, arguments: list[Any]) -> jax.Array:
    """Takes meta-steps from where the last call ended, since a state is donated."""
    arguments[0], _ = compiled(*arguments, np.int32(META_STEPS))
    return arguments[0].step


def measure(algorithm: str, tasks: str, settings: dict[str, Any]) -> dict[str, Any]:
    together, of_all, compile_together = program(algorithm, tasks, settings, seeds=range(SEEDS))
    alone, of_one, compile_alone = program(algorithm, tasks, settings, seed=0)

    def in_turns() -> jax.Array:
        return [advance(alone, of_one) for _ in range(SEEDS)][-1]

    reported = ratio_of(functools.partial(advance, together, of_all), in_turns, PAIRS)
    return {
        "algorithm": algorithm,
        "tasks": tasks,
        "settings": {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()},
        "seeds": SEEDS,
        "meta_steps": META_STEPS,
        **reported,
        "compile_seconds": [compile_together, compile_alone],
    }


def table(content: dict[str, Any]) -> str:
    """The results in Markdown."""
    heads = ("algorithm", "tasks", f"{SEEDS} seeds in one program", f"{SEEDS} runs of one", "ratio", "95 %")
    compiling = ("compiling the one program", "compiling a run of one")
    lines = [
        "# Several seeds in one program",
        "",
        f"    {content['command']}",
        "",
        f"What one meta-step of all {SEEDS} seeds takes: medians over {PAIRS} alternating pairs in one process, their",
        "ratio, and its bootstrap interval over the pairs. Before it began, "
        f"{content['load_before']:.1f} other processes ran on the machine's {content['machine']['cores']} cores.",
        "",
        f"| {' | '.join(heads + compiling)} |",
        "|" + "---|" * len(heads + compiling),
    ]
    for row in content["rows"]:
        together, alone = (f"{1000 * seconds / row['meta_steps']:.1f} ms" for seconds in row["seconds"])
        low, high = row["ratio_ci95"]
        compiled = " | ".join(f"{seconds:.1f} s" for seconds in row["compile_seconds"])
        lines.append(
            f"| `{row['algorithm']}` | `{row['tasks']}` | {together} | {alone} | {row['ratio']:.2f} "
            f"| {low:.2f} to {high:.2f} | {compiled} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="of the results, without .json and .md")
    options = parser.parse_args()
    content: dict[str, Any] = {
        "command": shlex.join(["python", *sys.argv]),
        "machine": machine(),
        "load_before": os.getloadavg()[0],
        "rows": [],
    }
    for algorithm, (tasks, settings) in SUBJECTS.items():
        content["rows"].append(measure(algorithm, tasks, settings))
        print(json.dumps(content["rows"][-1]), flush=True)
    write_json(options.out.with_suffix(".json"), content)
    write_text(options.out.with_suffix(".md"), table(content))


if __name__ == "__main__":
    main()
