"""An independent judge of a rate limiter: the provider's own count, at the instants at which the provider sees the calls."""

import heapq
import random
from dataclasses import dataclass, field
from itertools import count

import pytest

from callboard.actors.messages import CallRef
from callboard.actors.rate_limiter.limiter import Limiter
from callboard.actors.settings import LimitSettings

KEY = "acme/small"


@dataclass
class Provider:
    """What a provider counted: (instant, tokens), and how many calls were open at once."""

    counted: list = field(default_factory=list)
    open: set = field(default_factory=set)
    most_open: int = 0

    def count(self, at, tokens, call=None):
        self.counted.append((at, tokens))
        self.open.add(call)
        self.most_open = max(self.most_open, len(self.open))

    def most_in_window(self, window, weigh=lambda tokens: tokens):
        """The largest sum in any span shorter than the window."""
        most = total = first = 0
        counted = sorted(self.counted)
        for at, tokens in counted:
            total += weigh(tokens)
            while at - counted[first][0] >= window - 1e-9:
                total -= weigh(counted[first][1])
                first += 1
            most = max(most, total)
        return most

    def lowest_bucket(self, limit, window, weigh=lambda tokens: tokens):
        """The lowest level of a bucket of this capacity, refilled at its capacity per window; below 0 it would have refused."""
        level, lowest, before = float(limit), float(limit), None
        for at, tokens in sorted(self.counted):
            if before is not None:
                level = min(limit, level + (at - before) * limit / window)
            level -= weigh(tokens)
            lowest, before = min(lowest, level), at
        return lowest

    def assert_within(self, *, requests, tokens, window):
        if requests is not None:
            assert self.most_in_window(window, lambda _: 1) <= requests
            assert self.lowest_bucket(requests, window, lambda _: 1) >= -1e-6
        if tokens is not None:
            assert self.most_in_window(window) <= tokens
            assert self.lowest_bucket(tokens, window) >= -1e-6


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

    def __init__(self, *, requests=None, tokens=None, concurrency=None, window=8.0, max_delivery=1.0):
        self.limits = LimitSettings(requests_per_minute=requests, tokens_per_minute=tokens, concurrency=concurrency)
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
                    self.limiter.reserve(call, job.tokens, job.priority, f"runner {number}", now)
                case "count":
                    if job.outcome != "never sent":
                        used = {"refused": 0, "unknown": job.tokens}.get(job.outcome, job.used)
                        self.provider.count(now, used, call)
                    at(now + job.head, "reply", number)
                case "reply":
                    self.limiter.observe(call, None, now, now)
                    at(now + job.body, "end", number)
                case "end":
                    self.provider.open.discard(call)
                    unknown = job.outcome == "unknown"
                    sent, refused = job.outcome != "never sent", job.outcome == "refused"
                    self.limiter.settle(call, None if unknown else job.used, now, sent=sent, refund_tokens=refused)
                    if not sent:
                        del self.ledger[number]
                    elif not unknown:
                        self.ledger[number][1] = 0 if refused else job.used
                case "restart":
                    self.limiter = self.new_limiter()
                    recent = [
                        entry for entry in self.ledger.values() if entry[0] > now - self.window - self.max_delivery
                    ]
                    self.limiter.restore([tuple(entry) for entry in recent], None, now)
                    for other in sorted(waiting):
                        self.limiter.reserve(
                            CallRef(other, 1, 1), jobs[other].tokens, jobs[other].priority, f"runner {other}", now
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
        self.provider.assert_within(
            requests=self.limits.requests_per_minute, tokens=self.limits.tokens_per_minute, window=self.window
        )


@pytest.fixture(scope="session")
def run_jobs():
    """Return `(jobs, restarts=(), until=…, **limits) -> Run`."""

    def run(jobs, restarts=(), until=float("inf"), **limits):
        return Run(**limits).play(jobs, restarts=restarts, until=until)

    return run


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
