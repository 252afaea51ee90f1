"""One job in a host's hand: its state, its result, waiting for it, and reading along while it is written."""

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

from .errors import JobCancelledError, JobFailedError, JobNotFinishedError, WaitTimeoutError
from .lifecycle import JobState
from .model import CallRecord, Chunk, JobRow, Transition
from .watching import looks

if TYPE_CHECKING:
    from .batches import RequestInfo
    from .costs import TreeCost
    from .family import Family
    from .job_queue import JobQueue


class Job:
    """A job on the board. Any thread; every look reads the database, except that an ended job is remembered until `refresh`.

    Every property and method may raise a `DatabaseError`, and `JobNotFoundError` if the job was deleted.
    """

    def __init__(self, queue: "JobQueue", job_id: int, row: JobRow | None = None) -> None:
        self._queue = queue
        self._id = job_id
        self._ended = row if row is not None and row.finished else None

    def __repr__(self) -> str:
        return f"<Job {self._id}>"

    @property
    def id(self) -> int:
        """The job's id, never given to another."""
        return self._id

    def row(self) -> JobRow:
        """Everything in the job's row."""
        if self._ended is not None:
            return self._ended
        row = self._queue.row(self._id)
        if row.finished:
            self._ended = row
        return row

    def refresh(self) -> "Job":
        """Forget that the job had ended: someone may have sent it back. Returns itself."""
        self._ended = None
        return self

    @property
    def state(self) -> JobState:
        """Where the job is in its life."""
        return self.row().state

    @property
    def result(self) -> Any:
        """The result of a completed job. Raises JobFailedError, JobCancelledError, or JobNotFinishedError if it has none yet."""
        row = self.row()
        match row.state:
            case JobState.COMPLETED:
                return self._queue.outcome(self._id)[0]
            case JobState.FAILED:
                raise JobFailedError(self._id, self.error, row.reason)
            case JobState.CANCELLED:
                raise JobCancelledError(f"job {self._id} was cancelled: {row.reason or 'no reason was given'}")
        raise JobNotFinishedError(f"job {self._id} is {row.state}: wait() for it first")

    @property
    def error(self) -> dict[str, Any] | None:
        """What is stored of the last failure, also while the job is to be tried again. None if there was none."""
        return self._queue.outcome(self._id)[1]

    @property
    def data(self) -> Any:
        """What the job was given."""
        return self._queue.body(self._id)[1]

    @property
    def description(self) -> str | None:
        """What the host said of it."""
        return self._queue.body(self._id)[0]

    def wait(self, timeout: float | None = None) -> "Job":
        """Wait until the job has ended, well or badly, and return itself; only reading `result` raises what it failed of.

        `timeout` in seconds, None waits for ever. Raises WaitTimeoutError.
        """
        for quiet in looks(self._queue, timeout):
            if not quiet and self.row().finished:
                return self
        raise WaitTimeoutError(f"job {self._id} is still {self.state} after {timeout:g} s")

    def stream(self, after: Chunk | None = None, timeout: float | None = None) -> Iterator[Chunk]:
        """Yield the text as it is written: what is there already, then what follows, until the job has ended.

        A chunk with `restarted` begins the answer anew: what came before it is void. `after` continues where an earlier reader stopped.
        Ends without raising however the job ends. `timeout` in seconds, for the whole of it. Raises WaitTimeoutError.
        """
        epoch, seq = (after.epoch, after.seq) if after is not None else (-1, -1)
        for quiet in looks(self._queue, timeout):
            if quiet:
                continue
            ended, pieces = self.pieces(epoch, seq)
            while pieces:
                for piece in pieces:
                    yield piece.as_restart() if piece.epoch > epoch >= 0 else piece
                    epoch, seq = piece.epoch, piece.seq
                pieces = self._queue.chunks_after(self._id, epoch, seq)
            if ended:
                return
        raise WaitTimeoutError(f"job {self._id} is still {self.state} after {timeout:g} s")

    def pieces(self, epoch: int = -1, seq: int = -1) -> tuple[bool, list[Chunk]]:
        """Whether the job has ended, and the text after that place (500 chunks at most). If it has, no text will follow that is not there."""
        ended = self.row().finished  # before the chunks: all of them were committed by the time it ended
        return ended, self._queue.chunks_after(self._id, epoch, seq)

    def __await__(self) -> Generator[Any, None, "Job"]:
        """`await job`: wait until it has ended, like `wait`, without blocking the loop. Cancelling the task leaves the job alone."""
        return self._ended_awaited().__await__()

    async def _ended_awaited(self) -> "Job":
        from .watch import watch_of

        await watch_of(self._queue).ended(self, None)
        return self

    def cancel(self, reason: str | None = None, *, tree: bool = False) -> bool:
        """Cancel the job wherever it runs; False if it had ended. A call in flight is aborted within a poll of its worker.

        With `tree`, everything that is there for it goes too: see `JobQueue.cancel_tree`.
        """
        return self._queue.cancel(self._id, reason, tree=tree)

    def children(self) -> "list[Job]":
        """The jobs that this one created while it ran, oldest first."""
        return [Job(self._queue, row.id, row) for row in self._queue.children(self._id)]

    def dependencies(self) -> "list[Job]":
        """The jobs that this one waits on or has waited on, in the order of its needs; its children included."""
        return [Job(self._queue, row.id, row) for row in self._queue.dependencies(self._id)]

    def family(self, *, limit: int = 500) -> "Family":
        """The job with everything below it, what it waits on and what it created; about `limit` jobs at most."""
        return self._queue.family(self._id, limit=limit)

    def dependents(self) -> "list[Job]":
        """The jobs that wait on this one or have waited on it, oldest first."""
        return [Job(self._queue, row.id, row) for row in self._queue.dependents(self._id)]

    def retry(self, reason: str | None = None) -> bool:
        """Send a failed or cancelled job back to waiting; False if it cannot be. Steps it completed are not paid for again."""
        self._ended = None
        return self._queue.retry(self._id, reason)

    def promote(self, reason: str | None = None) -> bool:
        """Let it run now; False if it is not delayed."""
        return self._queue.promote(self._id, reason)

    def duplicate(self) -> "Job":
        """A new job that is to do the same, now."""
        return self._queue.duplicate(self._id)

    def transitions(self) -> list[Transition]:
        """The job's log, oldest first."""
        return self._queue.transitions(self._id)

    def calls(self) -> list[CallRecord]:
        """The job's calls in the ledger, oldest first."""
        return self._queue.calls(self._id)

    def batches(self) -> "list[RequestInfo]":
        """The job's requests that went with others, or wait to, oldest first: the step, and the batch it is in."""
        return self._queue.batches_of(self._id)

    def tree_cost(self) -> "TreeCost":
        """What the job and everything that it created has cost."""
        return self._queue.tree_cost(self._id)

    def chunks(self) -> list[Chunk]:
        """All text of all attempts, oldest first."""
        return self._queue.chunks(self._id)

    def why(self) -> str:
        """Why the job is where it is, in a sentence."""
        return self._queue.why(self._id)
