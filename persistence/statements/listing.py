"""The one statement of the host's side whose shape depends on what is asked for."""

from functools import cache

from sqlalchemy import bindparam, select

from ..schema import jobs
from .build import NO_OFFSET, as_text, up_to
from .host_store import ROW_COLUMNS


@cache
def listing_sql(names: frozenset[str]) -> str:
    """Jobs by equality of these columns (`before`: an id to be below), newest first; parameters are named `NAME_wanted`, and `limit`."""
    statement = select(*ROW_COLUMNS)
    for name in sorted(names - {"before"}):
        statement = statement.where(jobs.c[name] == bindparam(f"{name}_wanted"))
    if "before" in names:
        statement = statement.where(jobs.c.id < bindparam("before_wanted"))
    return as_text(statement.order_by(jobs.c.id.desc()).limit(up_to("limit")).offset(NO_OFFSET))
