"""Makes the trained learners that come with the library out of the trainings of a scoreboard.

    python benchmarks/pretrained.py --board benchmarks/results/scoreboard

Of each algorithm it takes the family in which it stands highest above the best baseline and is small enough to ship,
and of that cell's seeds the one with the highest return over the last tenth of its training: no test task has a say in
that.
"""

import argparse
from pathlib import Path
from typing import Any

import jax
import numpy as np
from protocol import FAMILIES

from jaxmeta.core.settings import nested
from jaxmeta.evaluation import statistics
from jaxmeta.reporting import cells, comparison, naming
from jaxmeta.training import jobs, learner_files, pretrained
from jaxmeta.training import seeds as multi_seed
from jaxmeta.training.run_directory import RunDirectory

LARGEST = 500_000
"""Bytes of arrays in one artefact; all of them together are to stay below 2 MB."""


def by_algorithm(found: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The rows of each algorithm, its best family first."""
    rows = [row for row in comparison.rows(found) if row["kind"] == "method" and row["difference"]]
    grouped: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: sum(row["difference"]), reverse=True):
        grouped.setdefault(row["method"], []).append(row)
    return grouped


def best_member(run: RunDirectory) -> int:
    """The member that earned most while it was trained, over the last tenth of its log points."""
    points = run.read_metrics()
    last = points[-max(1, len(points) // 10) :]
    return int(np.argmax(np.mean([point["return_by_member"] for point in last], axis=0)))


def ship(row: dict[str, Any], found: list[dict[str, Any]], board: Path) -> bool:
    """Makes an artefact of a row's best member, unless it is there; returns whether there is one now."""
    family = next(name for name, family in FAMILIES.items() if family.tasks == row["tasks"])
    name, run = f"{row['method']}-{family}", RunDirectory(board / "runs" / f"{family}-{row['method']}")
    if (pretrained.HOME / name).exists():
        print(f"{name}: left as it is")
        return True
    if not run.config.is_file():
        print(f"{name}: its training is not there")
        return False
    learner, state, tasks, config = jobs.restore(run.path)
    index = best_member(run)
    member, own_state = multi_seed.members_of(config)[index], multi_seed.members(state)[index]
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(learner.meta(own_state)))
    if size > LARGEST:
        print(f"{name}: {size:,} bytes are too many")
        return False
    cell = next(cell for cell in found if cell["tasks"] == row["tasks"] and cell["method"] == row["method"])
    last = naming.last_point(cell)
    own = np.array(last["scores"][index])
    learner_files.save(
        pretrained.HOME / name,
        learner,
        own_state,
        multi_seed.config_of(config, member) | {"settings": nested(learner.config)},
        summary=f"{row['method']} on {tasks.name}, after {row['training']['env_steps']:,} environment steps.",
        commands=[
            *row["commands"],
            f"python benchmarks/pretrained.py --board {board}",
            f"jaxmeta evaluate {name} --split {last['split']} --num-tasks {len(own)} --seed {last['seed']}",
        ],
        versions=row["versions"],
        device=row["device"],
        figures={
            "score": statistics.interquartile_mean(own),
            "score_of_all_seeds": row["score"],
            "ci95_of_all_seeds": row["ci95"],
            "baseline": row["baseline"],
            "above_the_baseline_ci95": row["difference"],
            "num_tasks": len(own),
            "returns": last["returns"][index],
        },
    )
    print(f"{name}: seed {member.seed}, score {statistics.interquartile_mean(own):.2f}")
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--board", type=Path, required=True, help="a folder of scoreboard.py, with its runs")
    options = parser.parse_args()
    found, missing = cells.load(options.board)
    print(*missing, sep="\n")
    for rows in by_algorithm(found).values():
        any(ship(row, found, options.board) for row in rows)  # the first that can be


if __name__ == "__main__":
    main()
