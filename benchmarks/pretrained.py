"""Makes the trained learners that come with the library out of the trainings of a scoreboard.

    python benchmarks/pretrained.py --board benchmarks/results/scoreboard

Of each recipe it takes the family in which it stands highest above the best baseline, and of that cell's seeds the one
with the highest return over the last tenth of its training: no test task has a say in that.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from scoreboard import FAMILIES

from jaxmeta import cells, comparison, jobs, populations, pretrained, statistics
from jaxmeta.runs import RunDirectory


def chosen(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The row of each recipe's best family."""
    best: dict[str, dict[str, Any]] = {}
    for row in comparison.rows(found):
        if row["kind"] == "method" and row["difference"]:
            best[row["method"]] = max(best.get(row["method"], row), row, key=lambda row: sum(row["difference"]))
    return list(best.values())


def best_member(run: RunDirectory) -> int:
    """The member that earned most while it was trained, over the last tenth of its log points."""
    points = run.read_metrics()
    last = points[-max(1, len(points) // 10) :]
    return int(np.argmax(np.mean([point["return_by_member"] for point in last], axis=0)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--board", type=Path, required=True, help="a folder of scoreboard.py, with its runs")
    options = parser.parse_args()
    found, missing = cells.load(options.board)
    print(*missing, sep="\n")
    names = {family.tasks: name for name, family in FAMILIES.items()}
    for row in chosen(found):
        name = f"{row['method']}-{names[row['tasks']]}"
        run = RunDirectory(options.board / "runs" / f"{names[row['tasks']]}-{row['method']}")
        if (pretrained.HOME / name).exists() or not run.config.is_file():
            print(f"{name}: left as it is")
            continue
        learner, state, tasks, config = jobs.restore(run.path)
        index = best_member(run)
        member = populations.members_of(config)[index]
        cell = next(cell for cell in found if cell["tasks"] == row["tasks"] and cell["method"] == row["method"])
        own = np.array(comparison.last_point(cell)["scores"][index])
        pretrained.save(
            pretrained.HOME / name,
            learner,
            populations.members(state)[index],
            populations.config_of(config, member),
            summary=f"{row['method']} on {tasks.name}, after {row['training']['env_steps']:,} environment steps.",
            commands=[*row["commands"], f"python benchmarks/pretrained.py --board {options.board}"],
            versions=row["versions"],
            device=row["device"],
            figures={
                "score": statistics.interquartile_mean(own),
                "score_of_all_seeds": row["score"],
                "ci95_of_all_seeds": row["ci95"],
                "baseline": row["baseline"],
                "above_the_baseline_ci95": row["difference"],
                "num_tasks": len(own),
                "returns": comparison.last_point(cell)["returns"][index],
            },
        )
        print(f"{name}: seed {member.seed}, score {statistics.interquartile_mean(own):.2f}")


if __name__ == "__main__":
    main()
