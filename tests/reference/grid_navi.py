"""GridNavi in plain Python: its rules, backward induction, and the value of a random policy."""

import functools
import itertools

from tests.reference.search import distances

STAY, UP, RIGHT, DOWN, LEFT = range(5)

Cell = tuple[int, int]


def move(size: int, cell: Cell, action: int) -> Cell:
    """The cell that an action leads to; walls hold."""
    x, y = cell
    if action == UP and y < size - 1:
        return x, y + 1
    if action == DOWN and y > 0:
        return x, y - 1
    if action == RIGHT and x < size - 1:
        return x + 1, y
    if action == LEFT and x > 0:
        return x - 1, y
    return x, y


def goals(size: int) -> set[Cell]:
    """Every cell but the four around the start corner."""
    return {(x, y) for x in range(size) for y in range(size)} - {(0, 0), (0, 1), (1, 0), (1, 1)}


def distance(size: int, goal: Cell) -> int:
    """Moves from (0, 0) to the goal."""
    return distances((0, 0), lambda cell: [move(size, cell, action) for action in range(5)])[goal]


def direct_return(size: int, horizon: int, goal: Cell) -> float:
    """Return of walking straight to the goal and staying there."""
    rewards = [1.0 if step >= distance(size, goal) else -0.1 for step in range(1, horizon + 1)]
    return sum(rewards)


def expected_return(size: int, horizon: int, goal: Cell, best: bool) -> float:
    """Expected return of the best policy or of the uniformly random one, by recursion over the steps left."""
    cells = [(x, y) for x in range(size) for y in range(size)]
    values = dict.fromkeys(cells, 0.0)
    for _ in range(horizon):
        outcomes = {
            cell: [
                (1.0 if after == goal else -0.1) + values[after]
                for after in (move(size, cell, action) for action in range(5))
            ]
            for cell in cells
        }
        values = {cell: max(choices) if best else sum(choices) / 5 for cell, choices in outcomes.items()}
    return values[0, 0]


def bayes_optimal_return(size: int, horizon: int, episodes: int) -> float:
    """Return of a trial by recursion over beliefs: all policies, whatever they do with what they perceive."""

    @functools.cache
    def value(step: int, cell: Cell, possible: frozenset[Cell]) -> float:
        if step == horizon * episodes:
            return 0.0
        if step % horizon == 0:
            cell = (0, 0)
        choices = []
        for action in range(5):
            after = move(size, cell, action)
            chance = 1 / len(possible) if after in possible else 0.0
            worth = 0.0
            if chance > 0:
                worth += chance * (1.0 + value(step + 1, after, frozenset({after})))
            if chance < 1:
                worth += (1 - chance) * (-0.1 + value(step + 1, after, possible - {after}))
            choices.append(worth)
        return max(choices)

    return value(0, (0, 0), frozenset(goals(size)))


def best_search(size: int, horizon: int, episodes: int) -> float:
    """Return of a trial by the best of all sequences of moves, left for the shortest way once the goal is found."""

    def trial(sequence: tuple[int, ...], goal: Cell) -> float:
        total, known, cell = 0.0, False, (0, 0)
        for step, action in enumerate(sequence):
            if step % horizon == 0:
                cell = (0, 0)
                if known:
                    return total + direct_return(size, horizon, goal) * (episodes - step // horizon)
            cell = goal if known else move(size, cell, action)
            known = cell == goal
            total += 1.0 if known else -0.1
        return total

    sequences = itertools.product(range(5), repeat=horizon * episodes)
    return max(sum(trial(sequence, goal) for goal in goals(size)) for sequence in sequences) / len(goals(size))
