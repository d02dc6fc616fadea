"""Which outer step size suits a memory: the one that RL² has was found for a GRU, and attention learns by another.

    python benchmarks/outer_steps.py --recipe snail --runs runs/outer_steps --out benchmarks/results/outer_steps.json

By the protocol of the scoreboard, from which it takes families and budgets, but a share of the training and other
seeds. What is compared is the mean return of an episode after the last round, in validation tasks. Trainings are kept
under `--runs`, and taken up where they were left.
"""

import argparse
import functools
from pathlib import Path
from typing import Any

import numpy as np
import scoreboard
from record import Record, commands_of
from throughput import machine

from jaxmeta import compilation_cache
from jaxmeta.runs import write_text

STEP_SIZES = (3e-4, 1e-3, 3e-3)
NUM_TASKS = 128
FIRST_SEED = 100
"""None of the scoreboard's, whose cells are made with what is found here."""


def cell_of(family: str, step_size: float) -> str:
    """The name of what was measured with a step size."""
    return f"{family}, {step_size:g}"


def best(cells: dict[str, Any]) -> dict[str, float]:
    """Of each family that was measured with every step size, the one whose seeds earn most, in the mean."""

    def earned(family: str, step_size: float) -> float:
        return float(np.mean(cells[cell_of(family, step_size)]["returns"]))

    whole = (name for name in scoreboard.FAMILIES if all(cell_of(name, size) in cells for size in STEP_SIZES))
    return {family: max(STEP_SIZES, key=functools.partial(earned, family)) for family in whole}


def table(cells: dict[str, Any]) -> str:
    """What was measured, as Markdown: a row for each family, the score with every step size, the best in bold."""
    lines = [f"| family | meta-steps | {' | '.join(f'{size:g}' for size in STEP_SIZES)} |"]
    lines.append("|---|---|" + "---|" * len(STEP_SIZES))
    for family, chosen in best(cells).items():
        of_size = {size: cells[cell_of(family, size)] for size in STEP_SIZES}
        shown = [
            f"**{cell['score']:.2f}**" if size == chosen else f"{cell['score']:.2f}" for size, cell in of_size.items()
        ]
        lines.append(f"| {family} | {of_size[chosen]['meta_steps']} | {' | '.join(shown)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", choices=scoreboard.IN_CONTEXT, required=True)
    parser.add_argument("--families", nargs="+", choices=list(scoreboard.FAMILIES), default=list(scoreboard.FAMILIES))
    parser.add_argument("--share", type=float, default=0.25, help="of the scoreboard's training")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    compilation_cache.enable()
    form = scoreboard.Form((), (), options.share, options.seeds, NUM_TASKS, FIRST_SEED)
    asked = {"recipe": options.recipe, "share": options.share, "seeds": options.seeds, "num_tasks": NUM_TASKS}
    record = Record(options.out, asked)
    for family in options.families:
        for step_size in STEP_SIZES:
            folder = options.runs / f"{family}-{options.recipe}-{step_size:g}"
            setting = {"outer_learning_rate": step_size}
            make = functools.partial(scoreboard.validated, folder, form, family, options.recipe, **setting)
            cell = record.kept("cells", cell_of(family, step_size), make)
            print(f"{family}, {step_size:g}: {np.mean(cell['returns']):.2f}", flush=True)
    content = record.close("outer_steps.py", best=best(record.content["cells"]), machine=machine())
    told = (
        f"`{options.recipe}` in {NUM_TASKS} validation tasks, after {options.share:g} of the scoreboard's training, "
        f"{options.seeds} seeds: score by outer step size; in bold where an episode earns most.\n"
    )
    write_text(
        options.out.with_suffix(".md"), f"{told}\n{table(content['cells'])}\n\nMade by\n{commands_of(content)}\n"
    )


if __name__ == "__main__":
    main()
