"""Maze in NumPy and plain Python: its rules, splits, and the values of known policies."""

import numpy as np

from tests.reference import search

UP, RIGHT, DOWN, LEFT = range(4)

Cell = tuple[int, int]


def ahead(walls: np.ndarray, cell: Cell, action: int) -> Cell:
    """The cell that a move leads to; walls and the border hold."""
    x, y = cell
    x += (action == RIGHT) - (action == LEFT)
    y += (action == UP) - (action == DOWN)
    inside = 0 <= x < len(walls) and 0 <= y < len(walls)
    return (x, y) if inside and not walls[y][x] else cell


def step(walls: np.ndarray, goal: Cell, cell: Cell, action: int) -> tuple[Cell, float]:
    """The cell after a step, and the reward; the goal is never left."""
    after = cell if cell == goal else ahead(walls, cell, action)
    return after, 1.0 if after == goal else -0.1


def distances(walls: np.ndarray, start: Cell) -> dict[Cell, int]:
    """Moves from a cell to every cell that can be reached."""
    return search.distances(start, lambda cell: [ahead(walls, cell, action) for action in range(4)])


def split_of(walls: np.ndarray, start: Cell, goal: Cell) -> str:
    """The split of a level, counted cell by cell."""
    size = len(walls)
    if distances(walls, start)[goal] > size - 1:
        return "shifted"
    odd = 0
    for lowest, highest in ((0, size // 2), (size // 2, size - 1)):
        span = range(lowest, highest + 1)
        odd += sum(bool(walls[y][x]) for x in span for y in span if x % 2 != y % 2) % 2
    return ("validation", "train", "test")[odd]


def direct_return(walls: np.ndarray, start: Cell, goal: Cell, horizon: int) -> float:
    """Return of taking the shortest way to the goal."""
    moves = distances(walls, start)[goal]
    return sum(1.0 if time >= moves else -0.1 for time in range(1, horizon + 1))


def random_walk(walls: np.ndarray, start: Cell, goal: Cell, horizon: int) -> tuple[float, float]:
    """Probability that uniformly random moves find the goal in an episode, and their expected return."""
    occupancy = np.zeros(np.shape(walls))
    occupancy[start[1], start[0]] = 1.0
    expected = 0.0
    for _ in range(horizon):
        after = np.zeros_like(occupancy)
        for y, x in zip(*np.nonzero(occupancy), strict=True):
            for action in range(4):
                (to_x, to_y), reward = step(walls, goal, (int(x), int(y)), action)
                after[to_y, to_x] += occupancy[y, x] / 4
                expected += reward * occupancy[y, x] / 4
        occupancy = after
    return float(occupancy[goal[1], goal[0]]), expected
