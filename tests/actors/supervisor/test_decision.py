import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard.actors.kernel.messages import Crashed, Hung, Normal, Shutdown, StartFailed
from callboard.actors.supervisor.decision import (
    Escalate,
    History,
    Remove,
    RestartAfter,
    backoff_delay,
    decide,
    wants_restart,
)
from callboard.actors.supervisor.spec import Backoff, ChildSpec, Intensity, Restart

FAILURES = [Crashed("x"), StartFailed("x"), Hung("x", 1.0)]
REASONS = [Normal(), Shutdown(), *FAILURES]

DEFAULT = Backoff()

backoffs = st.builds(
    lambda base, extra, up: Backoff(base=base, cap=base + extra, min_uptime=up),
    st.floats(0, 10),
    st.floats(0, 100),
    st.floats(0, 100),
)
randoms = st.floats(0, 1, exclude_max=True)


def spec(restart=Restart.PERMANENT, backoff=DEFAULT):
    return ChildSpec(id="child", start=lambda: None, restart=restart, backoff=backoff)


@pytest.mark.parametrize("reason", REASONS, ids=lambda r: type(r).__name__)
@pytest.mark.parametrize("restart", Restart)
def test_who_is_restarted(restart, reason):
    expected = {
        Restart.PERMANENT: True,
        Restart.TRANSIENT: reason in FAILURES,
        Restart.TEMPORARY: False,
    }[restart]
    assert wants_restart(restart, reason) is expected
    decision = decide(spec(restart), Intensity(), History(), reason, 100.0, 0.0)
    assert isinstance(decision, RestartAfter if expected else Remove)


@given(backoffs, st.integers(0, 10**6), randoms)
def test_the_delay_is_within_half_and_all_of_the_capped_exponential(backoff, consecutive, random_value):
    delay = backoff_delay(backoff, consecutive, random_value)
    full = min(backoff.cap, backoff.base * 2.0 ** min(consecutive, 1000))
    assert 0.5 * full <= delay <= full <= backoff.cap


@given(backoffs, st.integers(0, 1000), randoms)
def test_the_delay_never_falls_as_failures_repeat(backoff, consecutive, random_value):
    assert backoff_delay(backoff, consecutive, random_value) <= backoff_delay(backoff, consecutive + 1, random_value)


def test_the_delay_by_example():
    backoff = Backoff(base=0.5, cap=30.0)
    assert [backoff_delay(backoff, n, 0.0) for n in range(8)] == [0.25, 0.5, 1, 2, 4, 8, 15, 15]


@given(st.integers(0, 20), st.integers(0, 20), st.floats(1, 100))
def test_more_than_the_limit_within_the_window_escalates_and_exactly_the_limit_does_not(limit, before, within):
    history = History(tuple(100.0 for _ in range(before)), 0, None)
    intensity = Intensity(max_restarts=limit, within=within, max_consecutive=100)
    decision = decide(spec(), intensity, history, Crashed("x"), 100.0 + within / 2, 0.5)
    assert isinstance(decision, Escalate) == (before >= limit)
    later = decide(spec(), intensity, history, Crashed("x"), 100.0 + within * 1.01, 0.5)
    assert isinstance(later, Escalate) == (limit == 0)


@given(st.integers(0, 20), st.integers(0, 20))
def test_too_many_failures_in_a_row_escalate_however_far_apart(limit, before):
    intensity = Intensity(max_restarts=100, within=1.0, max_consecutive=limit)
    decision = decide(spec(), intensity, History((), before, None), Crashed("x"), 1e6, 0.5)
    assert isinstance(decision, Escalate) == (before >= limit)


@given(st.floats(0, 100), st.floats(0.1, 100), st.integers(0, 8))
def test_health_for_min_uptime_forgives_what_was_in_a_row(uptime, min_uptime, before):
    history = History((), before, 0.0)
    decision = decide(spec(backoff=Backoff(min_uptime=min_uptime)), Intensity(), history, Crashed("x"), uptime, 0.0)
    if uptime >= min_uptime:
        assert isinstance(decision, RestartAfter)
        assert decision.history.consecutive == 1
        assert decision.delay == 0.25
    elif before >= 8:
        assert isinstance(decision, Escalate)
    else:
        assert isinstance(decision, RestartAfter)
        assert decision.history.consecutive == before + 1


@given(st.lists(st.floats(0, 1000), max_size=30).map(sorted))
def test_the_history_holds_no_more_than_the_window_needs(times):
    intensity = Intensity(max_restarts=5, within=60.0, max_consecutive=1000)
    recent = ()
    for now in times:
        decision = decide(spec(), intensity, History(recent, 0, None), Crashed("x"), now, 0.0)
        if isinstance(decision, RestartAfter):
            recent = decision.history.recent
            assert len(recent) <= 5
            assert all(now - at < 60.0 for at in recent)


def test_a_child_that_crashes_at_every_start_is_given_up_although_backoff_stretches_the_window():
    """With 0.5 to 30 s of backoff, "10 in 60 s" is never reached; the limit per child is what ends it."""
    now, history, restarts = 0.0, History(), 0
    while isinstance(decision := decide(spec(), Intensity(), history, StartFailed("x"), now, 0.5), RestartAfter):
        now, history, restarts = now + decision.delay, decision.history, restarts + 1
    assert restarts == 8
    assert now < 120
    assert "after 8 restarts in a row" in decision.reason


def test_escalation_says_why():
    history = History(tuple([99.0] * 10), 0, None)
    decision = decide(spec(), Intensity(), history, Crashed("KeyError: 'x'"), 100.0, 0.5)
    assert decision == Escalate(
        "'child' crashed: KeyError: 'x', after 10 restarts of children within 60 s (limit 10)",
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda: Backoff(base=2, cap=1),
        lambda: Backoff(base=-1),
        lambda: Backoff(min_uptime=-1),
        lambda: Intensity(max_restarts=-1),
        lambda: Intensity(within=0),
        lambda: Intensity(max_consecutive=-1),
        lambda: ChildSpec(id="", start=lambda: None),
        lambda: ChildSpec(id="x", start=lambda: None, start_timeout=0),
        lambda: ChildSpec(id="x", start=lambda: None, stop_timeout=0),
        lambda: ChildSpec(id="x", start=lambda: None, hang_after=0),
        lambda: ChildSpec(id="x", start=lambda: None, significant=True),
    ],
)
def test_specs_that_make_no_sense_are_refused(make):
    with pytest.raises(ValueError):
        make()
