"""Whether RL² does better trained on trials of its lifetime's rounds, or of one round more: the one that is scored.

    python benchmarks/trial_rounds.py --runs runs/trial_rounds --out benchmarks/results/trial_rounds.json

By the protocol of the scoreboard, from which it takes families, seeds and budgets: longer trials are fewer. What is
compared is the mean return of an episode after the last round, in validation tasks. On the scoreboard, learners in
context are trained on what is better here. Trainings are kept under `--runs`, and taken up where they were left.
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

RECIPE = "rl2"
NUM_TASKS = 128
FORM = scoreboard.FORMS["full"]._replace(num_tasks=NUM_TASKS)


def rounds_of(family: str) -> tuple[int, int]:
    """The rounds of a lifetime, and one more."""
    rounds = scoreboard.FAMILIES[family].in_context["rounds"]
    return rounds, rounds + 1


def cell_of(family: str, rounds: int) -> str:
    """The name of what was measured with trials of so many rounds."""
    return f"{family}, {rounds} rounds"


def better(cells: dict[str, Any]) -> dict[str, int]:
    """Of each family that was measured both ways, the rounds of the trials whose seeds earn more, in the mean."""

    def earned(family: str, rounds: int) -> float:
        return float(np.mean(cells[cell_of(family, rounds)]["returns"]))

    both = (family for family in scoreboard.FAMILIES if all(cell_of(family, n) in cells for n in rounds_of(family)))
    return {family: max(rounds_of(family), key=functools.partial(earned, family)) for family in both}


def table(content: dict[str, Any]) -> str:
    """What was measured, as Markdown."""
    lines = [
        "| family | rounds of a trial | meta-steps | score | return, a mean | of each seed |",
        "|---|---|---|---|---|---|",
    ]
    for family, best in content["better"].items():
        for rounds in rounds_of(family):
            cell = content["cells"][cell_of(family, rounds)]
            told = f"**{rounds}**" if rounds == best else rounds
            seeds = ", ".join(f"{value:.2f}" for value in cell["returns"])
            mean = np.mean(cell["returns"])
            lines.append(f"| {family} | {told} | {cell['meta_steps']} | {cell['score']:.2f} | {mean:.2f} | {seeds} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", choices=list(scoreboard.FAMILIES), default=list(scoreboard.FAMILIES))
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    compilation_cache.enable()
    record = Record(options.out, {"recipe": RECIPE, "num_tasks": NUM_TASKS, "seeds": FORM.seeds})
    for family in options.families:
        for rounds in rounds_of(family):
            folder = options.runs / f"{family}-{rounds}"
            make = functools.partial(scoreboard.validated, folder, FORM, family, RECIPE, trial_rounds=rounds)
            cell = record.kept("cells", cell_of(family, rounds), make)
            print(f"{family}, trials of {rounds} rounds: {np.mean(cell['returns']):.2f}", flush=True)
    content = record.close("trial_rounds.py", better=better(record.content["cells"]), machine=machine())
    told = (
        f"Trials that RL² is trained on: {NUM_TASKS} validation tasks, {FORM.seeds} seeds; in bold, what earns more.\n"
    )
    write_text(options.out.with_suffix(".md"), f"{told}\n{table(content)}\n\nMade by\n{commands_of(content)}\n")


if __name__ == "__main__":
    main()
