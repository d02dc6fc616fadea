"""The pictures of a run, and of several side by side."""

import html
import io
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxmeta.core.errors import require
from jaxmeta.reporting import comparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito (2008): distinguishable with every kind of colour vision.
BLUE, ORANGE, GREEN, PURPLE, GREY, INK = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#8C8C8C", "#333333"
LOOKS = {
    "oracle": {"color": INK, "linestyle": (0, (6, 3)), "linewidth": 1.2},
    "random": {"color": GREY, "linestyle": (0, (1, 2)), "linewidth": 1.4},
    "scratch": {"color": ORANGE, "marker": "s"},
    "finetune": {"color": GREEN, "marker": "^"},
}
VERDICTS: dict[str, dict[str, Any]] = {"better": {"color": BLUE}, "worse": {"color": ORANGE}}
UNDECIDED: dict[str, Any] = {"color": GREY, "markerfacecolor": "white"}
BASELINE: dict[str, Any] = {"color": INK}
"""Of a score, by what it is beside the best baseline."""
LEARNER = {"color": BLUE, "marker": "o", "linewidth": 2.6}
STYLE: Any = {
    "savefig.dpi": 160,
    "svg.fonttype": "none",
    "svg.hashsalt": "jaxmeta",
    "text.parse_math": False,
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.titlepad": 10,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E8E8E8",
    "xtick.color": INK,
    "ytick.color": INK,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
}


def plot_training(metrics: Sequence[Mapping[str, Any]], path: Any = None, **options: Any) -> "Figure":
    """Draws return and loss over environment steps; thin the log points themselves, bold their moving average.

    With several seeds these are means, in a band from the lowest to the highest member.

    Args:
      metrics: lines of `metrics.jsonl`, at least one.
      path: where to write it, or an open file; None: it is drawn alone.
      **options: of matplotlib's `savefig`.

    Returns:
      The figure, which a notebook shows.
    """
    from matplotlib.ticker import EngFormatter

    _require_records("metrics", "be lines of metrics.jsonl", metrics, ("env_steps", "return", "loss"))
    require(len(metrics) > 0, "metrics", "hold at least one log point", "none")
    env_steps = [record["env_steps"] for record in metrics]
    curves = (("return", "Return of an episode", BLUE), ("loss", "Outer loss", PURPLE))
    with _figure(path, (8.4, 3.2), columns=2, **options) as all_axes:
        for axes, (name, title, colour) in zip(all_axes, curves, strict=True):
            values = np.array([record[name] for record in metrics])
            if all(f"{name}_by_member" in record for record in metrics):
                each = [record[f"{name}_by_member"] for record in metrics]
                axes.fill_between(
                    env_steps, list(map(min, each)), list(map(max, each)), color=colour, alpha=0.14, linewidth=0
                )
            axes.plot(env_steps, values, color=colour, linewidth=0.9, alpha=0.4)
            axes.plot(env_steps, moving_average(values, max(1, len(values) // 20)), color=colour)
            axes.set_title(title)
            axes.set_ylabel(f"{name.capitalize()} while training")
            axes.set_xlabel("Environment steps")
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
            axes.margins(x=0.01)
    figure = all_axes[0].get_figure(root=True)
    assert figure is not None
    return figure


def plot_adaptation(evaluation: Mapping[str, Any], path: str | Path) -> None:
    """Draws the return after each round of adaptation beside the baselines', with 95 % intervals.

    Args:
      evaluation: what `evaluation.json` holds.
      path: of the PNG.
    """
    from matplotlib.ticker import MaxNLocator

    _require_records(
        "evaluation", "be what jaxmeta.evaluate returns", [evaluation], ("algorithm", "returns", "baselines")
    )
    reports = {**evaluation["baselines"], evaluation["algorithm"]: evaluation}
    rounds = np.arange(len(evaluation["returns"]))
    ends: dict[str, tuple[float, str]] = {}
    with _figure(path, (7.2, 4.0)) as (axes,):
        for name, report in reports.items():
            look = LEARNER if report is evaluation else LOOKS.get(name, {"color": PURPLE, "marker": "d"})
            axes.plot(rounds, report["returns"], label=name, zorder=3 if report is evaluation else 2, **look)
            if name != "oracle":
                low, high = np.transpose(report["returns_ci95"])
                axes.fill_between(rounds, low, high, color=look["color"], alpha=0.14, linewidth=0)
            ends[name] = (report["returns"][-1], look["color"])
        axes.set_title(f"Adapting to {evaluation['num_tasks']} {evaluation['split']} tasks of {evaluation['tasks']}")
        steps_per_round = evaluation["env_steps"] // max(1, len(rounds) - 1)
        axes.set_xlabel(f"Rounds of adaptation ({steps_per_round:,} environment steps each)")
        axes.set_ylabel("Return of an episode (mean, 95 % interval)")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.margins(x=0.02)
        low, high = axes.get_ylim()
        heights = spread([end for end, _ in ends.values()], gap=0.06 * (high - low))
        for (name, (_, colour)), height in zip(ends.items(), heights, strict=True):
            weight = "bold" if name == evaluation["algorithm"] else "normal"
            axes.annotate(
                name,
                (1, height),
                xycoords=axes.get_yaxis_transform(),
                xytext=(6, 0),
                textcoords="offset points",
                va="center",
                color=colour,
                fontweight=weight,
            )


def file_kinds() -> frozenset[str]:
    """What the name of a picture may end in."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    return frozenset(FigureCanvasAgg.get_supported_filetypes())


def training_as_svg(metrics: Sequence[Mapping[str, Any]]) -> str:
    """What `plot_training` draws as an `<svg>` element."""
    return as_svg(plot_training, metrics, "training", "Return and loss while training")


def as_svg(plot: Callable[..., Any], rows: Sequence[Mapping[str, Any]], prefix: str, shows: str) -> str:
    """What `plot_scores` or `plot_comparison` draws as an `<svg>` element.

    Args:
      plot: what draws it.
      rows: what it is given.
      prefix: of every identifier, so that a page may hold several figures.
      shows: what the figure shows, for who cannot see it.
    """
    buffer = io.StringIO()
    plot(rows, buffer, format="svg", metadata={"Date": None})
    drawing = buffer.getvalue()
    drawing = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", drawing[drawing.index("<svg") :])
    return drawing.replace("<svg", f'<svg role="img" aria-label="{html.escape(shows)}"', 1)


def plot_scores(rows: Sequence[Mapping[str, Any]], path: Any, **options: Any) -> None:
    """Draws what methods and baselines score in every family, with intervals.

    They stand in the order of `comparison.overall`. A dashed line is the family's best baseline, a dotted one the best
    policy that was written for it.

    Args:
      rows: as `jaxmeta.compare` returns them.
      path: where to, or an open file.
      **options: of matplotlib's `savefig`.
    """
    _require_rows(rows)
    scored = [row for row in rows if row["kind"] != "reference" and row["score"] is not None]
    heights = {(row["kind"], row["name"]): -index for index, row in enumerate(comparison.overall(scored))}
    families = list(dict.fromkeys(row["family"] for row in scored))
    written = {family: comparison.written_for(family, rows)[:1] for family in families}
    ends = _including(bound for row in [*scored, *itertools.chain(*written.values())] for bound in row["ci95"])
    size = 1.9 + 1.45 * len(families), 1.1 + 0.25 * len(heights)
    with _figure(path, size, columns=max(1, len(families)), **options) as all_axes:
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
            axes.set_xticks([0, 0.5, 1], ["0", ".5", "1"])
            axes.set_ylim(min(heights.values()) - 0.6, 0.6)
            axes.set_yticks(list(heights.values()), [name if axes is all_axes[0] else "" for _, name in heights])
            axes.tick_params(axis="y", length=0)


def _require_rows(rows: Any) -> None:
    _require_records("rows", "be the rows of what jaxmeta.compare returns", rows, ("kind", "name", "family", "score"))


def _require_records(name: str, rule: str, records: Any, held: tuple[str, ...]) -> None:
    """Refuses what is no sequence of records that hold some fields."""
    is_sequence = isinstance(records, Sequence) and not isinstance(records, str)
    fits = is_sequence and all(isinstance(record, Mapping) and set(held) <= set(record) for record in records)
    require(fits, name, rule, records)


def _including(values: Iterable[float], margin: float = 0.08) -> tuple[float, float]:
    """From chance to the oracle, and as far beyond as values lie.

    >>> _including([0.5, -1.0])
    (-1.08, 1.08)
    """
    every = [0.0, 1.0, *values]
    return min(every) - margin, max(every) + margin


def plot_comparison(rows: Sequence[Mapping[str, Any]], path: Any, **options: Any) -> None:
    """Draws how fast methods of a family learn, how much training that took, how they generalise, and what they cost.

    Args:
      rows: of one family, as `jaxmeta.compare` returns them.
      path: where to, or an open file.
      **options: of matplotlib's `savefig`.
    """
    _require_rows(rows)
    learners = [row for row in rows if row["kind"] != "reference"]
    looks = {row["name"]: _look(index) for index, row in enumerate(learners)}
    for index, row in enumerate(row for row in rows if row["kind"] == "reference"):
        dotted = {"color": _look(index)["color"], "linestyle": (0, (1, 1)), "linewidth": 1.2}
        looks[row["name"]] = LOOKS.get(row["method"], dotted)
    with _figure(path, (11.6, 6.6), columns=2, lines=2, **options) as (learning, budgets, splits, cost):
        _learning_speed(learning, rows, looks)
        _sample_efficiency(budgets, learners, looks)
        _generalisation(splits, learners, looks)
        _cost(cost, learners, looks)
        handles = dict(zip(*reversed(learning.get_legend_handles_labels()), strict=True))
        learning.figure.legend(handles.values(), handles.keys(), loc="outside right upper", frameon=False)


Rows = Sequence[Mapping[str, Any]]
Looks = Mapping[str, dict[str, Any]]
"""By a row's label, what its lines look like."""


def _learning_speed(axes: "Axes", rows: Rows, looks: Looks) -> None:
    axes.set_title("Learning speed")
    axes.set_ylabel("Return of an episode")
    axes.set_xlabel("Environment steps of adaptation")
    for row in rows:
        steps = np.linspace(0, row["adaptation"]["env_steps"], len(row["returns"]))
        axes.plot(steps, row["returns"], label=row["name"], **looks[row["name"]])


def _sample_efficiency(axes: "Axes", rows: Rows, looks: Looks) -> None:
    axes.set_title("Sample efficiency")
    axes.set_xlabel("Environment steps of meta-training, of each seed")
    axes.set_ylabel("Score (95 % interval)")
    for row in rows:
        look = looks[row["name"]]
        known = [point for point in row["budgets"] if point[1] is not None]
        if known and row["score"] is not None:
            env_steps, scores, low, high = np.transpose(known)
            axes.plot(env_steps, scores, **look)
            axes.fill_between(env_steps, low, high, color=look["color"], alpha=0.1, linewidth=0)
    _magnitudes(axes)


def _generalisation(axes: "Axes", rows: Rows, looks: Looks) -> None:
    axes.set_title("Generalisation")
    axes.set_xlabel("Score in training tasks (open), test tasks (filled), shifted ones (diamonds)")
    labels = [row["name"] for row in rows]
    for index, (label, row) in enumerate(zip(labels, rows, strict=True)):
        color = looks[label]["color"]
        for split, shape, filling in (("train", "o", "none"), ("score", "o", color), ("shifted", "D", "white")):
            if row.get(split) is not None:
                axes.plot(row[split], index, shape, color=color, markerfacecolor=filling, markersize=6)
    axes.set_yticks(range(len(rows)), labels)
    axes.invert_yaxis()


def _cost(axes: "Axes", rows: Rows, looks: Looks) -> None:
    axes.set_title("Cost")
    axes.set_xlabel("Seconds of meta-training, all seeds")
    axes.set_ylabel("Score")
    for row in rows:
        seconds, score = row["training"].get("seconds"), row["score"]
        if seconds and score is not None:
            low, high = row["ci95"]
            axes.errorbar(seconds, score, [[score - low], [high - score]], **looks[row["name"]])
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


def _look(index: int) -> dict[str, Any]:
    """Colours, and where they are used up, other marks."""
    colours = (BLUE, ORANGE, GREEN, PURPLE, "#56B4E9", "#E69F00", "#B8A900")
    return {"color": colours[index % len(colours)], "marker": "os^Dv"[index // len(colours) % 5], "linewidth": 1.6}


def moving_average(values: np.ndarray, window: int) -> np.ndarray:
    """Mean of each value and up to `window - 1` before it, [N] float.

    >>> moving_average(np.array([1.0, 3.0, 5.0]), 2).tolist()
    [1.0, 2.0, 4.0]
    """
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - window)
    return (sums[ends] - sums[starts]) / (ends - starts)


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Moves heights apart, as little as it takes in one sweep from below, until no two are closer than `gap`.

    >>> spread([2.0, 0.0, 0.5], 1.0)
    [2.0, 0.0, 1.0]
    """
    placed = list(heights)
    below = -np.inf
    for index in np.argsort(heights):
        placed[index] = below = max(placed[index], below + gap)
    return placed


@contextmanager
def _figure(
    path: Any, size: tuple[float, float], columns: int = 1, lines: int = 1, **options: Any
) -> Iterator[Sequence["Axes"]]:
    """Yields the axes of a figure in this module's style, and writes it at the end, without pyplot."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        yield list(figure.subplots(lines, columns, squeeze=False).flat)
        if path is not None:
            figure.savefig(path, **options)
