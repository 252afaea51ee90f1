"""What statements are built with, and how they become text.

Constants must be written into the statement (`lit`, `one_of`), not bound: SQLite uses a partial index only where its condition is repeated
literally, and a bound constant would have to be supplied by every caller. And no bare parameter in LIMIT: SQLite (3.53) plans by its value
and so compiles the statement again at every run, which takes a claim from 10 to 250 microseconds; `up_to` hides it from the planner.
`as_text` refuses a statement that does either.
"""

import re
from collections.abc import Iterable
from typing import Any

from sqlalchemy import ColumnElement, Executable, Integer, bindparam, literal_column, null
from sqlalchemy.dialects import sqlite

from ..lifecycle import JobState

_BARE_LIMIT = re.compile(r"LIMIT\s+:\w+(?!\s*\+|\w)")
DIALECT = sqlite.dialect(paramstyle="named")

NULL = null()
NO_OFFSET: ColumnElement[Any] = literal_column("0")
"""For `.offset()` after `.limit()`: the dialect would otherwise bind a constant."""


def lit(value: int | str) -> ColumnElement[Any]:
    """A constant of our own as a literal in the SQL text. Never for what comes from outside."""
    return literal_column(str(value) if isinstance(value, int) else "'{}'".format(value.replace("'", "''")))


def up_to(name: str) -> ColumnElement[int]:
    """A parameter as the operand of LIMIT."""
    return bindparam(name, type_=Integer) + lit(0)


def one_of(states: Iterable[JobState]) -> list[ColumnElement[Any]]:
    """States as literals, for `in_`."""
    return [lit(str(state)) for state in sorted(states)]


def as_text(statement: Executable) -> str:
    """A statement as text for SQLite with named parameters. Raises ValueError for a bound constant, or a bare parameter in LIMIT."""
    compiled = statement.compile(dialect=DIALECT)  # type: ignore[attr-defined]  # every Executable we build has it
    constants = sorted(name for name, bound in compiled.binds.items() if not bound.required)
    if constants:
        raise ValueError(f"constants must be literals, but these are bound: {constants} in {compiled}")
    sql = str(compiled)
    if _BARE_LIMIT.search(sql):
        raise ValueError(f"a bare parameter in LIMIT is planned anew at every run: write :name + 0 in {sql}")
    return sql
