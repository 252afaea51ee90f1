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
    title: str | None = None,
    stream: TextIO | None = None,
) -> None:
    """Print rows under their headings, one line each. Cells that are not Text pass `cell`. The column `wide` gets the room that is left."""
    out = console(stream)
    cells = [[value if isinstance(value, Text) else cell(value) for value in row] for row in rows]
    table = Table(box=None, pad_edge=False, header_style="bold", title=title, title_justify="left", title_style="bold")
    for heading, justify in columns:
        table.add_column(heading, justify=justify, no_wrap=True, overflow="ellipsis")
    if wide is not None:
        others = (
            max(cell_len(columns[n][0]), *(row[n].cell_len for row in cells), 0)
            for n in range(len(columns))
            if n != wide
        )
        room = max(out.width - sum(others) - 2 * (len(columns) - 1), 12)
        for row in cells:
            row[wide].truncate(room, overflow="ellipsis")
    for row in cells:
        table.add_row(*row)
    out.print(table)
