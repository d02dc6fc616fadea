"""Evaluation: a learner beside honest baselines, on one scale where random is 0 and the oracle is 1."""

import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypedDict, Unpack

import jax
import numpy as np

from jaxmeta.algorithms.registry import agent_of, make_learner
from jaxmeta.core import compilation_cache, contracts
from jaxmeta.core.compilation import compiler_options
from jaxmeta.core.config import AdaptationConfig
from jaxmeta.core.errors import as_kind, require, require_known
from jaxmeta.core.settings import nested
from jaxmeta.core.tasks import as_distribution
from jaxmeta.core.types import Key, MetaLearner, MetaState, PyTree, TaskDistribution
from jaxmeta.evaluation import statistics, tuned_baselines
from jaxmeta.evaluation.baselines import Choice, standard_config
from jaxmeta.evaluation.measurement import GROUP, Measured, Meter, adaptation_cost, in_groups, measure_task
from jaxmeta.evaluation.tuned_baselines import Baselines
from jaxmeta.inner import privileged_task, random_policy
from jaxmeta.training import seeds as multi_seed

LEARNED = 0.9
"""Share of the way from random to the oracle that counts as having learned a task."""


PARTS_OF_KEY = 5
"""What an evaluation's key is split into, the baselines' own last."""


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


class EvaluationOptions(TypedDict, total=False):
    """How a learner is evaluated. `with_*` are on unless they are switched off."""

    split: str
    """Whose tasks; by default `test`."""
    num_tasks: int
    """How many, at least 2; by default 128."""
    seed: int
    """Of the tasks and of all randomness, at least 0; by default 0."""
    with_baselines: bool
    """Measure `scratch` and `finetune`. Where it is not known yet how they adapt best, they are tuned first, which
    takes longer than all else."""
    with_gap_and_cost: bool
    """Measure training tasks too, and what it costs to adapt."""
    baseline_seeds: int
    """How many times `scratch` and `finetune` are trained and measured, each from its own start; by default 1."""
    choices: Mapping[str, Choice]
    """How `scratch` and `finetune` adapt, where that was tuned before."""
    retune: bool
    """Tune and measure them again, whatever the package or the user's cache folder knows of them."""
    measurement: "Measurement | None"
    """What `make_measurement` returned for this learner, where it is evaluated more than once."""
    on_stage: Callable[[str, float], None]
    """`on_stage(stage, done)` receives the current stage in a few words and the share of the evaluation that is done,
    from 0 to 1."""


def evaluate(
    learner: MetaLearner,
    state: MetaState,
    tasks: str | TaskDistribution,
    config: Mapping[str, Any] | None = None,
    **options: Unpack[EvaluationOptions],
) -> dict[str, Any]:
    """Adapts to tasks of a split and reports how well, how fast and at what cost, beside the baselines.

    With several seeds every member adapts to the same tasks, with the same random numbers. The report pools them,
    and `members` has what each did; baselines are tuned once, and measured under the settings of the first.

    Args:
      learner: what is evaluated.
      state: its trained state.
      tasks: the task distribution, or its specification.
      config: of the run that trained it, as in `config.json`, which says by what seeds; by default seed 0, of a
        several 0, 1, and so on.
      **options: see `EvaluationOptions`.

    Returns:
      What `evaluation.json` holds; docs/architecture.md says what its fields mean.

    Raises:
      UsageError: an unknown split, or a number out of range.
    """
    contracts.require_evaluable(learner, state)
    for name in options:
        require_known("option", name, EvaluationOptions.__annotations__)
    tasks = as_distribution(tasks)
    split = options.get("split", "test")
    require_known("split", split, tasks.splits)
    num_tasks, seed = as_kind("num_tasks", options.get("num_tasks", 128), int), options.get("seed", 0)
    require(num_tasks >= 2, "num_tasks", "be at least 2", num_tasks)
    require(0 <= as_kind("seed", seed, int) < 2**31, "seed", "be from 0 to 2147483647", seed)
    compilation_cache.enable()
    task_key, lifetime_key, gap_key, cost_key, baseline_key = jax.random.split(jax.random.key(seed), PARTS_OF_KEY)
    states = multi_seed.members(state)
    config = config or {"seed": 0, **({"seeds": list(range(len(states)))} if np.ndim(state.step) else {})}
    members = multi_seed.members_of(config)
    # On the host, so that a state that was just trained and one that was restored are measured by the same program.
    metas = [jax.device_get(learner.meta(one)) for one in states]
    meta_env_steps = state.steps_taken * learner.tasks_per_batch * learner.env_steps_per_task

    with_baselines, baseline_seeds = options.get("with_baselines", True), options.get("baseline_seeds", 1)
    with_gap_and_cost = options.get("with_gap_and_cost", True)
    adapting = f"adapting to {num_tasks} tasks of the split {split}"
    gap_and_cost = "measuring the gap to training tasks and the cost of adapting"
    work = len(metas) * num_tasks / GROUP
    parts = {adapting: 1 + work}
    if with_baselines:
        standard = standard_config(learner.config, tasks)
        parts |= tuned_baselines.parts_of_work(standard, num_tasks, meta_env_steps)
    parts |= {gap_and_cost: 1 + work} if with_gap_and_cost else {}
    meter = Meter(parts, options.get("on_stage", lambda stage, done: None))

    meter.begin(adapting)
    measure_with_ends = options.get("measurement") or make_measurement(learner, tasks)
    env_params = _drawn(task_key, tasks.sample, split, num_tasks)
    scale, measured = measure_with_ends(lifetime_key, metas, env_params, meter.advance)
    tuned = {}
    if with_baselines:
        those = Baselines(baseline_key, tasks, learner.config, pretraining_steps=meta_env_steps, seed=seed, meter=meter)
        by_name = tuned_baselines.measure_baselines(
            those,
            baseline_key,
            env_params,
            starts=baseline_seeds,
            choices=options.get("choices", {}),
            retune=options.get("retune", False),
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
    if learner.name in reports:  # a baseline was meta-evaluated as it stands, beside itself
        reports[f"{learner.name} (tuned)"] = reports.pop(learner.name)
    report = {
        "algorithm": learner.name,
        "agent": agent_of(learner.config) or "memory",
        "tasks": tasks.name,
        "settings": config.get("settings") or nested(learner.config),
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
        meter.begin(gap_and_cost)
        train_params = _drawn(gap_key, tasks.sample, "train", num_tasks)
        train_scale, train_measured = measure_with_ends(lifetime_key, metas, train_params, meter.advance)
        train_scores, scores = train_scale.scores(train_measured["learner"]), scale.scores(measured["learner"])
        report |= {"generalisation_gap": _gap(train_scores, scores)}
        report |= adaptation_cost(cost_key, learner, metas[0], tasks)
        for index, member in enumerate(report.get("members", ())):
            member["generalisation_gap"] = _gap(_member(train_scores, index), _member(scores, index))
    return report


def on_validation_tasks(
    learner: MetaLearner, tasks: TaskDistribution, num_tasks: int = 32
) -> Callable[[MetaState], dict[str, float]]:
    """What measures a learner while it trains, on the same validation tasks each time, compiled once.

    Returns:
      A function of the state: `validation_return`, the mean return of an episode after the last adaptation, of all
      members; and `validation_score`, interquartile mean, where there is a scale.
    """
    task_key, lifetime_key = jax.random.split(jax.random.key(0))
    measure = make_measurement(learner, tasks)
    env_params = _drawn(task_key, tasks.sample, "validation", num_tasks)

    def measured(state: MetaState) -> dict[str, float]:
        metas = [jax.device_get(learner.meta(one)) for one in multi_seed.members(state)]
        scale, results = measure(lifetime_key, metas, env_params, lambda share: None)
        scores = scale.scores(results["learner"])
        scored = {} if scores is None else {"validation_score": statistics.interquartile_mean(scores)}
        return {"validation_return": float(np.mean(results["learner"].returns[..., -1])), **scored}

    return measured


def estimated_seconds(learner: MetaLearner, tasks: TaskDistribution, num_tasks: int) -> float:
    """About how long an evaluation without baselines takes, by adapting an untrained learner to a group of tasks.

    Test and training tasks are measured, and what it costs to adapt is compiled on its own.
    """
    metas = [learner.meta(jax.jit(learner.init)(jax.random.key(0)))]
    measure_with_ends = make_measurement(learner, tasks)
    env_params = _drawn(jax.random.key(0), tasks.sample, "train", GROUP)
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        measure_with_ends(jax.random.key(0), metas, env_params, lambda share: None)
        seconds.append(time.perf_counter() - start)
    compiling = max(0.0, seconds[0] - seconds[1])
    return 2 * compiling + 2 * seconds[1] * math.ceil(num_tasks / GROUP)


def baselines_of(learner: MetaLearner, tasks: TaskDistribution, seed: int = 0) -> Baselines:
    """The baselines beside a run that comes to its end, as `evaluate` with this seed measures them."""
    *_, key = jax.random.split(jax.random.key(seed), PARTS_OF_KEY)
    steps = learner.config.meta_steps * learner.tasks_per_batch * learner.env_steps_per_task
    return Baselines(key, tasks, learner.config, pretraining_steps=steps, seed=seed)


Measurement = Callable[[Key, Sequence[PyTree], PyTree, Callable[[float], None]], tuple[Scale, dict[str, Measured]]]


class Policies(NamedTuple):
    """What a family is measured by, compiled, whichever learner is."""

    measurers: Callable[[AdaptationConfig], Mapping[str, Callable[..., Measured]]]
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
      A function of key, the meta of each member, `EnvParams` with leaves [tasks, ...] and `on_share`, which receives
      which share is done. Tasks are measured in groups, see `measurement.in_groups`. It returns the scale, and
      what was measured of `learner`, leaves [members, tasks, ...], and as of one member of `random`, each of
      `tasks.policies` and, where it is known, `oracle`, whose trial is taken to consist of episodes as long as the
      horizon.
    """
    measurers, oracle = policies or make_policies(tasks)
    measure_learner, measure_policy = _measurer(learner, tasks), measurers(learner.lifetime)

    def measure_with_ends(key: Key, metas: Sequence[PyTree], env_params: PyTree, on_share: Callable[[float], None]):
        learner_key, random_key = jax.random.split(key)
        runs = len(metas) + len(measure_policy)

        def share_of_run(index: int) -> Callable[[float], None]:
            return lambda share: on_share((index + share) / runs)

        of_learner = [
            measure_learner(learner_key, meta, env_params, share_of_run(index)) for index, meta in enumerate(metas)
        ]
        measured = {"learner": _stacked(of_learner)}
        for index, (name, run) in enumerate(measure_policy.items(), len(metas)):
            measured[name] = _stacked([run(random_key, None, env_params, share_of_run(index))])
        random = np.asarray(measured["random"].returns)
        scale = Scale(random=random[0].mean(axis=1), oracle=None)
        if oracle is not None:
            best = in_groups(oracle, (env_params,))
            episodes = learner.lifetime.num_adaptations * learner.lifetime.rollout_length / tasks.horizon
            measured["oracle"] = Measured(np.broadcast_to(best[:, None], random.shape), best[None] * episodes)
            scale = scale._replace(oracle=best)
        return scale, measured

    return measure_with_ends


def make_policies(tasks: TaskDistribution) -> Policies:
    """Compiles what a family is measured by: its oracle once, policies once for lifetimes of each kind."""

    @functools.cache
    def measurers(lifetime: AdaptationConfig) -> Mapping[str, Callable[..., Measured]]:
        learner = make_learner("scratch", tasks)._replace(lifetime=lifetime)
        policies = {"random": learner._replace(adapter=random_policy(tasks), task=privileged_task)}
        policies |= {name: learner._replace(adapter=policy) for name, policy in tasks.policies(lifetime).items()}
        return {name: _measurer(policy, tasks) for name, policy in policies.items()}

    return Policies(measurers, None if tasks.oracle is None else jax.jit(jax.vmap(tasks.oracle)))


def _measurer(learner: MetaLearner, tasks: TaskDistribution) -> Callable[..., Measured]:
    """`measurer(key, meta, env_params, on_share)`, which measures tasks in groups."""

    @functools.partial(jax.jit, compiler_options=compiler_options())
    def measure_group(keys: Key, meta: PyTree, env_params: PyTree) -> Measured:
        return jax.vmap(lambda key, env_params: measure_task(key, learner, meta, tasks, env_params))(keys, env_params)

    def measurer(key: Key, meta: PyTree, env_params: PyTree, on_share: Callable[[float], None]) -> Measured:
        keys = jax.random.split(key, jax.tree.leaves(env_params)[0].shape[0])

        def run(keys: Key, env_params: PyTree) -> Measured:
            return measure_group(keys, meta, env_params)

        return in_groups(run, (keys, env_params), on_share=on_share)

    return measurer


@functools.partial(jax.jit, static_argnames=("sample", "split", "num_tasks"))
def _drawn(key: Key, sample: Callable[[Key, str], PyTree], split: str, num_tasks: int) -> PyTree:
    """`sample_tasks`, compiled once for all evaluations of a distribution, whose `sample` it is given."""
    return jax.vmap(lambda key: sample(key, split))(jax.random.split(key, num_tasks))


def _sees_context(learner: MetaLearner, tasks: TaskDistribution) -> bool:
    """Whether the learner receives privileged task information."""
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
    steps_per_round = lifetime.num_envs * lifetime.rollout_length
    scores = scale.scores(measured)
    return {
        "returns": returns.tolist(),
        "returns_ci95": [statistics.bootstrap_interval(column, trim=0) for column in by_round],
        "trial_return": float(trials.mean()),
        "trial_return_se": statistics.standard_error(trials),
        **_score_fields(None if scores is None else scores.tolist()),
        "task_scores": None if scores is None else scores.mean(axis=0).tolist(),
        "env_steps": lifetime.num_adaptations * steps_per_round,
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
