"""The protocol of the scoreboard: what every method of a family is given, whatever else differs between methods.

In a family every method gets about the same number of environment steps to meta-train with, unless it comes to the end
of its meta-steps before, and at most the same number to adapt to a task with. No method receives privileged task
information. Seeds are members of one run. Learners in context are trained on the rounds of a lifetime or on
one more, the one that is scored: on what `trial_rounds.py` found better for `rl2` on validation tasks. Settings are
those that a user gets by naming the algorithm and the family, but for what `FAMILIES` and `TOLD_NO_MORE` list.
"""

import functools
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from rich.console import Console

import jaxmeta
from jaxmeta.algorithms.registry import ALGORITHMS, make_learner
from jaxmeta.core.types import TaskDistribution
from jaxmeta.reporting import progress
from jaxmeta.training import jobs
from jaxmeta.training import loop as training
from jaxmeta.training.run_directory import RunDirectory, write_json

SHARES = (1, 3, 9)
"""Of nine parts of the training, after how many a method is evaluated."""
PARTS = 9
LOG_POINTS = 3
"""In each part, if it has as many meta-steps. An interrupted training saves at one of them."""
MOST_META_STEPS = 2_000
"""What ends the training of a method whose meta-steps take few environment steps."""
IN_CONTEXT = ("rl2", "mann", "snail")
NOTHING: Mapping[str, Any] = MappingProxyType({})
TOLD_NO_MORE = {"mapping": {"task_embedding": "inferred"}}
"""By algorithm, the settings without which it would receive privileged task information."""


class Family(NamedTuple):
    """What the protocol gives all methods in a family."""

    tasks: str
    adaptation: int
    """Environment steps that a method may adapt to a task with, at most."""
    training: int
    """Environment steps of meta-training of each seed."""
    by_gradient: dict[str, Any]
    in_context: dict[str, Any]
    """How the two kinds of method spend their adaptation, and what else they need."""


FAMILIES = {
    "grid_navi": Family(
        "grid_navi",
        180,
        6_000_000,
        {"adaptation.num_envs": 4, "adaptation.num_adaptations": 3, "agent.replay_capacity": 3},
        {
            "adaptation.num_envs": 1,
            "adaptation.num_adaptations": 12,
            "outer.trial_rollouts": 13,
            "outer.tasks_per_batch": 64,
        },
    ),
    "maze": Family(
        "maze",
        80,
        6_000_000,
        {"adaptation.num_envs": 1, "adaptation.num_adaptations": 2},
        {
            "adaptation.num_envs": 1,
            "adaptation.num_adaptations": 2,
            "outer.trial_rollouts": 3,
            "outer.tasks_per_batch": 64,
        },
    ),
    "cartpole": Family(
        "cartpole",
        800,
        6_000_000,
        {"adaptation.num_envs": 2, "adaptation.num_adaptations": 2},
        {
            "adaptation.num_envs": 1,
            "adaptation.num_adaptations": 4,
            "outer.tasks_per_batch": 32,
            "outer.discount": 0.97,
        },
    ),
    "point_navigation": Family(
        "point_navigation",
        2_000,
        12_000_000,
        {"adaptation.num_envs": 20, "adaptation.num_adaptations": 1, "objective.num_query_envs": 10},
        {"adaptation.num_envs": 1, "adaptation.num_adaptations": 4, "outer.tasks_per_batch": 64},
    ),
    "tabular_mdp": Family(
        "tabular_mdp",
        100,
        6_000_000,
        {"adaptation.num_envs": 1, "adaptation.num_adaptations": 10},
        {"adaptation.num_envs": 1, "adaptation.num_adaptations": 10, "outer.tasks_per_batch": 256, "memory.width": 64},
    ),
    "bandit": Family(
        "bandit",
        10,
        2_000_000,
        {"adaptation.num_envs": 1, "adaptation.num_adaptations": 10},
        {"adaptation.num_envs": 1, "adaptation.num_adaptations": 10, "outer.tasks_per_batch": 256},
    ),
    "recommender": Family(
        "recommender",
        80,
        6_000_000,
        {"adaptation.num_envs": 1, "adaptation.num_adaptations": 4},
        {
            "adaptation.num_envs": 1,
            "adaptation.num_adaptations": 4,
            "outer.trial_rollouts": 5,
            "outer.tasks_per_batch": 64,
            "outer.discount": 0.9,
        },
    ),
}


class Form(NamedTuple):
    """How much of the scoreboard is made."""

    families: tuple[str, ...]
    algorithms: tuple[str, ...]
    share: float
    """Of each family's training."""
    seeds: int
    num_tasks: int
    first_seed: int = 0


METHODS = tuple(name for name in ALGORITHMS if name not in ("scratch", "finetune"))
FORMS = {
    "tiny": Form(("grid_navi", "bandit"), ("maml", "rl2"), 0.001, 2, 8),
    "small": Form(("grid_navi", "bandit"), ("maml", "meta_sgd", "anil", "reptile", "hypernetwork", "rl2"), 0.1, 5, 64),
    "full": Form(tuple(FAMILIES), METHODS, 1.0, 5, 64),
}


@functools.cache
def tasks_of(family: str) -> TaskDistribution:
    return jaxmeta.make_tasks(FAMILIES[family].tasks)


def settings_of(family: str, algorithm: str, form: Form, others: Mapping[str, Any] = NOTHING) -> dict[str, Any]:
    """What the protocol sets, `meta_steps` among it: what spends the family's environment steps, if not too many.

    `others` are settings that an experiment puts in the protocol's place.
    """
    protocol, tasks = FAMILIES[family], tasks_of(family)
    make_learner(algorithm, tasks)  # tasks that do not suit it are refused before settings that it does not have
    own = protocol.in_context if algorithm in IN_CONTEXT else protocol.by_gradient
    given = {"adaptation.rollout_length": tasks.horizon, **own, **TOLD_NO_MORE.get(algorithm, {}), **others}
    learner = make_learner(algorithm, tasks, given)
    steps = learner.lifetime.env_steps
    assert steps <= protocol.adaptation, f"{algorithm} on {family} adapts with {steps} steps"
    afforded = form.share * protocol.training / (learner.tasks_per_batch * learner.env_steps_per_task)
    return given | {"meta_steps": in_parts(min(afforded, MOST_META_STEPS))}


def in_parts(afforded: float) -> int:
    """As many meta-steps, up to a tenth more or less if then all parts have the same log points.

    >>> in_parts(321.5), in_parts(22.3)
    (324, 22)
    """
    log_points = PARTS * LOG_POINTS
    even = log_points * max(1, round(afforded / log_points))
    return even if abs(even / afforded - 1) < 0.1 else max(1, round(afforded))


def after(share: int, meta_steps: int) -> int:
    """The meta-step at which a share of the training is done."""
    return max(1, round(share * meta_steps / PARTS))


def plan(form: Form, family: str, algorithm: str, others: Mapping[str, Any] = NOTHING) -> dict[str, Any]:
    """Of a cell's training, what `jobs.prepare` is given but the folder; `others` as in `settings_of`."""
    settings = settings_of(family, algorithm, form, others)
    log_every, rest = divmod(settings["meta_steps"], PARTS * LOG_POINTS)
    even = {"log_every": log_every, "checkpoint_every": log_every * LOG_POINTS, "keep": PARTS * LOG_POINTS}
    return {
        "algorithm": algorithm,
        "tasks": tasks_of(family),
        "seeds": range(form.first_seed, form.first_seed + form.seeds),
        "settings": settings,
        **({"log_every": 1, "checkpoint_every": 1, "keep": settings["meta_steps"]} if rest else even),
    }


def trained(run: RunDirectory, planned: dict[str, Any]) -> jobs.Job:
    """A training of the cell, gone on with from where it is."""
    job = jobs.prepare(**planned, run_dir=run.path, resume=run.config.is_file())

    def note(program: Any) -> None:
        memory = program.memory_analysis()
        write_json(run.path / "program.json", {"memory": getattr(memory, "temp_size_in_bytes", None)})

    with progress.reporting(job.config["meta_steps"], Console()) as tell:
        training.run_job(job, training.Hooks(on_log=tell, on_compiled=note))
    return job
