"""The actor of one provider: takes orders for calls, hands them to its engine, and never waits.

What the engine has to say, it says from its event loop straight to those concerned: pieces and the end of an answer to the runner, what the reply
revealed of the limits to the limiter. A refusal reaches the limiter before the runner hears of it, so that whatever the runner reserves
next already meets the hold.
"""

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from ..kernel.actor import Actor
from ..kernel.system import ActorSystem
from ..messages import (
    AbortCall,
    CallFailed,
    CallFinished,
    CallHeld,
    EndKept,
    ExchangeFinished,
    KeyRefused,
    LimitsObserved,
    StartCall,
    StartExchange,
    TextArrived,
    limiter_name,
)
from .batch_api import Operation
from .engine import CallEvent, Failed, Finished, Held, Text
from .errors import refused
from .model import AnyRequest, Billed, CallError, ErrorClass, Scope, Timeouts
from .resume import HANDLE_GONE, Handle

if TYPE_CHECKING:
    from .exchange import ExchangeEvent

REFUSALS = frozenset({ErrorClass.RATE, ErrorClass.QUOTA, ErrorClass.AUTH})
"""Failures that say the key must wait, whichever job asks."""


class Engine(Protocol):
    """What makes the calls. `on_event` may be called from any thread, and exactly once with an end for every `submit`."""

    def start(self) -> None:
        """Begin; ready on return."""

    def stop(self) -> object:
        """Abort every call and end."""

    def submit(
        self, call_key: Hashable, request: AnyRequest, timeouts: Timeouts, on_event: Callable[[CallEvent], object]
    ) -> None:
        """Make a call. Returns at once."""

    def abort(self, call_key: Hashable) -> None:
        """Close a call's connection. Returns at once; nothing happens if it is over."""


@runtime_checkable
class BatchEngine(Protocol):
    """An engine whose provider has a batch API."""

    def exchange(self, call_key: Hashable, operation: Operation, on_event: "Callable[[ExchangeEvent], object]") -> None:
        """Perform an operation. Returns at once; `on_event` is called exactly once."""


@runtime_checkable
class ResumingEngine(Protocol):
    """An engine that can take up a call which its provider goes on with."""

    def resume(
        self,
        call_key: Hashable,
        request: AnyRequest,
        timeouts: Timeouts,
        on_event: Callable[[CallEvent], object],
        handle: Handle,
    ) -> None:
        """As `submit`, for a call that was made before."""

    def abort(self, call_key: Hashable, *, keep: bool = False) -> None:
        """Close a call's connection; with `keep` the provider may go on with it."""

    def end_kept(self, handle: Handle) -> None:
        """End a call that goes on. Returns at once."""


class ProviderActor(Actor):
    """One provider. A fresh engine for every life: a crash leaves no connection behind.

    `at_once` False: its engine begins with the first call, since most workers have providers that they never call.
    """

    shares_thread: ClassVar[bool] = True
    waits_at_ends: ClassVar[bool] = True  # for the engine's thread

    def __init__(
        self, system: ActorSystem, *, provider: str, make_engine: Callable[[], Engine], at_once: bool = True
    ) -> None:
        super().__init__(system)
        self._at_once = at_once
        self._provider = provider
        self._make_engine = make_engine
        self._engine: Engine | None = None

    def on_start(self) -> None:
        """Start the engine, if it is sure to be needed."""
        if self._at_once:
            self._begin()

    def _begin(self) -> Engine:
        engine = self._make_engine()
        engine.start()
        self._engine = engine
        return engine

    def on_stop(self) -> None:
        """End every call."""
        if self._engine is not None:
            self._engine.stop()

    def on_failure(self, *_: Any) -> None:
        """End every call."""
        self.on_stop()

    def receive(self, message: object) -> None:
        """Start a call, or abort one."""
        engine = self._engine
        if engine is None:
            if isinstance(message, AbortCall):
                return  # it was made by nobody
            engine = self._begin()
        match message:
            case StartCall(handle=handle) if handle is not None:
                self._resume(message, handle)
            case StartCall(call=call, request=request, timeouts=timeouts):
                engine.submit(call, request, timeouts, self._teller(message))
            case EndKept(told):
                if (unwanted := Handle.from_json(told)) is not None and isinstance(engine, ResumingEngine):
                    engine.end_kept(unwanted)
            case StartExchange():
                self._exchange(message)
            case AbortCall(call, keep) if keep and isinstance(engine, ResumingEngine):
                engine.abort(call, keep=True)
            case AbortCall(call):
                engine.abort(call)
            case _:
                self.unhandled(message)

    def _exchange(self, order: StartExchange) -> None:
        engine: object = self._engine
        if not isinstance(engine, BatchEngine):
            error = refused("operation", f"provider {self._provider!r} has no batch API")
            self.system.tell(order.reply_to, CallFailed(order.call, error))
            return
        system, call, runner, family = self.system, order.call, order.reply_to, limiter_name(self._provider)

        def tell(event: "ExchangeEvent") -> None:  # on the engine's thread, as in _teller
            if not isinstance(event, Failed):
                system.tell(runner, ExchangeFinished(call, event.report))
                return
            error = event.error
            # A key that is refused is refused for calls too. That there are too many batches says nothing of them.
            if error.kind in (ErrorClass.AUTH, ErrorClass.QUOTA) and error.sent:
                refusal = KeyRefused(call, error.kind, error.scope, error.retry_after, f"{error.kind}: {error.message}")
                for name in self._refused(error.scope, family, family):
                    system.tell(name, refusal)
            system.tell(runner, CallFailed(call, error))

        engine.exchange(order.call, order.operation, tell)

    def _resume(self, order: StartCall, told: dict[str, Any]) -> None:
        engine: object = self._engine
        handle = Handle.from_json(told)
        if handle is None or not isinstance(engine, ResumingEngine):
            error = CallError(
                kind=ErrorClass.TRUNCATED,
                message=f"provider {self._provider!r} cannot take up a call",
                code=HANDLE_GONE,
                billed=Billed.MAYBE,
            )
            self.system.tell(order.reply_to, CallFailed(order.call, error))
            return
        engine.resume(order.call, order.request, order.timeouts, self._teller(order), handle)

    def _teller(self, order: StartCall) -> Callable[[CallEvent], None]:
        """What turns the engine's events about a call into messages. Runs on the engine's thread: touches no state of the actor."""
        system, call, runner, limiter = self.system, order.call, order.reply_to, limiter_name(order.limit_key)
        family = limiter_name(self._provider)

        def tell(event: CallEvent) -> None:
            match event:
                case Text(text=text):
                    system.tell(runner, TextArrived(call, text))
                case Held(handle=handle):
                    system.tell(runner, CallHeld(call, handle.to_json()))
                case Finished(completion=completion, limits=limits, rest=rest):
                    system.tell(limiter, LimitsObserved(call, limits))
                    system.tell(runner, CallFinished(call, completion, rest))
                case Failed(error=error, limits=limits):
                    if error.kind in REFUSALS:
                        refusal = KeyRefused(
                            call, error.kind, error.scope, error.retry_after, f"{error.kind}: {error.message}"
                        )
                        for name in self._refused(error.scope, limiter, family):
                            system.tell(name, refusal)
                    elif error.sent:
                        system.tell(limiter, LimitsObserved(call, limits))
                    system.tell(runner, CallFailed(call, error))

        return tell

    def _refused(self, scope: Scope, limiter: str, family: str) -> list[str]:
        """The limiters a refusal concerns: one key, or every key under the provider's account."""
        if scope not in (Scope.CREDENTIAL, Scope.PROVIDER):
            return [limiter]
        names = [life.name for life in self.system.directory.lives()]
        return [name for name in names if name == family or name.startswith(f"{family}/")]
