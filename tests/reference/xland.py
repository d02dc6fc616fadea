"""XLand in plain Python: what an action, the rules and the goal do, and a search for the shortest plan."""

from collections import deque
from typing import NamedTuple

FORWARD, CLOCKWISE, COUNTERCLOCKWISE, PICK_UP, PUT_DOWN = range(5)
DIRECTIONS = ((-1, 0), (0, 1), (1, 0), (0, -1))

Tile = tuple[int, int]
Cell = tuple[int, int]


class World(NamedTuple):
    """One moment: hashable, so that a search can remember it."""

    position: Cell
    direction: int
    pocket: Tile | None
    objects: frozenset[tuple[Cell, Tile]]


class Rule(NamedTuple):
    """Turns objects into a product; `kind` is hold, near or join, and only a join has a second object."""

    kind: str
    objects: tuple[Tile, ...]
    product: Tile


class Goal(NamedTuple):
    """Asks for objects; `kind` is hold, near or join, and only a join has a second object."""

    kind: str
    objects: tuple[Tile, ...]


def beside(cell: Cell) -> list[Cell]:
    """The four cells around a cell."""
    return [(cell[0] + down, cell[1] + right) for down, right in DIRECTIONS]


def step(size: int, rules: tuple[Rule, ...], goal: Goal, world: World, action: int) -> tuple[World, bool]:
    """The world after an action, and whether that achieved the goal."""
    position, direction, pocket, placed = world
    objects = dict(placed)
    ahead = beside(position)[direction]
    inside = all(0 < coordinate < size - 1 for coordinate in ahead)
    if action == FORWARD and inside and ahead not in objects:
        position = ahead
    elif action == CLOCKWISE:
        direction = (direction + 1) % 4
    elif action == COUNTERCLOCKWISE:
        direction = (direction - 1) % 4
    elif action == PICK_UP and pocket is None:
        pocket = objects.pop(ahead, None)
    elif action == PUT_DOWN and pocket is not None and inside and ahead not in objects:
        objects[ahead], pocket = pocket, None

    for rule in rules:
        if rule.kind == "hold" and action == PICK_UP and pocket == rule.objects[0]:
            pocket = rule.product
        if rule.kind == "near" and action == FORWARD:
            objects |= {cell: rule.product for cell in beside(position) if objects.get(cell) == rule.objects[0]}
        if rule.kind == "join" and action == PUT_DOWN:
            for cell in beside(ahead):
                if ahead in objects and cell in objects and {objects[ahead], objects[cell]} == set(rule.objects):
                    del objects[ahead]
                    objects[cell] = rule.product

    if goal.kind == "hold":
        achieved = action == PICK_UP and pocket == goal.objects[0]
    elif goal.kind == "near":
        achieved = action == FORWARD and goal.objects[0] in [objects.get(cell) for cell in beside(position)]
    else:
        achieved = action == PUT_DOWN and any(
            {objects.get(ahead), objects.get(cell)} == set(goal.objects) for cell in beside(ahead)
        )
    return World(position, direction, pocket, frozenset(objects.items())), achieved


def plan(size: int, rules: tuple[Rule, ...], goal: Goal, start: World) -> list[int] | None:
    """The fewest actions that achieve the goal, by breadth-first search; None if nothing does."""
    came_from: dict[World, tuple[World, int] | None] = {start: None}
    queue = deque([start])
    while queue:
        world = queue.popleft()
        for action in range(5):
            after, achieved = step(size, rules, goal, world, action)
            if achieved:
                actions = [action]
                while (link := came_from[world]) is not None:
                    world, action = link
                    actions.append(action)
                return actions[::-1]
            if after not in came_from:
                came_from[after] = (world, action)
                queue.append(after)
    return None
