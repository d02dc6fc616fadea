"""The best that one can do in GridNavi without knowing the goal: the Bayes-optimal return, exactly, and its policy.

The prior is uniform over the goals, and a belief is the set of goals that were visited in vain. Until the goal is found
all that is perceived is known beforehand, so a search is one fixed walk through the episodes of a trial; once it is
found, staying there and walking straight back to it in every later episode is best. A trial is thus worth -0.1 a step
and 1.1 more for every step on the goal, and the best walk is the one with the most steps on the goal, summed over the
goals: a whole number, which dynamic programming over the step, the cell and the set of visited goals finds.

A set of goals is a number, whose bit g stands for the g-th of `goal_cells`.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.core.types import Adapter, Key, Percept, PyTree
from jaxmeta.inner import without_learning
from jaxmeta_envs.grid import GOAL_REWARD, STEP_REWARD
from jaxmeta_envs.grid_navi.environment import GridNavi, goal_cells

MOST_VALUES = 2**32
"""Values that the dynamic programme may compute: 81 steps of the grid of 5 cells a side, which take some seconds."""


class Board(NamedTuple):
    """The grid as tables; cells are numbered row by row, as in the observation."""

    arrivals: np.ndarray
    """[cells, actions] int64, the cell that an action leads to."""
    goals: np.ndarray
    """[goals] int64, their cells."""
    bits: np.ndarray
    """[cells] int64, the set that holds the goal of the cell alone, 0 where there is none."""
    known: np.ndarray
    """[2^goals] int64, steps on the goal in an episode of one who knows it, summed over the goals of a set."""
    sizes: np.ndarray
    """[2^goals] int64, number of goals in a set."""


class Plan(NamedTuple):
    """What the best searcher does for as long as the goal is not found."""

    trial: np.ndarray
    """[episodes, horizon] int32, the actions that are best for the trial."""
    single: np.ndarray
    """[episodes + 1, horizon] int32, those that are best for a last episode, after so many of `trial`."""


class Search(NamedTuple):
    """The memory of a searcher."""

    step: jax.Array
    """[] int32, steps since the trial began."""
    position: jax.Array
    """[2] int32, where the last action led."""
    goal: jax.Array
    """[2] int32, or -1 as long as it is not found."""


def computable(size: int, horizon: int, episodes: int) -> bool:
    """Whether the dynamic programme ends in seconds."""
    goals = size**2 - 4
    return size**2 * 2**goals * horizon * episodes <= MOST_VALUES


def bayes_optimal_return(size: int, horizon: int, episodes: int) -> float:
    """Expected return of the best policy for `grid_navi` that does not know the goal, by dynamic programming.

    Args:
      size: cells along a side, at least 3.
      horizon: steps of an episode, at least 1.
      episodes: episodes of a trial, at least 1. The values that are computed number size^2 2^(size^2 - 4) for each step
        of the trial.

    Returns:
      The expected return of a trial, over goals drawn uniformly from `goal_cells(size)`.

    >>> round(bayes_optimal_return(3, 4, 2), 2)
    2.94
    """
    steps_on_goal = _most_steps(size, horizon, episodes)[0] / len(goal_cells(size))
    return float(STEP_REWARD * horizon * episodes + (GOAL_REWARD - STEP_REWARD) * steps_on_goal)


def bayes_policy(size: int, horizon: int, episodes: int) -> Adapter:
    """The policy that earns `bayes_optimal_return` in trials of whole episodes; meta and fast are None.

    Its `eval_policy` searches as is best for the one episode that it is scored on. After the last episode of the trial
    the last search is repeated.
    """
    moves = jnp.array(GridNavi.moves, jnp.int32)
    plan = best_plan(size, horizon, episodes)

    def reset(key: Key, meta: None, context: PyTree):
        del key, meta, context
        nowhere = jnp.full(2, -1, jnp.int32)
        return None, Search(step=jnp.zeros((), jnp.int32), position=nowhere, goal=nowhere)

    def follow(searches: np.ndarray):
        def act(key: Key, meta: None, fast: None, memory: Search, percept: Percept):
            del key, meta, fast
            goal = jnp.where(percept.previous_reward > 0, memory.position, memory.goal)
            position = jnp.where(percept.first, 0, memory.position)  # an episode starts in the corner (0, 0)
            distances = jnp.sum(jnp.abs(moves + (position - goal)[None]), axis=-1)
            episode = jnp.minimum(memory.step // horizon, len(searches) - 1)
            search = jnp.asarray(searches)[episode, memory.step % horizon]
            action = jnp.where(goal[0] < 0, search, jnp.argmin(distances)).astype(jnp.int32)
            after = jnp.clip(position + moves[action], 0, size - 1)
            return action, Search(memory.step + 1, after, goal), {}

        return act

    return without_learning(reset, follow(plan.trial), follow(plan.single))


@functools.cache
def best_plan(size: int, horizon: int, episodes: int) -> Plan:
    """The walks of the best searcher, episode after episode."""
    board = _board(size, horizon)
    most = functools.partial(_most_steps, size, horizon)
    visited, trial, single = 0, [], []
    for left in range(episodes, 0, -1):
        single.append(_best_walk(board, horizon, visited, most(0), most(1))[0])
        walk, visited = _best_walk(board, horizon, visited, most(left - 1), most(left))
        trial.append(walk)
    single.append(_best_walk(board, horizon, visited, most(0), most(1))[0])
    return Plan(np.array(trial, np.int32), np.array(single, np.int32))


@functools.cache
def _board(size: int, horizon: int) -> Board:
    cells = np.stack([np.arange(size**2) % size, np.arange(size**2) // size], axis=-1)
    x, y = np.moveaxis(np.clip(cells[:, None] + np.array(GridNavi.moves), 0, size - 1), -1, 0)
    places = goal_cells(size).astype(np.int64)
    goals = places[:, 1] * size + places[:, 0]
    bits = np.zeros(size**2, np.int64)
    bits[goals] = 1 << np.arange(len(goals))
    known = sizes = np.zeros(1, np.int64)
    for distance in places.sum(axis=1):
        known = np.concatenate([known, known + max(horizon - distance + 1, 0)])
        sizes = np.concatenate([sizes, sizes + 1])
    return Board(y * size + x, goals, bits, known, sizes)


@functools.cache
def _most_steps(size: int, horizon: int, episodes: int) -> np.ndarray:
    """Most steps on the goal in so many episodes to come, summed over the goals, by the set of goals visited before.

    Returns:
      [2^goals], of an integer type that is as small as can be, for the time goes into moving memory.
    """
    board = _board(size, horizon)
    if episodes == 0:
        return np.zeros(len(board.known), np.int8)
    dtype = np.min_scalar_type(-len(board.goals) * horizon * episodes)
    later = _most_steps(size, horizon, episodes - 1).astype(dtype)
    ahead = np.repeat(later[None], len(board.bits), axis=0)  # [cells, 2^goals], to come from a cell on
    before = np.empty_like(ahead)  # the same, one step earlier
    for staying in range(1, horizon + 1):  # from the last step to the first, after which all steps can be stayed
        for bit, cell in enumerate(board.goals):
            arriving = ahead[cell].reshape(-1, 2, 2**bit)  # a view, split by whether this goal was visited before
            arriving[:, 0] = arriving[:, 1] + dtype.type(staying)
        for cell, arrivals in enumerate(board.arrivals):
            before[cell] = ahead[arrivals[0]]
            for arrival in set(arrivals[1:]):
                np.maximum(before[cell], ahead[arrival], out=before[cell])
        ahead, before = before, ahead
    return ahead[0] + board.known.astype(dtype)


def _best_walk(board: Board, horizon: int, visited: int, after: np.ndarray, most: np.ndarray) -> tuple[list[int], int]:
    """The actions of an episode that is best where `after` is to come after it, and the goals visited at its end.

    Every pair of a cell and a set that can be reached is kept once, with the most steps on the goal that lead there.
    What cannot attain `most` any more is dropped: at best every step to come finds one of the goals that are left, and
    nothing is worth more afterwards than to have visited all.
    """
    cells, sets, scores = np.zeros(1, np.int64), np.array([visited]), np.zeros(1, np.int64)
    best = most[visited] - board.known[visited]
    origins = []
    for staying in range(horizon, 0, -1):
        arrivals = board.arrivals[cells]  # [kept, actions]
        found = board.bits[arrivals] & ~sets[:, None]
        scores = (scores[:, None] + staying * (found > 0)).ravel()
        sets = sets[:, None] | found
        codes = (sets * len(board.bits) + arrivals).ravel()
        finds = np.minimum(staying - 1, board.sizes[-1] - board.sizes[sets]).ravel()
        hope = finds * (2 * staying - 1 - finds) // 2  # (staying - 1) + (staying - 2) + ..., a term for each find
        hopeful = np.flatnonzero(scores + hope + after[-1] >= best)
        order = hopeful[np.lexsort((scores[hopeful], codes[hopeful]))]
        origin = order[np.append(codes[order][1:] != codes[order][:-1], True)]  # the best of each code comes last
        sets, cells = np.divmod(codes[origin], len(board.bits))
        scores = scores[origin]
        origins.append(origin)
    place = int(np.argmax(scores + after[sets]))
    end, actions = int(sets[place]), []
    for origin in reversed(origins):
        place, action = divmod(int(origin[place]), board.arrivals.shape[1])
        actions.append(action)
    return actions[::-1], end
