"""The simulator in a thread of its own, for tests and for hosts that embed it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self, TypeVar

from .config import SimulatorConfig
from .server import Clock, SimulatorServer

T = TypeVar("T")

_STOP_SECONDS = 10.0


class Simulator:
    """A provider on 127.0.0.1, run by an event loop in a daemon thread. Use it as a context manager, or `start()` and `stop()` it once.

    Every method may be called from any thread. After `stop()` the journal, statistics and faults can still be read.
    `clock` tells the limits and the journal the time; the pace of streams is always real.
    """

    def __init__(self, config: SimulatorConfig | None = None, *, clock: Clock | None = None) -> None:
        self._changed = threading.Condition()
        self._changes = 0
        self._server = SimulatorServer(config or SimulatorConfig(), clock or Clock(), self._notify)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="callboard-simulator", daemon=True)

    def start(self) -> Self:
        """Bind, listen and return self. Raises OSError when the port is taken, RuntimeError when it was started before."""
        if self._loop is not None:
            raise RuntimeError("this simulator was started before; make another one")
        self._loop = asyncio.new_event_loop()
        self._thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self._server.start(), self._loop).result()
        except BaseException:
            self._end(self._loop)
            raise
        return self

    def stop(self) -> None:
        """Abort every connection, release the port and end the thread. Harmless when it has ended already."""
        if self._loop is not None and self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._server.stop(), self._loop).result(_STOP_SECONDS)
            self._end(self._loop)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The base without a path: `http://127.0.0.1:PORT`. Both wire formats live under `/v1`."""
        return self._server.url

    def journal(self) -> list[dict[str, Any]]:
        """Return the requests seen, oldest first (see docs/simulator.md for the fields)."""
        return self._ask(self._server.journal)

    def wait_for(
        self, holds: Callable[[list[dict[str, Any]]], object], timeout_seconds: float = 10.0
    ) -> list[dict[str, Any]]:
        """Return the journal as soon as `holds(journal)` is true, looking again at every request's arrival and end.

        A test waits with it for the moment in which to cancel or kill. Raises TimeoutError that shows the journal as it stands.
        """
        deadline = time.monotonic() + timeout_seconds
        while True:
            with self._changed:
                seen = self._changes
            journal = self.journal()
            if holds(journal):
                return journal
            with self._changed:
                while self._changes == seen and (left := deadline - time.monotonic()) > 0:
                    self._changed.wait(left)
                if self._changes == seen:
                    brief = [{name: entry[name] for name in ("n", "path", "status", "outcome")} for entry in journal]
                    raise TimeoutError(
                        f"not seen in the simulator's journal within {timeout_seconds} s; it holds {brief}"
                    )

    def stats(self) -> dict[str, Any]:
        """Return the server's own counts."""
        return self._ask(self._server.stats)

    def faults(self, *rules: Any) -> list[dict[str, Any]]:
        """Append rules (JSON objects as `docs/simulator.md` has them) and return all rules with their counts. Raises FaultError."""

        def add() -> list[dict[str, Any]]:
            self._server.add_faults(list(rules))
            return self._server.faults()

        return self._ask(add)

    def clear_faults(self) -> None:
        """Forget all rules, and release what waits at a barrier."""
        self._ask(self._server.clear_faults)

    def batches(self, *orders: Any) -> list[dict[str, Any]]:
        """Do what is ordered (JSON objects as `docs/simulator.md` has them), and return every batch. Raises OrderError."""
        return self._ask(lambda: self._server.batches(list(orders)))

    def _notify(self) -> None:
        with self._changed:
            self._changes += 1
            self._changed.notify_all()

    def _run(self) -> None:
        assert self._loop is not None
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.close()

    def _end(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.call_soon_threadsafe(loop.stop)
        self._thread.join(_STOP_SECONDS)

    def _ask(self, function: Callable[[], T]) -> T:
        """Run a function where the server's state lives."""
        if self._loop is None or not self._thread.is_alive():
            return function()
        answer: Future[T] = Future()

        def run() -> None:
            try:
                answer.set_result(function())
            except Exception as error:  # noqa: BLE001 - it is raised in the thread that asked
                answer.set_exception(error)

        self._loop.call_soon_threadsafe(run)
        return answer.result(_STOP_SECONDS)
