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
    LimitsChanged,
    LimitsDescribed,
    LimitsObserved,
    LoadUsage,
    LowerLimits,
    ReportIn,
    ReserveCall,
    SaveDescription,
    SaveHold,
    SettleCall,
    UsageLoaded,
    WithdrawCall,
    limiter_name,
)
from callboard.actors.providers.model import LimitSnapshot
from callboard.actors.rate_limiter.actor import RateLimiterActor
from callboard.actors.settings import LimitSettings
from callboard.persistence.limit_rules import NOTHING
from callboard.persistence.model import LimitHold

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

    def __init__(self, picture, *, answers=True, **limits):
        self.picture = picture
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
        self.system.start_actor(LIMITER, lambda: RateLimiterActor(self.system, KEY, self.limits, account="acme"))

    def answer(self, *slots, not_before_ms=0, **told):
        picture = self.picture(slots, **told)
        self.tell(UsageLoaded(limit_key=KEY, picture=picture, not_before_ms=not_before_ms))

    def tell(self, message):
        self.system.tell(LIMITER, message)
        self.simulation.run_until_idle()

    def reserve(self, job, owner="a", tokens=10, priority=0):
        call = CallRef(job, 1, 1)
        self.tell(ReserveCall(reply_to=owner, call=call, charge=Charge(1, tokens, 0, tokens), priority=priority))
        return call

    def granted(self, name):
        """The calls granted to a caller, which was told nothing else."""
        taken = self.take(name)
        assert {type(message) for message in taken} <= {CallGranted}
        return [message.call for message in taken]

    def asked(self):
        """What the store was told, but for how the limiter describes itself."""
        return [message for message in self.take(STORE) if not isinstance(message, SaveDescription)]

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
def bench(picture):
    benches = []

    def make(**arguments):
        benches.append(Bench(picture, **arguments))
        return benches[-1]

    yield make
    for made in benches:
        assert made.system.close(5)


class TestStart:
    def test_it_is_ready_when_it_knows_what_went_out_lately(self, bench):
        b = bench(requests_per_minute=2, answers=False)
        assert b.asked() == [LoadUsage(LIMITER, KEY, "acme")]
        b.reserve(1)
        assert not b.system.wait_ready(LIMITER, 0.5)
        assert b.take("a") == []
        b.answer((START_MS + 51_000, Charge(1, 7, 0, 7)))
        assert b.system.wait_ready(LIMITER, 0.0)
        assert b.granted("a") == [CallRef(1, 1, 1)]
        b.reserve(2, "b")
        (deferred,) = b.take("b")
        assert deferred.until_ms == START_MS + 51_000

    def test_it_asks_again_until_it_is_answered_and_hears_only_one_answer(self, bench):
        b = bench(requests_per_minute=2, answers=False)
        b.advance(3.5)
        assert len(b.asked()) == 4
        b.answer((START_MS + 61_000, Charge(1, 7, 0, 7)))
        b.answer((START_MS + 61_000, Charge(1, 7, 0, 7)))
        b.advance(5.0)
        assert b.asked() == []
        b.tell(DescribeLimits("a"))
        (described,) = b.take("a")
        assert isinstance(described, LimitsDescribed)
        assert described.description["minute"]["requests"]["used"] == 1
        assert described.description["headroom"] == 1

    def test_a_later_life_lets_the_last_grants_reach_the_ledger_first(self, bench):
        b = bench(requests_per_minute=2)
        b.take(STORE)
        b.end(LIMITER)
        b.start()
        b.advance(0.99)
        assert b.asked() == []
        b.advance(0.02)
        assert isinstance(b.asked()[0], LoadUsage)

    def test_a_hold_survives(self, bench):
        b = bench(answers=False)
        b.answer(holds=[LimitHold(KEY, START_MS + 60_000, "429 until noon")])
        b.reserve(1)
        assert b.take("a") == [
            CallDeferred(
                call=CallRef(1, 1, 1), until_ms=START_MS + 60_000, limit_key=KEY, reason=f"{KEY}: 429 until noon"
            )
        ]
        b.advance(60.0)
        b.reserve(1)
        assert b.granted("a") == [CallRef(1, 1, 1)]


class TestAnswers:
    def test_now_or_not_before(self, bench):
        b = bench(requests_per_minute=1)
        b.reserve(1, "a")
        b.reserve(2, "b")
        assert b.granted("a") == [CallRef(1, 1, 1)]
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
        assert b.granted("b") == [CallRef(2, 1, 1)]

    def test_one_who_has_waited_long_enough_goes_elsewhere(self, bench):
        b = bench(concurrency=1)
        b.reserve(1, "a")
        b.reserve(2, "b")
        b.advance(2.9)
        assert b.take("b") == []
        b.advance(0.2)
        assert isinstance(b.take("b")[0], CallDeferred)
        b.tell(SettleCall(call=CallRef(1, 1, 1), used=Charge(1, 5, 0, 5), succeeded=True))
        assert b.take("b") == [], "it is not in line any more"

    def test_priority_decides_among_those_who_wait(self, bench):
        b = bench(concurrency=1)
        b.reserve(1, "a")
        b.reserve(2, "b", priority=0)
        b.reserve(3, "c", priority=100)
        b.tell(SettleCall(call=CallRef(1, 1, 1), used=Charge(1, 5, 0, 5), succeeded=True))
        assert b.granted("c") == [CallRef(3, 1, 1)]
        assert b.take("b") == []

    def test_saying_anything_twice_is_harmless(self, bench):
        b = bench(concurrency=1, requests_per_minute=5)
        call = b.reserve(1, "a")
        b.reserve(1, "a")
        assert b.granted("a") == [call] * 2
        for _ in range(2):
            b.tell(SettleCall(call=call, used=Charge(1, 5, 0, 5), succeeded=True))
            b.tell(WithdrawCall(call))
        b.tell(DescribeLimits("a"))
        description = b.take("a")[0].description
        assert (description["minute"]["requests"]["used"], description["concurrency"]["used"]) == (1, 0)

    def test_a_withdrawn_call_cost_nothing(self, bench):
        b = bench(requests_per_minute=1)
        b.tell(WithdrawCall(b.reserve(1, "a")))
        b.reserve(2, "b")
        assert b.granted("b") == [CallRef(2, 1, 1)]

    def test_the_dead_leave_the_line_and_their_slots(self, bench):
        b = bench(concurrency=1)
        for job, owner in enumerate("abc"):
            b.reserve(job, owner)
        b.end("b")
        b.end("a")
        assert b.granted("c") == [CallRef(2, 1, 1)]

    def test_a_caller_that_is_dead_already_holds_nothing(self, bench):
        b = bench(concurrency=1)
        b.reserve(1, "nobody")
        b.reserve(2, "a")
        assert b.granted("a") == [CallRef(2, 1, 1)]

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
        b.advance(0.101)
        assert b.asked() == [
            LowerLimits(LIMITER, KEY),
            SaveHold(key=KEY, until_ms=START_MS + 20_000, reason="429", kind="rate"),
        ]
        assert b.take(DISPATCHER) == [KeyHeld(KEY, START_MS + 20_000, f"{KEY}: 429")]
        b.reserve(2, "b")
        assert b.take("b")[0].until_ms == START_MS + 20_000
        b.advance(20.0)
        assert b.take(DISPATCHER) == [KeyFreed(KEY, None)]
        again = b.reserve(2, "b")
        b.tell(SettleCall(call=again, used=Charge(1, 3, 0, 3), succeeded=True))
        assert b.asked() == [SaveHold(key=KEY, until_ms=None, reason="a call succeeded")]

    def test_a_refusal_of_the_account_holds_all_its_keys_and_is_said_loudly_once(self, bench, caplog):
        b = bench()
        call = b.reserve(1, "a")
        b.take(STORE)
        for _ in range(2):
            b.tell(KeyRefused(call=call, kind="auth", scope="credential", retry_after=None, reason="invalid x-api-key"))
        saved = {(message.key, message.kind) for message in b.asked() if isinstance(message, SaveHold)}
        assert saved == {("acme", "auth")}
        (line,) = [record for record in caplog.records if record.levelname == "ERROR"]
        assert "invalid x-api-key" in line.getMessage()
        assert "callboard limits --resume acme" in line.getMessage()

    def test_headers_are_heeded(self, bench):
        b = bench(requests_per_minute=50)
        call = b.reserve(1, "a")
        b.advance(0.25)
        b.tell(LimitsObserved(call, LimitSnapshot(at_ms=b.now_ms, requests_limit=10, requests_remaining=0)))
        b.reserve(2, "b")
        assert isinstance(b.take("b")[0], CallDeferred)
        b.tell(LimitsObserved(CallRef(99, 1, 1), None))


class TestOthers:
    """What other workers of the database did."""

    def test_after_a_refused_intent_it_knows_and_does_not_spin(self, bench):
        b = bench(requests_per_minute=2)
        call = b.reserve(1, "a")
        b.answer(others=[(START_MS + 30_000, Charge(2))], not_before_ms=START_MS + 50)
        b.tell(WithdrawCall(call))
        b.take("a")
        b.reserve(1, "a")
        (deferred,) = b.take("a")
        assert deferred.until_ms == START_MS + 30_000
        b.answer(not_before_ms=START_MS + 50)
        b.reserve(2, "b")
        assert b.take("b") == []
        b.advance(0.06)
        assert b.granted("b") == [CallRef(2, 1, 1)]

    def test_while_somebody_waits_for_them_it_looks_what_they_do(self, bench):
        b = bench(concurrency=1)
        b.answer(others_open=1)
        b.reserve(1, "a")
        b.asked()
        b.advance(0.9)
        assert [type(message) for message in b.asked()] == [LoadUsage] * 3
        b.answer(others_open=0)
        assert b.granted("a") == [CallRef(1, 1, 1)]
        b.advance(3.0)
        assert b.asked() == []

    def test_calls_of_an_earlier_life_take_their_slots(self, bench):
        b = bench(answers=False, concurrency=2)
        b.answer(own_open=1)
        b.reserve(1, "a")
        b.reserve(2, "b")
        assert b.granted("a") == [CallRef(1, 1, 1)]
        assert b.take("b") == []

    def test_a_hold_of_another_worker_is_heeded_and_ends_when_it_is_lifted(self, bench):
        b = bench()
        until_ms = START_MS + 600_000
        hold = LimitHold("acme", until_ms, "402 no money", "quota")
        changed = {"limit_key": KEY, "factor": 1.0, "factor_at_ms": 0}
        b.tell(LimitsChanged(holds=(hold,), lifted=(), **changed))
        b.reserve(1, "a")
        assert b.take("a")[0].until_ms == until_ms
        b.tell(LimitsChanged(holds=(), lifted=(until_ms - 1,), **changed))
        b.reserve(2, "a")
        assert isinstance(b.take("a")[0], CallDeferred), "that was an earlier hold"
        b.tell(LimitsChanged(holds=(), lifted=(until_ms,), **changed))
        b.reserve(3, "a")
        assert b.granted("a") == [CallRef(3, 1, 1)]

    def test_lowered_limits_of_another_worker_are_heeded(self, bench):
        b = bench(requests_per_minute=10)
        b.tell(LimitsChanged(limit_key=KEY, holds=(), lifted=(), factor=0.5, factor_at_ms=START_MS))
        for job in range(6):
            b.reserve(job, "a" if job < 5 else "b")
            b.tell(SettleCall(call=CallRef(job, 1, 1), used=None, succeeded=True))
        assert len(b.granted("a")) == 5
        assert isinstance(b.take("b")[0], CallDeferred)


class TestTheBreaker:
    def test_after_failures_in_a_row_one_call_tries_before_the_rest(self, bench):
        b = bench()
        for job in range(5):
            call = b.reserve(job)
            b.tell(SettleCall(call=call, used=None, failure="overloaded"))
        assert [message.kind for message in b.asked() if isinstance(message, SaveHold)] == ["breaker"]
        b.take("a")
        b.reserve(10, "a")
        b.reserve(11, "b")
        b.advance(0.99)
        assert b.take("a") + b.take("b") == []
        b.advance(0.02)
        assert b.granted("a") == [CallRef(10, 1, 1)]
        assert b.take("b") == [], "the first is to come back first"
        b.tell(SettleCall(call=CallRef(10, 1, 1), used=Charge(), succeeded=True))
        assert b.granted("b") == [CallRef(11, 1, 1)]


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
        b.advance(0.101)
        assert b.take(DISPATCHER) == [KeyFreed(KEY, 10)]
        b.advance(30.0)
        assert b.take(DISPATCHER) == []

    def test_the_same_headroom_is_told_again_if_some_of_it_was_taken_meanwhile(self, bench):
        b = bench(requests_per_minute=5)
        assert b.take(DISPATCHER) == [KeyFreed(KEY, 5)]
        b.tell(SettleCall(call=b.reserve(1), used=NOTHING))
        b.advance(0.2)
        assert b.take(DISPATCHER) == [KeyFreed(KEY, 5)]

    def test_held_when_nothing_more_would_be_let_in_soon_and_freed_when_it_would(self, bench):
        b = bench(requests_per_minute=2)
        b.reserve(1)
        b.reserve(2, "b")
        b.advance(0.101)
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


def test_it_describes_itself_for_people_once_a_second_when_something_happens(bench):
    b = bench(requests_per_minute=700)
    for job in range(30):
        b.reserve(job)
        b.advance(0.1)
    shown = [message for message in b.take(STORE) if isinstance(message, SaveDescription)]
    assert 3 <= len(shown) <= 4
    assert shown[-1].description["minute"]["requests"]["limit"] == 700


def test_an_idle_limiter_sets_no_timers(bench):
    b = bench(requests_per_minute=7)
    b.reserve(1)
    b.advance(5.0)
    before = b.simulation.steps
    b.advance(3600.0)
    assert b.simulation.steps == before
