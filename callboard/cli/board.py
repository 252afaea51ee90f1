"""The board as commands read it in bulk: what `JobQueue` answers one job at a time, for thousands. Reads only, but for `retag`; loads SQLAlchemy.

`Board` is a `JobQueue` with a connection of its own beside it. Use it from one thread.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from callboard.config import Config
from callboard.persistence.engine import open_database
from callboard.persistence.job_queue import JobQueue
from callboard.persistence.sql import Prepared

_MANY = "(SELECT value FROM json_each(:ids))"
_UNFINISHED = "('waiting', 'delayed', 'waiting_children', 'active')"

_STATES = Prepared.of(f"SELECT id, state FROM llm_jobs WHERE id IN {_MANY}")
_OUTCOMES = Prepared.of(f"""
    SELECT j.id, j.state, j.reason, r.result, r.error,
           (SELECT sum(input_uncached + cache_read + cache_write + coalesce(cache_write_1h, 0) + output_visible + output_reasoning) FROM llm_calls WHERE job_id = j.id),
           (SELECT CASE WHEN count(cost) > 0 THEN sum(cost) END FROM llm_calls WHERE job_id = j.id)
    FROM llm_jobs j LEFT JOIN llm_job_results r ON r.job_id = j.id WHERE j.id IN {_MANY}
    """)
_HELD = Prepared.of(f"""
    SELECT held_by, count(*), max(held_until) FROM llm_jobs
    WHERE state = 'waiting' AND held_until > :now AND id IN {_MANY} GROUP BY held_by ORDER BY 2 DESC LIMIT 1
    """)
_HELD_FOR = Prepared.of(f"""
    SELECT count(*) FROM llm_jobs WHERE state = 'waiting' AND held_by = :held_by AND held_until > :until AND id IN {_MANY}
    """)
_COMPLETED_KEYS = Prepared.of(f"SELECT key FROM llm_jobs WHERE key IN {_MANY} AND state = 'completed'")
_RETAG = Prepared.of(f"""
    UPDATE llm_jobs SET tag = :tag WHERE key IN {_MANY} AND tag IS NOT :tag AND state <> 'completed'
    """)
_OLDEST = Prepared.of("SELECT min(created_at) FROM llm_jobs WHERE state = 'waiting'")
_ENDED_SINCE = Prepared.of(
    "SELECT to_state, count(*) FROM llm_job_transitions WHERE id > :first AND at > :since AND to_state IN ('completed', 'failed') GROUP BY 1"
)
_LAST_TRANSITION = Prepared.of("SELECT coalesce(max(id), 0) FROM llm_job_transitions")
_BY_TAG = Prepared.of(f"""
    SELECT tag, count(*), sum(state = 'completed'), sum(state = 'failed'), sum(state IN {_UNFINISHED})
    FROM llm_jobs WHERE tag IS NOT NULL GROUP BY tag ORDER BY max(id) DESC LIMIT 20
    """)

_CHUNK = 1000
"""Jobs changed in one transaction: others want to write too."""
_RECENT = 100_000
"""Transitions looked at for the rate of the last minute: the log has an index by id, none by time."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended, or where it is. `tokens` and `cost` (nano-dollars) are over all its calls; None where unknown."""

    job_id: int
    state: str
    reason: str | None
    result: Any
    error: dict[str, Any] | None
    tokens: int | None
    cost: int | None


class Board:
    """A `JobQueue` (`queue`) and bulk reading beside it. A context manager."""

    def __init__(self, config: Config, *, create: bool = False) -> None:
        """Open the database. Raises a DatabaseError."""
        self._database = open_database(config.database, create=create, synchronous=config.synchronous)
        self.queue = JobQueue(self._database)
        self._connection = self._database.connect()

    @property
    def name(self) -> str:
        """The database's file."""
        return self._database.name

    def states(self, ids: Iterable[int]) -> dict[int, str]:
        """Read the state of each of these jobs."""
        return dict(self._connection.run(_STATES, {"ids": json.dumps(list(ids))}))

    def outcomes(self, ids: Sequence[int]) -> dict[int, Outcome]:
        """Read how each of these jobs stands, with its result."""
        found = self._connection.run(_OUTCOMES, {"ids": json.dumps(list(ids))})
        return {
            row[0]: Outcome(
                row[0],
                row[1],
                row[2],
                None if row[3] is None else json.loads(row[3]),
                None if row[4] is None else json.loads(row[4]),
                row[5],
                row[6],
            )
            for row in found
        }

    def held(self, ids: Iterable[int], now: int) -> tuple[str, int, int] | None:
        """Find the limit that holds most of these jobs: its reason, how many it holds, and until when at the latest."""
        rows = self._connection.run(_HELD, {"ids": json.dumps(list(ids)), "now": now})
        return (rows[0][0], rows[0][1], rows[0][2]) if rows else None

    def held_for(self, ids: Iterable[int], held_by: str, until: int) -> int:
        """Count those of these jobs that this holds for longer than until then (epoch milliseconds)."""
        params = {"ids": json.dumps(list(ids)), "held_by": held_by, "until": until}
        return int(self._connection.run(_HELD_FOR, params)[0][0])

    def completed_keys(self, keys: Iterable[str]) -> set[str]:
        """Which of these keys have a completed job."""
        return {key for (key,) in self._connection.run(_COMPLETED_KEYS, {"ids": json.dumps(list(keys))})}

    def retag(self, keys: Iterable[str], tag: str) -> int:
        """Let the jobs with these keys that are not completed have this tag, in short transactions. Returns how many had another."""
        given, changed = list(keys), 0
        for start in range(0, len(given), _CHUNK):
            with self._connection.write():
                changed += self._connection.change(
                    _RETAG, {"ids": json.dumps(given[start : start + _CHUNK]), "tag": tag}
                )
        return changed

    def oldest_waiting(self) -> int | None:
        """Say since when the oldest waiting job has been on the board, in epoch milliseconds."""
        found: int | None = self._connection.run(_OLDEST)[0][0]
        return found

    def ended_since(self, since: int) -> dict[str, int]:
        """Count jobs completed and failed since then."""
        last = int(self._connection.run(_LAST_TRANSITION)[0][0])
        return dict(self._connection.run(_ENDED_SINCE, {"first": last - _RECENT, "since": since}))

    def by_tag(self) -> list[tuple[str, int, int, int, int]]:
        """Count the jobs of the newest tags: tag, all, completed, failed, unfinished."""
        return [(row[0], row[1], row[2], row[3], row[4]) for row in self._connection.run(_BY_TAG)]

    def close(self) -> None:
        """Let go of the database."""
        self._connection.close()
        self.queue.close()
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
