"""One colour scheme for tables, figures and pages, and how figures are written, without a display or pyplot.

Colours are those of Okabe and Ito (2008), distinguishable with every kind of colour vision. Verdicts have the same
colours in a table as in a figure; text in them has a contrast of at least 4.5 to 1 on its background.
"""

import functools
import html
import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, PURPLE, GREY, INK = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#8C8C8C", "#333333"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, "#56B4E9", "#E69F00", "#B8A900")
"""Of a legend, at most seven; what comes after them is grey."""
MARKS = "os^Dvp*"
BETTER, WORSE = "#0067A0", "#A84300"
"""Of a verdict beside the best baseline, on white."""
BETTER_ON_DARK, WORSE_ON_DARK = "#6FC0F0", "#F0955C"
REFERENCES = {
    "oracle": {"color": INK, "linestyle": (0, (6, 3)), "linewidth": 1.2},
    "random": {"color": GREY, "linestyle": (0, (1, 2)), "linewidth": 1.4},
    "scratch": {"color": GREY, "marker": "s"},
    "finetune": {"color": GREY, "marker": "^"},
}
"""What learners are held against: grey, and told apart by dashes and marks."""
PLOT_STYLE: Any = {
    "savefig.dpi": 160,
    "svg.fonttype": "none",
    "svg.hashsalt": "jaxmeta",
    "pdf.fonttype": 42,
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
"""Matplotlib settings of every figure; `PLOT_STYLE["font.size"] = 8` changes all figures. Text stays text in SVG and
PDF files."""


def line(index: int) -> dict[str, Any]:
    """The look of the line of one of several learners, by its rank: seven colours, and grey with other marks.

    >>> line(0)["color"] == BLUE, line(7)["color"] == GREY
    (True, True)
    """
    color = COLOURS[index] if index < len(COLOURS) else GREY
    return {"color": color, "marker": MARKS[index % len(MARKS)], "linewidth": 1.6}


@contextmanager
def figure(
    path: Any, size: tuple[float, float], columns: int = 1, lines: int = 1, **options: Any
) -> Iterator[Sequence["Axes"]]:
    """Yields the axes of a figure in `PLOT_STYLE`, and writes it at the end.

    Args:
      path: a file whose ending says its kind, `.png`, `.pdf` or `.svg`, an open file, or None, which writes nothing.
      size: width and height in inches.
      columns: of axes.
      lines: of axes.
      **options: of matplotlib's `savefig`.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with rc_context(PLOT_STYLE):
        drawn = _figure_class()(figsize=size, layout="constrained")
        FigureCanvasAgg(drawn)
        yield list(drawn.subplots(lines, columns, squeeze=False).flat)
        if path is not None:
            drawn.savefig(path, **options)


@functools.cache
def _figure_class() -> type["Figure"]:
    from matplotlib.figure import Figure

    class Drawing(Figure):
        """A figure that a notebook shows, whether pyplot is imported there or not."""

        def _repr_png_(self) -> bytes:
            buffer = io.BytesIO()
            self.savefig(buffer, format="png", dpi=100)
            return buffer.getvalue()

    return Drawing


def figure_of(all_axes: Sequence["Axes"]) -> "Figure":
    """The figure of some axes."""
    found = all_axes[0].get_figure(root=True)
    assert found is not None
    return found


def file_kinds() -> frozenset[str]:
    """What the name of a picture may end in."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    return frozenset(FigureCanvasAgg.get_supported_filetypes())


def as_svg(plot: Callable[..., Any], rows: Any, prefix: str, shows: str) -> str:
    """What a function of `plots` draws as an `<svg>` element.

    Args:
      plot: what draws it.
      rows: what it is given.
      prefix: of every identifier, so that a page may hold several figures.
      shows: what the figure shows, for screen readers.
    """
    buffer = io.StringIO()
    plot(rows, buffer, format="svg", metadata={"Date": None})
    drawing = buffer.getvalue()
    drawing = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", drawing[drawing.index("<svg") :])
    return drawing.replace("<svg", f'<svg role="img" aria-label="{html.escape(shows)}"', 1)
