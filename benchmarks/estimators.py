"""What a meta-gradient through sampled data is worth: MAML over policies with each estimator and outer update.

    python benchmarks/estimators.py --out benchmarks/results/estimators.json

2-D navigation with its own settings. Every variant takes as many meta-steps on as many environment steps: with the
sampling correction two lifetimes of half as many tasks. Returns are on validation tasks, for this is a choice between
variants. Every cell (variant, seed) is kept in a folder of its own under `--runs` and taken up again where it was left.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from throughput import machine

import jaxmeta
from jaxmeta.evaluation import measurement, statistics
from jaxmeta.training.run_directory import write_json, write_text

TASKS = "point_navigation"
MEASURE_SEED = 500_000
NUM_TASKS = 128
CORRECTED = {
    "objective.sampling_correction": True,
    "objective.lifetimes_per_task": 2,
    "outer.tasks_per_batch": 10,
}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "naive": ("maml", {"agent.surrogate": "naive"}),
    "dice": ("maml", {"agent.surrogate": "dice"}),
    "lvc": ("maml", {"agent.surrogate": "lvc"}),
    "naive, corrected": ("maml", {"agent.surrogate": "naive", **CORRECTED}),
    "lvc, corrected": ("maml", {"agent.surrogate": "lvc", **CORRECTED}),
    "lvc, proximal": ("maml", {"agent.surrogate": "lvc", "outer.trust_region.minibatches": 1}),
    "first order": ("fomaml", {}),
}
"""Algorithm and settings; what is not said is the family's own."""


def measured(variant: str, seed: int, meta_steps: int, runs: Path) -> list[list[float]]:
    """Returns of a cell, [tasks, rounds + 1], from its folder if it is already there."""
    algorithm, settings = VARIANTS[variant]
    run_dir = runs / f"{variant.replace(', ', '-').replace(' ', '-')}-seed{seed}"
    kept = run_dir / "returns.json"
    if kept.is_file():
        return json.loads(kept.read_text())
    run = jaxmeta.train(
        algorithm,
        TASKS,
        {"agent": "actor_critic", **settings},
        show_progress=False,
        seed=seed,
        meta_steps=meta_steps,
        run_dir=run_dir,
        resume=(run_dir / "config.json").is_file(),
    )
    key, meta = jax.random.key(MEASURE_SEED), run.learner.meta(run.state)
    returns = measurement.returns_by_round(key, run.learner, meta, run.tasks, NUM_TASKS, "validation").tolist()
    write_json(kept, returns)
    return returns


def pooled(variant: str, returns: np.ndarray) -> dict[str, Any]:
    """What the seeds say together; returns are [seeds, tasks, rounds + 1]."""
    last = returns[..., -1]
    return {
        "variant": variant,
        "seeds": len(returns),
        "returns": returns.mean(axis=(0, 1)).tolist(),
        "last": float(last.mean()),
        "last_ci95": statistics.bootstrap_interval(last, trim=0),
        "last_by_seed": last.mean(axis=1).tolist(),
    }


def table(rows: list[dict[str, Any]], meta_steps: int) -> str:
    lines = [
        "# Estimators of the meta-gradient\n",
        f"MAML on {TASKS}, {meta_steps} meta-steps, validation tasks; intervals over seeds and tasks. Made by "
        "`benchmarks/estimators.py`.\n",
        "| variant | seeds | before | after 1 step | after 2 | after 3 | 95 % | by seed |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: -row["last"]):
        returns = " | ".join(f"{value:.1f}" for value in row["returns"])
        interval = " to ".join(f"{value:.1f}" for value in row["last_ci95"])
        by_seed = " ".join(f"{value:.1f}" for value in row["last_by_seed"])
        lines.append(f"| {row['variant']} | {row['seeds']} | {returns} | {interval} | {by_seed} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--meta-steps", type=int, default=200)
    parser.add_argument("--runs", type=Path, default=Path("runs/estimators"))
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()

    returns: dict[str, list[list[list[float]]]] = {}
    for seed in range(options.seeds):
        for variant in options.variants:
            returns.setdefault(variant, []).append(measured(variant, seed, options.meta_steps, options.runs))
            last = np.mean(returns[variant][-1], axis=0)
            print(f"{variant}, seed {seed}: {' '.join(f'{value:.1f}' for value in last)}", flush=True)
        rows = [pooled(variant, np.array(entries)) for variant, entries in returns.items()]
        command = "python benchmarks/estimators.py " + " ".join(sys.argv[1:])
        write_json(
            options.out, {"command": command, "machine": machine(), "meta_steps": options.meta_steps, "rows": rows}
        )
        write_text(options.out.with_suffix(".md"), table(rows, options.meta_steps))


if __name__ == "__main__":
    main()
