"""GridNavi in plain Python: its rules, backward induction, and the value of a random policy."""

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
