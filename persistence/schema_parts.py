"""What the modules of tables share: the metadata that they are registered on, and pieces of their columns."""

from collections.abc import Iterable

from sqlalchemy import Column, ForeignKey, Integer, MetaData

metadata = MetaData()


def any_of(column: str, values: Iterable[str]) -> str:
    """`column` is one of `values`, as comparisons: SQLite builds a table for every run of an IN list, which costs more than the row."""
    return "(" + " OR ".join(f"{column} = '{value}'" for value in values) + ")"


def job_id_column(*, primary_key: bool = False) -> Column[int]:
    """The job that a row belongs to, and goes with."""
    return Column(
        "job_id", Integer, ForeignKey("llm_jobs.id", ondelete="CASCADE"), nullable=False, primary_key=primary_key
    )
