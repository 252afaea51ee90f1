"""An independent judge of a rate limiter: the provider's own count, at the instants at which the provider sees the calls."""

import heapq
import math
import random
from dataclasses import dataclass, field
from itertools import count

import pytest

from callboard.actors.messages import CallRef
from callboard.actors.rate_limiter.limiter import Limiter
from callboard.actors.settings import LimitSettings
from callboard.persistence.limit_rules import NOTHING, Charge, lapse_ms
from callboard.persistence.limits import Picture, Slot

KEY = "acme/small"
PLACES = {
    "requests_per_minute": 0,
    "input_tokens_per_minute": 1,
    "output_tokens_per_minute": 2,
    "tokens_per_minute": 3,
}


def charge_of(tokens):
    """A call whose tokens are half input, half output."""
    return Charge(1, tokens // 2, tokens - tokens // 2, tokens)


def picture_of(slots=(), *, others=(), own_open=0, others_open=0, holds=(), factor=1.0, days=(), first_used_ms=0):
    """How a key stands in the database: `slots` and `others` as (lapses at, epoch ms; charge)."""
    return Picture(
        own=tuple(Slot(*slot) for slot in slots),
        others=tuple(Slot(*slot) for slot in others),
        days=tuple(days),
        own_open=own_open,
        others_open=others_open,
        holds=tuple(holds),
        factor=factor,
        factor_at_ms=0,
        first_used_ms=first_used_ms,
    )


@dataclass
class Provider:
    """What a provider counted: (instant, charge), and how many calls were open at once."""

    counted: list = field(default_factory=list)
    open: set = field(default_factory=set)
    most_open: int = 0

    def count(self, at, charge, call=None):
        self.counted.append((at, charge))
        self.open.add(call)
        self.most_open = max(self.most_open, len(self.open))

    def most_in_window(self, window, place):
        """The largest sum of one dimension in any span shorter than the window."""
        most = total = first = 0
        counted = sorted(self.counted)
        for at, charge in counted:
            total += charge[place]
            while at - counted[first][0] >= window - 1e-9:
                total -= counted[first][1][place]
                first += 1
            most = max(most, total)
        return most

    def lowest_bucket(self, limit, window, place):
        """The lowest level of a bucket of this capacity, refilled at its capacity per window; below 0 it would have refused."""
        level, lowest, before = float(limit), float(limit), None
        for at, charge in sorted(self.counted):
            if before is not None:
                level = min(limit, level + (at - before) * limit / window)
            level -= charge[place]
            lowest, before = min(lowest, level), at
        return lowest

    def assert_within(self, limits, window):
        for name, place in PLACES.items():
            if (limit := getattr(limits, name)) is not None:
                assert self.most_in_window(window, place) <= limit, name
                assert self.lowest_bucket(limit, window, place) >= -1e-6, name


@dataclass(frozen=True)
class Job:
    """One call to make. Seconds; `delivery` is the time until the provider counts it, `head` from then until its reply begins."""

    at: float
    tokens: int
    used: int
    priority: int = 0
    delivery: float = 0.0
    head: float = 0.0
    body: float = 0.0
    outcome: str = "ok"


class Run:
    """Drives one pure limiter through jobs, with a clock of its own, and can lose the limiter on the way."""

    def __init__(
        self, *, requests=None, tokens=None, read=None, written=None, concurrency=None, window=8.0, max_delivery=1.0
    ):
        self.limits = LimitSettings(
            requests_per_minute=requests,
            tokens_per_minute=tokens,
            input_tokens_per_minute=read,
            output_tokens_per_minute=written,
            concurrency=concurrency,
        )
        self.window, self.max_delivery = window, max_delivery
        self.provider = Provider()
        self.grants = []  # (at, number)
        self.ledger = {}  # number -> [sent at, tokens]
        self.wake = -1.0
        self.limiter = self.new_limiter()

    def new_limiter(self):
        return Limiter(KEY, self.limits, window=self.window, max_delivery=self.max_delivery)

    def play(self, jobs, *, restarts=(), until=float("inf")):
        events, order = [], count()

        def at(when, what, number):
            heapq.heappush(events, (when, next(order), what, number))

        for number, job in enumerate(jobs):
            at(job.at, "arrive", number)
        for when in restarts:
            at(when, "restart", -1)
        waiting = set()
        while events and events[0][0] <= until:
            now, _, what, number = heapq.heappop(events)
            call = CallRef(number, 1, 1)
            job = jobs[number]
            match what:
                case "arrive":
                    waiting.add(number)
                    self.limiter.reserve(call, charge_of(job.tokens), job.priority, f"runner {number}", now)
                case "count":
                    if job.outcome != "never sent":
                        used = {"refused": 0, "unknown": job.tokens}.get(job.outcome, job.used)
                        self.provider.count(now, charge_of(used), call)
                    at(now + job.head, "reply", number)
                case "reply":
                    self.limiter.observe(call, None, now, now)
                    at(now + job.body, "end", number)
                case "end":
                    self.provider.open.discard(call)
                    unknown = job.outcome == "unknown"
                    sent, refused = job.outcome != "never sent", job.outcome == "refused"
                    real = charge_of(0) if refused else charge_of(job.used)
                    self.limiter.settle(call, NOTHING if not sent else None if unknown else real, now)
                    if not sent:
                        del self.ledger[number]
                    elif not unknown:
                        self.ledger[number][1] = 0 if refused else job.used
                case "restart":
                    self.limiter = self.new_limiter()
                    window_ms = math.ceil(self.window * 1000)
                    slots = [
                        (lapse_ms(math.ceil((sent_at + self.max_delivery) * 1000), window_ms), charge_of(tokens))
                        for sent_at, tokens in self.ledger.values()
                    ]
                    self.limiter.learn(picture_of(slots), 0, now, first=True)
                    for other in sorted(waiting):
                        self.limiter.reserve(
                            CallRef(other, 1, 1),
                            charge_of(jobs[other].tokens),
                            jobs[other].priority,
                            f"runner {other}",
                            now,
                        )
            for grant in self.limiter.admit(now):
                granted = jobs[grant.call.job_id]
                waiting.discard(grant.call.job_id)
                self.grants.append((now, grant.call.job_id))
                self.ledger[grant.call.job_id] = [now, granted.tokens]
                at(now + granted.delivery, "count", grant.call.job_id)
            change = self.limiter.next_change(now, float("inf"))
            if change is not None and change < float("inf") and not now < self.wake <= change:
                self.wake = max(change, now + 1e-6)
                at(self.wake, "wake", -1)
        return self

    def assert_within(self):
        self.provider.assert_within(self.limits, self.window)


@pytest.fixture(scope="session")
def run_jobs():
    """Return `(jobs, restarts=(), until=…, **limits) -> Run`."""

    def run(jobs, restarts=(), until=float("inf"), **limits):
        return Run(**limits).play(jobs, restarts=restarts, until=until)

    return run


@pytest.fixture(scope="session")
def charge():
    """Return `(tokens) -> Charge`, half of it input."""
    return charge_of


@pytest.fixture(scope="session")
def picture():
    """Return `(own slots, others=, …) -> Picture`."""
    return picture_of


@pytest.fixture(scope="session")
def make_job():
    return Job


@pytest.fixture(scope="session")
def provider_class():
    return Provider


@pytest.fixture(scope="session")
def saturating_jobs():
    """Return `(n, seed, over, tokens=(low, high)) -> jobs` that arrive evenly over `over` seconds and take a random time."""

    def make(n, seed, over, tokens=(1, 1)):
        rng = random.Random(seed)
        jobs = []
        for number in range(n):
            size = rng.randint(*tokens)
            delivery = rng.choice([0.01, 0.05, 0.3, 1.0]) * rng.random()
            times = {"delivery": delivery, "head": rng.random() * 3, "body": rng.random() * 5}
            jobs.append(Job(at=number * over / n, tokens=size, used=size, **times))
        return jobs

    return make
