"""Tables that fit a terminal: some columns may go, and text may wrap, so that no number is ever cut."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

SEPARATION = 2
"""Characters between two columns."""
LONGEST_WORD = 20
"""Characters of a word that is kept whole where text must wrap."""
GAP = "…"
"""Heads what stands in place of the columns between its neighbours."""


class Column(NamedTuple):
    """A column of a table, and what may become of it where there is no room."""

    heading: str
    cells: Sequence[str]
    short: str = ""
    """The heading where room is scarce; if empty, the same."""
    is_text: bool = False
    """Set to the left, and wrapped between words where room is scarce; else a number, which is neither."""
    leaves: float = math.inf
    """In which order columns leave a table that is too wide: below 0 before any heading is shortened, never if
    infinite."""
    is_gap: bool = False
    """Shown only where a column that leaves below 0 has left."""

    def title(self, short: bool) -> str:
        """The heading, as short as it gets or not."""
        return self.short or self.heading if short else self.heading

    def width(self, short: bool) -> int:
        """Characters of the longest line, unwrapped."""
        return max(map(cell_len, (self.title(short), *self.cells)))

    def least(self) -> int:
        """Characters of the longest line, wrapped wherever it may be."""
        if not self.is_text:
            return self.width(short=True)
        words = [cell_len(word) for cell in self.cells for word in cell.split()]
        longest = max([min(LONGEST_WORD, max(words, default=0)), cell_len(self.title(short=True))])
        return min(longest, self.width(short=True))


def show(console: Console, columns: Sequence[Column]) -> list[str]:
    """Prints a table that fits the console, from 60 characters on, with its numbers whole.

    Columns that leave below 0 go first, then headings get short, then text wraps, then the other columns go.

    Returns:
      The headings of the columns that are left out, in the order of the table.
    """
    kept, widths, short = next(_fitting(columns, console.width))
    table = Table(box=None, pad_edge=False)
    for column, width in zip(kept, widths, strict=True):
        how = {"justify": "left" if column.is_text else "right", "no_wrap": not column.is_text, "overflow": "fold"}
        table.add_column(column.title(short), width=width, **how)
    for row in zip(*(column.cells for column in kept), strict=True):
        table.add_row(*row)
    console.print(table)
    return [column.heading for column in columns if not column.is_gap and column not in kept]


def _fitting(columns: Sequence[Column], width: int) -> Iterator[tuple[list[Column], list[int], bool]]:
    """Columns, widths and whether headings are short, of each way that fits, the best one first; the last one always.

    Args:
      columns: all that there are.
      width: characters of a line.
    """
    leaving = sorted((column for column in columns if column.leaves < math.inf), key=lambda column: column.leaves)
    early = sum(column.leaves < 0 for column in leaving)
    ways = [(count, False, False) for count in range(early + 1)]
    ways += [(early, True, False)]
    ways += [(count, True, True) for count in range(early, len(leaving) + 1)]
    for count, short, wrapped in ways:
        gone = leaving[:count]
        kept = [column for column in columns if column not in gone and (not column.is_gap or min(count, early))]
        widths = [column.least() if wrapped else column.width(short) for column in kept]
        spare = width - sum(widths) - SEPARATION * (len(kept) - 1)
        if spare >= 0 or (count, wrapped) == (len(leaving), True):
            yield kept, _widened(kept, widths, spare), short


def _widened(kept: Sequence[Column], widths: Sequence[int], spare: int) -> list[int]:
    """Widths of which text takes what is spare, the first column as much as it can."""
    widened = list(widths)
    for index, column in enumerate(kept):
        more = max(0, min(spare, column.width(short=True) - widened[index])) if column.is_text else 0
        widened[index] += more
        spare -= more
    return widened
