"""Tables and consoles for people. Only client commands import this: rich is never in the worker."""

import sys
from collections.abc import Sequence
from typing import Any, Literal, TextIO

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
    """Print rows under their headings. Cells that are not Text pass `cell`. The column `wide` takes the room that is left, on one line."""
    table = Table(box=None, pad_edge=False, header_style="bold", title=title, title_justify="left", title_style="bold")
    for number, (heading, justify) in enumerate(columns):
        is_wide = number == wide
        table.add_column(
            heading,
            justify=justify,
            no_wrap=True,
            overflow="ellipsis",
            ratio=1 if is_wide else None,
            min_width=10 if is_wide else None,
        )
    for row in rows:
        table.add_row(*(value if isinstance(value, Text) else cell(value) for value in row))
    console(stream).print(table)
