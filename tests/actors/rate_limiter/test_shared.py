"""Several workers on one database, in virtual time: real limiters, the real gate, and the provider's own count at the end of it."""

import heapq
import random
from itertools import count

import pytest

from callboard.actors.messages import CallRef
from callboard.actors.rate_limiter.limiter import Limiter
from callboard.actors.settings import LimitSettings
from callboard.persistence import limits
from callboard.persistence.engine import open_database
from callboard.persistence.job_queue import JobQueue
from callboard.persistence.limit_rules import NOTHING, Charge

KEY = "acme/small"
START = 4096.0
"""Seconds. The calendar and the clock are one here."""


@pytest.fixture
def connection(tmp_path):
    JobQueue(tmp_path / "board.db").close()
    database = open_database(f"sqlite:///{tmp_path / 'board.db'}")
    made = database.connect()
    made.pragma("synchronous", "OFF")
    yield made
    made.close()
    database.close()


class Worker:
    """A process: its limiter, and the calls it has in line."""

    def __init__(self, world, owner):
        self.world, self.owner = world, owner
        self.alive = True
        self.refused = self.granted = 0
        self.asked_at = self.wake = -1.0
        self.loaded = False
        self.jobs = {}
        self.limiter = None
        self.restart()

    def restart(self):
        """A life of its limiter: it knows what the database says, once the last grants of the life before are in there."""
        delay = 0.0 if self.limiter is None else 1.0
        self.limiter = Limiter(KEY, self.world.settings, account="acme", window=self.world.window, max_delivery=1.0)
        self.loaded = False
        self.world.at(self.world.now + delay, self.load)

    def load(self):
        self.look(first=True)
        self.loaded = True
        for call, charge in self.jobs.items():
            self.limiter.reserve(call, charge, 0, f"runner {call.job_id}", self.world.now)

    def look(self, *, first=False, not_before=0):
        now = self.world.now
        self.asked_at = now
        days = self.limiter.dimensions.days_charged(now)
        picture = limits.picture(self.world.c, self.owner, KEY, "acme", days, self.world.ms)
        self.limiter.learn(picture, not_before, now, first=first)

    def take(self, job, charge):
        call = CallRef(job, 1, 1)
        self.jobs[call] = charge
        if self.loaded:
            self.limiter.reserve(call, charge, 0, f"runner {job}", self.world.now)

    def tend(self):
        """What its actor does after every message."""
        now = self.world.now
        if not (self.alive and self.loaded):
            return
        for grant in self.limiter.admit(now):
            self.granted += 1
            delay = self.world.dice.random() * 0.03
            self.world.at(now + delay, self.intend, self.limiter, grant)
        if self.limiter.waiting and self.limiter.shared and now - self.asked_at >= 0.25:
            self.look()
            self.world.at(now + 0.25, lambda: None)
        change = self.limiter.next_change(now, float("inf"))
        if change is not None and change < float("inf") and not now < self.wake <= change:
            self.wake = max(change, now + 1e-4)
            self.world.at(self.wake, lambda: None)

    def intend(self, limiter, grant):
        world, call = self.world, grant.call
        if not self.alive:
            return
        with world.c.write():
            refusal = limits.held(world.c, grant.gate.key, grant.gate.account, world.ms) or limits.check(
                world.c, grant.gate, world.ms
            )
            held = None if refusal else limits.charge(world.c, self.owner, grant.gate, world.ms)
        if refusal:
            self.refused += 1
            if self.limiter is limiter:
                self.look(not_before=world.ms + 50)
                limiter.settle(call, NOTHING, world.now)
                limiter.reserve(call, grant.gate.charge, 0, f"runner {call.job_id}", world.now)
            elif self.loaded:
                self.limiter.reserve(call, grant.gate.charge, 0, f"runner {call.job_id}", world.now)
            return
        charge = self.jobs.pop(call)
        used = world.use(charge)
        delivery, length = world.dice.random() * 0.6, world.dice.choice([0.05, 0.5, 4.0]) * world.dice.random()
        world.at(world.now + delivery, lambda: world.provider.count(world.now, used))
        world.at(world.now + delivery + length, self.end, limiter, call, held, used)

    def end(self, limiter, call, held, used):
        if not self.alive:
            return
        with self.world.c.write():
            limits.settle(self.world.c, self.owner, held, used, self.world.ms)
        limiter.settle(call, used, self.world.now)
        self.world.feed(self)


class World:
    """Workers that always have enough to do."""

    def __init__(self, connection, provider, *, seed, tokens, over=1.0, in_line=12, window=60.0, **settings):
        self.c, self.provider = connection, provider
        self.dice = random.Random(f"shared {seed}")
        self.settings = LimitSettings(**settings)
        self.window, self.tokens, self.over, self.in_line = window, tokens, over, in_line
        self.now = START
        self.events, self.order, self.numbers = [], count(), count(1)
        self.workers = []

    @property
    def ms(self):
        return int(self.now * 1000)

    def at(self, when, act, *args):
        heapq.heappush(self.events, (when, next(self.order), act, args))

    def start(self, owner):
        worker = Worker(self, owner)
        self.workers.append(worker)
        for _ in range(self.in_line):
            self.feed(worker)
        return worker

    def feed(self, worker):
        tokens = self.dice.randint(*self.tokens)
        worker.take(next(self.numbers), Charge(1, tokens // 2, tokens - tokens // 2, tokens))

    def use(self, charge):
        """What it really takes: at most what was reserved."""
        if self.over == 1.0:
            return charge
        tokens = max(1, int(charge.total / (1 + self.dice.random() * (self.over - 1))))
        return Charge(1, tokens // 2, tokens - tokens // 2, tokens)

    def play(self, until):
        while self.events and self.events[0][0] <= START + until:
            self.now, _, act, args = heapq.heappop(self.events)
            act(*args)
            for worker in self.workers:
                worker.tend()

    def used(self, place, begin, end):
        return sum(charge[place] for at, charge in self.provider.counted if START + begin <= at < START + end)


PLACES = {
    "requests_per_minute": 0,
    "input_tokens_per_minute": 1,
    "output_tokens_per_minute": 2,
    "tokens_per_minute": 3,
}


@pytest.mark.parametrize(
    ("limited", "tokens"),
    [
        ({"requests_per_minute": 60}, (10, 10)),
        ({"input_tokens_per_minute": 20_000}, (50, 800)),
        ({"output_tokens_per_minute": 20_000}, (50, 800)),
        ({"tokens_per_minute": 40_000}, (50, 800)),
        ({"requests_per_minute": 90, "input_tokens_per_minute": 18_000, "output_tokens_per_minute": 50_000}, (50, 800)),
    ],
    ids=["requests", "input", "output", "total", "a mixture"],
)
def test_two_workers_use_one_limit_to_the_full_and_never_exceed_it(connection, provider_class, limited, tokens):
    world = World(connection, provider_class(), seed=1, tokens=tokens, **limited)
    workers = [world.start(owner) for owner in "ab"]
    world.play(until=180.0)
    world.provider.assert_within(world.settings, 60.0)
    best = max(world.used(PLACES[name], 60.0, 180.0) / (2 * limit) for name, limit in limited.items())
    assert best >= 0.97, best
    assert all(worker.granted > 40 for worker in workers), "neither starves the other"


@pytest.mark.parametrize("seed", range(4))
def test_never_above_whoever_dies_whenever_and_what_the_dead_held_is_used_again(connection, provider_class, seed):
    world = World(
        connection,
        provider_class(),
        seed=seed,
        tokens=(10, 60),
        over=2.0,
        window=8.0,
        requests_per_minute=20,
        input_tokens_per_minute=300,
        tokens_per_minute=550,
    )
    for owner in "ab":
        world.start(owner)

    def kill(place):
        world.workers[place].alive = False
        world.workers[place] = None
        world.workers[place : place + 1] = []
        world.start(f"heir {next(world.numbers)}")

    for when in sorted(world.dice.uniform(2, 50) for _ in range(3)):
        world.at(START + when, kill, world.dice.randrange(2))
    for when in (9.5, 21.0, 33.3):
        world.at(START + when, lambda: world.workers[0].restart())  # noqa: PLW0108 - whoever it is by then
    world.play(until=60.0)
    world.provider.assert_within(world.settings, 8.0)
    shares = [world.used(0, 8, 56) / (6 * 20), world.used(1, 8, 56) / (6 * 300), world.used(3, 8, 56) / (6 * 550)]
    assert max(shares) > 0.7, "deaths cost what was in flight, and nothing else"


def test_alone_a_worker_is_never_refused(connection, provider_class):
    """Its limiter and the database reckon alike, in the same slots of time."""
    world = World(
        connection, provider_class(), seed=3, tokens=(50, 800), requests_per_minute=60, tokens_per_minute=20_000
    )
    worker = world.start("alone")
    world.play(until=200.0)
    assert (worker.refused, worker.granted > 100) == (0, True)
