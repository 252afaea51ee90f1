"""A provider that fails in every way, slowly or at once, as its seed will have it; and its journal, which is what it would bill."""

from __future__ import annotations

from dataclasses import dataclass, field

from callboard.actors.kernel.timers import TimerToken
from callboard.actors.providers.engine import Failed, Finished, Text
from callboard.actors.providers.model import (
    Billed,
    CallError,
    Completion,
    ErrorClass,
    Finish,
    LimitSnapshot,
    Scope,
    Usage,
)

ERRORS = (
    CallError(kind=ErrorClass.RATE, message="slow down", retry_after=1.5, scope=Scope.MODEL),
    CallError(kind=ErrorClass.RATE, message="slow down", scope=Scope.MODEL),
    CallError(kind=ErrorClass.OVERLOADED, message="overloaded", http=529),
    CallError(kind=ErrorClass.SERVER, message="sorry", http=500),
    CallError(kind=ErrorClass.CONNECT, message="no route", sent=False),
    CallError(kind=ErrorClass.TIMEOUT, message="silence", billed=Billed.MAYBE),
    CallError(kind=ErrorClass.TRUNCATED, message="cut", billed=Billed.MAYBE, partial="some"),
    CallError(kind=ErrorClass.INVALID, message="bad request", http=400),
    CallError(kind=ErrorClass.AUTH, message="bad key", retry_after=2.0, scope=Scope.CREDENTIAL),
)


@dataclass
class Delivery:
    """One call as the provider saw it."""

    at: float
    job_id: int
    epoch: int
    step: str
    completed: bool = False


@dataclass
class _Live:
    on_event: object
    timers: list[TimerToken] = field(default_factory=list)


class ScriptedEngine:
    """The engine of one provider's one life. Time passes by the simulation's timers; events come from no actor's turn, as from a thread."""

    def __init__(self, world, provider):
        self.world, self.provider, self.live = world, provider, {}

    def start(self):
        self.world.simulation.fault_point(f"{self.provider} starts")

    def stop(self):
        for key in list(self.live):
            self.abort(key)

    def submit(self, call_key, request, timeouts, on_event):
        world, dice = self.world, self.world.dice
        step = request.messages[-1].content
        delivery = Delivery(world.simulation.clock.monotonic(), call_key.job_id, call_key.epoch, step)
        world.judge_call(delivery)
        world.journal.append(delivery)
        live = self.live[call_key] = _Live(on_event)
        latency = dice.choice([0.0, 0.2, 0.2, 1.0, 3.0])
        if dice.random() < world.provider_errors:
            error = dice.choice(ERRORS)
            self.later(live, latency, lambda: self.finish(call_key, Failed(call_key, error, None)))
            return
        text = f"{call_key.job_id}/{step}/{len(world.journal)}"
        for piece in range(dice.randint(0, 3)):
            self.later(live, latency * piece / 4, lambda: on_event(Text(call_key, text[:4])))
        usage = Usage(input_uncached=10, output_visible=5) if dice.random() < 0.8 else None
        completion = Completion(text=text, finish=Finish.STOP, usage=usage, model=request.model)
        limits = (
            LimitSnapshot(at_ms=world.simulation.clock.now_ms(), requests_remaining=5) if dice.random() < 0.3 else None
        )

        def finish():
            delivery.completed = True
            self.finish(call_key, Finished(call_key, completion, limits))

        self.later(live, latency, finish)

    def abort(self, call_key):
        if call_key in self.live:
            live = self.live.pop(call_key)
            for timer in live.timers:
                self.world.simulation.timers.cancel(timer)
            error = CallError(kind=ErrorClass.CANCELLED, message="aborted", billed=Billed.MAYBE)
            self.later(live, 0.0, lambda: live.on_event(Failed(call_key, error, None)))

    def finish(self, key, event):
        live = self.live.pop(key)
        live.on_event(event)

    def later(self, live, delay, act):
        token = TimerToken(self.world.simulation.clock.monotonic() + delay, lambda _: act())
        live.timers.append(token)
        self.world.simulation.timers.add(token)
