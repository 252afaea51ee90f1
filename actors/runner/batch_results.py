"""What a line of a batch's results means for the request it answers. Pure."""

from ...persistence.batch_orders import Answered, Asked
from ..providers.model import Answer as ModelAnswer
from ..providers.model import CallError, Completion, Embeddings, ErrorClass
from ..settings import CompanySettings, Route, UnknownModelError, route
from . import booking, fallback, retry


def request_of(custom_id: str) -> int | None:
    """The request that a result is for, by the name we gave it: `JOB-REQUEST`."""
    job, dash, request = custom_id.partition("-")
    return int(request) if dash and job.isdecimal() and request.isdecimal() and len(custom_id) <= 64 else None


def answered(asked: Asked, outcome: ModelAnswer | CallError, settings: CompanySettings) -> Answered:
    """What is booked, and what its job is told.

    What was never tried, and what may pass (a limit, an overload), is asked for again without an attempt being counted; what trying again
    would not heal is refused for good.
    """
    if isinstance(outcome, Embeddings) and len(outcome.vectors) != asked.inputs:
        outcome = CallError(
            kind=ErrorClass.MALFORMED, message=f"{len(outcome.vectors)} vectors came for {asked.inputs} texts"
        )
    if isinstance(outcome, CallError):
        return _again(asked.id, outcome) if _passes(outcome) else refused(asked.id, outcome)
    where = _route(settings, asked.model)
    if where is not None and isinstance(outcome, Completion) and fallback.passed_over_by(outcome, where):
        passed = booking.passed_over(outcome, where, batch=True)
        return Answered(asked.id, "failed", passed, passed.error)
    return Answered(asked.id, "done", booking.completed(outcome, where, batch=True))


def refused(request: int, error: CallError) -> Answered:
    """The request was refused for good."""
    return Answered(request, "failed", booking.failed(error), error.to_json())


def _again(request: int, error: CallError) -> Answered:
    return Answered(request, "again", booking.failed(error), error.to_json())


def _passes(error: CallError) -> bool:
    if error.kind is ErrorClass.CANCELLED or not error.sent:
        return True
    passes = error.kind in retry.PASSES or error.kind in retry.HOLDS_KEY
    return passes if error.retryable is None else error.retryable


def _route(settings: CompanySettings, model: str) -> Route | None:
    try:
        return route(settings, model)
    except UnknownModelError:
        return None
