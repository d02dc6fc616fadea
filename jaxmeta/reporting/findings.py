"""Which method for what, in plain sentences that follow from the intervals of a comparison."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxmeta.reporting.tables import number

Rows = Sequence[Mapping[str, Any]]


def findings(rows: Rows) -> list[str]:
    """A sentence or two for each family, and one for all families.

    Args:
      rows: of `comparison.rows`.
    """
    families = list(dict.fromkeys(row["family"] for row in rows))
    sentences = [of_family(family, [row for row in rows if row["family"] == family]) for family in families]
    return [*filter(None, sentences), *over_families(rows, families)]


def of_family(family: str, rows: Rows) -> str:
    """What the scores of a family show; empty where no method has one.

    The best method is named with its interval and that of its difference to the best tuned baseline; then those that
    are shown to be above it too, and those that are shown to be below.
    """
    methods = [row for row in rows if row["kind"] == "method" and row["score"] is not None]
    if not methods:
        return ""
    best = max(methods, key=lambda row: row["score"])
    sentence = f"In {family}, {best['name']} scores highest: {_score(best)}, {_beside(best, rows)}."
    others = [row for row in methods if row is not best]
    above = [row["name"] for row in others if row["verdict"] == "better"]
    below = [row["name"] for row in others if row["verdict"] == "worse"]
    if above:
        sentence += f" {_listed(above)} {'is' if len(above) == 1 else 'are'} above that baseline too."
    if below:
        sentence += f" {_listed(below)} {'is' if len(below) == 1 else 'are'} below it."
    return sentence


def over_families(rows: Rows, families: Sequence[str]) -> list[str]:
    """In how many families each method is shown to be above the best tuned baseline; nothing of a single family."""
    compared = [row for row in rows if row["kind"] == "method" and row["verdict"] in ("better", "worse", UNDECIDED)]
    names = list(dict.fromkeys(row["name"] for row in compared))
    if len(families) < 2 or not names:
        return []
    won = {name: sum(row["verdict"] == "better" for row in compared if row["name"] == name) for name in names}
    tried = {name: sum(row["name"] == name for row in compared) for name in names}
    winners = sorted((name for name in names if won[name]), key=lambda name: (-won[name], name))
    sentences = []
    if winners:
        counts = [f"{name} in {won[name]} of {tried[name]}" for name in winners]
        sentences.append(f"Above the best tuned baseline: {'; '.join(counts)} families.")
    if never := [name for name in names if not won[name]]:
        sentences.append(f"Shown to be above it in no family: {_listed(never)}.")
    return sentences


UNDECIDED = "no difference shown"


def _score(row: Mapping[str, Any]) -> str:
    low, high = row["ci95"]
    return f"{number(row['score'])} (95 % interval {number(low)} to {number(high)})"


def _beside(row: Mapping[str, Any], rows: Rows) -> str:
    """How a method stands beside the best tuned baseline."""
    if row["difference"] is None:
        return "with no tuned baseline to compare with"
    low, high = row["difference"]
    baseline = next((other for other in rows if other["name"] == row["baseline"]), None)
    named = f"the best tuned baseline, {row['baseline']}" + (f" ({number(baseline['score'])})" if baseline else "")
    if row["verdict"] == "better":
        return f"above {named}, by {number(low)} to {number(high)}"
    if row["verdict"] == "worse":
        return f"below {named}, by {number(-high)} to {number(-low)}"
    return f"with no difference shown to {named}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + (" and " if len(names) > 1 else "") + names[-1]
