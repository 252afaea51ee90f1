"""The limiter's protocol, message by message, in virtual time."""

import pytest

from callboard.actors.kernel.actor import Actor
from callboard.actors.kernel.simulation import START_MS, SimulationScheduler
from callboard.actors.kernel.system import ActorSystem
from callboard.actors.messages import (
    DISPATCHER,
    STORE,
    CallDeferred,
    CallGranted,
    CallRef,
    Charge,
    DescribeLimits,
    KeyFreed,
    KeyHeld,
    KeyRefused,
    LimitsDescribed,
    LimitsObserved,
    LoadUsage,
    ReportIn,
    ReserveCall,
    SaveHold,
    SettleCall,
    UsageLoaded,
    WithdrawCall,
    limiter_name,
)
from callboard.actors.providers.model import LimitSnapshot
from callboard.actors.rate_limiter.actor import RateLimiterActor
from callboard.actors.settings import LimitSettings

KEY = "acme/small"
LIMITER = limiter_name(KEY)


class Probe(Actor):
    """Keeps what it is told."""

    def __init__(self, system, mail):
        super().__init__(system)
        self.mail = mail

    def receive(self, message):
        self.mail.append(message)


class Bench:
    """A limiter between a store, a dispatcher and callers that only listen."""

    def __init__(self, *, answers=True, **limits):
        self.simulation = SimulationScheduler(1)
        self.system = ActorSystem(scheduler=self.simulation)
        self.limits = LimitSettings(**limits)
        self.mail = {}
        self.refs = {}
        for name in (STORE, DISPATCHER, "a", "b", "c"):
            self.probe(name)
        self.start()
        self.simulation.run_until_idle()
        if answers:
            self.answer()

    def probe(self, name):
        mail = self.mail.setdefault(name, [])
        self.system.start_actor(name, lambda: Probe(self.system, mail))

    def start(self):
        self.system.start_actor(LIMITER, lambda: RateLimiterActor(self.system, KEY, self.limits))

    def answer(self, entries=(), hold_until_ms=None, hold_reason=None):
        self.tell(
            UsageLoaded(limit_key=KEY, entries=tuple(entries), hold_until_ms=hold_until_ms, hold_reason=hold_reason)
        )

    def tell(self, message):
        self.system.tell(LIMITER, message)
        self.simulation.run_until_idle()

    def reserve(self, job, owner="a", tokens=10, priority=0):
        call = CallRef(job, 1, 1)
        self.tell(ReserveCall(reply_to=owner, call=call, charge=Charge(tokens), priority=priority))
        return call

    def take(self, name):
        taken, self.mail[name][:] = list(self.mail[name]), []
        return taken

    def end(self, name):
        self.system.stop_actor(name)
        self.simulation.run_until_idle()

    def advance(self, seconds):
        self.simulation.advance(seconds)

    @property
    def now_ms(self):
        return self.system.clock.now_ms()


@pytest.fixture
def bench():
    benches = []

    def make(**arguments):
        benches.append(Bench(**arguments))
        return benches[-1]

    yield make
    for made in benches:
        assert made.system.close(5)


class TestStart:
    def test_it_is_ready_when_it_knows_what_went_out_lately(self, bench):
        b = bench(requests_per_minute=2, answers=False)
        assert b.take(STORE) == [LoadUsage(LIMITER, KEY, START_MS - 61_000)]
        b.reserve(1)
        assert not b.system.wait_ready(LIMITER, 0.5)
        assert b.take("a") == []
        b.answer([(START_MS - 10_000, 7)])
        assert b.system.wait_ready(LIMITER, 0.0)
        assert b.take("a") == [CallGranted(CallRef(1, 1, 1))]
        b.reserve(2, "b")
        (deferred,) = b.take("b")
        assert deferred.until_ms == START_MS - 10_000 + 61_000

    def test_it_asks_again_until_it_is_answered_and_hears_only_one_answer(self, bench):
        b = bench(requests_per_minute=2, answers=False)
        b.advance(3.5)
        assert len(b.take(STORE)) == 4
        b.answer([(START_MS, 7)])
        b.answer([(START_MS, 7)])
        b.advance(5.0)
        assert b.take(STORE) == []
        b.tell(DescribeLimits("a"))
        (described,) = b.take("a")
        assert isinstance(described, LimitsDescribed)
        assert described.description["requests"]["used"] == 1
        assert described.description["headroom"] == 1

    def test_a_later_life_lets_the_last_grants_reach_the_ledger_first(self, bench):
        b = bench(requests_per_minute=2)
        b.take(STORE)
        b.end(LIMITER)
        b.start()
        b.advance(0.99)
        assert b.take(STORE) == []
        b.advance(0.02)
        assert isinstance(b.take(STORE)[0], LoadUsage)

    def test_a_hold_survives(self, bench):
        b = bench(answers=False)
        b.answer(hold_until_ms=START_MS + 60_000, hold_reason="429 until noon")
        b.reserve(1)
        assert b.take("a") == [
            CallDeferred(
                call=CallRef(1, 1, 1), until_ms=START_MS + 60_000, limit_key=KEY, reason=f"{KEY}: 429 until noon"
            )
        ]
        b.advance(60.0)
        b.reserve(1)
        assert b.take("a") == [CallGranted(CallRef(1, 1, 1))]


class TestAnswers:
    def test_now_or_not_before(self, bench):
        b = bench(requests_per_minute=1)
        b.reserve(1, "a")
        b.reserve(2, "b")
        assert b.take("a") == [CallGranted(CallRef(1, 1, 1))]
        (deferred,) = b.take("b")
        assert deferred.until_ms == START_MS + 61_000
        assert deferred.reason == f"{KEY}: 1 of 1 requests per minute are used"

    def test_a_short_wait_is_waited_for(self, bench):
        b = bench(requests_per_minute=1)
        b.reserve(1, "a")
        b.advance(58.5)
        b.reserve(2, "b")
        b.advance(2.49)
        assert b.take("b") == []
        b.advance(0.01)
        assert b.take("b") == [CallGranted(CallRef(2, 1, 1))]

    def test_one_who_has_waited_long_enough_goes_elsewhere(self, bench):
        b = bench(concurrency=1)
        b.reserve(1, "a")
        b.reserve(2, "b")
        b.advance(2.9)
        assert b.take("b") == []
        b.advance(0.2)
        assert isinstance(b.take("b")[0], CallDeferred)
        b.tell(SettleCall(call=CallRef(1, 1, 1), tokens=5))
        assert b.take("b") == [], "it is not in line any more"

    def test_priority_decides_among_those_who_wait(self, bench):
        b = bench(concurrency=1)
        b.reserve(1, "a")
        b.reserve(2, "b", priority=0)
        b.reserve(3, "c", priority=100)
        b.tell(SettleCall(call=CallRef(1, 1, 1), tokens=5))
        assert b.take("c") == [CallGranted(CallRef(3, 1, 1))]
        assert b.take("b") == []

    def test_saying_anything_twice_is_harmless(self, bench):
        b = bench(concurrency=1, requests_per_minute=5)
        call = b.reserve(1, "a")
        b.reserve(1, "a")
        assert b.take("a") == [CallGranted(call)] * 2
        for _ in range(2):
            b.tell(SettleCall(call=call, tokens=5))
            b.tell(WithdrawCall(call))
        b.tell(DescribeLimits("a"))
        description = b.take("a")[0].description
        assert (description["requests"]["used"], description["concurrency"]["used"]) == (1, 0)

    def test_a_withdrawn_call_cost_nothing(self, bench):
        b = bench(requests_per_minute=1)
        b.tell(WithdrawCall(b.reserve(1, "a")))
        b.reserve(2, "b")
        assert b.take("b") == [CallGranted(CallRef(2, 1, 1))]

    def test_the_dead_leave_the_line_and_their_slots(self, bench):
        b = bench(concurrency=1)
        for job, owner in enumerate("abc"):
            b.reserve(job, owner)
        b.end("b")
        b.end("a")
        assert b.take("c") == [CallGranted(CallRef(2, 1, 1))]

    def test_a_caller_that_is_dead_already_holds_nothing(self, bench):
        b = bench(concurrency=1)
        b.reserve(1, "nobody")
        b.reserve(2, "a")
        assert b.take("a") == [CallGranted(CallRef(2, 1, 1))]

    def test_an_unknown_message_is_a_bug(self, bench, caplog):
        b = bench()
        b.tell("what?")
        assert b.system.actor(LIMITER) is None
        assert "UnhandledMessageError" in caplog.text


class TestWhatTheProviderSays:
    def test_a_refusal_holds_the_key_and_is_kept_if_long(self, bench):
        b = bench()
        call = b.reserve(1, "a")
        for book in (STORE, DISPATCHER):
            b.take(book)
        b.tell(KeyRefused(call=call, kind="rate", scope="model", retry_after=20.0, reason="429"))
        b.advance(0.1)
        assert b.take(STORE) == [SaveHold(limit_key=KEY, until_ms=START_MS + 20_000, reason="429")]
        assert b.take(DISPATCHER) == [KeyHeld(KEY, START_MS + 20_000, f"{KEY}: 429")]
        b.reserve(2, "b")
        assert b.take("b")[0].until_ms == START_MS + 20_000
        b.advance(20.0)
        assert b.take(DISPATCHER) == [KeyFreed(KEY, None)]
        again = b.reserve(2, "b")
        b.tell(SettleCall(call=again, tokens=3))
        assert b.take(STORE) == [SaveHold(limit_key=KEY, until_ms=None, reason="a call succeeded")]

    def test_a_short_hold_is_not_worth_a_write(self, bench):
        b = bench()
        call = b.reserve(1, "a")
        b.take(STORE)
        b.tell(KeyRefused(call=call, kind="rate", scope="model", retry_after=2.0, reason="429"))
        assert b.take(STORE) == []

    def test_headers_are_heeded(self, bench):
        b = bench(requests_per_minute=50)
        call = b.reserve(1, "a")
        b.advance(0.25)
        b.tell(LimitsObserved(call, LimitSnapshot(at_ms=b.now_ms, requests_limit=10, requests_remaining=0)))
        b.reserve(2, "b")
        assert isinstance(b.take("b")[0], CallDeferred)
        b.tell(LimitsObserved(CallRef(99, 1, 1), None))


class TestReports:
    def test_the_dispatcher_knows_the_headroom_from_the_start(self, bench):
        assert bench(requests_per_minute=7).take(DISPATCHER) == [KeyFreed(KEY, 7)]
        assert bench().take(DISPATCHER) == [KeyFreed(KEY, None)]

    def test_only_changes_and_not_too_often(self, bench):
        b = bench(requests_per_minute=20)
        b.take(DISPATCHER)
        for job in range(10):
            b.reserve(job)
        assert b.take(DISPATCHER) == [], "the first was told this very moment"
        b.advance(0.1)
        assert b.take(DISPATCHER) == [KeyFreed(KEY, 10)]
        b.advance(30.0)
        assert b.take(DISPATCHER) == []

    def test_the_same_headroom_is_told_again_if_some_of_it_was_taken_meanwhile(self, bench):
        b = bench(requests_per_minute=5)
        assert b.take(DISPATCHER) == [KeyFreed(KEY, 5)]
        b.tell(SettleCall(call=b.reserve(1), tokens=None, sent=False))
        b.advance(0.2)
        assert b.take(DISPATCHER) == [KeyFreed(KEY, 5)]

    def test_held_when_nothing_more_would_be_let_in_soon_and_freed_when_it_would(self, bench):
        b = bench(requests_per_minute=2)
        b.reserve(1)
        b.reserve(2, "b")
        b.advance(0.1)
        assert b.take(DISPATCHER) == [
            KeyFreed(KEY, 2),
            KeyHeld(KEY, START_MS + 61_000, f"{KEY}: 2 of 2 requests per minute are used"),
        ]
        b.advance(57.8)
        assert b.take(DISPATCHER) == []
        b.advance(0.2)
        assert b.take(DISPATCHER) == [KeyFreed(KEY, 2)]

    def test_a_new_dispatcher_is_told_anew(self, bench):
        b = bench(requests_per_minute=7)
        b.advance(1.0)
        b.take(DISPATCHER)
        b.tell(ReportIn())
        assert b.take(DISPATCHER) == [KeyFreed(KEY, 7)]


def test_an_idle_limiter_sets_no_timers(bench):
    b = bench(requests_per_minute=7)
    b.reserve(1)
    b.advance(5.0)
    before = b.simulation.steps
    b.advance(3600.0)
    assert b.simulation.steps == before
