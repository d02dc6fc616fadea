"""Pictures of methods side by side: scores in every family, and what a family's table says."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxmeta.reporting import comparison, looks
from jaxmeta.reporting.curves import draw_curves, require_records
from jaxmeta.reporting.looks import GREY, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

VERDICTS: dict[str, dict[str, Any]] = {"better": {"color": looks.BETTER}, "worse": {"color": looks.WORSE}}
UNDECIDED: dict[str, Any] = {"color": GREY, "markerfacecolor": "white"}
BASELINE: dict[str, Any] = {"color": INK}
"""Of a score, by its verdict beside the best baseline."""
DASHES = ((1, 1), (4, 1), (3, 1, 1, 1), (5, 2, 1, 2), (2, 2))
"""Of references, which are grey."""


def plot_scores(rows: Sequence[Mapping[str, Any]], path: Any = None, **options: Any) -> "Figure":
    """Draws what methods and baselines score in every family, with intervals.

    They stand in the order of `comparison.overall`. A dashed line is the family's best baseline, a dotted one the best
    policy that was written for it.

    Args:
      rows: as `jaxmeta.compare` returns them.
      path: where to write it, ending in `.png`, `.pdf` or `.svg`, or an open file; None writes nothing.
      **options: of matplotlib's `savefig`.

    Returns:
      The figure.
    """
    _require_rows(rows)
    scored = [row for row in rows if row["kind"] != "reference" and row["score"] is not None]
    heights = {(row["kind"], row["name"]): -index for index, row in enumerate(comparison.overall(scored))}
    families = list(dict.fromkeys(row["family"] for row in scored))
    written = {family: comparison.written_for(family, rows)[:1] for family in families}
    ends = _including(bound for row in [*scored, *itertools.chain(*written.values())] for bound in row["ci95"])
    size = 1.9 + 1.45 * len(families), 1.1 + 0.25 * len(heights)
    with looks.figure(path, size, columns=max(1, len(families)), **options) as all_axes:
        for axes, family in zip(all_axes, families, strict=False):
            own = [row for row in scored if row["family"] == family]
            baselines = [row for row in own if row["kind"] == "baseline"]
            for others, dashes in ((baselines, (2, 2)), (written[family], (1, 3))):
                if others:
                    axes.axvline(max(row["score"] for row in others), color=INK, linestyle=(0, dashes), linewidth=1)
            for row in own:
                look = VERDICTS.get(row["verdict"], UNDECIDED) if row["kind"] == "method" else BASELINE
                low, high = row["ci95"]
                height = heights[row["kind"], row["name"]]
                axes.plot([low, high], [height, height], color=look["color"], linewidth=1.6)
                axes.plot(row["score"], height, "o", markersize=6, **look)
            axes.set_title(family, fontsize=10)
            axes.set_xlim(*ends)
            axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
            axes.set_ylim(min(heights.values()) - 0.6, 0.6)
            axes.set_yticks(list(heights.values()), [name if axes is all_axes[0] else "" for _, name in heights])
            axes.tick_params(axis="y", length=0)
    return looks.figure_of(all_axes)


def _require_rows(rows: Any) -> None:
    require_records("rows", "be the rows of what jaxmeta.compare returns", rows, ("kind", "name", "family", "score"))


def _including(values: Iterable[float], margin: float = 0.08) -> tuple[float, float]:
    """From chance to the oracle, and as far beyond as values lie.

    >>> _including([0.5, -1.0])
    (-1.08, 1.08)
    """
    every = [0.0, 1.0, *values]
    return min(every) - margin, max(every) + margin


def plot_comparison(rows: Sequence[Mapping[str, Any]], path: Any = None, **options: Any) -> "Figure":
    """Draws how fast methods of a family learn, how much training that took, how they generalise, and what they cost.

    Args:
      rows: of one family, as `jaxmeta.compare` returns them.
      path: where to write it, ending in `.png`, `.pdf` or `.svg`, or an open file; None writes nothing.
      **options: of matplotlib's `savefig`.

    Returns:
      The figure.
    """
    _require_rows(rows)
    learners = [row for row in rows if row["kind"] != "reference"]
    look_of = _looks(rows)
    with looks.figure(path, (11.6, 6.6), columns=2, lines=2, **options) as (learning, training, splits, cost):
        _learning_speed(learning, rows, look_of)
        _training(training, learners, look_of)
        _generalisation(splits, learners, look_of)
        _cost(cost, learners, look_of)
        handles = dict(zip(*reversed(learning.get_legend_handles_labels()), strict=True))
        learning.figure.legend(handles.values(), handles.keys(), loc="outside right upper", frameon=False)
    return looks.figure_of([learning])


Rows = Sequence[Mapping[str, Any]]
Looks = Mapping[str, dict[str, Any]]
"""By a row's label, what its lines look like."""


def _learning_speed(axes: "Axes", rows: Rows, look_of: Looks) -> None:
    axes.set_title("Learning speed")
    axes.set_ylabel("Return of an episode")
    axes.set_xlabel("Environment steps of adaptation")
    for row in rows:
        steps = np.linspace(0, row["adaptation"]["env_steps"], len(row["returns"]))
        axes.plot(steps, row["returns"], label=row["name"], **look_of[row["name"]])


def _training(axes: "Axes", rows: Rows, look_of: Looks) -> None:
    """Curves of returns where the runs themselves are there, else scores after shares of the training."""
    logs = {row["name"]: log for row in rows if row["kind"] == "method" and (log := _log_of(row))}
    if logs:
        axes.set_title("Meta-training")
        draw_curves(axes, logs, look_of)
        return
    axes.set_title("Sample efficiency")
    axes.set_xlabel("Environment steps of meta-training, of each seed")
    axes.set_ylabel("Score (95 % interval)")
    for row in rows:
        look = look_of[row["name"]]
        known = [point for point in row["budgets"] if point[1] is not None]
        if known and row["score"] is not None:
            env_steps, scores, low, high = np.transpose(known)
            axes.plot(env_steps, scores, **look)
            axes.fill_between(env_steps, low, high, color=look["color"], alpha=0.1, linewidth=0)
    _magnitudes(axes)


def _log_of(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The log points of a row's runs, a member each, over the environment steps that all of them have reached."""
    curves = list(row["curves"].values())
    if not curves:
        return []
    env_steps = np.array(max((curve[0] for curve in curves), key=len))
    env_steps = env_steps[env_steps <= min(curve[0][-1] for curve in curves)]
    each = np.array([np.interp(env_steps, *curve) for curve in curves])
    points = zip(env_steps.tolist(), each.T.tolist(), strict=True)
    return [{"env_steps": at, "return": float(np.mean(values)), "return_by_member": values} for at, values in points]


def _generalisation(axes: "Axes", rows: Rows, look_of: Looks) -> None:
    axes.set_title("Generalisation")
    axes.set_xlabel("Score in training tasks (open), test tasks (filled), shifted ones (diamonds)")
    labels = [row["name"] for row in rows]
    for index, (label, row) in enumerate(zip(labels, rows, strict=True)):
        color = look_of[label]["color"]
        for split, shape, filling in (("train", "o", "none"), ("score", "o", color), ("shifted", "D", "white")):
            if row.get(split) is not None:
                axes.plot(row[split], index, shape, color=color, markerfacecolor=filling, markersize=6)
    axes.set_yticks(range(len(rows)), labels)
    axes.invert_yaxis()


def _cost(axes: "Axes", rows: Rows, look_of: Looks) -> None:
    axes.set_title("Cost")
    axes.set_xlabel("Seconds of meta-training, all seeds")
    axes.set_ylabel("Score")
    for row in rows:
        seconds, score = row["training"].get("seconds"), row["score"]
        if seconds and score is not None:
            low, high = row["ci95"]
            axes.errorbar(seconds, score, [[score - low], [high - score]], **look_of[row["name"]])
    _magnitudes(axes)


def _magnitudes(axes: "Axes") -> None:
    """An axis of orders of magnitude, with a few numbers that can be read."""
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.set_xlim(low / 1.2, high * 1.2)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _looks(rows: Rows) -> dict[str, dict[str, Any]]:
    """By name: the seven best learners in colours, others and references in grey with marks or dashes of their own."""
    ranked = sorted((row for row in rows if row["kind"] != "reference"), key=lambda row: -(row["score"] or -np.inf))
    methods = [row for row in ranked if row["kind"] == "method"]
    look_of = {row["name"]: looks.line(index) for index, row in enumerate(methods)}
    for index, row in enumerate(row for row in rows if row["kind"] != "method"):
        dashed = {"color": GREY, "linestyle": (0, DASHES[index % len(DASHES)]), "linewidth": 1.2}
        marked = {"color": GREY, "marker": looks.MARKS[index % len(looks.MARKS)]}
        look_of[row["name"]] = looks.REFERENCES.get(row["method"], dashed if row["kind"] == "reference" else marked)
    return look_of
