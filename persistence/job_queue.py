"""The host's side of the board: add jobs, read them, wait, stream, cancel. It knows nothing of the worker but the tables they share.

Every write is one short transaction on a connection of the calling thread's own (an actor in between would cost more than the write).
Importing this module loads no database library; the first use of a queue does.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from typing import TYPE_CHECKING, Any

from .errors import InvalidJobError, JobNotFoundError
from .job import Job
from .lifecycle import JobState
from .model import CallRecord, Chunk, JobOptions, JobRow, Transition, UsageTotals
from .new_job import NewJob, as_new_job, rows_of
from .queue_batches import QueueBatches
from .queue_control import QueueControl
from .queue_conversations import QueueConversations
from .queue_events import QueueEvents
from .queue_flows import QueueFlows
from .queue_money import QueueMoney
from .queue_retention import QueueRetention
from .queue_schedules import QueueSchedules
from .queue_search import QueueSearch
from .wording import when

if TYPE_CHECKING:
    from . import host_store as store
    from .engine import Connection
else:

    class _Store:
        """The statements, imported at their first use because SQLAlchemy comes with them."""

        def __getattr__(self, name: str) -> Any:
            from . import host_store

            return getattr(host_store, name)

    store = _Store()

_SLICE = 100
_WRITE_S = 0.03
"""Seconds after which a bulk addition lets others write."""
_BREATH_S = 0.002

_Numbers = list[int]
_Rows = list[JobRow]  # `list` is a method below


class JobQueue(
    QueueBatches,
    QueueControl,
    QueueConversations,
    QueueEvents,
    QueueFlows,
    QueueSearch,
    QueueSchedules,
    QueueRetention,
    QueueMoney,
):
    """A host's handle on a board. Any thread, any number of threads at once; not across a fork (open one in the child).

    `database`: a path, a URL (`sqlite:///path`), or an opened `Database`, which stays the caller's to close. It is opened at the first use, and
    created then if `create`. `synchronous`: "FULL" survives a power cut, "NORMAL" may lose the last moments before one. Every method may
    raise a `DatabaseError`.

    `clock` (epoch milliseconds), `sleep` and `monotonic` (seconds) are replaced by tests.
    """

    # --- adding

    def add(
        self,
        type: str,  # noqa: A002  # what every queue calls it
        data: Any = None,
        *,
        model: str | None = None,
        queue: str = "default",
        priority: int | str = 0,
        key: str | None = None,
        unique: str | None = None,
        debounce: tuple[str, float] | None = None,
        throttle: tuple[str, float] | None = None,
        tag: str | None = None,
        description: str | None = None,
        delay: float | None = None,
        run_at: int | None = None,
        start_within: float | None = None,
        max_attempts: int = 3,
        group: str | None = None,
        group_limit: int | None = None,
        requires: Sequence[str] = (),
        conversation: str | None = None,
        options: JobOptions | Mapping[str, Any] | None = None,
        needs: Sequence[Any] = (),
        policy: str = "fail",
        quorum: int | str = "all",
        connection: Any = None,
    ) -> Job:
        """Add a job; it is on disk when this returns. The fields are those of `NewJob`.

        With a `key` that a job already has, that job is returned, whatever its state, and nothing is added or changed. So it is with `unique`
        while that job is live, and with `throttle` within its time; `debounce` changes a job that still waits for its time.

        `needs`: jobs on the board (ids or `Job`s; each alone, or as a pair with a policy of its own) that must end first, all of them or as many
        as `quorum` says; `policy` is what the failure of one means: "fail" (this job fails too), "ignore" or "continue" (it is told).

        `connection`: the host's own, on the same database file (SQLAlchemy's, or the driver's). The job is then part of the host's
        transaction: it exists for others when that commits, and never was if it rolls back. Nothing is retried in it.

        Raises InvalidJobError, which names the field.
        """
        job = NewJob(
            type=type,
            data=data,
            model=model,
            queue=queue,
            priority=priority,
            key=key,
            unique=unique,
            debounce=debounce,
            throttle=throttle,
            tag=tag,
            description=description,
            delay=delay,
            run_at=run_at,
            start_within=start_within,
            max_attempts=max_attempts,
            group=group,
            group_limit=group_limit,
            requires=requires,
            conversation=conversation,
            options=options,
        )
        if needs:
            return self._add_waiting(job, needs, policy, quorum, connection)
        row, body = rows_of(job, self.clock())
        with self._writer_in(connection) as c:
            return Job(self, store.add(c, row, body))

    def add_many(
        self,
        jobs: Iterable[NewJob | Mapping[str, Any]],
        *,
        chunk: int = 1000,
        progress: Callable[[int, int | None], object] | None = None,
        connection: Any = None,
    ) -> list[int]:
        """Add many jobs, each a `NewJob` or a mapping of its fields; their ids in the order given. Keys and names mean what they do in `add`.

        They are added in short transactions of at most `chunk` jobs, fewer where the machine is slow, so that other writers never wait long. If
        a job is refused (InvalidJobError, its field told as `jobs[7].data`), the chunks before it have been added. With a `connection` all
        of them are part of the host's transaction, as in `add`.

        `progress(done, total)` is called after each transaction; the total is None if `jobs` does not know its length.
        """
        total = len(jobs) if isinstance(jobs, Sized) else None
        ids: list[int] = []
        remaining = iter(jobs)
        while batch := list(itertools.islice(remaining, chunk)):
            now = self.clock()
            rows = []
            for place, given in enumerate(batch, len(ids)):
                try:
                    rows.append(rows_of(as_new_job(given), now))
                except InvalidJobError as error:
                    raise InvalidJobError(f"jobs[{place}].{error.field}", error.problem) from error
            while rows:
                with self._writer_in(connection) as c:
                    added = self._add_for_a_while(c, rows)
                ids += added
                rows = rows[len(added) :]
                if progress is not None:
                    progress(len(ids), total)
                if rows:
                    self.sleep(_BREATH_S)  # or we would take the lock again before anybody else looks
        return ids

    def _add_for_a_while(self, c: "Connection", rows: "Sequence[tuple[dict[str, Any], dict[str, Any]]]") -> "_Numbers":
        """The first of these rows, as many as can be added while others wait; at least some."""
        until = self.monotonic() + _WRITE_S
        ids: list[int] = []
        while len(ids) < len(rows) and (not ids or self.monotonic() < until):
            ids += store.add_many(c, rows[len(ids) : len(ids) + _SLICE])
        return ids

    # --- moving

    def cancel(self, job_id: int, reason: str | None = None, *, tree: bool = False) -> bool:
        """Cancel a job wherever it is; False if it had ended. Raises JobNotFoundError.

        With `tree`, everything that is there for it goes too (see `cancel_tree`); False then means that nothing of it was left to cancel.
        """
        if tree:
            return self.cancel_tree(job_id, reason) > 0
        return self._move(job_id, store.cancel, reason or "cancelled by the host")

    def retry(self, job_id: int, reason: str | None = None) -> bool:
        """Send a failed or cancelled job back to waiting with its counters at zero. Raises JobNotFoundError.

        What its steps completed is not paid for again. A call whose outcome is unknown is not made again if the job asked to be parked for that
        (`on_unknown = "park"`): it is parked once more, unless it is sent back by `retry_parked`. False if it is neither failed nor cancelled,
        or if a live job has its `unique` name.
        """
        return self._move(job_id, store.retry, reason or "sent back by the host")

    def promote(self, job_id: int, reason: str | None = None) -> bool:
        """Let a delayed job run now; False if it is not delayed. Raises JobNotFoundError."""
        return self._move(job_id, store.promote, reason or "promoted by the host")

    def duplicate(self, job_id: int) -> Job:
        """Add a job that is to do what this one was to do, now. It has neither its key nor its name, and is in no flow or conversation.

        Raises JobNotFoundError.
        """
        with self._writer() as connection:
            made = store.duplicate(connection, job_id, self.clock())
        if made is None:
            raise JobNotFoundError(f"there is no job {job_id} on {self.name}")
        return Job(self, made)

    def parked(self, limit: int = 100) -> _Rows:
        """Jobs that failed because nobody knows whether a call of theirs was done (`on_unknown = "park"`), newest first.

        Each waits for a person: `retry_parked` makes the call again, at the risk of paying twice; `dismiss` leaves the job failed.
        """
        with self._reader() as connection:
            return store.parked(connection, limit)

    def retry_parked(self, job_id: int, reason: str | None = None) -> bool:
        """Send a parked job back and let it make its call again; False if it is not parked. Raises JobNotFoundError."""
        return self._move(job_id, store.retry_parked, reason or "its call may be made again")

    def dismiss(self, job_id: int) -> bool:
        """Leave a parked job failed, so that `parked` does not name it any more; False if it is not parked. Raises JobNotFoundError."""
        return self._move(job_id, lambda c, wanted, _, now: store.dismiss(c, wanted, now), "")

    def _move(self, job_id: int, move: "Callable[[Connection, int, str, int], bool]", reason: str) -> bool:
        with self._writer() as connection:
            moved = move(connection, job_id, reason, self.clock())
        if not moved:
            self.row(job_id)
        return moved

    # --- reading

    def get(self, job_id: int) -> Job:
        """The job with this id. Raises JobNotFoundError."""
        return Job(self, job_id, self.row(job_id))

    def row(self, job_id: int) -> JobRow:
        """The row of a job, read now. Raises JobNotFoundError."""
        with self._reader() as connection:
            row = store.job_row(connection, job_id)
        if row is None:
            raise JobNotFoundError(f"there is no job {job_id} on {self.name}")
        return row

    def outcome(self, job_id: int) -> tuple[Any, dict[str, Any] | None]:
        """The stored result and error of a job, each None where there is none."""
        with self._reader() as connection:
            return store.result(connection, job_id)

    def body(self, job_id: int) -> tuple[str | None, Any, dict[str, Any]]:
        """Description, data and options of a job."""
        with self._reader() as connection:
            return store.body(connection, job_id)

    def transitions(self, job_id: int) -> list[Transition]:
        """The log of a job, oldest first."""
        with self._reader() as connection:
            return store.transitions_of(connection, job_id)

    def calls(self, job: int | Job) -> list[CallRecord]:
        """The calls of a job, oldest first."""
        with self._reader() as connection:
            return store.calls_of(connection, job if isinstance(job, int) else job.id)

    def chunks(self, job_id: int) -> list[Chunk]:
        """All text of all attempts of a job, oldest first."""
        with self._reader() as connection:
            return store.all_chunks(connection, job_id)

    def chunks_after(self, job_id: int, epoch: int, seq: int) -> list[Chunk]:
        """The next chunks, 500 at most, of the newest attempt that has any, after that place. (-1, -1) is the beginning."""
        with self._reader() as connection:
            return store.chunks_after(connection, job_id, epoch, seq)

    def list(
        self,
        *,
        state: JobState | str | None = None,
        type: str | None = None,  # noqa: A002  # the column's name
        tag: str | None = None,
        queue: str | None = None,
        limit: int = 100,
        before: int | None = None,
    ) -> _Rows:
        """Jobs that match all that is given, newest first. The next page is `before` the last id of this one."""
        wanted = {
            "state": None if state is None else str(JobState(state)),
            "type": type,
            "tag": tag,
            "queue": queue,
            "before": before,
        }
        with self._reader() as connection:
            return store.listing(
                connection, limit, {name: value for name, value in wanted.items() if value is not None}
            )

    def usage(self, tag: str | None = None) -> UsageTotals:
        """What all calls, or those of the jobs with this tag, have used."""
        with self._reader() as connection:
            return store.usage(connection, tag)

    def why(self, job: int | Job) -> str:
        """Why a job is where it is, in a sentence. Raises JobNotFoundError."""
        row = self.row(job if isinstance(job, int) else job.id)
        reason = f": {row.reason}" if row.reason else ""
        match row.state:
            case JobState.WAITING if row.held_until is not None and row.held_until > self.clock():
                return f"held by {row.held_by or 'a limit'} until {when(row.held_until)}{reason}"
            case JobState.WAITING:
                from .queues import why_waiting

                with self._reader() as connection:
                    return why_waiting(connection, row, self.clock())
            case JobState.WAITING_CHILDREN:
                from . import batches, family

                with self._reader() as connection:
                    return f"waits on {family.waits_on(connection, row)}{batches.waits_in(connection, row.id)}"
            case JobState.DELAYED:
                return f"not before {when(row.run_at)}{reason}"
            case JobState.ACTIVE:
                with self._reader() as connection:
                    owner, until = store.holder(connection, row.id)
                return f"being worked on by {owner} since {when(row.started_at)}, attempt {row.attempt}, lease until {when(until)}"
            case _:
                return f"{row.state}{reason}"
