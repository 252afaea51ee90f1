"""Seeds: a dispatcher, runners that die, a limiter that crashes; and the provider's own count at the end of it."""

import random
from dataclasses import dataclass

import pytest

from callboard.actors.kernel.actor import Actor
from callboard.actors.kernel.messages import Crashed, Down
from callboard.actors.kernel.simulation import SimulatedCrashError, SimulationScheduler
from callboard.actors.kernel.system import ActorSystem
from callboard.actors.messages import (
    DISPATCHER,
    STORE,
    CallDeferred,
    CallGranted,
    CallRef,
    KeyFreed,
    KeyHeld,
    LimitsObserved,
    LoadUsage,
    ReserveCall,
    SaveDescription,
    SettleCall,
    UsageLoaded,
    limiter_name,
)
from callboard.actors.rate_limiter.actor import RateLimiterActor
from callboard.actors.settings import LimitSettings
from callboard.persistence.limit_rules import lapse_ms

KEY = "acme/small"
LIMITER = limiter_name(KEY)
PROVIDER = "provider"


@dataclass
class Job:
    id: int
    tokens: int
    used: int
    epoch: int = 0
    not_before_ms: int = 0
    state: str = "waiting"


@dataclass(frozen=True)
class Work:
    job: Job
    epoch: int


@dataclass(frozen=True)
class Step:
    what: str
    call: CallRef


@dataclass(frozen=True)
class Ended:
    runner: str
    epoch: int
    job: int


class Ledger(Actor):
    def __init__(self, system, world):
        super().__init__(system)
        self.world = world

    def receive(self, message):
        match message:
            case LoadUsage():
                window_ms = round(self.world.window * 1000)
                slots = [
                    (lapse_ms(sent_ms + 1000, window_ms), self.world.charge(tokens))
                    for sent_ms, tokens in self.world.sent.values()
                ]
                self.tell(message.reply_to, UsageLoaded(limit_key=KEY, picture=self.world.picture(slots)))
            case SaveDescription():
                pass
            case _:
                self.unhandled(message)


class Remote(Actor):
    """The provider: it sees a call when it arrives, whether or not the caller still lives."""

    def __init__(self, system, world):
        super().__init__(system)
        self.world = world

    def receive(self, message):
        call = message.call
        if message.what == "arrive":
            self.world.provider.count(self.monotonic(), self.world.charge(self.world.jobs[call.job_id].used), call)
        else:
            self.world.provider.open.discard(call)


class Runner(Actor):
    """Reserves, notes the intent, calls, settles."""

    def __init__(self, system, world):
        super().__init__(system)
        self.world = world
        self.work = self.call = None

    def receive(self, message):
        match message:
            case Work(job=job, epoch=epoch):
                self.work = message
                call = self.call = CallRef(job.id, epoch, 1)
                self.tell(
                    LIMITER,
                    ReserveCall(reply_to=self.name, call=call, charge=self.world.charge(job.tokens), priority=0),
                )
                self.after(5.0, Step("ask again", call))
            case CallDeferred(until_ms=until_ms):
                self.work.job.not_before_ms = until_ms
                self.leave("waiting")
            case CallGranted(call=call):
                if call == self.call:
                    self.after(self.world.dice.random() * 0.3, Step("intent", call))
            case Step(what="ask again", call=call):
                # A limiter that crashed has forgotten the reservation.
                if call == self.call and call not in self.world.sent:
                    self.leave("waiting")
            case Step(what="intent", call=call):
                if call != self.call:
                    return
                dice = self.world.dice
                self.world.sent[call] = [self.now_ms(), self.work.job.tokens]
                arrive, answer = dice.random() * 0.69, dice.random() * 2
                self.system.after(arrive, PROVIDER, Step("arrive", call))
                self.system.after(arrive + answer, PROVIDER, Step("leave", call))
                self.after(arrive + answer / 2, Step("reply", call))
                self.after(arrive + answer + 0.001, Step("settle", call))
            case Step(what="reply", call=call):
                self.tell(LIMITER, LimitsObserved(call, None))
            case Step(what="settle", call=call):
                self.world.sent[call][1] = self.work.job.used
                self.tell(LIMITER, SettleCall(call=call, used=self.world.charge(self.work.job.used), succeeded=True))
                self.leave("done")
            case _:
                self.unhandled(message)

    def leave(self, state):
        work, self.work, self.call = self.work, None, None
        work.job.state = state
        self.tell(DISPATCHER, Ended(self.name, work.epoch, work.job.id))


class Dispatcher(Actor):
    """A job for each idle runner as long as there is headroom, less what was given out since it was told; jobs of dead runners go back."""

    def __init__(self, system, world):
        super().__init__(system)
        self.world = world
        self.idle, self.working = set(), {}
        self.headroom, self.since = 0, set()

    def on_start(self):
        self.after(0.0, Step("poll", CallRef(0, 0, 0)))

    def receive(self, message):
        match message:
            case KeyFreed(headroom=headroom):
                self.headroom, self.since = 1000 if headroom is None else headroom, set()
            case KeyHeld():
                self.headroom, self.since = 0, set()
            case Ended(runner=runner):
                self.since.discard(runner)
                self.working.pop(runner, None)
                self.idle.add(runner)
            case Down(child=runner):
                self.idle.discard(runner)
                self.since.discard(runner)
                work = self.working.pop(runner, None)
                if work is not None and work.job.state == "active":
                    work.job.state = "waiting"
            case Step(what="new runner"):
                self.watch(message.call)
                self.idle.add(message.call)
            case Step(what="poll"):
                self.after(0.1, message)
            case _:
                self.unhandled(message)
        ready = [j for j in self.world.jobs.values() if j.state == "waiting" and j.not_before_ms <= self.now_ms()]
        for job in ready[: max(0, self.headroom - len(self.since))]:
            if not self.idle:
                break
            runner = min(self.idle)
            self.idle.discard(runner)
            job.state, job.epoch = "active", job.epoch + 1
            self.since.add(runner)
            self.working[runner] = Work(job, job.epoch)
            self.tell(runner, self.working[runner])


class World:
    """Everything above under one seed."""

    def __init__(self, seed, tools, *, jobs, runners, window, tokens=(1, 20), crashes=0.0, **limits):
        self.dice = random.Random(f"world {seed}")
        self.crashes = crashes
        self.limits, self.window = LimitSettings(**limits), window
        provider_class, self.charge, self.picture = tools
        self.provider = provider_class()
        self.jobs = {n: Job(n, size := self.dice.randint(*tokens), size) for n in range(1, jobs + 1)}
        self.sent, self.bugs = {}, []
        self.limiter_crashes = self.runner_crashes = self.runners_started = 0
        self.simulation = SimulationScheduler(seed, faults=self.fault)
        self.system = ActorSystem(scheduler=self.simulation, on_root_exit=self.note_exit)
        for name, kind in ((STORE, Ledger), (PROVIDER, Remote), (DISPATCHER, Dispatcher)):
            self.system.start_actor(name, lambda kind=kind: kind(self.system, self))
        self.missing_runners = runners

    def fault(self, point):
        mortal = point.actor == LIMITER or point.actor.startswith("runner")
        if (
            mortal
            and point.kind in {"receive", "received", "send", "sent", "batch"}
            and self.dice.random() < self.crashes
        ):
            return SimulatedCrashError(point.kind)
        return None

    def note_exit(self, down):
        if isinstance(down.reason, Crashed):
            if not isinstance(down.reason.exception, SimulatedCrashError):
                self.bugs.append(down.reason.traceback)
            self.limiter_crashes += down.child == LIMITER
            self.runner_crashes += down.child != LIMITER
            self.missing_runners += down.child != LIMITER

    def tend(self):
        assert not self.bugs, self.bugs[0]
        if self.system.directory.find(LIMITER) is None:
            make = lambda: RateLimiterActor(self.system, KEY, self.limits, window=self.window)  # noqa: E731
            self.system.start_actor(LIMITER, make)
        while self.missing_runners:
            self.missing_runners -= 1
            self.runners_started += 1
            name = f"runner {self.runners_started}"
            self.system.start_actor(name, lambda: Runner(self.system, self))
            self.system.tell(DISPATCHER, Step("new runner", name))
        return all(job.state == "done" for job in self.jobs.values())

    def play(self, timeout=3600.0):
        self.simulation.run_until(self.tend, timeout)
        self.simulation.faults = None
        assert self.system.close(5)
        return self


@pytest.fixture
def tools(provider_class, charge, picture):
    return provider_class, charge, picture


@pytest.fixture(autouse=True)
def quiet(caplog):
    caplog.set_level("CRITICAL")


HUNDRED_SEEDS = [0, *(pytest.param(batch, marks=pytest.mark.soak) for batch in (1, 2, 3))]
LIMITS = {"requests_per_minute": 6, "tokens_per_minute": 60, "concurrency": 3}


@pytest.mark.parametrize("batch", HUNDRED_SEEDS)
def test_never_over_the_limit_and_everything_done_under_any_seed(tools, batch):
    for seed in range(batch * 25, batch * 25 + 25):
        world = World(seed, tools, jobs=20, runners=5, window=8.0, **LIMITS).play()
        world.provider.assert_within(world.limits, 8.0)
        assert world.provider.most_open <= 3
        assert len(world.provider.counted) == 20


@pytest.mark.parametrize("batch", HUNDRED_SEEDS)
def test_never_over_the_limit_when_limiters_and_runners_crash(tools, batch):
    limiter_crashes = runner_crashes = 0
    for seed in range(1000 + batch * 25, 1000 + batch * 25 + 25):
        world = World(seed, tools, jobs=20, runners=5, window=8.0, crashes=0.01, **LIMITS).play()
        world.provider.assert_within(world.limits, 8.0)
        limiter_crashes += world.limiter_crashes
        runner_crashes += world.runner_crashes
    assert limiter_crashes > 20
    assert runner_crashes > 20


def test_the_same_seed_runs_the_same(tools):
    traces = [
        World(7, tools, jobs=15, runners=4, window=8.0, crashes=0.01, **LIMITS).play().simulation.trace
        for _ in range(2)
    ]
    assert traces[0] == traces[1]


def test_one_larger_than_the_limit_is_not_starved_by_a_stream_of_small_ones(tools):
    world = World(3, tools, jobs=60, runners=4, window=8.0, tokens=(2, 6), tokens_per_minute=60)
    world.jobs[5].tokens = 500
    world.jobs[5].used = 60
    done_before = []
    world.simulation.run_until(
        lambda: world.tend() or (world.jobs[5].state == "done" and (done_before.append(len(world.sent)) or True)), 600.0
    )
    world.play()
    assert done_before[0] < 40
    world.provider.assert_within(world.limits, 8.0)


@pytest.mark.parametrize(
    ("limits", "jobs", "tokens"),
    [
        ({"requests_per_minute": 60}, 320, (1, 1)),
        pytest.param({"tokens_per_minute": 100_000}, 500, (200, 2000), marks=pytest.mark.soak),
        ({"tokens_per_minute": 100_000}, 120, (5000, 5000)),
    ],
    ids=["60 rpm", "100k tpm", "100k tpm, large calls"],
)
def test_nearly_all_of_a_limit_is_used_through_deferrals_and_returns(tools, limits, jobs, tokens):
    world = World(1, tools, jobs=jobs, runners=16, window=60.0, tokens=tokens, **limits).play()
    (limit,) = limits.values()
    place = 0 if "requests_per_minute" in limits else 3
    counted = sorted(world.provider.counted)
    # The first burst is a whole window's worth at once, and the end is not saturated: what lies between is what counts.
    windows = counted[-1][0] // 60.0
    total = sum(charge[place] for at, charge in counted if at < windows * 60.0)
    assert windows >= 4
    assert total >= 0.97 * limit * windows, total / (limit * windows)
