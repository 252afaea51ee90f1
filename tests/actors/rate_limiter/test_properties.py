"""Whatever arrives, however long the network takes, and however often we crash: the provider never counts more than the limit."""

from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from callboard.actors.rate_limiter.window import Window

WINDOW = 8.0

ms = lambda most: st.integers(0, most).map(lambda value: value / 1000)  # noqa: E731 - a strategy in short


@dataclass(frozen=True)
class _Drawn:
    at: float
    tokens: int
    used: int
    priority: int
    delivery: float
    head: float
    body: float
    outcome: str


@st.composite
def drawn_jobs(draw, most_tokens):
    jobs, at = [], 0.0
    for _ in range(draw(st.integers(1, 40))):
        at += draw(st.sampled_from([0.0, 0.0, 0.001, 0.25, 1.0, 3.0]))
        tokens = draw(st.integers(0, most_tokens))
        jobs.append(
            _Drawn(
                at=at,
                tokens=tokens,
                used=draw(st.integers(0, tokens)),
                priority=draw(st.integers(0, 2)),
                delivery=draw(ms(1000)),
                head=draw(ms(4000)),
                body=draw(ms(4000)),
                outcome=draw(st.sampled_from(["ok", "ok", "ok", "unknown", "refused", "never sent"])),
            )
        )
    return jobs


@st.composite
def drawn_runs(draw):
    tokens = draw(st.none() | st.integers(5, 60))
    read, written = draw(st.none() | st.integers(5, 40)), draw(st.none() | st.integers(5, 40))
    requests = draw(st.none() | st.integers(1, 8))
    concurrency = draw(st.none() | st.integers(1, 4))
    restarts = draw(st.lists(ms(30_000), max_size=4))
    return (
        {"requests": requests, "tokens": tokens, "read": read, "written": written, "concurrency": concurrency},
        restarts,
        draw(drawn_jobs(min(tokens or 60, 2 * (read or 30), 2 * (written or 30)))),
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(drawn_runs())
def test_no_window_of_the_server_is_over_the_limit(run_jobs, drawn):
    limits, restarts, jobs = drawn
    run = run_jobs(jobs, restarts=restarts, window=WINDOW, **limits)
    run.assert_within()
    assert len(run.grants) == len(jobs), "every job is granted in the end"
    if limits["concurrency"] is not None and not restarts:
        assert run.provider.most_open <= limits["concurrency"]


@settings(max_examples=40, deadline=None)
@given(drawn_jobs(20), st.integers(1, 5), st.integers(20, 40))
def test_calls_are_granted_by_priority_then_in_order_of_arrival(run_jobs, jobs, requests, tokens):
    run = run_jobs(jobs, requests=requests, tokens=tokens, window=WINDOW)
    granted_at = {number: (at, place) for place, (at, number) in enumerate(run.grants)}
    for later, job in enumerate(jobs):
        for earlier, ahead in enumerate(jobs[:later]):
            if ahead.priority >= job.priority:
                assert granted_at[earlier] < granted_at[later]


@pytest.mark.parametrize(
    ("limits", "tokens", "n", "windows"),
    [
        ({"requests": 60}, (1, 1), 700, 10),
        ({"requests": 600}, (1, 1), 2500, 4),
        ({"tokens": 100_000}, (200, 2000), 800, 8),
        ({"read": 100_000}, (200, 2000), 1600, 8),
        ({"written": 100_000}, (200, 2000), 1600, 8),
        ({"requests": 60, "tokens": 100_000}, (200, 2000), 700, 10),
        ({"requests": 600, "read": 50_000, "written": 40_000}, (200, 2000), 700, 8),
        ({"requests": 1000, "tokens": 100_000}, (1000, 1000), 900, 8),
    ],
)
@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.soak)])
def test_nearly_all_of_a_limit_is_used_under_saturation(run_jobs, saturating_jobs, limits, tokens, n, windows, seed):
    end = windows * 60.0
    run = run_jobs(saturating_jobs(n, seed, end, tokens), until=end, window=60.0, **limits)
    run.assert_within()
    assert len(run.grants) < n, "it is saturated to the end"
    places = {"requests": 0, "read": 1, "written": 2, "tokens": 3}
    used = {
        name: sum(charge[places[name]] for at, charge in run.provider.counted if 60.0 <= at < end) for name in limits
    }
    best = max(used[dimension] / (limit * (windows - 1)) for dimension, limit in limits.items())
    assert best >= 0.97, best


@pytest.mark.parametrize("window", [0.5, 2.0, 60.0, 3600.0])
def test_memory_is_bounded_by_the_slots_of_two_windows_at_any_rate(window):
    held = Window(None, window=window, max_delivery=window / 60)
    for step in range(20_000):
        now = step * window / 5_000
        entry = held.add(3, now)
        if step % 2:
            held.settle(entry, 1, now)
    assert len(held) <= 2100
    assert held.used(4 * window) > 0
    assert held.used(7 * window) == 0
