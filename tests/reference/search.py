"""Breadth-first search."""

from collections import deque
from collections.abc import Callable, Iterable
from typing import TypeVar

Node = TypeVar("Node")


def distances(start: Node, successors: Callable[[Node], Iterable[Node]]) -> dict[Node, int]:
    """Fewest moves from a node to every one that can be reached."""
    found = {start: 0}
    queue = deque(found)
    while queue:
        node = queue.popleft()
        for after in successors(node):
            if after not in found:
                found[after] = found[node] + 1
                queue.append(after)
    return found
