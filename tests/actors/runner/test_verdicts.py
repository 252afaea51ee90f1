"""How a handler's end becomes a verdict."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callboard.actors.messages import Complete, Fail, RetryLater
from callboard.actors.providers.model import CallError, ErrorClass
from callboard.actors.runner.chat import InvalidDataError
from callboard.actors.runner.effects import CallFailedError, JobInterrupted
from callboard.actors.runner.verdicts import MAX_MESSAGE, result_verdict, verdict_of

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@settings(max_examples=40, deadline=None)
@given(json_values)
def test_whatever_has_a_json_form_is_a_result(value):
    assert result_verdict(value) == Complete(value)


def endless():
    inside = []
    inside.append(inside)
    return inside


def deep():
    nested = []
    for _ in range(100_000):
        nested = [nested]
    return nested


@pytest.mark.parametrize(
    "value", [object(), {1, 2}, b"bytes", float("nan"), float("inf"), {(1, 2): 3}, endless(), deep()], ids=type
)
def test_what_has_none_fails_the_job_for_good(value):
    verdict = result_verdict(value)
    assert isinstance(verdict, Fail)
    assert verdict.error["class"] == "result"
    assert "no JSON form" in verdict.reason


def raised(error):
    try:
        secret_value = "not to be told"  # noqa: F841
        raise error
    except BaseException as caught:
        return verdict_of(caught, lambda error, reason: RetryLater(error, 77, reason))


def test_bad_data_and_calls_that_no_retry_heals_are_final():
    assert raised(InvalidDataError("data.prompt: expected text")).error["class"] == "invalid"
    verdict = raised(CallFailedError(CallError(kind=ErrorClass.CONTEXT, message="too long")))
    assert isinstance(verdict, Fail)
    assert (verdict.error["class"], verdict.reason) == ("context", "context: too long")


@pytest.mark.parametrize("error", [ValueError("bad"), SystemExit(3), KeyboardInterrupt(), JobInterrupted()], ids=type)
def test_everything_else_is_another_attempt_with_what_is_needed_to_find_it(error):
    verdict = raised(error)
    assert isinstance(verdict, RetryLater)
    assert verdict.run_at_ms == 77
    assert verdict.reason.startswith(type(error).__name__)
    assert verdict.error["class"] == "handler"
    assert "test_verdicts.py" in verdict.error["frames"][-1]
    assert "not to be told" not in str(verdict)


def test_a_message_is_cut_and_rid_of_keys():
    key = "sk-" + "a1B2c3D4" * 6
    verdict = raised(RuntimeError(f"refused {key} " + "x" * 10_000))
    assert key not in str(verdict)
    assert len(verdict.reason) <= MAX_MESSAGE + len("RuntimeError: ")


def test_one_without_a_text_is_told_by_its_name():
    assert raised(ZeroDivisionError()).reason == "ZeroDivisionError"
