"""Pictures of training and of adaptation: of one run, and of several in one figure."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxmeta.core.errors import require
from jaxmeta.reporting import looks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SMOOTHED = 20
"""A moving average is over one part in so many of the log points."""
LEARNER = {"color": looks.BLUE, "marker": "o", "linewidth": 2.6}


def plot_training(metrics: Sequence[Mapping[str, Any]], path: Any = None, **options: Any) -> "Figure":
    """Draws return and loss over environment steps; thin the log points themselves, bold their moving average.

    With several seeds these are means, in a band from the lowest to the highest seed.

    Args:
      metrics: lines of `metrics.jsonl`, at least one, as `Run.log` has them.
      path: where to write it, ending in `.png`, `.pdf` or `.svg`, or an open file; None writes nothing.
      **options: of matplotlib's `savefig`.

    Returns:
      The figure, which a notebook shows.
    """
    _require_log("metrics", metrics)
    curves = (("return", "Return of an episode", looks.BLUE), ("loss", "Outer loss", looks.PURPLE))
    with looks.figure(path, (8.4, 3.4), columns=2, **options) as all_axes:
        for axes, (name, title, colour) in zip(all_axes, curves, strict=True):
            env_steps, values, low, high = _series(metrics, name)
            if (low < high).any():
                axes.fill_between(env_steps, low, high, color=colour, alpha=0.14, linewidth=0)
            axes.plot(env_steps, values, color=colour, linewidth=0.9, alpha=0.4)
            axes.plot(env_steps, moving_average(values, _window(values)), color=colour)
            axes.set_title(title)
            axes.set_ylabel(f"{name.capitalize()} while training")
            _environment_steps(axes, values)
    return looks.figure_of(all_axes)


def plot_curves(
    logs: Mapping[str, Sequence[Mapping[str, Any]]], path: Any = None, *, metric: str = "return", **options: Any
) -> "Figure":
    """Draws a metric of several runs in one figure, over environment steps of meta-training, with seeds as bands.

    jaxmeta.plot_curves({"rl2": rl2.log, "maml": maml.log}, "curves.pdf")

    Args:
      logs: by the label of each run its log points, as `Run.log` has them; several seeds are a line of means, in a band
        from the lowest to the highest.
      path: where to write it, ending in `.png`, `.pdf` or `.svg`, or an open file; None writes nothing.
      metric: what is drawn, a name in the log points.
      **options: of matplotlib's `savefig`.

    Returns:
      The figure.

    Raises:
      UsageError: no run, or one without log points or without that metric.
    """
    require(isinstance(logs, Mapping) and len(logs) > 0, "logs", "have at least one run by its label", logs)
    with looks.figure(path, (6.4, 3.8), **options) as (axes,):
        draw_curves(axes, logs, {label: looks.line(index) for index, label in enumerate(logs)}, metric)
        axes.set_title(f"{metric.capitalize()} while training".replace("_", " "))
        axes.legend(frameon=False)
    return looks.figure_of([axes])


def draw_curves(
    axes: "Axes",
    logs: Mapping[str, Sequence[Mapping[str, Any]]],
    look_of: Mapping[str, Mapping[str, Any]],
    metric: str = "return",
) -> None:
    """Adds the curves of several runs to axes, in the colour that each label has."""
    longest = np.zeros(1)
    for label, log in logs.items():
        _require_log(f"logs[{label!r}]", log, (metric,))
        env_steps, values, low, high = _series(log, metric)
        longest, window, colour = max(longest, values, key=len), _window(values), look_of[label]["color"]
        smooth = [moving_average(each, window) for each in (values, low, high)]
        axes.plot(env_steps, smooth[0], color=colour, label=label)
        axes.fill_between(env_steps, smooth[1], smooth[2], color=colour, alpha=0.14, linewidth=0)
    axes.set_ylabel(f"{metric.capitalize()} (mean; band: lowest to highest seed)".replace("_", " "))
    _environment_steps(axes, longest)


def plot_adaptation(
    evaluation: Mapping[str, Any] | Sequence[Mapping[str, Any]], path: Any = None, **options: Any
) -> "Figure":
    """Draws the return after each round of adaptation beside the baselines', with 95 % intervals.

    Args:
      evaluation: what `Run.evaluate` returns, or several of the same tasks for one figure; baselines are those of the
        first.
      path: where to write it, ending in `.png`, `.pdf` or `.svg`; None writes nothing.
      **options: of matplotlib's `savefig`.

    Returns:
      The figure.
    """
    from matplotlib.ticker import MaxNLocator

    every = [evaluation] if isinstance(evaluation, Mapping) else evaluation
    rule = "be what jaxmeta.evaluate returns"
    require_records("evaluation", rule, every, ("algorithm", "returns", "baselines"))
    require(len(every) > 0, "evaluation", rule, evaluation)
    first, look_of = every[0], {}
    reports: dict[str, Mapping[str, Any]] = dict(first["baselines"])
    for index, each in enumerate(every):
        same = all(each.get(name) == first.get(name) for name in ("tasks", "split"))
        require(same, "evaluation", "be of the same tasks", each.get("tasks"))
        label = each["algorithm"] if each["algorithm"] not in reports else f"{each['algorithm']} ({index + 1})"
        reports[label], look_of[label] = each, LEARNER if len(every) == 1 else looks.line(index)
    ends: dict[str, tuple[float, str]] = {}
    with looks.figure(path, (7.2, 4.0), **options) as (axes,):
        for name, report in reports.items():
            look = look_of.get(name) or looks.REFERENCES.get(name, {"color": looks.GREY, "marker": "d"})
            rounds = np.arange(len(report["returns"]))
            axes.plot(rounds, report["returns"], label=name, zorder=3 if name in look_of else 2, **look)
            if name != "oracle":
                low, high = np.transpose(report["returns_ci95"])
                axes.fill_between(rounds, low, high, color=look["color"], alpha=0.14, linewidth=0)
            ends[name] = (report["returns"][-1], look["color"])
        axes.set_title(f"Adapting to {first['num_tasks']} {first['split']} tasks of {first['tasks']}")
        steps_per_round = first["env_steps"] // max(1, len(first["returns"]) - 1)
        axes.set_xlabel(f"Rounds of adaptation ({steps_per_round:,} environment steps each)")
        axes.set_ylabel("Return of an episode (mean, 95 % interval)")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.margins(x=0.02)
        _names_at_the_end(axes, ends, look_of)
    return looks.figure_of([axes])


def training_as_svg(metrics: Sequence[Mapping[str, Any]]) -> str:
    """What `plot_training` draws as an `<svg>` element."""
    return looks.as_svg(plot_training, metrics, "training", "Return and loss while training")


def require_records(name: str, rule: str, records: Any, held: tuple[str, ...]) -> None:
    """Refuses what is no sequence of records that hold some fields."""
    is_sequence = isinstance(records, Sequence) and not isinstance(records, str)
    fits = is_sequence and all(isinstance(record, Mapping) and set(held) <= set(record) for record in records)
    require(fits, name, rule, records)


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


def _require_log(name: str, metrics: Any, held: tuple[str, ...] = ("return", "loss")) -> None:
    require_records(name, "be lines of metrics.jsonl", metrics, ("env_steps", *held))
    require(len(metrics) > 0, name, "hold at least one log point", "none")


def _series(log: Sequence[Mapping[str, Any]], name: str) -> tuple[np.ndarray, ...]:
    """Environment steps, means, and the lowest and the highest of several seeds, [N] each."""
    env_steps, values = (np.array([record[key] for record in log]) for key in ("env_steps", name))
    if any(f"{name}_by_member" not in record for record in log):
        return env_steps, values, values, values
    members = np.array([record[f"{name}_by_member"] for record in log])
    return env_steps, values, members.min(axis=1), members.max(axis=1)


def _window(values: np.ndarray) -> int:
    return max(1, len(values) // SMOOTHED)


def _environment_steps(axes: "Axes", values: np.ndarray) -> None:
    """The label and the numbers of an axis of environment steps, with the smoothing of what stands over it."""
    from matplotlib.ticker import EngFormatter

    window = _window(values)
    axes.set_xlabel("Environment steps" + (f" (moving average of {window} log points)" if window > 1 else ""))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.margins(x=0.01)


def _names_at_the_end(axes: "Axes", ends: Mapping[str, tuple[float, str]], bold: Mapping[str, Any]) -> None:
    """Writes the name of each line beside its end, without overlap."""
    low, high = axes.get_ylim()
    heights = spread([end for end, _ in ends.values()], gap=0.06 * (high - low))
    for (name, (_, colour)), height in zip(ends.items(), heights, strict=True):
        axes.annotate(
            name,
            (1, height),
            xycoords=axes.get_yaxis_transform(),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            fontweight="bold" if name in bold else "normal",
        )
