"""Real threads, real time, a real HTTP server with its own buckets: by its count, nothing is ever over the limit, nor refused."""

import queue
import time

import httpx
import pytest

from callboard.actors.kernel.actor import Actor
from callboard.actors.kernel.system import ActorSystem
from callboard.actors.messages import (
    DISPATCHER,
    STORE,
    CallDeferred,
    CallGranted,
    CallRef,
    Charge,
    LimitsObserved,
    LoadUsage,
    ReserveCall,
    SettleCall,
    UsageLoaded,
    limiter_name,
)
from callboard.actors.rate_limiter.actor import RateLimiterActor
from callboard.actors.settings import LimitSettings
from callboard.persistence.limits import Picture
from callboard.simulator import Simulator, SimulatorConfig

KEY = "acme/small"
LIMITER = limiter_name(KEY)
CALLS = 60
TOKENS = 50


class Store(Actor):
    def receive(self, message):
        if isinstance(message, LoadUsage):
            picture = Picture((), (), (), 0, 0, (), 1.0, 0, 0)
            self.tell(message.reply_to, UsageLoaded(limit_key=KEY, picture=picture))


class Caller(Actor):
    """Takes numbers from a queue and makes a call for each, one at a time, on its own thread."""

    def __init__(self, system, numbers, url, done):
        super().__init__(system)
        self.numbers, self.url, self.done = numbers, url, done

    def on_start(self):
        self.client = httpx.Client(trust_env=False, timeout=10)
        self.next()

    def on_stop(self):
        self.client.close()

    def next(self):
        try:
            self.call = CallRef(self.numbers.get_nowait(), 1, 1)
        except queue.Empty:
            return
        self.reserve()

    def reserve(self):
        self.tell(
            LIMITER,
            ReserveCall(reply_to=self.name, call=self.call, charge=Charge(1, TOKENS, TOKENS, TOKENS), priority=0),
        )

    def receive(self, message):
        match message:
            case CallGranted(call=call):
                body = {"model": "m", "max_tokens": TOKENS, "messages": [{"role": "user", "content": "Sum it up."}]}
                with self.client.stream("POST", f"{self.url}/v1/chat/completions", json=body) as response:
                    self.tell(LIMITER, LimitsObserved(call, None))
                    response.read()
                self.tell(LIMITER, SettleCall(call=call, used=None, succeeded=True))
                self.done.put(response.status_code)
                self.next()
            case CallDeferred(until_ms=until_ms):
                self.after(max(0.0, (until_ms - self.now_ms()) / 1000), "again")
            case "again":
                self.reserve()


@pytest.mark.parametrize(
    "limits",
    [
        {"rpm": 20, "tpm": 21 * TOKENS, "concurrency": 3},
        *(pytest.param(alone, marks=pytest.mark.soak) for alone in ({"rpm": 20}, {"tpm": 20 * TOKENS})),
    ],
    ids=str,
)
def test_a_real_server_never_counts_more_than_its_limit(limits):
    numbers, done = queue.SimpleQueue(), queue.SimpleQueue()
    for number in range(CALLS):
        numbers.put(number)
    settings = LimitSettings(
        requests_per_minute=limits.get("rpm"),
        tokens_per_minute=limits.get("tpm"),
        concurrency=limits.get("concurrency"),
    )
    with Simulator(SimulatorConfig(window_seconds=1.0, **limits)) as provider:
        system = ActorSystem()
        try:
            system.start_actor(STORE, lambda: Store(system))
            system.start_actor(DISPATCHER, lambda: Store(system))
            system.start_actor(LIMITER, lambda: RateLimiterActor(system, KEY, settings, window=1.0, park_after=1.5))
            began = time.monotonic()
            for runner in range(6):
                system.start_actor(f"runner {runner}", lambda: Caller(system, numbers, provider.url, done))
            statuses = [done.get(timeout=30) for _ in range(CALLS)]
            took = time.monotonic() - began
        finally:
            assert system.close(5)
        stats = provider.stats()
    assert statuses == [200] * CALLS
    assert stats["rejected"] == 0
    assert stats["max_requests_in_window"] <= 20
    assert stats["max_tokens_in_window"] <= 20 * TOKENS
    assert stats["in_flight_max"] <= limits.get("concurrency", 6)
    assert took >= 2.0, "three windows' worth of calls cannot be had in less than two"
