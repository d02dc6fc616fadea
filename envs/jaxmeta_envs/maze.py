"""Maze: find a hidden goal in an unknown maze. The walls, the start and the goal are the task.

They sit in `EnvParams`, so every episode of a lifetime happens in the same maze, and the observation, the agent's own
position, shows none of them. Below, a level of size 7 inside its border, with start S and goal G:

    # # # # # # # # #      Cells with two even coordinates are rooms, always open; those with two odd ones are pillars,
    # S     #       #      always walls; each of the others is a passage between two rooms, open or walled. A random
    #   # # #   #   #      spanning tree of the rooms is open, and some passages more, which make loops: whatever is
    #           #   #      drawn, every room can be reached from every other. Start and goal are rooms.
    # # #   # # #   #
    #       # G     #      The splits share no layout. The class of a layout is how many of two counts are odd: that of
    #   # # # # #   #      the walled passages in the quadrant around (0, 0), and that in the opposite one.
    #               #
    # # # # # # # # #          class 0: validation      class 1: train      class 2: test, shifted

No cell and neither quadrant distinguishes a train level from the others: changing any one passage of either quadrant
makes a held-out layout one of train. In `shifted` the goal is farther away than in all other splits.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import spaces

from jaxmeta.core.errors import require, require_known
from jaxmeta.core.types import Key, TaskDistribution
from jaxmeta_envs import grid, grid_rendering
from jaxmeta_envs.splits import only_train_seen

LOOPS = 0.25
"""Probability that a passage outside the spanning tree is open too."""
CLASSES = {"train": 1, "validation": 0, "test": 2, "shifted": 2}
"""The class of the layouts of each split."""
SPLITS = tuple(CLASSES)


@struct.dataclass
class EnvParams(grid.EnvParams):
    """One task."""

    max_steps_in_episode: Any = 40
    """[] int32, steps after which an episode is truncated."""
    walls: jax.Array = struct.field(default_factory=lambda: jnp.zeros((7, 7), bool))
    """[size, size] bool, by y and x."""
    start: jax.Array = struct.field(default_factory=lambda: jnp.array([0, 0], jnp.int32))
    """[2] int32, (x, y) of the cell where every episode starts."""
    goal: jax.Array = struct.field(default_factory=lambda: jnp.array([6, 6], jnp.int32))
    """[2] int32, (x, y) of the goal."""


class Maze(grid.Grid[EnvParams]):
    """A square of cells. A move into a wall or out of the square leaves the agent where it is.

    The goal holds the agent: once there, it stays until the episode ends. A goal d moves away is worth at most
    (horizon + 1 - d) - 0.1 (d - 1), and finding it late still shows in the return.
    """

    moves = ((0, 1), (1, 0), (0, -1), (-1, 0))
    """(x, y) displacement of the actions up, right, down, left."""

    def __init__(self, size: int = 7, picture: bool = False):
        super().__init__(size)
        self.picture = picture

    @property
    def default_params(self) -> EnvParams:
        """A square without walls, to be crossed from corner to corner."""
        corner = jnp.full((2,), self.size - 1, jnp.int32)
        return EnvParams(walls=jnp.zeros((self.size, self.size), bool), goal=corner)

    def start(self, params: EnvParams) -> jax.Array:
        """The task's own start, [2] int32."""
        return params.start

    def move(self, position: jax.Array, action: jax.Array | int | float, params: EnvParams) -> jax.Array:
        """Where an action leads to, [2] int32, from a position, [2] int32."""
        ahead = super().move(position, action, params)
        stays = params.walls[ahead[1], ahead[0]] | jnp.all(position == params.goal)
        return jnp.where(stays, position, ahead)

    def get_obs(self, state: grid.EnvState, params: EnvParams | None = None, key: jax.Array | None = None) -> jax.Array:
        """The agent's position, one-hot; or a picture, [size, size, 2] float32 by y and x: the walls, and the agent."""
        position = super().get_obs(state)
        if not self.picture:
            return position
        walls = (self.default_params if params is None else params).walls
        return jnp.stack([walls.astype(jnp.float32), position.reshape(walls.shape)], axis=-1)

    def observation_space(self, params: EnvParams) -> spaces.Box:
        """One entry a cell, or two of a picture."""
        shape = (self.size, self.size, 2) if self.picture else (self.size**2,)
        return spaces.Box(0.0, 1.0, shape, jnp.float32)


environment_of = functools.cache(Maze)
"""The environment of a size and kind of observation: one instance each, since gymnax compiles anew for every other."""


@functools.cache
def lattice(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What all layouts of an odd size share: P passages between R rooms, which are numbered row by row.

    They are (x, y) of the passages, [P, 2] int32, the two rooms that each joins, [P, 2] int32, and whether each lies in
    the quadrant around (0, 0) and in the opposite one, [2, P] bool.

    >>> passages, rooms, _ = lattice(3)
    >>> passages.tolist(), rooms.tolist()
    ([[1, 0], [0, 1], [2, 1], [1, 2]], [[0, 1], [0, 2], [1, 3], [2, 3]])
    """
    y, x = np.indices((size, size), np.int32)
    passages = np.stack([x, y], axis=-1)[(x + y) % 2 == 1]
    joined = np.stack([passages - passages % 2, passages + passages % 2], axis=1) // 2
    rooms = joined @ np.array([1, size // 2 + 1], np.int32)
    quadrants = np.stack([np.max(passages, axis=-1) <= size // 2, np.min(passages, axis=-1) >= size // 2])
    return passages, rooms, quadrants


def room_distances(walls: jax.Array) -> jax.Array:
    """Moves on the shortest way between every two rooms of a connected layout, [R, R] int32."""
    return _best_ways(len(walls), jnp.where(_walled(walls), walls.size, 2), jnp.add)


def draw_walls(key: Key, size: int, odd: jax.Array) -> jax.Array:
    """Draws a connected layout, [size, size] bool, of an odd size of at least 5.

    `odd`, [2] bool, says of each quadrant whether its number of walled passages is to be odd.

    The tree is the minimum spanning tree of random weights: a passage is in it if no other way between its rooms has
    lower weights throughout. A quadrant with the wrong parity then has its heaviest passage outside the tree changed,
    which disconnects nothing. There is one: each quadrant has a square of four rooms, and a tree has no cycle.
    """
    key_weights, key_loops = jax.random.split(key)
    passages, rooms, quadrants = lattice(size)
    weights = jax.random.permutation(key_weights, jnp.arange(1, len(passages) + 1, dtype=jnp.int32))
    tree = weights == _best_ways(size, weights, jnp.maximum)[rooms[:, 0], rooms[:, 1]]
    walled = ~tree & (jax.random.uniform(key_loops, weights.shape, jnp.float32) >= LOOPS)
    wrong = _odd(size, walled) != odd
    changed = jnp.argmax(jnp.where(quadrants & ~tree[None], weights[None], 0), axis=-1)
    walled = walled.at[changed].set(walled[changed] ^ wrong)
    pillars = np.indices((size, size)).prod(axis=0) % 2 == 1
    return jnp.asarray(pillars).at[passages[:, 1], passages[:, 0]].set(walled)


def distance_range(size: int, split: str) -> tuple[int, int]:
    """Moves from start to goal in a split, at least and at most.

    Every layout has such rooms: the way from a corner to the opposite one passes all even distances to 2 (size - 1).
    """
    return (size + 1, size + 3) if split == "shifted" else (4, size - 1)


def classify(params: EnvParams) -> jax.Array:
    """The split that a level belongs to, from the level alone: its index in `SPLITS`, [] int32.

    >>> SPLITS[int(classify(maze().sample(jax.random.key(0), "test")))]
    'test'
    """
    size = len(params.walls)
    start, goal = (y // 2 * (size // 2 + 1) + x // 2 for x, y in (params.start, params.goal))
    far = room_distances(params.walls)[start, goal] > distance_range(size, "train")[1]
    near = jnp.array([SPLITS.index(split) for split in ("validation", "train", "test")], jnp.int32)
    return jnp.where(far, SPLITS.index("shifted"), near[jnp.sum(_odd(size, _walled(params.walls)))])


def maze(size: int = 7, horizon: int = 40, observation: str = "position") -> TaskDistribution:
    """Find a hidden goal in an unknown maze; the walls, the start and the goal are the task.

    Args:
      size: cells along a side, odd and at least 5. The goal is 4 to size - 1 moves from the start, and size + 1 to
        size + 3 in `shifted`.
      horizon: steps of an episode, at least size + 3.
      observation: `position`, which shows neither walls nor goal; or `picture`, of walls and agent without the goal.

    Raises:
      UsageError: an option out of range.

    >>> tasks = maze(size=9)
    >>> tasks.sample(jax.random.key(0), "test").walls.shape, tasks.tasks_seen("test")
    ((9, 9), False)
    """
    require(size >= 5 and size % 2 == 1, "maze:size", "be odd and at least 5", size)
    require(horizon >= size + 3, "maze:horizon", f"be at least {size + 3}, the moves to the farthest goal", horizon)

    require_known("maze:observation", observation, ("position", "picture"))

    def sample(key: Key, split: str) -> EnvParams:
        require_known("split", split, SPLITS)
        key_class, key_walls, key_ends = jax.random.split(key, 3)
        coin = jax.random.uniform(key_class, (), jnp.float32) < 0.5
        odd = jnp.stack([coin, ~coin]) if CLASSES[split] == 1 else jnp.full((2,), CLASSES[split] == 2)
        walls = draw_walls(key_walls, size, odd)
        nearest, farthest = distance_range(size, split)
        distances = room_distances(walls)
        allowed = (distances >= nearest) & (distances <= farthest)
        pair = jax.random.categorical(key_ends, jnp.where(allowed, 0.0, -jnp.inf).astype(jnp.float32).ravel())
        rooms = jnp.stack(jnp.divmod(pair, len(distances))).astype(jnp.int32)
        start, goal = 2 * jnp.stack([rooms % (size // 2 + 1), rooms // (size // 2 + 1)], axis=-1)
        return EnvParams(max_steps_in_episode=jnp.array(horizon, jnp.int32), walls=walls, start=start, goal=goal)

    def describe(params: EnvParams) -> jax.Array:
        ends = jnp.concatenate([params.start, params.goal]).astype(jnp.float32)
        return jnp.concatenate([_walled(params.walls).astype(jnp.float32), 2 * ends / (size - 1) - 1])

    env = environment_of(size, observation == "picture")
    return TaskDistribution(
        name="maze",
        env=env,
        sample=sample,
        splits=SPLITS,
        tasks_seen=functools.partial(only_train_seen, SPLITS),
        horizon=horizon,
        describe=describe,
        oracle=functools.partial(grid.best_return, env),
        suggested={"agent.discount": 0.9},
        scene=functools.partial(grid_rendering.grid_scene, size=size, picture=observation == "picture"),
    )


def _walled(walls: jax.Array) -> jax.Array:
    """Whether each passage is walled, [P] bool."""
    x, y = lattice(len(walls))[0].T
    return walls[y, x]


def _odd(size: int, walled: jax.Array) -> jax.Array:
    """Whether the number of walled passages in each quadrant is odd, [2] bool."""
    return jnp.sum(walled[None] & lattice(size)[2], axis=-1) % 2 == 1


def _best_ways(size: int, values: jax.Array, join: Callable[[jax.Array, jax.Array], jax.Array]) -> jax.Array:
    """Lowest value of a way between every two rooms, [R, R] int32, by the algorithm of Floyd and Warshall.

    Passages have `values`, [P] int32, and `join` gives the value of two ways in a row.
    """
    rooms, count = lattice(size)[1], (size // 2 + 1) ** 2
    ways = jnp.full((count, count), size**2, jnp.int32).at[rooms, rooms[:, ::-1]].set(values[:, None])
    ways = jnp.where(jnp.eye(count, dtype=bool), 0, ways)

    def through(room: jax.Array, ways: jax.Array) -> jax.Array:
        return jnp.minimum(ways, join(ways[:, room][:, None], ways[room][None]))

    return jax.lax.fori_loop(0, count, through, ways)
