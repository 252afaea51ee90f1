"""One look at the database for everybody on an event loop who waits for something in it.

However many tasks wait, one task looks: a `data_version` every poll, in a thread, and after a change one statement for all jobs that somebody
waits for. It exists while anyone waits. Everything here belongs to the loop's thread, except what `run` is given.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from .watching import UNCHANGED_LOOKS

if TYPE_CHECKING:
    from .job import Job
    from .job_queue import JobQueue

Run = Callable[..., Awaitable[Any]]
"""Runs a blocking call in a thread: what to call, and its arguments."""


class Watch:
    """What changes on a board, for the tasks of one loop."""

    def __init__(self, queue: "JobQueue", run: Run) -> None:
        self.changes = 0
        self._queue = queue
        self._run = run
        self._ends: dict[int, set[asyncio.Future[None]]] = {}
        self._any: set[asyncio.Future[None]] = set()
        self._task: asyncio.Task[None] | None = None

    async def ended(self, job: "Job", timeout: float | None) -> bool:  # noqa: ASYNC109  # passed on from Job.wait
        """Wait until a job has ended; False if it had not after `timeout` seconds. Raises JobNotFoundError if it is deleted."""
        deadline = _deadline(timeout)
        waiting = self._ends.setdefault(job.id, set())
        try:
            while True:
                told = asyncio.get_running_loop().create_future()
                waiting.add(told)  # before the look, so that an end just after it is not missed
                self._start()
                if (await self._run(job.row)).finished:
                    return True
                if not await _within(told, deadline):
                    return False
                waiting.discard(told)
        finally:
            waiting.discard(told)
            if not waiting and self._ends.get(job.id) is waiting:
                del self._ends[job.id]

    async def changed(self, since: int, deadline: float | None) -> bool:
        """Wait until there may be something that was not there when `changes` was `since`; False at the deadline (loop time)."""
        if self.changes != since:
            return True
        told = asyncio.get_running_loop().create_future()
        self._any.add(told)
        try:
            self._start()
            return await _within(told, deadline)
        finally:
            self._any.discard(told)

    def _start(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._look(), name="callboard-watch")

    async def _look(self) -> None:
        mark: object = None
        unchanged = 0
        try:
            while self._any or any(self._ends.values()):
                before, mark = mark, await self._run(self._queue.change_mark)
                unchanged = unchanged + 1 if mark is not None and mark == before else 0
                if unchanged % UNCHANGED_LOOKS == 0:
                    self.changes += 1
                    _tell(self._any)
                    if self._ends:
                        for job_id in await self._run(self._queue.ended_of, list(self._ends)):
                            _tell(self._ends.get(job_id, ()))
                await asyncio.sleep(self._queue.poll_interval)
        except BaseException as error:
            # Nobody else will tell those who wait. They raise it themselves; it is not also a task's lost exception.
            for told in [*self._any, *(told for waiting in self._ends.values() for told in waiting)]:
                if not told.done():
                    told.set_exception(error) if isinstance(error, Exception) else told.cancel()
            if not isinstance(error, Exception):
                raise

    async def close(self) -> None:
        """End the looking; whoever still waits is cancelled."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait({self._task})


def watch_of(queue: "JobQueue") -> Watch:
    """The watch for `await job` with the ordinary client: one for each queue and loop, on the loop's own threads."""
    watches: WeakKeyDictionary[Any, Watch] = queue.watches
    loop = asyncio.get_running_loop()
    if loop not in watches:
        watches[loop] = Watch(queue, asyncio.to_thread)
    return watches[loop]


def _tell(waiting: Any) -> None:
    for told in waiting:
        if not told.done():
            told.set_result(None)


def _deadline(timeout: float | None) -> float | None:
    return None if timeout is None else asyncio.get_running_loop().time() + timeout


async def _within(told: "asyncio.Future[None]", deadline: float | None) -> bool:
    left = None if deadline is None else max(0.0, deadline - asyncio.get_running_loop().time())
    await asyncio.wait({told}, timeout=left)
    if not told.done():
        return False
    told.result()
    return True
