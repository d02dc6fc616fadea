"""What `papers.py` reproduces: the problems, what was published about them, and what can be earned at most."""

import functools
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxmeta
from jaxmeta.core.types import Adapter, TaskDistribution
from jaxmeta.inner import random_policy
from jaxmeta_envs.bandit import planning as bandit_planning
from jaxmeta_envs.grid_navi import bayes as grid_navi_bayes

TEST_SEED = 1_000_000
"""Of the test tasks and all that happens in them: the same for every row, and far from the seeds of training."""
BATCH = 2000
KNOWN_TASKS = 100_000
"""Tasks that the return of one who knows the task is averaged over."""

DUAN = "RL^2, arXiv 1611.02779"
MISHRA = "SNAIL, arXiv 1707.03141"


class Limit(NamedTuple):
    """What nobody earns more than."""

    exact: bool
    """Whether it is what the best policy earns that does not know the task, or only a bound on that."""
    why: str
    value: Callable[[], float]


class Problem(NamedTuple):
    """A table of a paper."""

    title: str
    tasks: str
    learners: tuple[str, ...]
    limit: Limit
    trials: int
    """Test tasks, at least."""
    standard_error: float = math.inf
    """More are measured until it is no larger."""
    by_step: bool = False
    """Whether the return of an episode is measured, before and after inner steps, not the total reward of a trial."""
    settings: Mapping[str, Any] = MappingProxyType({})
    """Of the learners, where the family's own are not meant."""
    policies: Mapping[str, Callable[[TaskDistribution], Adapter]] = MappingProxyType({})
    """What perceives nothing of its task, beside `random`; the family's own policies are measured in any case."""
    published: Mapping[str, tuple[float, str]] = MappingProxyType({})
    """Figure and source by row."""


def published(source: str, **figures: float) -> dict[str, tuple[float, str]]:
    return {name: (figure, source) for name, figure in figures.items()}


def stand_still(tasks: TaskDistribution) -> Adapter:
    """Takes the action zero."""

    def act(key, meta, fast, memory, percept):
        return jnp.zeros_like(percept.previous_action), memory, {}

    return random_policy(tasks)._replace(act=act, eval_policy=act)


def known_task_return(spec: str, episodes: int) -> float:
    """Best return of so many episodes for one who knows the task, on average over test tasks."""
    tasks = jaxmeta.make_tasks(spec)
    assert tasks.oracle is not None
    keys = jax.random.split(jax.random.key(TEST_SEED), (KNOWN_TASKS // BATCH, BATCH))
    best = jax.jit(jax.vmap(lambda key, oracle=tasks.oracle: oracle(tasks.sample(key, "test"))))
    return episodes * float(np.mean([best(batch) for batch in keys], dtype=np.float64))


PROBLEMS = {
    "bandit-10": Problem(
        title="Bandit, 5 arms, 10 pulls",
        tasks="bandit:arms=5,pulls=10",
        learners=("rl2", "mann", "snail"),
        limit=Limit(True, "dynamic programming", functools.partial(bandit_planning.bayes_optimal_return, 5, 10)),
        trials=100_000,
        published=published(DUAN, random=5.0, gittins=6.6, thompson=5.7, ucb1=6.7, epsilon_greedy=6.6, rl2=6.7)
        | published(MISHRA, snail=6.6),
    ),
    "bandit-100": Problem(
        title="Bandit, 5 arms, 100 pulls",
        tasks="bandit:arms=5,pulls=100",
        learners=("rl2", "snail"),
        limit=Limit(False, "knows the best arm, which pays 5/6 on average", lambda: 100 * 5 / 6),
        trials=100_000,
        settings={
            "outer.discount": 0.995,
            "outer.gae_lambda": 0.97,
            "outer.learning_rate": 1e-2,
            "outer.entropy": 0.03,
            "outer.final_entropy_fraction": 0.0,
            "meta_steps": 1200,
        },
        published=published(DUAN, random=49.9, gittins=78.3, thompson=74.7, ucb1=78.0, epsilon_greedy=75.4, rl2=78.7)
        | published(MISHRA, snail=79.1),
    ),
    "tabular_mdp-10": Problem(
        title="Tabular MDP, 10 episodes",
        tasks="tabular_mdp:states=10,actions=5,horizon=10,episodes=10",
        learners=("rl2", "snail"),
        limit=Limit(
            False,
            f"knows the process, mean over {KNOWN_TASKS:,} of them",
            functools.partial(known_task_return, "tabular_mdp:states=10,actions=5,horizon=10", 10),
        ),
        trials=10_000,
        standard_error=0.15,
        published=published(DUAN, random=100.1, psrl=138.1, opsrl=144.1, ucrl2=146.6, epsilon_greedy=132.8, rl2=156.2)
        | published(MISHRA, snail=159.1),
    ),
    "grid_navi-4": Problem(
        title="GridNavi, 4 episodes",
        tasks="grid_navi",
        learners=("rl2",),
        limit=Limit(True, "dynamic programming", functools.partial(grid_navi_bayes.bayes_optimal_return, 5, 15, 4)),
        trials=20_000,
    ),
    "point_navigation": Problem(
        title="2-D navigation, after inner steps",
        tasks="point_navigation",
        learners=("maml", "meta_sgd", "fomaml", "reptile"),
        limit=Limit(
            False,
            f"knows the goal, mean over {KNOWN_TASKS:,} of them",
            functools.partial(known_task_return, "point_navigation", 1),
        ),
        trials=512,
        by_step=True,
        policies={"stand_still": stand_still},
    ),
}
