"""GridNavi: find a hidden goal on a grid, and stay there (Zintgraf et al. 2020, VariBAD, arXiv 1910.08348).

The goal is the task. It sits in `EnvParams`, so every episode of a lifetime has the same one, and the observation does
not show it.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.core.config import AdaptationConfig
from jaxmeta.core.errors import require, require_known
from jaxmeta.core.types import Adapter, Key, TaskDistribution
from jaxmeta_envs.grid import EnvParams, best_return
from jaxmeta_envs.grid_navi import bayes
from jaxmeta_envs.grid_navi.environment import environment_of, goal_cells
from jaxmeta_envs.grid_rendering import grid_scene

SPLITS = ("train", "validation", "test")
LARGEST_SIZE = 1000


def grid_navi(
    size: int = 5, horizon: int = 15, goals: str = "all", holdout: int = 7, kept: int = 0
) -> TaskDistribution:
    """Find a hidden goal on a grid and stay there; the goal is the task (Zintgraf et al. 2020).

    Where a lifetime is a trial of whole episodes in one environment, goals are drawn from all and the grid is small,
    learners are evaluated beside `bayes_oracle`, the best policy that does not know the goal (`bayes`).

    Args:
      size: cells along a side, at least 3.
      horizon: steps of an episode, at least 1.
      goals: `all`, where every split draws from all goals, as in the paper; or `split`, where the first `holdout` of
        `goal_cells(size)` are the test goals and train and validation share the rest.
      holdout: number of test goals under `goals=split`, from 1 to one less than there are goals.
      kept: number of goals under `goals=split`, those after the test goals, that are kept for validation alone; 0, or
        fewer than the test goals leave.

    Raises:
      UsageError: an option out of range.

    >>> tasks = grid_navi(goals="split")
    >>> tasks.sample(jax.random.key(0), "test").goal.shape, tasks.tasks_seen("test")
    ((2,), False)
    """
    require(3 <= size <= LARGEST_SIZE, "grid_navi:size", f"be from 3 to {LARGEST_SIZE}", size)
    require(horizon >= 1, "grid_navi:horizon", "be at least 1", horizon)
    require_known("grid_navi:goals", goals, ("all", "split"))
    cells = goal_cells(size)
    pools: dict[str, np.ndarray] = dict.fromkeys(SPLITS, cells)
    if goals == "split":
        rule = f"be from 1 to {len(cells) - 1}, one less than there are goals"
        require(1 <= holdout < len(cells), "grid_navi:holdout", rule, holdout)
        left = len(cells) - holdout
        require(
            0 <= kept < left, "grid_navi:kept", f"be from 0 to {left - 1}, one less than the test goals leave", kept
        )
        first = holdout + kept
        pools = {"train": cells[first:], "validation": cells[holdout:first], "test": cells[:holdout]}
        if kept == 0:
            pools["validation"] = pools["train"]

    def sample(key: Key, split: str) -> EnvParams:
        require_known("split", split, SPLITS)
        goal = jax.random.choice(key, jnp.asarray(pools[split]))
        return EnvParams(max_steps_in_episode=jnp.array(horizon, jnp.int32), goal=goal)

    def tasks_seen(split: str) -> bool:
        require_known("split", split, SPLITS)
        return goals == "all" or split == "train" or (split == "validation" and not kept)

    def describe(params: EnvParams) -> jax.Array:
        return 2 * params.goal.astype(jnp.float32) / (size - 1) - 1

    def policies(lifetime: AdaptationConfig) -> dict[str, Adapter]:

        episodes = lifetime.num_adaptations * lifetime.rollout_length // horizon
        whole = lifetime.num_envs == 1 and lifetime.rollout_length % horizon == 0
        if goals != "all" or not whole or not bayes.computable(size, horizon, episodes):
            return {}
        return {"bayes_oracle": bayes.bayes_policy(size, horizon, episodes)}

    env = environment_of(size)
    return TaskDistribution(
        name="grid_navi",
        env=env,
        sample=sample,
        splits=SPLITS,
        tasks_seen=tasks_seen,
        horizon=horizon,
        describe=describe,
        oracle=functools.partial(best_return, env),
        suggested={"agent.discount": 0.9},
        policies=policies,
        scene=functools.partial(grid_scene, size=size, goals=cells),
    )
