"""The simulator in a thread of its own, for tests and for hosts that embed it."""

from __future__ import annotations

import asyncio
import threading
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
        self._server = SimulatorServer(config or SimulatorConfig(), clock or Clock())
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="callboard-simulator", daemon=True)

    def start(self) -> Self:
        """Bind, listen and return self. Raises OSError when the port is taken, RuntimeError when it was started before."""
        self._thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self._server.start(), self._loop).result()
        except BaseException:
            self._end()
            raise
        return self

    def stop(self) -> None:
        """Abort every connection, release the port and end the thread. Harmless when it has ended already."""
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._server.stop(), self._loop).result(_STOP_SECONDS)
            self._end()

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

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_STOP_SECONDS)

    def _ask(self, function: Callable[[], T]) -> T:
        """Run a function where the server's state lives."""
        if not self._thread.is_alive():
            return function()
        answer: Future[T] = Future()

        def run() -> None:
            try:
                answer.set_result(function())
            except Exception as error:  # noqa: BLE001 - it is raised in the thread that asked
                answer.set_exception(error)

        self._loop.call_soon_threadsafe(run)
        return answer.result(_STOP_SECONDS)
