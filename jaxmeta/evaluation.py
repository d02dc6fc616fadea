"""Evaluation: a learner beside honest baselines, on one scale where random is 0 and the oracle is 1."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmeta import baselines, statistics
from jaxmeta.adapters import random_policy
from jaxmeta.base import Key, MetaLearner, MetaState, PyTree, TaskDistribution
from jaxmeta.errors import require, require_known
from jaxmeta.measurement import Measured, adaptation_cost, measure
from jaxmeta.recipes import spec_of

LEARNED = 0.9
"""Share of the way from random to the oracle that counts as having learned a task."""


class Scale(NamedTuple):
    """What returns are read against."""

    random: np.ndarray
    """[tasks], return of an episode of uniformly random actions."""
    oracle: np.ndarray | None
    """[tasks], the best expected return, or None where it is not known."""

    def scores(self, measured: Measured) -> np.ndarray | None:
        """(R - random) / (oracle - random) after the last round, [tasks].

        None where no oracle is known, or where it does no better than chance, so that there is no scale.
        """
        if self.oracle is None or np.any(np.isclose(self.oracle, self.random)):
            return None
        return (measured.returns[:, -1] - self.random) / (self.oracle - self.random)


def evaluate(
    learner: MetaLearner,
    state: MetaState,
    tasks: TaskDistribution,
    config: dict[str, Any],
    *,
    split: str = "test",
    num_tasks: int = 128,
    seed: int = 0,
    with_baselines: bool = True,
) -> dict[str, Any]:
    """Adapts to tasks of a split and reports how well, how fast and at what cost, beside the baselines.

    Args:
      learner: what is evaluated.
      state: its trained state.
      tasks: the task distribution.
      config: the run's configuration, as in `config.json`.
      split: whose tasks.
      num_tasks: how many, at least 2.
      seed: of the tasks and of all randomness; at least 0.
      with_baselines: whether to tune and measure `scratch` and `finetune`, which takes longer than all else.

    Returns:
      What `evaluation.json` holds; docs/architecture.md says what its fields mean.

    Raises:
      UsageError: an unknown split, or a number out of range.
    """
    require_known("split", split, tasks.splits)
    require(num_tasks >= 2, "num_tasks", "be at least 2", num_tasks)
    require(0 <= seed < 2**31, "seed", "be from 0 to 2147483647", seed)
    task_key, life_key, gap_key, cost_key, scratch_key, finetune_key = jax.random.split(jax.random.key(seed), 6)
    meta = learner.meta(state)
    meta_env_steps = int(state.step) * learner.tasks_per_batch * learner.env_steps_per_task

    env_params = sample_tasks(task_key, tasks, split, num_tasks)
    scale, measured = _measure_with_ends(life_key, learner, meta, tasks, env_params)
    tuned = {}
    if with_baselines:
        settings = config["settings"]
        tuned["scratch"] = baselines.scratch(scratch_key, tasks, settings)
        tuned["finetune"] = baselines.finetune(finetune_key, tasks, settings, meta_env_steps)
        for name, baseline in tuned.items():
            measured[name] = _measure(life_key, baseline.learner, baseline.meta, tasks, env_params)

    threshold = _threshold(scale, measured.get("scratch"))
    reports = {name: _summarise(entry, scale, learner, threshold) for name, entry in measured.items()}
    for name, baseline in tuned.items():
        reports[name]["tuned"] = baseline.report()
    return {
        "recipe": config["recipe"],
        "agent": config["settings"]["agent"],
        "tasks": tasks.name,
        "train_seed": config["seed"],
        "meta_steps": int(state.step),
        "meta_env_steps": meta_env_steps,
        "split": split,
        "tasks_seen": tasks.tasks_seen(split),
        "num_tasks": num_tasks,
        "seed": seed,
        **reports.pop("learner"),
        "generalisation_gap": _gap(gap_key, learner, meta, tasks, scale.scores(measured["learner"])),
        **adaptation_cost(cost_key, learner, meta, tasks),
        "baselines": reports,
    }


def compare(evaluations: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Puts evaluations side by side, a row for each recipe, agent, task family, split and budget; seeds are pooled.

    Args:
      evaluations: what `evaluate` returned.

    Returns:
      Rows with the pooled `score` (interquartile mean over seeds and tasks), `score_mean`, `ci95` (bootstrap over seeds, then
      tasks), `returns` (mean over seeds, by round) and the number of `seeds`; best first. Baselines have rows of their own.
    """
    groups: dict[tuple, list[dict[str, Any]]] = {}
    for evaluation in evaluations:
        shared = (evaluation["tasks"], evaluation["split"], evaluation["agent"], evaluation["meta_env_steps"])
        for name, report in {evaluation["recipe"]: evaluation, **evaluation["baselines"]}.items():
            groups.setdefault((*shared, name), []).append(report)
    rows = []
    for (tasks, split, agent, meta_env_steps, name), reports in groups.items():
        row = {"tasks": tasks, "split": split, "agent": agent, "meta_env_steps": meta_env_steps, "name": name}
        row |= {"seeds": len(reports), "returns": np.mean([report["returns"] for report in reports], axis=0).tolist()}
        rows.append(row | _score_fields([report["task_scores"] for report in reports]))
    return sorted(rows, key=lambda row: (row["tasks"], row["split"], -(row["score"] or 0.0)))


def sample_tasks(key: Key, tasks: TaskDistribution, split: str, num_tasks: int) -> PyTree:
    """Draws tasks of a split; leaves [num_tasks, ...]."""
    return jax.vmap(lambda key: tasks.sample(key, split))(jax.random.split(key, num_tasks))


def _measure(key: Key, learner: MetaLearner, meta: PyTree, tasks: TaskDistribution, env_params: PyTree) -> Measured:
    measured = jax.jit(lambda key, meta, env_params: measure(key, learner, meta, tasks, env_params))(
        key, meta, env_params
    )
    return jax.tree.map(np.asarray, measured)


def _measure_with_ends(
    key: Key, learner: MetaLearner, meta: PyTree, tasks: TaskDistribution, env_params: PyTree
) -> tuple[Scale, dict[str, Measured]]:
    """Measures the learner and the two ends of its scale, `random` and, where known, `oracle`."""
    learner_key, random_key = jax.random.split(key)
    dice = learner._replace(adapter=random_policy(spec_of(tasks)))
    measured = {
        "learner": _measure(learner_key, learner, meta, tasks, env_params),
        "random": _measure(random_key, dice, None, tasks, env_params),
    }
    random = measured["random"].returns
    scale = Scale(random=random.mean(axis=1), oracle=None)
    if tasks.oracle is not None:
        best = np.asarray(jax.jit(jax.vmap(tasks.oracle))(env_params))
        episodes = learner.lifetime.rounds * learner.lifetime.steps / tasks.horizon
        measured["oracle"] = Measured(np.broadcast_to(best[:, None], random.shape), best * episodes)
        scale = scale._replace(oracle=best)
    return scale, measured


def _threshold(scale: Scale, scratch: Measured | None) -> float | None:
    """The mean return that counts as learned."""
    if scale.oracle is not None:
        return float(np.mean(scale.random + LEARNED * (scale.oracle - scale.random)))
    return None if scratch is None else LEARNED * float(np.mean(scratch.returns[:, -1]))


def _summarise(measured: Measured, scale: Scale, learner: MetaLearner, threshold: float | None) -> dict[str, Any]:
    """The fields that a learner and its baselines share."""
    lifetime = learner.lifetime
    returns = measured.returns.mean(axis=0)
    reached = np.flatnonzero(returns >= threshold) if threshold is not None else []
    steps_per_round = lifetime.envs * lifetime.steps
    scores = scale.scores(measured)
    return {
        "returns": returns.tolist(),
        "returns_ci95": [statistics.bootstrap_interval(column, statistics.mean) for column in measured.returns.T],
        "trial_return": float(measured.trial.mean()),
        "trial_return_se": float(measured.trial.std(ddof=1) / np.sqrt(len(measured.trial))),
        **_score_fields(None if scores is None else [scores.tolist()]),
        "task_scores": None if scores is None else scores.tolist(),
        "env_steps": lifetime.rounds * steps_per_round,
        "steps_to_threshold": int(reached[0]) * steps_per_round if len(reached) else None,
    }


def _score_fields(scores: Sequence[Sequence[float]] | None) -> dict[str, Any]:
    """Point estimates and interval of scores [seeds][tasks]; null where no oracle is known."""
    if scores is None or any(row is None for row in scores):
        return {"score": None, "score_mean": None, "ci95": None}
    array = np.array(scores)
    return {
        "score": statistics.interquartile_mean(array),
        "score_mean": statistics.mean(array),
        "ci95": statistics.bootstrap_interval(array),
    }


def _gap(
    key: Key, learner: MetaLearner, meta: PyTree, tasks: TaskDistribution, scores: np.ndarray | None
) -> float | None:
    """Score on as many training tasks minus the score reached here."""
    if scores is None:
        return None
    task_key, life_key = jax.random.split(key)
    env_params = sample_tasks(task_key, tasks, "train", len(scores))
    scale, measured = _measure_with_ends(life_key, learner, meta, tasks, env_params)
    train_scores = scale.scores(measured["learner"])
    assert train_scores is not None
    return statistics.interquartile_mean(train_scores) - statistics.interquartile_mean(scores)
