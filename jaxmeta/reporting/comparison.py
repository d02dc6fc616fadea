"""What cells say together: how methods stand beside each other and their baselines, on one scale where random is 0."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy.integrate import trapezoid

from jaxmeta.core.errors import require
from jaxmeta.evaluation import statistics
from jaxmeta.reporting import cells, naming, pooling

MEMORY = "memory"
"""What cells name as the agent of a learner in context, which has none."""
VERDICTS = ("better", "no difference shown", "worse", "not compared")
"""Of a method beside the best baseline of its family, by the 95 % interval of their difference."""


def compare(*folders: str | Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Puts scoreboards and evaluated runs side by side; runs that differ by their seeds alone are pooled.

    Args:
      *folders: of scoreboards or of runs.

    Returns:
      What `rows` returns, and a sentence for whatever is missing there, or not as it should be.

    Raises:
      UsageError: no folder holds a cell that can be trusted.
    """
    for folder in folders:
        require(isinstance(folder, str | Path), "A folder to compare", "be a path", folder)
    found, missing = pooling.load_all(folders)
    return rows(found), missing


def rows(
    found: Iterable[Mapping[str, Any]], on_share: Callable[[float], None] = lambda share: None
) -> list[dict[str, Any]]:
    """One row for each cell, family by family, methods before what they are held against, best first.

    Args:
      found: cells.
      on_share: receives the share of the families that is done, from 0 to 1.

    Returns:
      Rows with the cell's own facts, of which `agent` is None where a method has none, and

      - `name`: see `naming.named`; no other row of the family has it;
      - `family`: the tasks, and the split where it is not the test tasks;
      - `num_tasks`: how many it was evaluated in;
      - `score`, `ci95`: interquartile mean over seeds and test tasks at the end of training, and its interval;
      - `seed_scores`: that over the tasks of each seed; None, as `score` is, where there is no scale;
      - `budgets`: the same after each share of the training, as [environment steps, score, low, high];
      - `returns`: mean return of an episode after each round; `area`: how far along the way from chance to the oracle
        they are, on average over the adaptation, by the trapezoidal rule;
      - `steps_to_threshold`: median over seeds, None where half of them do not get there;
      - `train`, `shifted`: scores on other splits; `gap`: that on training tasks minus `score`;
      - `env_steps_per_second`: of meta-training, all seeds together;
      - `curves`: of runs, by seed, environment steps and returns while training;
      - `baseline`, `difference`, `probability`, `verdict`: the best baseline in the same tasks, the interval of the
        difference to it, how likely one training beats it, and one of `VERDICTS`;
      - `beats`: by the other methods and baselines, the probability that one training of this one does better than one
        of theirs, in a task drawn at random.
    """
    made = []
    grouped = families(found)
    for index, (family, members) in enumerate(grouped.items()):
        on_share(index / len(grouped))
        cell_of = naming.named(members)
        beats = improvements(cell_of)
        complete = [
            {
                "name": name,
                "family": family,
                **row_of(cell, _ends(cell, members)),
                **_beside(cell, cell_of),
                "beats": beats.get(name, {}),
            }
            for name, cell in cell_of.items()
        ]
        made += sorted(complete, key=lambda row: (cells.KINDS.index(row["kind"]), -_by_score(row), row["name"]))
    return made


def families(found: Iterable[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Cells by family and split."""
    grouped: dict[str, list[Mapping[str, Any]]] = {}
    for cell in sorted(found, key=lambda cell: (cell["tasks"], naming.last_point(cell)["split"])):
        split = naming.last_point(cell)["split"]
        grouped.setdefault(cell["tasks"] if split == "test" else f"{cell['tasks']}, {split}", []).append(cell)
    return grouped


def row_of(cell: Mapping[str, Any], ends: tuple[float, float] | None) -> dict[str, Any]:
    """What a cell says by itself, but for the area, which needs mean returns of chance and of the oracle."""
    last = naming.last_point(cell)
    returns, training = np.mean(last["returns"], axis=0), cell["training"]
    reached = [np.inf if steps is None else steps for steps in last["steps_to_threshold"]]
    median = float(np.median(reached))
    others = {split: _middle(naming.point_of(cell, split)) for split in ("train", "shifted")}
    ours, seconds = training.get("env_steps"), training.get("seconds")
    budgets = [[point["env_steps"], *_score(point)] for point in cell["points"] if point["split"] == last["split"]]
    _, score, low, high = max(budgets, key=lambda budget: budget[0])
    return {
        **{name: cell[name] for name in COPIED},
        "agent": None if cell["agent"] == MEMORY else cell["agent"],
        "split": last["split"],
        "tasks_seen": last["tasks_seen"],
        "num_tasks": naming.num_tasks(last),
        "seeds": len(last["returns"]),
        "score": score,
        "ci95": None if low is None else [low, high],
        "seed_scores": last["scores"] and [statistics.interquartile_mean(np.array(own)) for own in last["scores"]],
        "budgets": budgets,
        "returns": returns.tolist(),
        "area": _area(returns, ends),
        "steps_to_threshold": median if np.isfinite(median) else None,
        **others,
        "gap": others["train"] - score if last["split"] == "test" and None not in (others["train"], score) else None,
        "env_steps_per_second": len(last["returns"]) * ours / seconds if ours and seconds else None,
        "curves": cell.get("curves", {}),
    }


COPIED = ("tasks", "method", "kind", "hyperparams", "sees_context", "adaptation", "training")
COPIED += ("commands", "versions", "device")
"""Facts of a cell that its row repeats."""


def improvements(cell_of: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Of the named cells of a family: the probability that one training of one beats one of each other, in a task."""
    scored = {
        name: cell
        for name, cell in cell_of.items()
        if cell["kind"] != "reference" and naming.last_point(cell)["scores"]
    }
    return {
        name: {
            other: statistics.probability_of_improvement(*_scores_of(cell, its))
            for other, its in scored.items()
            if other != name and _same_tasks(cell, its)
        }
        for name, cell in scored.items()
    }


def overall(found: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of `rows`, one for each method and baseline over all families where it has a score, in the order to show them in.

    Returns:
      Rows with the `kind`, the `name`, the `families`, for methods with different ones are not comparable, the
      interquartile mean over families and seeds of what each seed scores, and its stratified interval `ci95`, which
      resamples seeds and holds tasks fixed; None with a single seed in a family. Methods come before baselines, of
      either those with most families first, and of these who scores most.
    """
    by_name: dict[tuple[str, str], dict[str, np.ndarray]] = {}
    for row in found:
        if row["kind"] != "reference" and row["score"] is not None:
            by_name.setdefault((row["kind"], row["name"]), {})[row["family"]] = np.array(row["seed_scores"])
    made = [
        {
            "kind": kind,
            "name": name,
            "families": sorted(by_family),
            "score": statistics.interquartile_mean(np.concatenate(list(by_family.values()))),
            "ci95": statistics.stratified_interval(list(by_family.values()))
            if all(len(means) > 1 for means in by_family.values())
            else None,
        }
        for (kind, name), by_family in by_name.items()
    ]
    return sorted(made, key=lambda row: (cells.KINDS.index(row["kind"]), -len(row["families"]), -row["score"]))


def written_for(family: str, found: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Of `rows`, the policies that were written for a family and have a score there, the best first."""
    own = [row for row in found if row["family"] == family and row["kind"] == "reference"]
    known = [row for row in own if row["method"] not in cells.ENDS and row["score"] is not None]
    return sorted(known, key=_by_score, reverse=True)


def _by_score(row: Mapping[str, Any]) -> float:
    """What a row is sorted by: its score, or less than any."""
    return -np.inf if row["score"] is None else row["score"]


def _middle(point: Mapping[str, Any] | None) -> float | None:
    """Interquartile mean."""
    return (
        None if point is None or point["scores"] is None else statistics.interquartile_mean(np.array(point["scores"]))
    )


def _score(point: Mapping[str, Any]) -> tuple[float | None, float | None, float | None]:
    """Interquartile mean and its interval."""
    if point["scores"] is None:
        return None, None, None
    low, high = statistics.bootstrap_interval(np.array(point["scores"]))
    return _middle(point), low, high


def _ends(cell: Mapping[str, Any], family: Iterable[Mapping[str, Any]]) -> tuple[float, float] | None:
    """Mean returns of chance and of the oracle in a cell's own tasks, None where either is unknown."""
    found = {
        other["method"]: float(np.mean(naming.last_point(other)["returns"]))
        for other in family
        if other["kind"] == "reference" and other["method"] in cells.ENDS and _same_tasks(cell, other)
    }
    return (found["random"], found["oracle"]) if len(found) == len(cells.ENDS) else None


def _area(returns: np.ndarray, ends: tuple[float, float] | None) -> float | None:
    if ends is None or ends[0] == ends[1] or len(returns) < 2:
        return None
    return float(trapezoid((returns - ends[0]) / (ends[1] - ends[0]), dx=1 / (len(returns) - 1)))


def _same_tasks(cell: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether both were evaluated in the very same tasks."""
    ours, theirs = naming.last_point(cell), naming.last_point(other)
    drawn = [(point["split"], point["seed"], naming.num_tasks(point)) for point in (ours, theirs) if point["scores"]]
    return len(drawn) == 2 and drawn[0] == drawn[1]


def _scores_of(*some: Mapping[str, Any]) -> list[np.ndarray]:
    """[seeds, tasks] of each."""
    return [np.array(naming.last_point(cell)["scores"]) for cell in some]


def _beside(cell: Mapping[str, Any], cell_of: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The verdict of a method against the best baseline in the same tasks; None for what is no method."""
    others = {
        name: statistics.interquartile_mean(*_scores_of(its))
        for name, its in cell_of.items()
        if cell["kind"] == "method" and its["kind"] == "baseline" and _same_tasks(cell, its)
    }
    if not others:
        verdict = VERDICTS[3] if cell["kind"] == "method" else None
        return {"baseline": None, "difference": None, "probability": None, "verdict": verdict}
    best = max(others, key=lambda name: others[name])
    ours, theirs = _scores_of(cell, cell_of[best])
    low, high = statistics.difference_interval(ours, theirs)
    return {
        "baseline": best,
        "difference": [low, high],
        "probability": statistics.probability_of_improvement(ours, theirs),
        "verdict": VERDICTS[0] if low > 0 else VERDICTS[2] if high < 0 else VERDICTS[1],
    }
