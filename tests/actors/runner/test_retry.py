"""When to try again: the policies of job types, the host's own functions, and what the provider asked for."""

import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard.actors.messages import Fail, RetryLater
from callboard.actors.providers.actor import REFUSALS
from callboard.actors.providers.model import Billed, CallError, ErrorClass, Scope
from callboard.actors.rate_limiter.breaker import TROUBLE
from callboard.actors.runner import retry
from callboard.actors.settings import RetryPolicy, RetrySettings

ERROR = {"class": "server", "message": "no"}
fractions = st.floats(0, 1, exclude_max=True)


def verdict(settings, failures=0, own=None, retry_after=None, random_value=0.5, kind="chat"):
    policies = retry.RetryPolicies(settings, own or {})
    return policies.verdict(
        kind, failures, ERROR, "no", now_ms=1000, random_value=random_value, retry_after=retry_after
    )


@given(failures=st.integers(0, 2000), random_value=fractions)
def test_exponential_with_full_jitter_stays_below_its_ceiling(failures, random_value):
    policy = RetrySettings(base=2, cap=50)
    delay = retry.backoff(failures, policy, None, random_value)
    assert 0 <= delay <= min(50, 2 * 2 ** min(failures, 30))


def test_exponential_without_jitter_doubles():
    policy = RetrySettings(base=2, cap=50, jitter=False)
    assert [retry.backoff(n, policy, None, 0.3) for n in range(6)] == [2, 4, 8, 16, 32, 50]


def test_fixed_is_always_the_same_or_a_little_longer():
    assert {retry.backoff(n, RetrySettings(kind="fixed", base=9, jitter=False), None, 0.3) for n in range(9)} == {9}
    assert retry.backoff(5, RetrySettings(kind="fixed", base=10), None, 0.5) == 10.5


@given(kind=st.sampled_from(["fixed", "exponential"]), random_value=fractions, asked=st.floats(0, 1000))
def test_never_sooner_than_the_provider_asked(kind, random_value, asked):
    assert retry.backoff(0, RetrySettings(kind=kind), asked, random_value) >= asked


def test_a_type_differs_in_what_it_says_and_in_nothing_else():
    settings = RetrySettings(base=3, cap=30, types={"slow": RetryPolicy(kind="fixed", max_attempts=9)})
    slow = settings.of("slow")
    assert (slow.kind, slow.base, slow.cap, slow.jitter, slow.max_attempts) == ("fixed", 3, 30, True, 9)
    assert settings.of("chat") is settings
    assert verdict(settings, kind="slow") == RetryLater(ERROR, 1000 + 3150, "no", 9)
    assert verdict(settings) == RetryLater(ERROR, 1000 + 1500, "no", None)


def test_a_hosts_function_decides():
    asked = []

    def own(attempt, error):
        asked.append((attempt, error["class"]))
        return None if attempt >= 3 else attempt * 10

    policies = {"chat": own}
    assert verdict(RetrySettings(), 0, policies).run_at_ms == 11_000
    assert verdict(RetrySettings(max_attempts=7), 1, policies).max_attempts == 7
    assert verdict(RetrySettings(), 2, policies) == Fail(ERROR, "given up by its retry policy: no")
    assert asked == [(1, "server"), (2, "server"), (3, "server")]
    assert verdict(RetrySettings(), 0, {"other": own}).run_at_ms == 1500


@pytest.mark.parametrize("answer", ["soon", float("nan"), float("inf"), True, [1]])
def test_a_hosts_function_that_answers_nonsense_is_not_the_jobs_end(answer, caplog):
    with caplog.at_level(logging.ERROR):
        assert verdict(RetrySettings(), 0, {"chat": lambda *_: answer}).run_at_ms == 1500
    assert "retry policy of 'chat' failed" in caplog.text


def test_a_hosts_function_that_raises_is_not_the_jobs_end(caplog):
    def own(attempt, error):
        raise ZeroDivisionError

    assert verdict(RetrySettings(), 0, {"chat": own}).run_at_ms == 1500


def test_a_hosts_function_cannot_send_a_job_beyond_time():
    assert verdict(RetrySettings(), 0, {"chat": lambda *_: 1e300}).run_at_ms == 1000 + retry.LONGEST * 1000
    assert verdict(RetrySettings(), 0, {"chat": lambda *_: -5}).run_at_ms == 1000


ACTIONS = {
    "waits, then the call again": retry.ReserveAgain,
    "later, by the policy of its type": retry.TryLater,
    "in a conversation asked once more with a shorter past; else final": retry.TellHandler,
    "final: the handler is told, and may go on": retry.TellHandler,
    "back to the board": retry.GoBack,
}


def documented():
    """The table of docs/providers.md: class → (what becomes of the key, of the job, whether an attempt is used)."""
    text = (Path(__file__).parents[3] / "docs" / "providers.md").read_text()
    _, _, rest = text.partition("### What is done about it")
    lines = [line for line in rest.partition("\n## ")[0].splitlines() if line.startswith("| `")]
    for line in lines:
        kinds, key, job, attempt = (cell.strip() for cell in line.strip("|").split("|"))
        for kind in kinds.split(","):
            yield ErrorClass(kind.strip(" `")), (key, job, attempt)


def test_the_table_of_what_is_done_says_what_is_done():
    table = dict(documented())
    assert set(table) == set(ErrorClass)
    for kind, (key, job, attempt) in table.items():
        for scope in Scope:
            action = retry.decide(CallError(kind=kind, message="no", scope=scope), on_unknown="park")
            assert type(action) is ACTIONS[job], (kind, scope)
        assert (kind in REFUSALS) == key.startswith("held")
        assert (kind in TROUBLE) == ("breaker" in key)
        assert {"yes": isinstance(action, retry.TryLater), "no": not isinstance(action, retry.TryLater)}.get(
            attempt, isinstance(action, retry.TellHandler)
        )


@pytest.mark.parametrize("kind", list(ErrorClass))
def test_the_providers_word_goes_before_the_class_but_for_keys_and_money(kind):
    def action(retryable):
        return type(retry.decide(CallError(kind=kind, message="no", retryable=retryable), on_unknown="retry"))

    if kind in (ErrorClass.QUOTA, ErrorClass.AUTH):
        assert {action(None), action(True), action(False)} == {retry.ReserveAgain}
    elif kind is ErrorClass.CANCELLED:
        assert {action(None), action(True), action(False)} == {retry.GoBack}
    else:
        assert action(False) is retry.TellHandler
        assert action(True) is (retry.ReserveAgain if kind is ErrorClass.RATE else retry.TryLater)


@pytest.mark.parametrize("kind", sorted(set(ErrorClass) - {ErrorClass.RATE, ErrorClass.QUOTA, ErrorClass.AUTH}))
def test_what_may_have_been_billed_waits_for_a_person_where_the_job_says_so(kind):
    error = CallError(kind=kind, message="no", billed=Billed.MAYBE)
    assert isinstance(retry.decide(error, on_unknown="park"), retry.Park)
    assert not isinstance(retry.decide(error, on_unknown="retry"), retry.Park)
