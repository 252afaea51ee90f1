"""Which handler performs which job type, and how each kind of handler is run.

Three kinds, one protocol: a built-in is a generator stepped inside the runner; a function gets a thread; an `async def` runs on the company's
handler loop. Whichever it is, the runner starts it, answers the effects it asks for, and hears once how it ended.
"""

import asyncio
import importlib
import inspect
import threading
from collections.abc import Callable, Coroutine, Generator, Mapping
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, cast

from ...persistence.batches import DRIVERS
from ...persistence.model import ClaimedJob, Lease
from .chat import chat
from .context import AsyncJobContext, JobContext
from .effects import Effect, JobInterrupted
from .embed import embed
from .retry import RetryFunction

GeneratorHandler = Callable[[ClaimedJob], Generator[Effect, Any, Any]]
SyncHandler = Callable[[JobContext], Any]
AsyncHandler = Callable[[AsyncJobContext], Coroutine[Any, Any, Any]]
Handler = GeneratorHandler | SyncHandler | AsyncHandler


class HandlerLoadError(Exception):
    """A configured handler cannot be loaded; the message says which and why."""


@dataclass(frozen=True, slots=True)
class EffectAsked:
    """A handler asks for something; `answer` is where the result goes."""

    lease: Lease
    effect: Effect
    answer: "Answer"


@dataclass(frozen=True, slots=True)
class HandlerEnded:
    """A handler returned `value`, or raised `error`."""

    lease: Lease
    value: Any = None
    error: BaseException | None = None


class Answer(Protocol):
    """Where the result of an effect goes. Both are harmless when the handler is gone."""

    def give(self, value: Any) -> None:
        """The effect's result."""

    def refuse(self, error: BaseException) -> None:
        """The effect raises."""


class Performance(Protocol):
    """A handler at work. `inline`: it acts by effects alone, so that it may be answered before a write it follows from is on disk."""

    inline: ClassVar[bool]

    def start(self) -> None:
        """Begin. Effects and the end are posted to the runner."""

    def interrupt(self) -> None:
        """Let the handler know that the job has left: what it waits for, or asks for next, raises JobInterrupted."""


Post = Callable[[EffectAsked | HandlerEnded], None]


class InlinePerformance:
    """A generator, stepped by the runner itself: it never waits, so it needs no thread."""

    inline: ClassVar[bool] = True

    def __init__(self, handler: GeneratorHandler, job: ClaimedJob, post: Post) -> None:
        self._generator = handler(job)
        self._lease = job.lease
        self._post = post

    def start(self) -> None:
        """Run to the first effect."""
        self._step(lambda: next(self._generator))

    def give(self, value: Any) -> None:
        """Run from the effect's result to the next effect."""
        self._step(lambda: self._generator.send(value))

    def refuse(self, error: BaseException) -> None:
        """Raise in the generator, and run to the next effect."""
        self._step(lambda: self._generator.throw(error))

    def interrupt(self) -> None:
        """Close the generator. It has ended then, whatever its clean-up raised."""
        with suppress(BaseException):
            self._generator.close()
        self._post(HandlerEnded(self._lease, error=JobInterrupted()))

    def _step(self, advance: Callable[[], object]) -> None:
        try:
            effect = advance()
        except StopIteration as stop:
            self._post(HandlerEnded(self._lease, value=stop.value))
        except BaseException as error:  # noqa: BLE001  # as in ThreadPerformance
            self._post(HandlerEnded(self._lease, error=error))
        else:
            if isinstance(effect, Effect):
                self._post(EffectAsked(self._lease, effect, self))
            else:
                self.refuse(
                    TypeError(
                        f"a handler yields CallModel, Embed, KeepValue, ShowProgress or SpawnChildren, not {effect!r:.100}"
                    )
                )


class _FutureAnswer:
    """Answers a handler that waits elsewhere."""

    def __init__(self, future: Future[Any]) -> None:
        self._future = future

    def give(self, value: Any) -> None:
        with suppress(InvalidStateError):  # interrupted, or its task was cancelled, meanwhile
            self._future.set_result(value)

    def refuse(self, error: BaseException) -> None:
        with suppress(InvalidStateError):
            self._future.set_exception(error)


class _AskingPerformance:
    """What handlers outside the runner share: one effect pending at a time for each waiting thread or task, all refused on interruption."""

    inline: ClassVar[bool] = False

    def __init__(self, lease: Lease, post: Post) -> None:
        self._lease = lease
        self._post = post
        self._lock = threading.Lock()
        self._pending: set[Future[Any]] = set()
        self._interrupted = False

    def ask(self, effect: Effect) -> Future[Any]:
        """Post the effect; the future is its answer. Any thread."""
        future: Future[Any] = Future()
        with self._lock:
            if self._interrupted:
                future.set_exception(JobInterrupted())
                return future
            self._pending.add(future)
        future.add_done_callback(self._forget)
        self._post(EffectAsked(self._lease, effect, _FutureAnswer(future)))
        return future

    @property
    def interrupted(self) -> bool:
        """Whether the job has left."""
        return self._interrupted

    def interrupt(self) -> None:
        with self._lock:
            self._interrupted = True
            pending = list(self._pending)
        for future in pending:
            _FutureAnswer(future).refuse(JobInterrupted())

    def _forget(self, future: Future[Any]) -> None:
        with self._lock:
            self._pending.discard(future)


class ThreadPerformance(_AskingPerformance):
    """A function on a thread of its own, a daemon: a thread cannot be killed, and must not keep the process from ending."""

    def __init__(self, handler: SyncHandler, job: ClaimedJob, post: Post) -> None:
        super().__init__(job.lease, post)
        self._job = job
        self._handler = handler

    def start(self) -> None:
        """Start the thread."""
        threading.Thread(target=self._run, name=f"handler-{self._lease.job_id}", daemon=True).start()

    def _run(self) -> None:
        try:
            ended = HandlerEnded(self._lease, value=self._handler(JobContext(self._job, self)))
        except BaseException as error:  # noqa: BLE001  # SystemExit in a handler fails its job, not the process
            ended = HandlerEnded(self._lease, error=error)
        self._post(ended)


class AsyncPerformance(_AskingPerformance):
    """A coroutine on the company's handler loop."""

    def __init__(self, handler: AsyncHandler, job: ClaimedJob, post: Post, loop: "HandlerLoop") -> None:
        super().__init__(job.lease, post)
        self._job = job
        self._handler = handler
        self._loop = loop
        self._task: asyncio.Task[None] | None = None  # this and the next: the loop's thread only
        self._ended = HandlerEnded(job.lease, error=JobInterrupted())

    def start(self) -> None:
        """Schedule the coroutine."""
        self._loop.call(self._begin)

    def interrupt(self) -> None:
        """Refuse what it asks, and cancel it where it awaits something else. Once: its clean-up may await too."""
        if not self.interrupted:
            super().interrupt()
            self._loop.call(self._cancel)

    def _begin(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())
        # By a callback, because a task that is cancelled before its first step never runs at all.
        self._task.add_done_callback(lambda _: self._post(self._ended))

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        try:
            self._ended = HandlerEnded(self._lease, value=await self._handler(AsyncJobContext(self._job, self)))
        except BaseException as error:  # noqa: BLE001  # as in ThreadPerformance; a cancelled task has ended all the same
            self._ended = HandlerEnded(self._lease, error=error)


class HandlerLoop:
    """One event loop on a daemon thread for all async handlers of the company; started when the first of them is. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def call(self, function: Callable[[], None]) -> None:
        """Call a function on the loop's thread, in the order of these calls."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name="handler-loop", daemon=True)
                self._thread.start()
            self._loop.call_soon_threadsafe(function)

    def close(self, timeout: float = 5.0) -> None:
        """Cancel what runs and stop. A handler that blocks the loop for longer than `timeout` seconds is left behind."""
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is None or thread is None:
            return
        asyncio.run_coroutine_threadsafe(self._finish(loop), loop)
        thread.join(timeout)
        if not thread.is_alive():
            loop.close()

    @staticmethod
    async def _finish(loop: asyncio.AbstractEventLoop) -> None:
        tasks = [task for task in asyncio.all_tasks(loop) if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        loop.stop()


class HandlerRegistry:
    """Job type → handler, and the host's own retry policies by type. Immutable once the company has started."""

    def __init__(
        self,
        handlers: Mapping[str, Handler] | None = None,
        retry_policies: Mapping[str, RetryFunction] | None = None,
    ) -> None:
        self._handlers: dict[str, Handler] = {"chat": chat, "embed": embed, **(handlers or {})}
        self.retry_policies: Mapping[str, RetryFunction] = dict(retry_policies or {})
        # Once, not for every job: looking through wrappers for what a function really is takes a while.
        self._generators = {name for name, found in self._handlers.items() if inspect.isgeneratorfunction(found)}
        self._coroutines = {name for name, found in self._handlers.items() if inspect.iscoroutinefunction(found)}
        self.loop = HandlerLoop()

    @property
    def types(self) -> frozenset[str]:
        """The job types that can be performed, those of the jobs that drive batches among them."""
        return frozenset(self._handlers).union(DRIVERS.values())

    def perform(self, job: ClaimedJob, post: Post) -> Performance:
        """A performance of the job, not yet started. `post` must be callable from any thread. Raises KeyError for an unknown type."""
        handler = self._handlers[job.type]
        if job.type in self._generators:
            return InlinePerformance(cast("GeneratorHandler", handler), job, post)
        if job.type in self._coroutines:
            return AsyncPerformance(cast("AsyncHandler", handler), job, post, self.loop)
        return ThreadPerformance(cast("SyncHandler", handler), job, post)


def load_handlers(paths: Mapping[str, str]) -> dict[str, Handler]:
    """Load handlers by their dotted paths: job type → `package.module:function`. Raises HandlerLoadError, naming the type."""
    return {job_type: _load(job_type, path) for job_type, path in paths.items()}


def _load(job_type: str, path: str) -> Handler:
    module_name, colon, attribute = path.partition(":")
    if not colon or not module_name or not attribute:
        raise HandlerLoadError(f"handlers.{job_type}: expected package.module:function, got {path!r}")
    try:
        handler: Handler = getattr(importlib.import_module(module_name), attribute)
    except ImportError as error:
        raise HandlerLoadError(f"handlers.{job_type}: cannot import {module_name!r}: {error}") from error
    except AttributeError as error:
        raise HandlerLoadError(f"handlers.{job_type}: {module_name!r} has no {attribute!r}") from error
    if not callable(handler):
        raise HandlerLoadError(f"handlers.{job_type}: {path!r} is not a function")
    return handler
