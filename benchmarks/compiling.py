"""What XLA's options for meta-steps cost and give on a CPU: time to compile, and time of a meta-step.

    python benchmarks/compiling.py --out benchmarks/results/compiling.json

Compares `jaxmeta.core.compilation.compiler_options` with XLA's own defaults, in one process for each algorithm: both
programs are compiled, in turn, without any cache, and their meta-steps take turns. Ratios are ours to XLA's own: below
1 ours is faster. Nothing else should run on the machine.
"""

import argparse
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import jax
import numpy as np
from throughput import machine, ratio_of

from jaxmeta.core import compilation, compilation_cache
from jaxmeta.training import jobs
from jaxmeta.training import loop as training
from jaxmeta.training.chunks import make_chunk
from jaxmeta.training.run_directory import write_json, write_text

CASES = (
    ("maml", "grid_navi"),
    ("maml", "cartpole"),
    ("maml", "maze"),
    ("reptile", "grid_navi"),
    ("meta_sgd", "point_navigation"),
    ("hypernetwork", "recommender"),
    ("learned_optimizer", "grid_navi"),
    ("rl2", "maze"),
    ("rl2", "tabular_mdp"),
)


def compared(algorithm: str, tasks: str, pairs: int) -> dict[str, Any]:
    """Both programs of one algorithm, at its own settings for the family."""
    job = jobs.prepare(algorithm, tasks)
    key, options = training.step_key(job), compilation.compiler_options()
    lowered = make_chunk(job.learner, job.tasks, 1).lower(training.starting_state(job), key, np.int32(0))
    seconds, programs = [], []
    with compilation_cache.bypassed():
        for given in (options, None):
            # None would leave the options that the program was made with, so XLA's own are named.
            own = given or {"xla_backend_optimization_level": 3, "xla_llvm_disable_expensive_passes": False}
            wall, processor = time.perf_counter(), time.process_time()
            programs.append(lowered.compile(compiler_options=own))
            seconds.append((time.perf_counter() - wall, time.process_time() - processor))

    def meta_step(program: Any) -> Any:
        held = [training.starting_state(job)]

        def call() -> Any:
            held[0], log = program(held[0], key, np.int32(1))
            return log

        return call

    steps = ratio_of(*map(meta_step, programs), pairs=pairs)
    (wall, processor), (wall_own, processor_own) = seconds
    row = {
        "algorithm": algorithm,
        "tasks": tasks,
        "compile_seconds": [wall, wall_own],
        "compile_processor_seconds": [processor, processor_own],
        "meta_step": steps,
    }
    print(row, flush=True)
    return row


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "# Options of the compiler\n",
        "Made by `benchmarks/compiling.py`: ours beside XLA's own; the ratio of a meta-step below 1 is ours faster.\n",
        "| algorithm | tasks | compile, ours | compile, XLA's own | a meta-step, ours | ratio | 95 % |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        (ours, own), step = row["compile_seconds"], row["meta_step"]
        low, high = step["ratio_ci95"]
        lines.append(
            f"| `{row['algorithm']}` | `{row['tasks']}` | {ours:.1f} s | {own:.1f} s "
            f"| {1e3 * step['seconds'][0]:.0f} ms | {step['ratio']:.2f} | {low:.2f} to {high:.2f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=20)
    options = parser.parse_args()
    rows = []
    for algorithm, tasks in CASES:
        with get_context("spawn").Pool(1) as pool:
            rows.append(pool.apply(compared, (algorithm, tasks, options.pairs)))
    command = f"python benchmarks/compiling.py --out {options.out} --pairs {options.pairs}"
    content = {"command": command, "machine": machine(), "options": compilation.compiler_options(), "rows": rows}
    write_json(options.out, content)
    write_text(options.out.with_suffix(".md"), table(rows))


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    main()
