"""What cells are called beside each other, and the evaluation that stands for each."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jaxmeta.core.settings import flattened
from jaxmeta.reporting import cells


def named(family: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Cells of one family by unique names: the label, and the differences of those that share it.

    A method with privileged task information has a star.
    """
    labelled: dict[str, list[Mapping[str, Any]]] = {}
    for cell in family:
        star = " *" if is_privileged(cell) else ""
        labelled.setdefault(cells.label(cell) + star, []).append(cell)
    return {
        name: cell
        for label, alike in labelled.items()
        for name, cell in zip(_told_apart(label, alike), alike, strict=True)
    }


def is_privileged(cell: Mapping[str, Any]) -> bool:
    """Whether a method, by its cell or its row, receives privileged task information."""
    return cell["sees_context"] and cell["kind"] == "method"


def _told_apart(label: str, alike: Sequence[Mapping[str, Any]]) -> list[str]:
    facts = [_facts(cell) for cell in alike]
    every = dict.fromkeys(itertools.chain(*facts))
    differing = [name for name in every if len({str(own.get(name)) for own in facts}) > 1][:MOST_TOLD]
    names = [" ".join([label, *(f"{name}={own.get(name)}" for name in differing)]) for own in facts]
    return [
        f"{name} ({names[: index + 1].count(name)})" if names.count(name) > 1 else name
        for index, name in enumerate(names)
    ]


MOST_TOLD = 3
"""The number of differing facts in a name."""


def _facts(cell: Mapping[str, Any]) -> dict[str, Any]:
    """What two cells of one label may differ by."""
    last = last_point(cell)
    return {
        "kind": cell["kind"],
        "agent": cell["agent"],
        "env_steps": last["env_steps"],
        "adapting_steps": cell["adaptation"]["env_steps"],
        "tasks": num_tasks(last),
        "tasks_seed": last["seed"],
        **(flattened(cell["settings"]) if cell["kind"] == "method" else {}),
    }


def last_point(cell: Mapping[str, Any]) -> Mapping[str, Any]:
    """The evaluation on test tasks at the end of training; of a run that has none, its last one."""
    return point_of(cell, "test") or cell["points"][-1]


def point_of(cell: Mapping[str, Any], split: str) -> Mapping[str, Any] | None:
    """The last evaluation on a split, or None."""
    points = [point for point in cell["points"] if point["split"] == split]
    return max(points, key=lambda point: point["env_steps"], default=None)


def num_tasks(point: Mapping[str, Any]) -> int | None:
    """How many tasks it was evaluated in; None where there is no scale to score them on."""
    return len(point["scores"][0]) if point["scores"] else None
