"""Whether RL² does better trained on trials of its lifetime's rounds, or of one round more: the one that is scored.

    python benchmarks/trial_rounds.py --runs runs/trial_rounds --out benchmarks/results/trial_rounds.json

By the protocol of the scoreboard, from which it takes families, seeds and budgets: longer trials are fewer. What is
compared is the mean return of an episode after the last round, in validation tasks. On the scoreboard, learners in
context are trained on what is better here. Trainings are kept under `--runs`, and taken up where they were left.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import scoreboard
from record import Record, commands_of
from throughput import machine

from jaxmeta import compilation_cache, evaluation, jobs
from jaxmeta.runs import RunDirectory, write_text

RECIPE = "rl2"
NUM_TASKS = 128


def rounds_of(family: str) -> tuple[int, int]:
    """The rounds of a lifetime, and one more."""
    rounds = scoreboard.FAMILIES[family].in_context["rounds"]
    return rounds, rounds + 1


def measured(run: RunDirectory) -> dict[str, Any]:
    """Of each seed, what an episode earns in validation tasks after the last round."""
    learner, state, tasks, config = jobs.restore(run.path)
    content = evaluation.evaluate(
        learner,
        state,
        tasks,
        config,
        split="validation",
        num_tasks=NUM_TASKS,
        with_baselines=False,
        with_gap_and_cost=False,
    )
    returns = [member["returns"][-1] for member in content["members"]]
    return {"meta_steps": content["meta_steps"], "score": content["score"], "returns": returns}


def better(cells: dict[str, Any], family: str) -> int:
    """The rounds of the trials whose seeds earn more, in the mean."""
    return max(rounds_of(family), key=lambda rounds: np.mean(cells[f"{family}, {rounds} rounds"]["returns"]))


def table(content: dict[str, Any]) -> str:
    """What was measured, as Markdown."""
    lines = [
        "| family | rounds of a trial | meta-steps | score | return, a mean | of each seed |",
        "|---|---|---|---|---|---|",
    ]
    for name, cell in content["cells"].items():
        family, rounds = name.removesuffix(" rounds").split(", ")
        chosen = "**" if content["better"].get(family) == int(rounds) else ""
        seeds = ", ".join(f"{value:.2f}" for value in cell["returns"])
        lines.append(
            f"| {family} | {chosen}{rounds}{chosen} | {cell['meta_steps']} | {cell['score']:.2f}"
            f" | {np.mean(cell['returns']):.2f} | {seeds} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", choices=list(scoreboard.FAMILIES), default=list(scoreboard.FAMILIES))
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    compilation_cache.enable()
    form = scoreboard.FORMS["full"]
    record = Record(options.out, {"recipe": RECIPE, "num_tasks": NUM_TASKS, "seeds": form.seeds})
    for family in options.families:
        for rounds in rounds_of(family):

            def make(family: str = family, rounds: int = rounds) -> dict[str, Any]:
                run = RunDirectory(options.runs / f"{family}-{rounds}")
                scoreboard.trained(run, scoreboard.plan(form, family, RECIPE, trial_rounds=rounds))
                return measured(run)

            cell = record.kept("cells", f"{family}, {rounds} rounds", make)
            print(f"{family}, trials of {rounds} rounds: {np.mean(cell['returns']):.2f}", flush=True)
    done = [name for name in scoreboard.FAMILIES if f"{name}, {rounds_of(name)[1]} rounds" in record.content["cells"]]
    content = record.close(
        "trial_rounds.py",
        better={family: better(record.content["cells"], family) for family in done},
        machine=machine(),
    )
    told = (
        f"Trials that RL² is trained on: {NUM_TASKS} validation tasks, {form.seeds} seeds; in bold, what earns more.\n"
    )
    write_text(options.out.with_suffix(".md"), f"{told}\n{table(content)}\n\nMade by\n{commands_of(content)}\n")


if __name__ == "__main__":
    main()
