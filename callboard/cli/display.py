"""Tables and consoles for people. Only client commands import this: rich is never in the worker."""

import sys
from collections.abc import Sequence
from typing import Any, Literal, TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .text import plain

Justify = Literal["left", "right"]

STATE_STYLES = {
    "completed": "green",
    "failed": "red",
    "active": "cyan",
    "cancelled": "dim",
    "waiting": "yellow",
    "delayed": "yellow",
}


def console(stream: TextIO | None = None) -> Console:
    """Open a console on stdout, or `stream`: colours on a terminal only, and never any markup: what is printed may be a model's output."""
    stream = stream or sys.stdout
    width = None if stream.isatty() else 120
    return Console(file=stream, highlight=False, markup=False, emoji=False, width=width, soft_wrap=not stream.isatty())


def cell(value: Any, style: str = "") -> Text:
    """Make a table's cell, with nothing in it that a terminal would obey."""
    return Text("-" if value is None else plain(str(value)), style=style)


def state_cell(state: str) -> Text:
    """Show a state in its colour."""
    return Text(state, style=STATE_STYLES.get(state, ""))


def print_table(
    columns: Sequence[tuple[str, Justify]],
    rows: Sequence[Sequence[Any]],
    *,
    wide: int | None = None,
    wrap: bool = False,
    title: str | None = None,
    stream: TextIO | None = None,
) -> None:
    """Print rows under their headings. Cells that are not Text pass `cell`.

    The column `wide` gets the room that is left, and is cut to it or, with `wrap`, goes on below.
    Without `wide` a terminal that is too narrow shortens columns of text, the broadest first. Numbers are never cut: half a sum of money is
    another sum. Into a pipe nothing but the column `wide` is.
    """
    out = console(stream)
    cells = [[value if isinstance(value, Text) else cell(value) for value in row] for row in rows]
    table = Table(box=None, pad_edge=False, header_style="bold", title=title, title_justify="left", title_style="bold")
    for heading, justify in columns:
        table.add_column(heading, justify=justify, no_wrap=True, overflow="ellipsis")
    widths = [max(cell_len(heading), *(row[n].cell_len for row in cells), 0) for n, (heading, _) in enumerate(columns)]
    gaps = 2 * (len(columns) - 1)
    if wide is not None:
        widths[wide] = min(widths[wide], max(out.width - sum(widths) + widths[wide] - gaps, 12))
        if wrap:
            goes_on = table.columns[wide]
            goes_on.no_wrap, goes_on.overflow, goes_on.width = False, "fold", widths[wide]
    elif out.is_terminal:
        least = [max(cell_len(heading), 8) for heading, _ in columns]
        while sum(widths) + gaps > out.width:
            texts = [n for n, (_, justify) in enumerate(columns) if justify == "left" and widths[n] > least[n]]
            if not texts:
                break
            widths[max(texts, key=lambda n: widths[n])] -= 1
    for row in cells:
        for n, shown in enumerate(row):
            if not (wrap and n == wide):
                shown.truncate(widths[n], overflow="ellipsis")
        table.add_row(*row)
    out.width = max(out.width, sum(widths) + gaps)
    out.print(table)
