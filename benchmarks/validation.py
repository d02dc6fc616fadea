"""Which of some settings the scoreboard's protocol should hold: compared on validation tasks, by that protocol.

What is compared is the mean return of an episode after the last round. Trainings are kept, and taken up where they were
left.
"""

import argparse
import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from protocol import FAMILIES, Form, plan, trained
from record import Record, commands_of
from throughput import machine

import jaxmeta
from jaxmeta.core import compilation_cache
from jaxmeta.training.run_directory import RunDirectory, write_text

NUM_TASKS = 128

Variants = Callable[[str], dict[str, dict[str, Any]]]
"""`variants(family)`: the settings that are compared there, by their names."""


def parser(description: str | None) -> argparse.ArgumentParser:
    """Of the command of a comparison: which families, and where trainings and results go."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--families", nargs="+", choices=list(FAMILIES), default=list(FAMILIES))
    made.add_argument("--runs", type=Path, required=True)
    made.add_argument("--out", type=Path, required=True)
    return made


def measured(folder: Path, form: Form, family: str, algorithm: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Trains as for a cell, but for some settings, and says how well that does in validation tasks.

    Returns:
      The `meta_steps` it took, the `score`, and `returns`: of each seed, of an episode after the last round.
    """
    trained(RunDirectory(folder), plan(form, family, algorithm, settings))
    content = jaxmeta.evaluate(
        jaxmeta.load(folder), split="validation", num_tasks=NUM_TASKS, with_baselines=False, with_gap_and_cost=False
    )
    returns = [member["returns"][-1] for member in content["members"]]
    return {"meta_steps": content["meta_steps"], "score": content["score"], "returns": returns}


def cell_of(family: str, variant: str) -> str:
    """The name of what was measured with a variant."""
    return f"{family}, {variant}"


def best(cells: dict[str, Any], variants: Variants) -> dict[str, str]:
    """Of each family that was measured with all variants, the one whose seeds earn most, in the mean."""
    chosen = {}
    for family in FAMILIES:
        named = {variant: cell_of(family, variant) for variant in variants(family)}
        if set(named.values()) <= set(cells):
            chosen[family] = max(named, key=lambda variant: np.mean(cells[named[variant]]["returns"]))
    return chosen


def table(content: dict[str, Any], variants: Variants) -> Iterable[str]:
    """What was measured, as lines of Markdown."""
    yield "| family | | meta-steps | score | return, a mean | of each seed |"
    yield "|---|---|---|---|---|---|"
    for family, chosen in content["best"].items():
        for variant in variants(family):
            cell = content["cells"][cell_of(family, variant)]
            shown = f"**{variant}**" if variant == chosen else variant
            seeds = ", ".join(f"{value:.2f}" for value in cell["returns"])
            mean = np.mean(cell["returns"])
            yield f"| {family} | {shown} | {cell['meta_steps']} | {cell['score']:.2f} | {mean:.2f} | {seeds} |"


def compare(
    script: str, reported: str, options: argparse.Namespace, algorithm: str, form: Form, variants: Variants
) -> None:
    """Measures every variant in every given family, unless the file holds it, and writes file and table.

    Args:
      script: whose comparison it is.
      reported: what is compared, in words.
      options: of the command, see `parser`.
      algorithm: what is trained.
      form: the share of the scoreboard's training and the seeds.
      variants: what it is trained with.
    """
    compilation_cache.enable()
    subject = {"algorithm": algorithm, "share": form.share, "seeds": form.seeds, "num_tasks": NUM_TASKS}
    record = Record(options.out, subject)
    for family in options.families:
        for variant, settings in variants(family).items():
            folder = options.runs / f"{family}-{algorithm}-{variant.replace(' ', '-')}"
            name = cell_of(family, variant)
            make = functools.partial(measured, folder, form, family, algorithm, settings)
            cell = record.kept("cells", name, make)
            print(f"{name}: {np.mean(cell['returns']):.2f}", flush=True)
    content = record.close(script, best=best(record.content["cells"], variants), machine=machine())
    head = f"{NUM_TASKS} validation tasks, {form.seeds} seeds; in bold, what earns most."
    lines = [f"# {reported}", "", head, "", *table(content, variants), "", "Made by", commands_of(content), ""]
    write_text(options.out.with_suffix(".md"), "\n".join(lines))
