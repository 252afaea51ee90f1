"""The host's client for asyncio: the verbs of `JobQueue` as coroutines, and waiting, streams and events that do not block the loop.

The work is done by the ordinary client in a few threads of the queue's own; a wait holds no thread, however many there are. Cancelling a task
that waits for a job leaves the job alone. Cancelling one that adds or moves a job does not stop what its thread has begun: it may have happened.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial, wraps
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar

from .errors import WaitTimeoutError
from .events import Event
from .job import Job
from .job_queue import JobQueue
from .lifecycle import JobState
from .model import Chunk
from .watch import Watch

if TYPE_CHECKING:
    from .engine import Database

P = ParamSpec("P")
T = TypeVar("T")


def _verb(
    method: Callable[Concatenate[JobQueue, P], T],
) -> Callable[Concatenate["AsyncJobQueue", P], Coroutine[Any, Any, T]]:
    """The same verb as a coroutine."""

    @wraps(method)
    async def verb(self: "AsyncJobQueue", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.run(method, self.sync, *args, **kwargs)

    return verb


def _job_verb(
    method: Callable[Concatenate[JobQueue, P], Job],
) -> Callable[Concatenate["AsyncJobQueue", P], Coroutine[Any, Any, "AsyncJob"]]:
    """The same verb as a coroutine that gives an `AsyncJob`."""

    @wraps(method)
    async def verb(self: "AsyncJobQueue", /, *args: P.args, **kwargs: P.kwargs) -> AsyncJob:
        return AsyncJob(self, await self.run(method, self.sync, *args, **kwargs))

    return verb


def _of_job(
    method: Callable[Concatenate[Job, P], T],
) -> Callable[Concatenate["AsyncJob", P], Coroutine[Any, Any, T]]:
    """The same method of a job as a coroutine."""

    @wraps(method)
    async def verb(self: "AsyncJob", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.queue.run(method, self.sync, *args, **kwargs)

    return verb


class AsyncJob:
    """A job in the hand of an asyncio host. `await job` waits for its end, well or badly, and gives the job back.

    Like `Job`, whose methods these are; what is a property there is a coroutine here, because it reads the database.
    """

    def __init__(self, queue: "AsyncJobQueue", job: Job) -> None:
        self.queue = queue
        self.sync = job

    def __repr__(self) -> str:
        return f"<AsyncJob {self.id}>"

    @property
    def id(self) -> int:
        """The job's id, never given to another."""
        return self.sync.id

    def __await__(self) -> Generator[Any, None, "AsyncJob"]:
        return self.wait().__await__()

    async def wait(self, timeout: float | None = None) -> "AsyncJob":  # noqa: ASYNC109  # the same parameter as Job.wait has
        """Wait until the job has ended, well or badly, and return itself. `timeout` in seconds. Raises WaitTimeoutError.

        Cancelling the task that waits leaves the job alone.
        """
        if not await self.queue.watch.ended(self.sync, timeout):
            raise WaitTimeoutError(f"job {self.id} is still {await self.state()} after {timeout:g} s")
        return self

    async def stream(self, after: Chunk | None = None, timeout: float | None = None) -> AsyncGenerator[Chunk, None]:  # noqa: ASYNC109  # as Job.stream
        """Yield the text as it is written, as `Job.stream` does. Raises WaitTimeoutError."""
        place = (after.epoch, after.seq) if after is not None else (-1, -1)
        watch = self.queue.watch
        deadline = None if timeout is None else asyncio.get_running_loop().time() + timeout
        while True:
            seen = watch.changes
            ended, pieces = await self.queue.run(self.sync.pieces, *place)
            for piece in pieces:
                yield piece.as_restart() if piece.epoch > place[0] >= 0 else piece
                place = (piece.epoch, piece.seq)
            if pieces:
                continue
            if ended:
                return
            if not await watch.changed(seen, deadline):
                raise WaitTimeoutError(f"job {self.id} is still {await self.state()} after {timeout:g} s")

    async def state(self) -> JobState:
        """Where the job is in its life."""
        return await self.queue.run(lambda: self.sync.state)

    async def result(self) -> Any:
        """The result of a completed job. Raises JobFailedError, JobCancelledError, or JobNotFinishedError if it has none yet."""
        return await self.queue.run(lambda: self.sync.result)

    async def error(self) -> dict[str, Any] | None:
        """What is stored of the last failure, None if there was none."""
        return await self.queue.run(lambda: self.sync.error)

    async def data(self) -> Any:
        """What the job was given."""
        return await self.queue.run(lambda: self.sync.data)

    async def description(self) -> str | None:
        """What the host said of it."""
        return await self.queue.run(lambda: self.sync.description)

    def refresh(self) -> "AsyncJob":
        """Forget that the job had ended: someone may have sent it back. Returns itself."""
        self.sync.refresh()
        return self

    async def children(self) -> "list[AsyncJob]":
        """The jobs that this one created while it ran, oldest first."""
        return [AsyncJob(self.queue, job) for job in await self.queue.run(self.sync.children)]

    async def dependencies(self) -> "list[AsyncJob]":
        """The jobs that this one waits on or has waited on; its children included."""
        return [AsyncJob(self.queue, job) for job in await self.queue.run(self.sync.dependencies)]

    async def dependents(self) -> "list[AsyncJob]":
        """The jobs that wait on this one or have waited on it, oldest first."""
        return [AsyncJob(self.queue, job) for job in await self.queue.run(self.sync.dependents)]

    async def duplicate(self) -> "AsyncJob":
        """A new job that is to do the same, now."""
        return AsyncJob(self.queue, await self.queue.run(self.sync.duplicate))

    row = _of_job(Job.row)
    promote = _of_job(Job.promote)
    cancel = _of_job(Job.cancel)
    retry = _of_job(Job.retry)
    transitions = _of_job(Job.transitions)
    calls = _of_job(Job.calls)
    batches = _of_job(Job.batches)
    chunks = _of_job(Job.chunks)
    why = _of_job(Job.why)
    family = _of_job(Job.family)
    tree_cost = _of_job(Job.tree_cost)


class AsyncJobQueue:
    """A host's handle on a board, for one event loop. Used as `async with AsyncJobQueue("jobs.db") as queue:`, or closed with `await close()`.

    `database` and `options` are those of `JobQueue`, or give an open `JobQueue`, which stays the caller's to close. `threads`: how many calls may
    be in the database at once. Must be used on the loop it was first used on. `sync` is the ordinary client; what is not here is
    had by `await queue.run(queue.sync.conversation, "name")`.
    """

    def __init__(self, database: "str | Path | Database | JobQueue", *, threads: int = 4, **options: Any) -> None:
        self._owned = not isinstance(database, JobQueue)
        self.sync = database if isinstance(database, JobQueue) else JobQueue(database, **options)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="callboard-async")
        self._running: set[asyncio.Future[Any]] = set()
        self.watch = Watch(self.sync, self.run)

    async def run(self, call: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run a blocking call in one of the queue's threads. If the task is cancelled the call still runs to its end."""
        future = asyncio.get_running_loop().run_in_executor(self._threads, partial(call, *args, **kwargs))
        self._running.add(future)
        future.add_done_callback(self._running.discard)
        return await asyncio.shield(future)

    async def events(
        self,
        after: int | None = None,
        *,
        types: Iterable[str] | None = None,
        states: Iterable[JobState | str] | None = None,
        job: int | None = None,
        follow: bool = False,
        timeout: float | None = None,  # noqa: ASYNC109  # the same parameter as JobQueue.events has
    ) -> AsyncGenerator[Event, None]:
        """Events as `JobQueue.events` gives them; following, it waits without a thread."""
        stream = self.sync.events(after, types=types, states=states, job=job)
        deadline = None if timeout is None else asyncio.get_running_loop().time() + timeout
        while True:
            seen = self.watch.changes
            found = await self.run(stream.ready)
            for event in found:
                yield event
            if not found and not (follow and await self.watch.changed(seen, deadline)):
                return

    async def close(self) -> None:
        """Wait for what is running in its threads, end them, and let go of the database. May be called twice."""
        await self.watch.close()
        if self._running:
            await asyncio.wait(self._running)
        self._threads.shutdown()
        if self._owned:
            self.sync.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def add_flow(self, jobs: Mapping[str, Any] | Iterable[Any], *, connection: Any = None) -> dict[str, AsyncJob]:
        """Add jobs that wait on each other, as `JobQueue.add_flow` does."""
        added = await self.run(self.sync.add_flow, jobs, connection=connection)
        return {name: AsyncJob(self, job) for name, job in added.items()}

    add = _job_verb(JobQueue.add)
    duplicate = _job_verb(JobQueue.duplicate)
    get = _job_verb(JobQueue.get)
    add_many = _verb(JobQueue.add_many)
    cancel = _verb(JobQueue.cancel)
    retry = _verb(JobQueue.retry)
    row = _verb(JobQueue.row)
    outcome = _verb(JobQueue.outcome)
    body = _verb(JobQueue.body)
    transitions = _verb(JobQueue.transitions)
    calls = _verb(JobQueue.calls)
    chunks = _verb(JobQueue.chunks)
    list = _verb(JobQueue.list)
    search = _verb(JobQueue.search)
    count = _verb(JobQueue.count)
    retry_where = _verb(JobQueue.retry_where)
    cancel_where = _verb(JobQueue.cancel_where)
    delete_where = _verb(JobQueue.delete_where)
    counts = _verb(JobQueue.counts)
    counts_by_type = _verb(JobQueue.counts_by_type)
    usage = _verb(JobQueue.usage)
    why = _verb(JobQueue.why)
    check = _verb(JobQueue.check)
    cursor = _verb(JobQueue.cursor)
    cancel_tree = _verb(JobQueue.cancel_tree)
    promote = _verb(JobQueue.promote)
    parked = _verb(JobQueue.parked)
    dismiss = _verb(JobQueue.dismiss)
    children = _verb(JobQueue.children)
    dependencies = _verb(JobQueue.dependencies)
    dependents = _verb(JobQueue.dependents)
    family = _verb(JobQueue.family)
    pause = _verb(JobQueue.pause)
    resume = _verb(JobQueue.resume)
    queues = _verb(JobQueue.queues)
    batches = _verb(JobQueue.batches)
    batches_of = _verb(JobQueue.batches_of)
    repair = _verb(JobQueue.repair)
    clean = _verb(JobQueue.clean)
    conversations = _verb(JobQueue.conversations)
    schedule = _verb(JobQueue.schedule)
    unschedule = _verb(JobQueue.unschedule)
    pause_schedule = _verb(JobQueue.pause_schedule)
    resume_schedule = _verb(JobQueue.resume_schedule)
    schedules = _verb(JobQueue.schedules)
    retry_parked = _verb(JobQueue.retry_parked)
    costs = _verb(JobQueue.costs)
    tree_cost = _verb(JobQueue.tree_cost)
    budgets = _verb(JobQueue.budgets)
    board_budgets = _verb(JobQueue.board_budgets)
    set_budget = _verb(JobQueue.set_budget)
    drop_budget = _verb(JobQueue.drop_budget)
    set_job_budget = _verb(JobQueue.set_job_budget)
    cache_status = _verb(JobQueue.cache_status)
    clear_cache = _verb(JobQueue.clear_cache)
