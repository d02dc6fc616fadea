"""The cells of several folders, of which those that differ by their seeds alone are pooled."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxmeta.core.errors import NONE, UsageError
from jaxmeta.core.settings import flattened
from jaxmeta.reporting import cells


def load_all(folders: Iterable[str | Path]) -> tuple[list[dict[str, Any]], list[str]]:
    """The cells of several folders, pooled, and all that is missing; see `cells.load`.

    Returns:
      Cells, at least one, and sentences, those about folders that hold none among them.

    Raises:
      UsageError: no folder holds a cell that can be trusted; it says what is wrong with each.
    """
    found, missing, refusals = [], [], []
    for folder in folders:
        try:
            more, reported = cells.load(Path(folder))
        except UsageError as error:
            more, reported = [], [str(error)]
            refusals.append(error)
        found += more
        missing += reported
    if not found and refusals:
        first = refusals[0]
        others = " ".join(sentence for sentence in missing if sentence != str(first))
        raise UsageError(
            first.name, first.rule, first.value, reason=first.reason, hint=f"{first.hint} {others}".strip()
        )
    if not found:
        rule = "hold evaluated runs or scoreboards"
        raise UsageError("The folders to compare", rule, NONE, hint=" ".join(missing))
    pool, doubtful = pooled(found)
    return pool, missing + doubtful


def pooled(found: Iterable[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], list[str]]:
    """The same cells, of which those that differ by their seeds alone are one.

    Returns:
      Cells, and a sentence for each that was left out because its seeds are there already with other results. What
      comes twice and alike counts once.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for cell in found:
        same = [cell[name] for name in ("tasks", "method", "kind", "agent")]
        settings = {**flattened(cell["settings"]), **cell["hyperparams"]} if cell["kind"] == "method" else None
        points = [
            [point["split"], point["env_steps"], point["seed"], sorted({len(row) for row in point["scores"] or ()})]
            for point in cell["points"]
        ]
        own = {name: cell["adaptation"][name] for name in ("env_steps", "rounds")}
        groups.setdefault(json.dumps([same, settings, points, own], sort_keys=True), []).append(cell)
    one_each = [_joined(group) for group in groups.values()]
    return [cell for cell, _ in one_each], [sentence for _, reported in one_each for sentence in reported]


def _joined(group: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], list[str]]:
    """Cells that differ by their seeds, as one, and what was left out of it."""
    joined = dict(max(group, key=lambda cell: len(cell["hyperparams"])))
    reported, seconds = [], [(joined["training"].get("seconds"), 1.0)]
    for cell in group:
        fresh = [index for index, seed in enumerate(cell["seeds"]) if seed not in joined["seeds"]]
        known = [seed for seed in cell["seeds"] if seed in joined["seeds"]]
        if any(_of_seed(cell, seed) != _of_seed(joined, seed) for seed in known):
            seeds = ", ".join(map(str, known))
            reported.append(
                f"{cells.label(cell)} on {cell['tasks']} is there with seed {seeds} more than once, and not alike: the "
                f"first counts, not that of {'; '.join(cell['commands'])}."
            )
        if not fresh:
            continue
        joined["seeds"] = joined["seeds"] + [cell["seeds"][index] for index in fresh]
        if "curves" in joined or "curves" in cell:
            joined["curves"] = {**cell.get("curves", {}), **joined.get("curves", {})}
        joined["commands"] = list(dict.fromkeys(joined["commands"] + cell["commands"]))
        joined["points"] = [
            one | {name: _extended(one[name], other[name], fresh) for name in cells.MEASURED}
            for one, other in zip(joined["points"], cell["points"], strict=True)
        ]
        joined["device"] = _listed(joined["device"], cell["device"])
        joined["versions"] = {
            name: _listed(joined["versions"].get(name, "unknown"), cell["versions"].get(name, "unknown"))
            for name in {**joined["versions"], **cell["versions"]}
        }
        seconds.append((cell["training"].get("seconds"), len(fresh) / len(cell["seeds"])))
    if all(took is not None for took, _ in seconds):
        joined["training"] = joined["training"] | {"seconds": sum(took * share for took, share in seconds)}
    return joined, reported


def _of_seed(cell: Mapping[str, Any], seed: int) -> list[Any]:
    """All that was measured with it."""
    index = cell["seeds"].index(seed)
    return [point[name] and point[name][index] for point in cell["points"] for name in cells.MEASURED]


def _listed(known: str, other: str) -> str:
    return known if other in known.split(" and ") else f"{known} and {other}"


def _extended(own: Any, others: Any, fresh: Sequence[int]) -> Any:
    return None if own is None or others is None else own + [others[index] for index in fresh]
