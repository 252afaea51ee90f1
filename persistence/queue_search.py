"""Searches for hosts, and what can be done to all jobs that a search finds."""

import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from .model import JobRow
from .queue_connections import QueueConnections

if TYPE_CHECKING:
    from .engine import Connection
    from .search import Condition

_LAST = 2**63 - 1

Progress = Callable[[int, int], object]
"""Called after every step with the jobs dealt with and the jobs found so far."""


class Found(list[JobRow]):
    """The jobs a search found, newest first. `scanned`: no index led to them, so jobs were read one by one until there were enough."""

    def __init__(self, rows: Iterable[JobRow], *, scanned: bool) -> None:
        super().__init__(rows)
        self.scanned = scanned


class QueueSearch(QueueConnections):
    """The part of `JobQueue` that is about searches. The language is in docs/cli.md, under `callboard list`."""

    def search(self, query: str, limit: int = 100, before: int | None = None) -> Found:
        """The jobs that `query` describes, newest first; the next page is `before` the last id of this one.

        For example `state:failed type:chat data.customer:42 cost:>0.1 created:<2h`. Raises InvalidQueryError, which shows the place.
        """
        from .statements import search as made

        conditions = self._read_query(query)
        sql, params = made.rows_sql(conditions, before=before is not None)
        params |= {"limit": limit} if before is None else {"limit": limit, "before": before}
        with self._reader() as connection:
            from . import host_store

            rows = host_store.rows_by(connection, sql, params)
            by_id = not conditions or any(c.field == "id" and not c.negated for c in conditions)
            scanned = not by_id and _scans(connection, sql, params)
        return Found(rows, scanned=scanned)

    def count(self, query: str = "") -> int:
        """How many jobs `query` describes. Reads them all, unless an index serves: `counts` is the cheap one. Raises InvalidQueryError."""
        from .sql import Prepared
        from .statements import search as made

        sql, params = made.count_sql(self._read_query(query))
        with self._reader() as connection:
            return int(connection.run(Prepared.of(sql), params)[0][0])

    def retry_where(
        self, query: str, *, reason: str | None = None, chunk: int = 100, progress: Progress | None = None
    ) -> int:
        """Send every failed or cancelled job that `query` describes back to waiting; how many there were. See `cancel_where`."""
        from . import host_store

        said = reason or "sent back by the host"

        def move(connection: "Connection", ids: list[int], now: int) -> int:
            return sum(host_store.retry(connection, job_id, said, now) for job_id in ids)

        return self._bulk(query, move, chunk, progress)

    def cancel_where(
        self, query: str, *, reason: str | None = None, chunk: int = 100, progress: Progress | None = None
    ) -> int:
        """Cancel every job that `query` describes and that has not ended; how many there were.

        Newest first, in short transactions of at most `chunk` jobs, each of which looks again whether the jobs are still as described: one
        that has moved on since is left alone, and so is one that was added meanwhile. What was done stays done if a later step raises.
        Raises InvalidQueryError.
        """
        from . import host_store

        said = reason or "cancelled by the host"

        def move(connection: "Connection", ids: list[int], now: int) -> int:
            return host_store.cancel_all(connection, ids, said, now)

        return self._bulk(query, move, chunk, progress)

    def delete_where(self, query: str, *, chunk: int = 100, progress: Progress | None = None) -> int:
        """Delete every ended job that `query` describes, with its data, result, calls, text and events; how many there were.

        What a job that has not ended waits on is kept. What was spent stays in `usage`. See `cancel_where`.
        """
        from .sql import Prepared

        delete = Prepared("search.DELETE")

        def move(connection: "Connection", ids: list[int], now: int) -> int:  # noqa: ARG001  # as the other two
            return connection.change(delete, {"ids": json.dumps(ids)})

        return self._bulk(query, move, chunk, progress)

    def _bulk(
        self,
        query: str,
        move: "Callable[[Connection, list[int], int], int]",
        chunk: int,
        progress: Progress | None,
    ) -> int:
        from .sql import Prepared
        from .statements import search as made

        conditions = self._read_query(query)
        next_sql, next_params = made.ids_sql(conditions, among=False)
        still_sql, still_params = made.ids_sql(conditions, among=True)
        before, found, moved = _LAST, 0, 0
        while True:
            with self._reader() as connection:
                page = connection.run(Prepared.of(next_sql), {**next_params, "before": before, "limit": chunk})
            if not page:
                return moved
            before = page[-1][0]
            found += len(page)
            ids = json.dumps([job_id for (job_id,) in page])
            with self._writer() as connection:
                still = connection.run(Prepared.of(still_sql), {**still_params, "ids": ids})
                moved += move(connection, [job_id for (job_id,) in still], self.clock())
            if progress is not None:
                progress(moved, found)

    def _read_query(self, query: str) -> "tuple[Condition, ...]":
        from .search import parse

        return parse(query, self.clock())


def _scans(connection: "Connection", sql: str, params: dict[str, Any]) -> bool:
    """Whether SQLite reads the jobs one by one, in the order of their ids, to find them."""
    from .sql import Prepared

    plan = [str(row[3]) for row in connection.run(Prepared.of(f"EXPLAIN QUERY PLAN {sql}"), params)]
    return any(
        step == "SCAN llm_jobs" or step.startswith("SEARCH llm_jobs USING INTEGER PRIMARY KEY (rowid<?")
        for step in plan
    )
