"""SQL as the hot path runs it: text, on the driver's own connection.

SQLAlchemy Core is the one source of SQL (`persistence.statements`), but its execution machinery costs three times what SQLite takes for these
statements, and its import 15 MB. So they are compiled ahead of time (`sql_text`), and the text, with named parameters, goes to the driver.
"""

from typing import Self

from .sql_text import STATEMENTS


class Prepared:
    """One statement by its name in `sql_text`. Safe to share between threads."""

    __slots__ = ("sql",)

    def __init__(self, name: str) -> None:
        if name not in STATEMENTS:
            raise KeyError(f"no statement {name!r} in sql_text: run `make sql` after changing persistence/statements")
        self.sql = STATEMENTS[name]

    @classmethod
    def of(cls, sql: str) -> Self:
        """A statement whose text is made at run time: a search."""
        made = cls.__new__(cls)
        made.sql = sql
        return made
