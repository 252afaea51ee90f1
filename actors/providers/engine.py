"""The call engine: one event loop in one thread that makes a provider's calls, and reports each by small events.

Callers live in other threads and never wait for it: `submit` and `abort` hand over and return. Every submitted call ends in exactly one
terminal event, `Finished` or `Failed`, whatever happens: an answer, an error, an abort, the engine's own end, a bug in an adapter.
Deadlines are kept here and not by the HTTP library, whose read timeout a ping resets for ever.
"""

import asyncio
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Hashable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from .adapter import adapter_for
from .batch_api import Operation
from .call import Call, CallEvent, Failed, Finished, Held, Provider, Text, perform
from .model import AnyRequest, Billed, CallError, ErrorClass, Timeouts
from .resume import Handle
from .settings import ProviderSettings
from .transport import open_client

if TYPE_CHECKING:
    from .exchange import Exchange, ExchangeEvent

__all__ = ["CallEngine", "CallEvent", "Failed", "Finished", "Held", "Text"]

logger = logging.getLogger(__name__)

HEARTBEAT = 1.0
"""Seconds between two beats of a healthy loop."""


def wall_ms() -> int:
    """The wall clock, in epoch milliseconds."""
    return time.time_ns() // 1_000_000


class CallEngine:
    """Makes one provider's calls. All public methods may be called from any thread.

    `own_process`: see `transport.import_httpx`. `environ`: where `key_env` is looked up. `now_ms`: the wall clock of limit snapshots.
    """

    def __init__(
        self,
        settings: ProviderSettings,
        *,
        own_process: bool = False,
        environ: Mapping[str, str] = os.environ,
        now_ms: Callable[[], int] = wall_ms,
    ) -> None:
        self.settings = settings
        self._own_process = own_process
        self._environ = environ
        self._now_ms = now_ms
        self._thread: threading.Thread | None = None
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._heartbeat_at = 0.0
        # Guards the four below: which calls live, what the loop is told, and whether work is taken.
        self._lock = threading.Lock()
        self._live: dict[Hashable, Call | Exchange] = {}
        self._orders: deque[Callable[[], None]] = deque()
        self._accepting = False
        self._loop: asyncio.AbstractEventLoop | None = None
        # Loop thread only:
        self._queue: deque[Call | Exchange] = deque()
        self._running = 0
        self._tasks: set[asyncio.Task[None]] = set()  # strong references: the loop itself keeps only weak ones
        self._provider: Provider | None = None
        self._stopping: asyncio.Event | None = None
        self._stop_deadline = 0.0

    def start(self, timeout: float = 10.0) -> None:
        """Start the thread and wait until its loop takes calls.

        Raises whatever kept it from starting (UnsafeURLError for the base URL), TimeoutError after `timeout` seconds, RuntimeError if it
        was started before: an engine is started once.
        """
        if self._thread is not None:
            raise RuntimeError(
                f"the call engine of provider {self.settings.name!r} was started before; build a new one"
            )
        self._thread = threading.Thread(target=self._run, name=f"callboard-calls-{self.settings.name}", daemon=True)
        self._thread.start()
        if not self._ready.wait(timeout):
            raise TimeoutError(f"the call engine of provider {self.settings.name!r} was not ready within {timeout:g} s")
        if self._failure is not None:
            self._thread.join(timeout)
            raise self._failure

    def stop(self, timeout: float = 5.0) -> None:
        """Cancel every call, wait until each has ended and its connection is closed, and end the thread. Harmless when stopped.

        Waits `timeout` seconds at most; a thread that has not ended by then is logged and left (it is a daemon). Must not be called from
        the engine's own thread, that is by a listener.
        """
        thread = self._thread
        if thread is None:
            return
        with self._lock:
            was_accepting, self._accepting = self._accepting, False
            if was_accepting and self._loop is not None:
                self._stop_deadline = timeout * 0.8
                self._loop.call_soon_threadsafe(self._begin_stop)
        thread.join(timeout)
        if thread.is_alive():
            logger.error("the call engine of provider %r did not end within %g s", self.settings.name, timeout)

    def submit(
        self, call_key: Hashable, request: AnyRequest, timeouts: Timeouts, on_event: Callable[[CallEvent], object]
    ) -> None:
        """Make a call. `on_event` gets `Text` events and then one `Finished` or `Failed`, from the engine's thread; it must not block.

        Returns at once. Raises ValueError if a call of this key is in flight. If the engine is not running, `Failed` (CANCELLED, not
        sent) is delivered from the caller's thread before this returns.
        """
        self._take(Call(call_key, request, timeouts, on_event))

    def resume(
        self,
        call_key: Hashable,
        request: AnyRequest,
        timeouts: Timeouts,
        on_event: Callable[[CallEvent], object],
        handle: Handle,
    ) -> None:
        """As `submit`, but take up the call that a `Held` event has named, from its beginning, instead of asking anew.

        It ends as `Failed` with code `handle_gone` if the provider does not know it any more.
        """
        self._take(Call(call_key, request, timeouts, on_event, handle))

    def exchange(
        self,
        call_key: Hashable,
        operation: Operation,
        on_event: "Callable[[ExchangeEvent], object]",
        timeouts: Timeouts | None = None,
    ) -> None:
        """Perform an operation of the provider's batch API. `on_event` gets one `Exchanged` or `Failed`; all else is as in `submit`.

        `timeouts` None: those of `exchange.TIMEOUTS`.
        """
        from .exchange import TIMEOUTS, Exchange  # few workers ever do

        self._take(Exchange(call_key, operation, timeouts or TIMEOUTS, on_event))

    def _take(self, call: "Call | Exchange") -> None:
        call_key = call.key
        with self._lock:
            if call_key in self._live:
                raise ValueError(f"call {call_key!r} is in flight already; each submit needs a key of its own")
            if self._accepting and self._loop is not None:
                self._live[call_key] = call
                self._order(self._loop, lambda: self._begin(call))
                return
        call.end(_never_sent(f"the call engine of provider {self.settings.name!r} is not running"), None)

    def abort(self, call_key: Hashable, *, keep: bool = False) -> None:
        """Abort a call: its connection is closed and it ends as CANCELLED, unless its outcome came first. Unknown keys are ignored.

        One that the provider goes on with is ended there too, but not with `keep`: it is to be resumed.
        """
        with self._lock:
            if self._accepting and self._loop is not None:
                self._order(self._loop, lambda: self._abort(call_key, keep))

    def end_kept(self, handle: Handle) -> None:
        """End at the provider a call that goes on there. Returns at once; a failure is logged."""
        with self._lock:
            if self._accepting and self._loop is not None:
                self._order(self._loop, lambda: self._end_kept(handle))

    def _order(self, loop: asyncio.AbstractEventLoop, order: Callable[[], None]) -> None:
        """Have the loop do this. Waking it costs a write to a pipe, so that is done once for all that is ordered meanwhile. Holding the lock."""
        self._orders.append(order)
        if len(self._orders) == 1:
            loop.call_soon_threadsafe(self._obey)

    @property
    def heartbeat_at(self) -> float:
        """`time.monotonic()` of the loop's last beat; older than a few `HEARTBEAT`s means that the loop is stuck."""
        return self._heartbeat_at

    @property
    def in_flight(self) -> int:
        """How many calls were submitted and have not ended, queued ones included."""
        with self._lock:
            return len(self._live)

    # From here on: the engine's thread.

    def _run(self) -> None:
        try:
            with asyncio.Runner() as runner:
                runner.run(self._main())
        except BaseException as error:  # noqa: BLE001 - handed to start(), or logged: a thread has no caller
            if self._ready.is_set():
                logger.error("the call engine of provider %r died: %r", self.settings.name, error)  # noqa: TRY400
            self._failure = error
        finally:
            with self._lock:
                self._accepting = False
                self._loop = None
                left, self._live = list(self._live.values()), {}
            for call in left:  # there are some only if the loop died under them, or a task would not end
                call.end(_never_sent("the call engine died") if call.task is None else _lost_engine(), None)
            self._ready.set()

    async def _main(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(max_workers=4, thread_name_prefix="callboard-dns"))
        self._open()
        self._stopping = asyncio.Event()
        beat = asyncio.create_task(self._beat())
        with self._lock:
            self._loop = loop
            self._accepting = True
        self._ready.set()
        await self._stopping.wait()
        while self._queue:
            call = self._queue.popleft()
            self._release(call)
            call.end(_never_sent("the call engine was stopped"), None)
        with self._lock:
            running = list(self._live.values())
        for call in running:
            call.why_cancelled = "the call engine was stopped"
            if isinstance(call, Call):
                call.keep = True
            call.cancel()
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=self._stop_deadline)
        beat.cancel()
        await self._close()

    def _open(self) -> None:
        client = open_client(self.settings, own_process=self._own_process)
        self._adapter = adapter_for(self.settings.wire)
        self._provider = Provider(self.settings, self._adapter, client, self._environ, self._now_ms)

    async def _exchanging(self, exchange: "Exchange") -> None:
        from .exchange import perform as perform_exchange

        assert self._provider is not None
        await perform_exchange(exchange, self._provider)

    async def _close(self) -> None:
        assert self._provider is not None
        await self._provider.client.close()

    async def _tend(self) -> None:
        """What is to be done once in every beat."""
        assert self._provider is not None
        await self._provider.client.close_expired()

    def _performance(self, call: Call) -> Coroutine[Any, Any, None]:
        """What makes a call and ends it; it returns normally in every case."""
        assert self._provider is not None
        return perform(call, self._provider)

    async def _beat(self) -> None:
        while True:
            self._heartbeat_at = time.monotonic()
            await asyncio.sleep(HEARTBEAT)
            await self._tend()

    def _obey(self) -> None:
        with self._lock:
            orders, self._orders = self._orders, deque()
        loop = asyncio.get_running_loop()
        for order in orders:
            loop.call_soon(order)

    def _begin_stop(self) -> None:
        assert self._stopping is not None
        self._stopping.set()

    def _begin(self, call: "Call | Exchange") -> None:
        if self._running < self.settings.max_in_flight and not (self._stopping and self._stopping.is_set()):
            self._start_task(call)
        else:
            self._queue.append(call)

    def _start_task(self, call: "Call | Exchange") -> None:
        self._running += 1
        task = asyncio.get_running_loop().create_task(
            self._performance(call) if isinstance(call, Call) else self._exchanging(call)
        )
        call.task = task
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._done(call, done))

    def _done(self, call: "Call | Exchange", task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        self._running -= 1
        self._release(call)
        # perform() ends every call; only a task cancelled before its first step has not got there.
        call.end(_never_sent(call.why_cancelled), None)
        stopping = self._stopping is not None and self._stopping.is_set()
        if self._queue and not stopping:
            self._start_task(self._queue.popleft())

    def _release(self, call: "Call | Exchange") -> None:
        with self._lock:
            self._live.pop(call.key, None)

    def _end_kept(self, handle: Handle) -> None:
        from .background import end_at_provider

        assert self._provider is not None
        task = asyncio.get_running_loop().create_task(end_at_provider(self._provider, handle))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _abort(self, key: Hashable, keep: bool) -> None:
        with self._lock:
            call = self._live.get(key)
        if call is None:
            return
        if call.task is None:
            self._queue.remove(call)
            self._release(call)
            call.end(_never_sent(call.why_cancelled), None)
        else:
            if isinstance(call, Call):
                call.keep = keep
            call.cancel()


def _never_sent(why: str) -> CallError:
    return CallError(kind=ErrorClass.CANCELLED, message=why, sent=False)


def _lost_engine() -> CallError:
    return CallError(kind=ErrorClass.CANCELLED, message="the call engine died", billed=Billed.MAYBE)
