"""The actor: Pykka's, made supervisable.

Pykka's own loop tells nobody how an actor ended: `on_failure` is skipped for errors in `on_start` and `on_stop` and for every
BaseException, an exception in an ask does not end the actor at all, and a BaseException stops every actor in the process, the
host's included. So the loop here is our own (Pykka documents the hooks for that), and it has one property above all others: **every life
ends in exactly one `Down`, on every path**. What is used of Pykka's private parts is listed, and tested, in
tests/actors/kernel/test_pykka_contract.py.

The same three steps (`begin`, `step`, `end`) are driven by a thread here, by one that several actors share, and by the seeded scheduler in a
simulation.
"""

from __future__ import annotations

import logging
import queue
import sys
from collections import deque
from contextlib import suppress
from types import TracebackType
from typing import Any, ClassVar, NoReturn, TypeAlias

import pykka
from pykka._envelope import Envelope
from pykka.messages import _ActorStop

from .ask import ReplyTo
from .directory import Life
from .errors import ActorUnavailableError, InboxClosedError, KernelError, MailboxFullError, UnhandledMessageError
from .inbox import DEFAULT_MAX_MAIL, FULL, STOPPED, SYSTEM_MESSAGES, ClosingInbox
from .messages import Crashed, ExitReason, Normal, Shutdown, StartFailed, Stop, explain
from .system import ActorSystem, Deferred
from .timers import TimerToken, WatchToken

logger = logging.getLogger(__name__)

ExcInfo: TypeAlias = tuple[type[BaseException] | None, BaseException | None, TracebackType | None]


class Actor(pykka.ThreadingActor):
    """Base of all actors: a daemon thread, of its own or shared, a closing inbox with a system lane, and exactly one exit notice.

    Subclasses implement `receive` and, where needed, the hooks `on_start`, `on_stop`, `on_failure`, `after_batch`,
    `stop_requested`. All of them run on the actor's thread, one at a time. An exception of any kind that leaves `on_start`, `receive` or `after_batch`
    ends the life as a crash. The constructor runs on its supervisor's thread: it only assigns.
    """

    use_daemon_thread: ClassVar[bool] = True

    shares_thread: ClassVar[bool] = False
    """True when no message makes the actor wait, for anything: it then shares a thread with others of that kind."""

    waits_at_ends: ClassVar[bool] = False
    """True when `on_start`, `on_stop` or `on_failure` may wait although messages do not: they then have a thread to themselves."""

    announces_ready: ClassVar[bool] = False
    """True when the actor calls `ready()` itself; otherwise it is ready when `on_start` returns."""

    drains_before_stop: ClassVar[bool] = False
    """True when user mail that waits at the stop is to be handled before `on_stop`, rather than refused."""

    max_batch: ClassVar[int] = 256
    """Messages after which `after_batch` is called although more wait."""

    max_mail: ClassVar[int] = DEFAULT_MAX_MAIL
    """Messages the mailbox holds before it refuses more, loudly."""

    system: ActorSystem
    name: str
    generation: int

    def __init__(self, system: ActorSystem) -> None:
        super().__init__()
        self.system = system
        self.name = self.actor_urn  # until the system gives it its name
        self.generation = 0
        self.inbox: ClosingInbox = self.actor_inbox  # type: ignore[assignment]  # made below
        self.inbox.max_mail = self.max_mail
        self.inbox.refuse = self._refuse
        self.busy: tuple[str, float] | None = None
        self._life: Life | None = None
        self._simulated = system.scheduler.simulated
        self._monotonic = system.clock.monotonic
        # Those that do nothing after a batch need no end of one, unless a simulation has a fault there.
        self._ends_batches = self._simulated or type(self).after_batch is not Actor.after_batch
        self._batched = 0
        self._exit: ExitReason | None = None
        self._clean = True
        self._failure: ExcInfo | None = None  # what `on_failure` is yet to be told
        self._stoppers: list[Envelope[Any]] = []
        self._watches: dict[str, WatchToken] = {}
        self._leftovers: deque[Envelope[Any]] = deque()

    # -- for subclasses -----------------------------------------------------------------------------------------------

    def receive(self, message: object) -> None:
        """Handle one message. A `match` that ends in `case _: self.unhandled(message)`."""
        self.unhandled(message)

    def after_batch(self) -> None:
        """Run when no more user messages wait, or after `max_batch` of them: where a writer commits. By default nothing."""

    def stop_requested(self, reason: Normal | Shutdown) -> bool:  # noqa: ARG002 - the signature of a hook
        """Decide about an order to stop: True (the default) ends the life now; False means that `exit` will be called later."""
        return True

    def unhandled(self, message: object) -> NoReturn:
        """Raise UnhandledMessageError: an unknown message is a bug, never a thing to ignore."""
        raise UnhandledMessageError(
            f"{type(self).__name__} {self.name!r} has no case for {type(message).__name__}; send it elsewhere or add the case"
        )

    def tell(self, name: str, message: object) -> bool:
        """Send a message to whoever holds the name now. See `ActorSystem.tell`."""
        return self.system.tell(name, message)

    def after(self, delay: float, message: object) -> TimerToken:
        """Send a message to itself in `delay` seconds; never to a later life of the same name."""
        return self.system.after_life(delay, self.life, message)

    def cancel(self, token: TimerToken) -> None:
        """Cancel a timer: once this returns, its message will not be received."""
        self.system.cancel(token)

    def now_ms(self) -> int:
        """Return the wall clock, in milliseconds since the epoch."""
        return self.system.clock.now_ms()

    def monotonic(self) -> float:
        """Return monotonic seconds."""
        return self.system.clock.monotonic()

    def ready(self) -> None:
        """Tell the supervisor that this life is ready for work. Called after `on_start` unless `announces_ready`; once counts."""
        self.system.announce(self.life)

    def exit(self, reason: ExitReason | None = None) -> None:
        """End this life after the current message, for the given reason (by default `Normal`). Only from the actor's own thread."""
        if self._exit is None:
            self._exit = reason or Normal()

    def stop(self) -> None:
        """Ask this actor to end normally, ahead of waiting mail. Any thread may call it."""
        self.system.tell_life(self.life, Stop(Normal()))

    def watch(self, name: str) -> None:
        """Receive one `Down` when the life that holds the name now ends; at once if there is none."""
        if name in self._watches:
            return
        token = self._watches[name] = WatchToken(name)
        down = self.system.directory.watch(name, self.life, token)
        if down is not None:
            self.system.tell_life(self.life, Deferred(token, down))

    def unwatch(self, name: str) -> None:
        """End a watch: once this returns, its `Down` will not be received, even if it already waits in the mailbox."""
        token = self._watches.pop(name, None)
        if token is not None:
            token.cancelled = True
            self.system.directory.unwatch(name, self.life)

    @property
    def life(self) -> Life:
        """Return this life. Raises KernelError before the system has started the actor."""
        if self._life is None:
            raise KernelError(
                f"{type(self).__name__} was not started through ActorSystem.start_actor, so it has no name yet"
            )
        return self._life

    # -- the loop -----------------------------------------------------------------------------------------------------

    @classmethod
    def start(cls, *_args: Any, **_kwargs: Any) -> NoReturn:
        """Refuse Pykka's way of starting an actor: it has no name, no supervisor and no exit notice."""
        raise KernelError(f"start {cls.__name__} with ActorSystem.start_actor, or as the child of a supervisor")

    @staticmethod
    def _create_actor_inbox() -> ClosingInbox:
        return ClosingInbox()

    def _bind(self, life: Life) -> None:
        self._life, self.name, self.generation = life, life.name, life.generation

    def _actor_loop(self) -> None:
        """Live: the body of the actor's thread."""
        try:
            self.begin()
            while self._exit is None:
                self.step()
        finally:
            self.end()

    def begin(self) -> None:
        """Run `on_start` and announce readiness. First of the three steps of a life; for schedulers."""
        self.busy = ("on_start", self.monotonic())
        try:
            self._reach("start", None)
            self.on_start()
            if not self.announces_ready:
                self.ready()
        except BaseException as error:  # noqa: BLE001 - an actor's end is never the process's end
            self._fail(StartFailed.of(error))
        finally:
            self.busy = None

    def step(self) -> None:
        """Wait for one message and handle it. For schedulers."""
        try:
            envelope = self.inbox.get()
        except InboxClosedError:
            self.exit(Shutdown())  # abandoned: `Down` was sent by whoever gave this life up
            return
        self._handle(envelope)

    def step_if_mail(self) -> bool:
        """Handle one message if there is one, and return whether there was. For schedulers."""
        envelope = self.inbox.take()
        if envelope is not None:
            self._handle(envelope)
            return True
        if self.inbox.closed:
            self.exit(Shutdown())  # abandoned, as above
        return False

    def _handle(self, envelope: Envelope[Any]) -> None:
        message = envelope.message
        recalled = False
        try:
            if type(message) in SYSTEM_MESSAGES:
                self._on_stop_order(envelope)
                return
            if type(message) is Deferred:
                recalled = message.token.cancelled
                if type(message.token) is WatchToken and not recalled:
                    self._watches.pop(message.token.name, None)
                message = message.message
            if not recalled:
                self.busy = (type(message).__name__, self._monotonic())
                if self._simulated:
                    self._reach("receive", message)
                self.receive(message)
                if self._simulated:
                    self._reach("received", message)
                if envelope.reply_to is not None:
                    self._answer(envelope, None)
                self._batched += 1
            if (
                self._ends_batches
                and self._batched
                and (self._batched >= self.max_batch or not (self.inbox.waiting or self._leftovers))
            ):
                self._flush()
        except BaseException as error:  # noqa: BLE001 - an actor's end is never the process's end
            self._fail(Crashed.of(error))
            self._answer(envelope, error)
        finally:
            self.busy = None

    def _flush(self) -> None:
        self._batched = 0
        self.busy = ("after_batch", self._monotonic())
        if self._simulated:
            self._reach("batch", None)
        self.after_batch()

    def _reach(self, point: str, message: object) -> None:
        """Pass a fault point; only a simulation has any."""
        if self._simulated:
            self.system.scheduler.reach(self.life, point, message)

    def _on_stop_order(self, envelope: Envelope[Any]) -> None:
        if envelope.reply_to is not None:
            self._stoppers.append(envelope)
        reason = envelope.message.reason if isinstance(envelope.message, Stop) else Shutdown()
        self.busy = ("Stop", self.monotonic())
        if self.stop_requested(reason):
            self.exit(reason)

    @property
    def exit_reason(self) -> ExitReason | None:
        """Why this life is ending, or None while it is not: then `end` is the next step. For schedulers."""
        return self._exit

    def end(self) -> None:
        """Run the last hook, refuse what is left, and send `Down`. Last of the three steps of a life; for schedulers."""
        life = self.life
        self._tell_failure()
        self._leftovers.extend(self.inbox.close())
        try:
            if self._clean:
                self._end_cleanly()
            self._tell_failure()  # if it crashed just now, over the mail that was left
        finally:
            self.refuse_leftovers()
            self.busy = None
            self.system.end_life(life, self._exit or Shutdown())
            self.system.finish_life(life)
            for envelope in self._stoppers:
                self._answer(envelope, None)

    def _end_cleanly(self) -> None:
        if not self.drains_before_stop or self.life.over:
            self.refuse_leftovers()  # before `on_stop`, which may take its time
        while self._clean and (envelope := self._next_leftover()) is not None:
            self._handle(envelope)
        if not self._clean:
            return
        try:
            if self._batched:
                self._flush()
            self.busy = ("on_stop", self.monotonic())
            self._reach("stop", None)
            self.on_stop()
        except BaseException as error:  # noqa: BLE001 - an actor's end is never the process's end
            self._exit = Crashed.of(error)
            self._clean = False
            self._log_crash(self._exit)

    def _fail(self, reason: Crashed | StartFailed) -> None:
        """Note a crash; `end` lets the actor release what it holds."""
        self._exit, self._clean, self._failure = reason, False, sys.exc_info()
        self._log_crash(reason)

    def _tell_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is None:
            return
        self.busy = ("on_failure", self.monotonic())
        try:
            self.on_failure(*failure)
        except BaseException:
            logger.exception("%s %r: on_failure raised as well", type(self).__name__, self.name)

    def _log_crash(self, reason: Crashed | StartFailed) -> None:
        if self.life.owner is None:  # a supervisor logs for its children: it knows how often this has happened
            logger.error("%s %r %s", type(self).__name__, self.name, explain(reason), exc_info=reason.exception)

    # -- mail that is not read ----------------------------------------------------------------------------------------

    def refuse_leftovers(self) -> None:
        """Close the inbox and refuse what nobody will read: asks get an error, stops are done, the rest are dead letters.

        Any thread may call it: whoever gives up an actor that hangs while it drains its mailbox refuses the rest for it.
        """
        self._leftovers.extend(self.inbox.close())
        while (envelope := self._next_leftover()) is not None:
            self._refuse(envelope, STOPPED)

    def _next_leftover(self) -> Envelope[Any] | None:
        try:
            return self._leftovers.popleft()
        except IndexError:
            return None

    def _refuse(self, envelope: Envelope[Any], why: str) -> None:
        message = envelope.message
        if type(message) is Deferred:
            return  # a timer or a watch of a life that is over: nobody misses it
        if isinstance(message, Stop | _ActorStop):
            self._answer(envelope, None)
            return
        if why == FULL:
            error: Exception = MailboxFullError(
                f"{self.name!r} refused {type(message).__name__}: {self.max_mail} messages wait"
            )
        elif envelope.reply_to is not None:
            error = pykka.ActorDeadError(f"{self.name!r} stopped before handling {type(message).__name__}")
        else:
            error = ActorUnavailableError(f"{self.name!r} ended before it handled {type(message).__name__}")
        self._answer(envelope, error)
        self.system.dead_letters.record(self.name, message, why)

    @staticmethod
    def _answer(envelope: Envelope[Any], error: BaseException | None) -> None:
        """Answer an ask of Pykka's, and with an error also a `reply_to` promise; what was answered before stays so."""
        if envelope.reply_to is not None:
            # Full is Pykka's word for a future that has its value already, as when `after_batch` crashes after the reply.
            with suppress(queue.Full):
                if error is None:
                    envelope.reply_to.set(None)
                else:
                    envelope.reply_to.set_exception((type(error), error, error.__traceback__))
        promise = getattr(envelope.message, "reply_to", None)
        if error is not None and isinstance(promise, ReplyTo):
            promise.fail(error)
