"""Meta-trains algorithms with several seeds, evaluates each beside its baselines, and pools the seeds.

    python benchmarks/adaptation.py --tasks grid_navi --seeds 5 --out benchmarks/results/grid_navi.json

Every cell (algorithm, seed) is kept in a folder of its own under `--runs` and taken up again where it was left. The
baselines do not depend on the algorithm: they are tuned with the first seed, and trained and measured with every one,
beside the first algorithm.
"""

import argparse
import dataclasses
import json
import platform
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

import jaxmeta
from jaxmeta.evaluation import statistics
from jaxmeta.evaluation.baselines import Choice
from jaxmeta.reporting.curves import plot_adaptation

ALGORITHMS = ("maml", "meta_sgd", "anil", "fomaml", "reptile")
BESIDE_BASELINES = "maml"


def evaluated(algorithm: str, seed: int, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The evaluation of one cell, from its folder if it is already there."""
    run_dir = folder / f"{algorithm}-seed{seed}"
    kept = run_dir / f"evaluation-{options.split}.json"
    if kept.is_file():
        return json.loads(kept.read_text())
    resume = (run_dir / "config.json").is_file()
    run = jaxmeta.train(algorithm, options.tasks, seed=seed, run_dir=run_dir, resume=resume, show_progress=False)
    content = jaxmeta.evaluate(
        run,
        split=options.split,
        num_tasks=options.num_tasks,
        seed=seed,
        with_baselines=algorithm == BESIDE_BASELINES,
        choices=tuned_choices(folder / f"{BESIDE_BASELINES}-seed0" / kept.name),
    )
    kept.write_text(json.dumps(content))
    return content


def tuned_choices(evaluation_file: Path) -> dict[str, Choice]:
    """How the baselines of an earlier evaluation adapt; nothing where there is none yet."""
    if not evaluation_file.is_file():
        return {}
    reports = json.loads(evaluation_file.read_text())["baselines"]
    names = [field.name for field in dataclasses.fields(Choice)]
    return {
        name: Choice(**{key: report["tuned"][key] for key in names})
        for name, report in reports.items()
        if "tuned" in report
    }


def pooled(name: str, reports: list[dict[str, Any]]) -> dict[str, Any]:
    """What the seeds say together about one learner."""
    scores = np.array([report["task_scores"] for report in reports])
    returns = np.array([report["returns"] for report in reports])
    last = np.array([[report["score_mean"]] for report in reports])
    return {
        "name": name,
        "seeds": len(reports),
        "score": statistics.interquartile_mean(scores),
        "score_ci95": statistics.bootstrap_interval(scores, same_tasks=False),
        "score_mean": statistics.mean(scores),
        "score_mean_ci95": statistics.bootstrap_interval(scores, trim=0, same_tasks=False),
        "score_mean_by_seed": last[:, 0].tolist(),
        "returns": returns.mean(axis=0).tolist(),
        "returns_ci95": [statistics.bootstrap_interval(column[:, None], trim=0) for column in returns.T],
        "tuned": [report["tuned"] for report in reports if "tuned" in report],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default="grid_navi")
    parser.add_argument("--algorithms", nargs="+", default=list(ALGORITHMS), choices=ALGORITHMS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--num-tasks", type=int, default=128)
    parser.add_argument("--split", default="test")
    parser.add_argument("--runs", type=Path, default=Path("runs/adaptation"))
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()

    folder = options.runs / options.tasks.replace(":", "-")
    reports: dict[str, list[dict[str, Any]]] = {}
    for seed in range(options.seeds):
        for algorithm in options.algorithms:
            content = evaluated(algorithm, seed, folder, options)
            for name, report in {algorithm: content, **content["baselines"]}.items():
                if name == algorithm or algorithm == BESIDE_BASELINES:
                    reports.setdefault(name, []).append(report)
            rounds = " ".join(f"{value:.2f}" for value in content["returns"])
            print(f"{algorithm} seed {seed}: score {content['score']:.3f}, returns {rounds}", flush=True)

    rows = [pooled(name, entries) for name, entries in reports.items()]
    first = reports[options.algorithms[0]][0]
    config = json.loads((folder / f"{options.algorithms[0]}-seed0" / "config.json").read_text())
    result = {
        "command": "python benchmarks/adaptation.py " + " ".join(sys.argv[1:]),
        "tasks": options.tasks,
        "split": options.split,
        "tasks_seen": first["tasks_seen"],
        "num_tasks": options.num_tasks,
        "env_steps": first["env_steps"],
        "meta_env_steps": first["meta_env_steps"],
        "versions": config["versions"],
        "device": f"{jax.devices()[0].device_kind}, {platform.machine()}, {jax.local_device_count()} device",
        "rows": rows,
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    by_name = {row["name"]: row for row in rows}
    learner = by_name.pop(options.algorithms[0])
    picture = first | learner | {"ci95": learner["score_ci95"], "baselines": by_name}
    plot_adaptation(picture, options.out.with_suffix(".png"))
    for row in sorted(rows, key=lambda row: -row["score"]):
        interval = " to ".join(f"{value:.2f}" for value in row["score_ci95"])
        mean = " to ".join(f"{value:.2f}" for value in row["score_mean_ci95"])
        print(f"{row['name']:10} {row['score']:.3f} ({interval})  mean {row['score_mean']:.3f} ({mean})")


if __name__ == "__main__":
    main()
