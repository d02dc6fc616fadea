"""Tunes the baselines of the standard families, as evaluations do, for the table that ships with the package.

    python benchmarks/tuned_baselines.py

For every algorithm and family at their own settings it tunes `scratch` and `finetune` on validation tasks, with the
keys of an evaluation with seed 0, once for each lifetime and agent, and writes how they adapt best and what that
returned to `jaxmeta/evaluation/tuned_baselines.json`. What is there already is kept, so it can be interrupted;
`--only FAMILY` picks families, `--retune` makes them anew. No network is kept: an evaluation trains and measures its
baselines itself, and `jaxmeta evaluate --retune` checks the choice.
"""

import argparse
import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxmeta.core import compilation_cache
from jaxmeta.core.errors import UsageError
from jaxmeta.evaluation import baseline_cache, tuned_baselines
from jaxmeta.evaluation import evaluate as evaluation
from jaxmeta.evaluation.tuned_baselines import Baselines
from jaxmeta.training import jobs
from jaxmeta.training.run_directory import write_text

TABLE = Path(baseline_cache.__file__).parent / baseline_cache.SHIPPED
FAMILIES = (
    *("grid_navi", "maze", "cartpole", "bandit", "tabular_mdp", "recommender", "point_navigation"),
    *("gaussian_bandit", "acrobot", "mountain_car", "pendulum", "reacher"),
)
ALGORITHMS = ("maml", "fomaml", "anil", "meta_sgd", "reptile", "rl2", "hypernetwork", "mapping")
"""Those whose lifetimes are short; others tune anew where they are first evaluated."""
QUICK = ("maml", "grid_navi", 20)
"""The main job cut short, as somebody who tries it out would do: algorithm, tasks and meta-steps."""


def wanted(family: str) -> Iterator[Baselines]:
    """The baselines beside every algorithm."""
    wanted = [(algorithm, {}) for algorithm in ALGORITHMS]
    wanted += [(QUICK[0], {"meta_steps": QUICK[2]})] if family == QUICK[1] else []
    for algorithm, settings in wanted:
        try:
            job = jobs.prepare(algorithm, family, settings=settings)
        except UsageError:  # an algorithm that does not suit the family
            continue
        yield evaluation.baselines_of(job.learner, job.tasks)


def canonical(content: Any) -> str:
    return json.dumps(content, sort_keys=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=FAMILIES, metavar="FAMILY")
    parser.add_argument("--retune", action="store_true")
    options = parser.parse_args()
    compilation_cache.enable()
    entries = json.loads(TABLE.read_text())
    if options.retune:
        entries = [entry for entry in entries if entry["content"]["tasks"] not in options.only]
    known = {canonical(entry["content"]): entry for entry in entries}
    for family in options.only:
        for those in wanted(family):
            for name in tuned_baselines.NAMES:
                content = those.content(name)
                if canonical(content) in known:
                    continue
                start, tried = time.perf_counter(), those.tune(name)
                known[canonical(content)] = {
                    "content": content,
                    "choice": dataclasses.asdict(tried.choice),
                    "validation_return": tried.validation_return,
                }
                write_text(TABLE, "[\n" + ",\n".join(canonical(known[key]) for key in sorted(known)) + "\n]\n")
                print(f"{family}, {name}: {time.perf_counter() - start:.0f} s, {len(known)} entries", flush=True)


if __name__ == "__main__":
    main()
