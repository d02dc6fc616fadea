"""Evaluation: a learner beside honest baselines, on one scale where random is 0 and the oracle is 1."""

import functools
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmeta import baselines, contracts, populations, statistics
from jaxmeta.adapters import pose_openly, random_policy
from jaxmeta.base import Key, Lifetime, MetaLearner, MetaState, PyTree, TaskDistribution, sample_tasks
from jaxmeta.errors import as_kind, require, require_known
from jaxmeta.measurement import COMPILER_OPTIONS, Measured, adaptation_cost, measure
from jaxmeta.recipes import make_recipe
from jaxmeta.tasks import as_distribution

LEARNED = 0.9
"""Share of the way from random to the oracle that counts as having learned a task."""


class Scale(NamedTuple):
    """What returns are read against."""

    random: np.ndarray
    """[tasks], return of an episode of uniformly random actions."""
    oracle: np.ndarray | None
    """[tasks], the best expected return, or None where it is not known."""

    def scores(self, measured: Measured) -> np.ndarray | None:
        """(R - random) / (oracle - random) after the last round, [members, tasks].

        None where no oracle is known, or where in any task it does no better than chance, so that there is no scale.
        """
        if self.oracle is None or np.any(np.isclose(self.oracle, self.random)):
            return None
        return (np.asarray(measured.returns)[..., -1] - self.random) / (self.oracle - self.random)


def evaluate(
    learner: MetaLearner,
    state: MetaState,
    tasks: str | TaskDistribution,
    config: dict[str, Any],
    *,
    split: str = "test",
    num_tasks: int = 128,
    seed: int = 0,
    with_baselines: bool = True,
    with_gap_and_cost: bool = True,
    baseline_seeds: int = 1,
    choices: Mapping[str, baselines.Choice] = MappingProxyType({}),
    measurement: "Measurement | None" = None,
    on_stage: Callable[[str], None] = lambda stage: None,
) -> dict[str, Any]:
    """Adapts to tasks of a split and reports how well, how fast and at what cost, beside the baselines.

    Of a population every member adapts to the same tasks, with the same random numbers. What is reported pools them,
    and `members` has what each did; baselines are tuned once, and measured under the settings of the first.

    Args:
      learner: what is evaluated.
      state: its trained state.
      tasks: the task distribution, or its specification.
      config: the run's configuration, as in `config.json`.
      split: whose tasks.
      num_tasks: how many, at least 2.
      seed: of the tasks and of all randomness; at least 0.
      with_baselines: whether to tune and measure `scratch` and `finetune`, which takes longer than all else.
      with_gap_and_cost: whether to measure training tasks too, and what it costs to adapt.
      baseline_seeds: how many times `scratch` and `finetune` are trained and measured, each from its own start.
      choices: how `scratch` and `finetune` adapt, where that was tuned before.
      measurement: what `make_measurement` returned for this learner, where it is evaluated more than once.
      on_stage: told in a few words what happens next, for an evaluation takes a minute or more.

    Returns:
      What `evaluation.json` holds; docs/architecture.md says what its fields mean.

    Raises:
      UsageError: an unknown split, or a number out of range.
    """
    contracts.require_evaluable(learner, state, config)
    tasks = as_distribution(tasks)
    require_known("split", split, tasks.splits)
    num_tasks, seed = as_kind("num_tasks", num_tasks, int), as_kind("seed", seed, int)
    require(num_tasks >= 2, "num_tasks", "be at least 2", num_tasks)
    require(0 <= seed < 2**31, "seed", "be from 0 to 2147483647", seed)
    task_key, life_key, gap_key, cost_key, baseline_key = jax.random.split(jax.random.key(seed), 5)
    members = populations.members_of(config)
    alone = populations.config_of(config, members[0]) if members else config
    metas = [learner.meta(one) for one in populations.members(state)]
    meta_env_steps = state.steps_taken * learner.tasks_per_batch * learner.env_steps_per_task

    on_stage(f"adapting to {num_tasks} tasks of the split {split}")
    measure_with_ends = measurement or make_measurement(learner, tasks)
    env_params = sample_tasks(task_key, tasks, split, num_tasks)
    scale, measured = measure_with_ends(life_key, metas, env_params)
    tuned = {}
    if with_baselines:
        by_name = baselines.measure_baselines(
            baseline_key,
            tasks,
            alone["settings"],
            env_params,
            pretraining_steps=meta_env_steps,
            seeds=baseline_seeds,
            choices=choices,
            on_stage=on_stage,
        )
        for name, (entries, tried) in by_name.items():
            measured[name], tuned[name] = _stacked(entries), tried

    threshold = _threshold(scale, measured.get("scratch"))
    reports = {name: _summarise(entry, scale, learner, threshold) for name, entry in measured.items()}
    for name, tried in tuned.items():
        reports[name]["tuned"] = tried.report()
        if baseline_seeds > 1:
            reports[name]["members"] = [
                _summarise(_member(measured[name], index), scale, learner, threshold) for index in range(baseline_seeds)
            ]
    if config["recipe"] in reports:  # a baseline was meta-evaluated as it stands, beside itself
        reports[f"{config['recipe']} (tuned)"] = reports.pop(config["recipe"])
    report = {
        "recipe": config["recipe"],
        "agent": _agent(learner, config),
        "tasks": tasks.name,
        "settings": config["settings"],
        "train_seed": config["seed"],
        "meta_steps": state.steps_taken,
        "meta_env_steps": meta_env_steps,
        "split": split,
        "tasks_seen": tasks.tasks_seen(split),
        "num_tasks": num_tasks,
        "seed": seed,
        "sees_context": _sees_context(learner, tasks),
        **reports.pop("learner"),
        "baselines": reports,
    }
    if members:
        report["members"] = [
            {**member._asdict(), **_summarise(_member(measured["learner"], index), scale, learner, threshold)}
            for index, member in enumerate(members)
        ]
    if with_gap_and_cost:
        on_stage("measuring the gap to training tasks and the cost of adapting")
        train_params = sample_tasks(gap_key, tasks, "train", num_tasks)
        train_scale, train_measured = measure_with_ends(life_key, metas, train_params)
        train_scores, scores = train_scale.scores(train_measured["learner"]), scale.scores(measured["learner"])
        report |= {"generalisation_gap": _gap(train_scores, scores)}
        report |= adaptation_cost(cost_key, learner, metas[0], tasks)
        for index, member in enumerate(report.get("members", ())):
            member["generalisation_gap"] = _gap(_member(train_scores, index), _member(scores, index))
    return report


Measurement = Callable[[Key, Sequence[PyTree], PyTree], tuple[Scale, dict[str, Measured]]]


class Policies(NamedTuple):
    """What a family is measured by, compiled, whichever learner is."""

    measurers: Callable[[Lifetime], Mapping[str, Callable[..., Measured]]]
    """Of `random` and of the family's own policies, over lifetimes of a kind."""
    oracle: Callable[[PyTree], jax.Array] | None
    """`oracle(env_params)`, leaves [tasks, ...], the best return of an episode in each, [tasks] float32."""


def make_measurement(learner: MetaLearner, tasks: TaskDistribution, policies: Policies | None = None) -> Measurement:
    """Compiles, once for all tasks, what measures a learner, the two ends of its scale and the family's own policies.

    Args:
      learner: what is measured.
      tasks: the family.
      policies: what `make_policies` returned for it, to be shared with other learners.

    Returns:
      A function of key, the meta of each member and `EnvParams` with leaves [tasks, ...]. It returns the scale, and
      what was measured of `learner`, leaves [members, tasks, ...], and as of one member of `random`, each of
      `tasks.policies` and, where it is known, `oracle`, whose trial is taken to consist of episodes as long as the
      horizon.
    """
    measurers, oracle = policies or make_policies(tasks)
    measure_learner, measure_policy = _measurer(learner, tasks), measurers(learner.lifetime)

    def measure_with_ends(key: Key, metas: Sequence[PyTree], env_params: PyTree):
        learner_key, random_key = jax.random.split(key)
        measured = {"learner": _stacked([measure_learner(learner_key, meta, env_params) for meta in metas])}
        measured |= {name: _stacked([run(random_key, None, env_params)]) for name, run in measure_policy.items()}
        random = np.asarray(measured["random"].returns)
        scale = Scale(random=random[0].mean(axis=1), oracle=None)
        if oracle is not None:
            best = np.asarray(oracle(env_params))
            episodes = learner.lifetime.rounds * learner.lifetime.steps / tasks.horizon
            measured["oracle"] = Measured(np.broadcast_to(best[:, None], random.shape), best[None] * episodes)
            scale = scale._replace(oracle=best)
        return scale, measured

    return measure_with_ends


def make_policies(tasks: TaskDistribution) -> Policies:
    """Compiles what a family is measured by: its oracle once, policies once for lifetimes of each kind."""

    @functools.cache
    def measurers(lifetime: Lifetime) -> Mapping[str, Callable[..., Measured]]:
        learner = make_recipe("scratch", tasks)._replace(lifetime=lifetime)
        policies = {"random": learner._replace(adapter=random_policy(tasks), task=pose_openly)}
        policies |= {name: learner._replace(adapter=policy) for name, policy in tasks.policies(lifetime).items()}
        return {name: _measurer(policy, tasks) for name, policy in policies.items()}

    return Policies(measurers, None if tasks.oracle is None else jax.jit(jax.vmap(tasks.oracle)))


def _measurer(learner: MetaLearner, tasks: TaskDistribution) -> Callable[..., Measured]:
    return jax.jit(
        lambda key, meta, env_params: measure(key, learner, meta, tasks, env_params),
        compiler_options=COMPILER_OPTIONS,
    )


def _agent(learner: MetaLearner, config: Mapping[str, Any]) -> str:
    """What acts: a memory that learns has a network of its own, whichever agent the settings name for others."""
    return config["settings"]["agent"] if learner.adapter.along is None else "memory"


def _sees_context(learner: MetaLearner, tasks: TaskDistribution) -> bool:
    """Whether it is told of a task what others must find out."""
    key = jax.random.key(0)
    return jax.eval_shape(lambda key: learner.task(key, tasks.sample(key, "train")).context, key) is not None


def _threshold(scale: Scale, scratch: Measured | None) -> float | None:
    """The mean return that counts as learned."""
    if scale.oracle is not None:
        return float(np.mean(scale.random + LEARNED * (scale.oracle - scale.random)))
    if scratch is None:
        return None
    return float(np.mean(scale.random + LEARNED * (scratch.returns[..., -1] - scale.random)))


def _summarise(measured: Measured, scale: Scale, learner: MetaLearner, threshold: float | None) -> dict[str, Any]:
    """The fields that a learner and its baselines share, of what was measured with leaves [members, tasks, ...]."""
    lifetime = learner.lifetime
    by_round, trials = np.moveaxis(np.asarray(measured.returns), -1, 0), np.asarray(measured.trial)
    returns = by_round.mean(axis=(1, 2))
    reached = np.flatnonzero(returns >= threshold) if threshold is not None else []
    steps_per_round = lifetime.envs * lifetime.steps
    scores = scale.scores(measured)
    return {
        "returns": returns.tolist(),
        "returns_ci95": [statistics.bootstrap_interval(column, trim=0) for column in by_round],
        "trial_return": float(trials.mean()),
        "trial_return_se": statistics.standard_error(trials),
        **_score_fields(None if scores is None else scores.tolist()),
        "task_scores": None if scores is None else scores.mean(axis=0).tolist(),
        "env_steps": lifetime.rounds * steps_per_round,
        "steps_to_threshold": int(reached[0]) * steps_per_round if len(reached) else None,
    }


def _score_fields(scores: Sequence[Sequence[float] | None] | None) -> dict[str, Any]:
    """Point estimates and interval of scores [seeds][tasks]; null where no oracle is known."""
    if scores is None or any(row is None for row in scores):
        return {"score": None, "score_mean": None, "ci95": None}
    array = np.array(scores)
    return {
        "score": statistics.interquartile_mean(array),
        "score_mean": statistics.mean(array),
        "ci95": statistics.bootstrap_interval(array),
    }


def _gap(train_scores: np.ndarray | None, scores: np.ndarray | None) -> float | None:
    """Score on training tasks minus the score reached here."""
    if scores is None or train_scores is None:
        return None
    return statistics.interquartile_mean(train_scores) - statistics.interquartile_mean(scores)


def _stacked(measured: Sequence[Measured]) -> Measured:
    """What was measured of each member, with leaves [members, tasks, ...]."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *measured)


def _member(tree: PyTree, index: int) -> PyTree:
    """What belongs to one member, leaves [1, tasks, ...]."""
    return jax.tree.map(lambda leaf: leaf[index : index + 1], tree)
