"""The company inside a host's process: threads, no signal handlers, and nothing of the host touched."""

import atexit
import contextlib
import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Self

import msgspec

from callboard.actors.kernel.ask import ask
from callboard.actors.kernel.errors import KernelError
from callboard.actors.kernel.messages import Down, explain
from callboard.actors.kernel.system import ActorSystem
from callboard.actors.messages import DISPATCHER, ROOT, Describe, Drain, Hasten, WakeUp
from callboard.actors.providers.actor import Engine
from callboard.actors.providers.settings import ProviderSettings
from callboard.actors.routing import model_routes
from callboard.actors.runner.handlers import HandlerRegistry, load_handlers
from callboard.actors.settings import CompanySettings
from callboard.actors.snapshot import CompanySnapshot
from callboard.actors.supervisor.tree import CompanyParts, start_company
from callboard.config import AUTO, load_config
from callboard.persistence import routes
from callboard.persistence.board import WorkerBoard
from callboard.persistence.engine import open_database
from callboard.persistence.errors import DatabaseError

if TYPE_CHECKING:
    from callboard.actors.providers.own import OwnProvider
    from callboard.actors.runner.handlers import Handler
    from callboard.actors.runner.retry import RetryFunction

logger = logging.getLogger(__name__)

START_TIMEOUT = 30.0
STOP_GRACE = 10.0
"""Seconds the actors have to end, once nothing is being worked on."""
ROUTES_TIMEOUT = 0.5
"""Seconds a start waits at most for another writer, to write what only helps people."""


class CompanyFailedError(RuntimeError):
    """The company could not be started, or gave up; the message says why. Jobs are safe on the board."""


class Supervisor:
    """A company of actors that performs the jobs of one database, on daemon threads of this process.

    `config`: a `Config`, or None for what `load_config()` finds. `handlers`: job type → function, beside those of the configuration.
    `retry_policies`: job type → function of the number of failed attempts and the last error (`class`, `message`, …), which returns the
    seconds until the next attempt or None to give up; it goes before `[retries]`, must return at once, and its exceptions are logged.
    `on_failure` is called with the reason if the company gives up; until then it heals itself, and afterwards it is `failed`: nothing is
    claimed any more, the host runs on, and the jobs stay on the board. Use it as a context manager, or call `start` and `stop`. It is
    started once. Any thread.

    `providers`: name → a provider of the host's own (`callboard.actors.providers.own.OwnProvider`), reached as `name:anything` or by an alias.

    `own_process` is for the standalone worker: it may keep libraries from importing what it does not need.
    """

    def __init__(
        self,
        config: CompanySettings | None = None,
        *,
        handlers: Mapping[str, "Handler"] | None = None,
        retry_policies: Mapping[str, "RetryFunction"] | None = None,
        providers: Mapping[str, "OwnProvider"] | None = None,
        on_failure: Callable[[str], None] | None = None,
        own_process: bool = False,
    ) -> None:
        self._own_providers = dict(providers or {})
        self.config: CompanySettings = _with_own(load_config() if config is None else config, self._own_providers)
        self.owner = uuid.uuid4().hex
        self._given = dict(handlers or {})
        self._retry_policies = dict(retry_policies or {})
        self._on_failure = on_failure
        self._own_process = own_process
        self._system: ActorSystem | None = None
        self._board: WorkerBoard | None = None
        self._registry: HandlerRegistry | None = None
        self._ended = threading.Event()
        self._failure: str | None = None

    def start(self) -> Self:
        """Open the database, start everybody, and return when the company is ready.

        Raises DatabaseError, HandlerLoadError, ProviderLoadError, and CompanyFailedError if it does not become ready.
        """
        if self._system is not None:
            raise CompanyFailedError("this Supervisor was started before; make a new one")
        for name, settings in self.config.providers.items():
            if settings.wire == "own" and name not in self._own_providers:
                from callboard.actors.providers.own import load_own

                self._own_providers[name] = load_own(settings)
        self._registry = HandlerRegistry({**load_handlers(self.config.handlers), **self._given}, self._retry_policies)
        self._board = WorkerBoard.open(self.config.database, owner=self.owner, synchronous=self.config.synchronous)
        self._tell_routes()
        self._system = ActorSystem(on_root_exit=self._on_root_exit)
        atexit.register(self._at_exit)
        parts = CompanyParts(
            settings=self.config, board=self._board, handlers=self._registry, make_engine=self._make_engine
        )
        start_company(self._system, parts)
        if not self._system.wait_ready(ROOT, START_TIMEOUT):
            reason = self._failure or f"not ready within {START_TIMEOUT:g} s"
            self._close(0.0)
            raise CompanyFailedError(f"the company could not start: {reason}")
        logger.info("ready", extra={"event": "ready", "database": self.config.database, "owner": self.owner})
        return self

    def stop(self, timeout: float | None = None) -> bool:
        """Claim nothing more, let running jobs finish for `timeout` seconds (None: the configured drain_timeout), hand the others back, end.

        Jobs handed back keep their attempt. Returns whether everything ended in good order. May be called twice; `hasten` cuts it short.
        """
        if self._system is None:
            return True
        limit = self.config.drain_timeout if timeout is None else timeout
        if self._failure is None:  # a company that gave up has nobody to drain
            with contextlib.suppress(KernelError):
                ask(self._system, DISPATCHER, lambda reply: Drain(limit, reply), limit + STOP_GRACE)
        return self._close(STOP_GRACE)

    def hasten(self) -> None:
        """While a `stop` waits for running jobs: hand them back now."""
        if self._system is not None:
            self._system.tell(DISPATCHER, Hasten())

    def wake(self) -> None:
        """Hint that jobs were added in this process, so that they are claimed at once instead of at the next poll. Never fails."""
        if self._system is not None:
            self._system.tell(DISPATCHER, WakeUp())

    def status(self, timeout: float = 5.0) -> CompanySnapshot:
        """How the company stands. Raises CompanyFailedError when it has given up or does not answer in time."""
        if self._system is None or self._failure is not None:
            raise CompanyFailedError(self._failure or "the company is not running")
        try:
            snapshot: CompanySnapshot = ask(self._system, DISPATCHER, Describe, timeout)
        except KernelError as error:
            raise CompanyFailedError(f"the dispatcher does not answer: {error}") from error
        return snapshot

    def now_ms(self) -> int:
        """The company's wall clock, in epoch milliseconds."""
        return self._system.clock.now_ms() if self._system is not None else 0

    @property
    def failure(self) -> str | None:
        """Why the company gave up, or None while it is well (or was stopped)."""
        return self._failure

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the company has ended, by `stop` or by giving up. Returns whether it has."""
        return self._ended.wait(timeout)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _tell_routes(self) -> None:
        """Let hosts know where our models lead. A database that refuses it now is no reason not to start: the store waits for it to work."""
        try:
            with (
                contextlib.closing(
                    open_database(
                        self.config.database, synchronous=self.config.synchronous, busy_timeout=ROUTES_TIMEOUT
                    )
                ) as database,
                database.connect() as connection,
                connection.write(),
            ):
                routes.publish(connection, model_routes(self.config), time.time_ns() // 1_000_000)
        except DatabaseError as error:
            logger.debug("%s; hosts are not told which limit keys the models of this worker have", error)

    def _make_engine(self, provider: str) -> Engine:
        settings = self.config.providers[provider]
        if settings.wire == "own":
            from callboard.actors.providers.own import OwnEngine

            return OwnEngine(settings, self._own_providers[provider])
        if settings.base_url == AUTO:
            from callboard.simulated_provider import SimulatedEngine

            return SimulatedEngine(settings, own_process=self._own_process)
        from callboard.actors.providers.engine import CallEngine

        return CallEngine(settings, own_process=self._own_process)

    def _on_root_exit(self, down: Down) -> None:
        """On the root's thread, as its last act."""
        if down.child != ROOT or self._ended.is_set():
            return
        self._failure = explain(down.reason)
        self._ended.set()
        logger.critical("the company gave up: %s", self._failure, extra={"event": "gave_up"})
        if self._on_failure is not None:
            self._on_failure(self._failure)

    def _close(self, timeout: float) -> bool:
        self._ended.set()
        in_order = self._system.close(timeout) if self._system is not None else True
        if self._registry is not None:
            self._registry.loop.close()
        if self._board is not None:
            self._board.close()
        atexit.unregister(self._at_exit)
        return in_order

    def _at_exit(self) -> None:
        """The backstop for a host that forgot to stop: daemon threads would be cut off in the middle of a write."""
        self.stop(timeout=0.0)


def _with_own(config: CompanySettings, own: Mapping[str, "OwnProvider"]) -> CompanySettings:
    """The configuration with an entry for each provider that the host has given. Raises ValueError for one whose entry speaks a wire format."""
    for name in own:
        if name in config.providers and config.providers[name].wire != "own":
            raise ValueError(
                f"providers[{name!r}]: the configuration has a provider of this name that is not the host's own"
            )
    added = {name: ProviderSettings(name=name, wire="own") for name in own if name not in config.providers}
    return msgspec.structs.replace(config, providers={**config.providers, **added}) if added else config
