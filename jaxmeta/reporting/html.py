"""Comparisons as a page that needs nothing but itself, and as the table of a README."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxmeta.reporting import cells, comparison, looks, naming, plots
from jaxmeta.reporting.findings import findings
from jaxmeta.reporting.tables import ABSENT, number, scaled
from jaxmeta.training.run_directory import write_text

TITLE = "Meta-reinforcement learning, side by side"
MARKS = {"better": "▲", "worse": "▼", "no difference shown": "", "not compared": "?"}
"""Beside a score in Markdown, by the verdict."""

Rows = Sequence[Mapping[str, Any]]


class Column(NamedTuple):
    """A column of a family's table."""

    name: str
    value: Callable[[Mapping[str, Any]], Any]
    """`value(row)`: what it is sorted by, a number, a text or None."""
    shown: Callable[[Mapping[str, Any]], str]
    """`shown(row)`: what is written."""
    kind: str = "number"


def _text(name: str, shown: Callable[[Mapping[str, Any]], str]) -> Column:
    return Column(name, shown, shown, "text")


def _fact(name: str, field: str, part: str | None = None, show: Callable[[float], str] = number) -> Column:
    """A column of one fact of a row, or of a part of it."""

    def value(row: Mapping[str, Any]) -> float | None:
        return row[field] if part is None else row[field].get(part)

    def shown(row: Mapping[str, Any]) -> str:
        fact = value(row)
        return ABSENT if fact is None else show(fact)

    return Column(name, value, shown)


def _bounds(name: str, field: str) -> Column:
    """A column of an interval, sorted by its lower end."""
    return Column(name, lambda row: row[field] and row[field][0], lambda row: _interval(row[field]))


def _interval(bounds: Sequence[float] | None) -> str:
    return ABSENT if bounds is None else " to ".join(map(number, bounds))


def _whole(value: float) -> str:
    return f"{value:,.0f}"


def _in(unit: str) -> Callable[[float], str]:
    return lambda value: scaled(value, unit)


COLUMNS = (
    _text("method", lambda row: row["name"]),
    _text("agent", lambda row: "" if row["kind"] == "reference" else row["agent"] or ""),
    _fact("seeds", "seeds", show=_whole),
    _fact("training steps of a seed", "training", "env_steps", _whole),
    _fact("score", "score"),
    _bounds("95 %", "ci95"),
    _text("verdict", lambda row: row["verdict"] or ""),
    _bounds("minus the baseline", "difference"),
    _fact("P(beats it)", "probability"),
    _fact("area", "area"),
    _fact("steps to threshold", "steps_to_threshold", show=_whole),
    _fact("train", "train"),
    _fact("shifted", "shifted"),
    _fact("gap", "gap"),
    _fact("adapting steps", "adaptation", "env_steps", _whole),
    _fact("adapting", "adaptation", "seconds", _in("s")),
    _fact("operations", "adaptation", "flops", _in("FLOP")),
    _fact("memory", "adaptation", "memory", _in("B")),
    _fact("training all seeds", "training", "seconds", _in("s")),
    _fact("training memory", "training", "memory", _in("B")),
    _fact("env steps/s", "env_steps_per_second", show=_in("/s")),
)


def write_html(
    path: Path, rows: Rows, missing: Iterable[str], on_share: Callable[[float], None] = lambda share: None
) -> None:
    """Writes the page: the overview, which method for what, every family, and what is missing.

    Args:
      path: of the file.
      rows: of `comparison.rows`.
      missing: a sentence for all that is not there.
      on_share: receives the share of the figures that is drawn, from 0 to 1.
    """
    import jinja2

    names, families = _families(rows), []
    for index, name in enumerate(names):
        families.append(_family(f"family-{index}", name, [row for row in rows if row["family"] == name]))
        on_share((index + 1) / len(names))

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("jaxmeta.reporting"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    versions = sorted({_versions(row) for row in rows})
    content = environment.get_template("report.html.j2").render(
        title=TITLE,
        versions="; ".join(versions),
        devices=", ".join(sorted({row["device"] for row in rows})),
        missing=list(missing),
        overview=_overview(rows),
        figure=looks.as_svg(
            plots.plot_scores, rows, "overview", "Scores of all methods in all families, as in the table"
        ),
        families=families,
        columns=COLUMNS,
        findings=findings(rows),
        looks=looks,
    )
    write_text(path, content)


def markdown(rows: Rows, missing: Iterable[str] = ()) -> str:
    """The overview as a table: a row for each method and baseline, a column for each family.

    One row more has the best of the policies that were written for a family.
    """
    names = _families(rows)
    overview = _overview(rows)
    lines = [f"| | {' | '.join(f'`{name}`' for name in names)} | all |", "|---|" + "---|" * (len(names) + 1)]
    for row in overview:
        if row["kind"] != "reference":
            shown = [entry["shown"] for entry in row["entries"]]
            every = row["shown"] if row["number"] == len(names) else ""
            lines.append(f"| `{row['name']}` | {' | '.join(shown)} | {every} |")
    if any(known := [comparison.written_for(name, rows) for name in names]):
        best = [f"{number(written[0]['score'])} `{written[0]['name']}`" if written else ABSENT for written in known]
        lines.append(f"| a policy written for it | {' | '.join(best)} | |")
    stars = (
        ["A method with a star receives privileged task information."] if any(map(naming.is_privileged, rows)) else []
    )
    return "\n".join([*lines, "", *(f"- {sentence}" for sentence in [*stars, *missing])]).rstrip() + "\n"


def _family(anchor: str, name: str, rows: Rows) -> dict[str, Any]:
    """What the page shows of a family."""
    seen = ", which training has seen" if any(row["tasks_seen"] for row in rows) else ""
    numbers = " or ".join(map(str, sorted({row["num_tasks"] for row in rows if row["num_tasks"]})))
    return {
        "name": name,
        "anchor": anchor,
        "sentence": f"{numbers} {rows[0]['split']} tasks{seen}.".lstrip().capitalize(),
        "figure": looks.as_svg(
            plots.plot_comparison,
            rows,
            anchor,
            f"{name}: learning speed, meta-training, generalisation and cost, as in the table",
        ),
        "rows": [
            {
                "kind": row["kind"],
                "entries": [
                    {"value": column.value(row), "shown": column.shown(row), "style": _style(column, row)}
                    for column in COLUMNS
                ],
            }
            for row in rows
        ],
        "improvements": {row["name"]: row["beats"] for row in rows if row["beats"]},
        "made": [{**row, "versions": _versions(row)} for row in rows],
    }


def _style(column: Column, row: Mapping[str, Any]) -> str:
    marked = row["verdict"] if column.name in ("score", "verdict") and row["verdict"] in ("better", "worse") else ""
    return " ".join(filter(None, ["text" if column.kind == "text" else "", marked]))


def _overview(rows: Rows) -> list[dict[str, Any]]:
    """A row for each method, baseline and reference, with what it scores in each family and over all of them."""
    names = _families(rows)
    totals = {(row["kind"], row["name"]): row for row in comparison.overall(rows)}
    by_name: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {method: {} for method in totals}
    for row in rows:
        by_name.setdefault((row["kind"], row["name"]), {})[row["family"]] = row
    made = []
    for (kind, name), by_family in by_name.items():
        total = totals.get((kind, name), {"score": None, "ci95": None})
        own = [by_family.get(family, {"score": None, "verdict": None}) for family in names]
        entries = [
            {
                "score": row["score"],
                "shown": f"{number(row['score'])} {MARKS.get(row['verdict'], '')}".strip(),
                "style": row["verdict"] if row["verdict"] in ("better", "worse") else "",
            }
            for row in own
        ]
        made.append(
            {
                "kind": kind,
                "name": name,
                "entries": entries,
                "score": total["score"],
                "shown": number(total["score"]),
                "low": total["ci95"] and total["ci95"][0],
                "interval": _interval(total["ci95"]),
                "number": sum(row["score"] is not None for row in by_family.values()),
            }
        )
    return sorted(made, key=lambda row: (cells.KINDS.index(row["kind"]), -row["number"]))


def _families(rows: Rows) -> list[str]:
    """In the order of the rows."""
    return list(dict.fromkeys(row["family"] for row in rows))


def _versions(cell: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {version}" for name, version in cell["versions"].items())
