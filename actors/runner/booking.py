"""What the ledger and the limiter are told about a call. Pure."""

from dataclasses import replace
from typing import Any

from ...persistence.model import CallIntent, CallOutcome, ClaimedJob
from ..cost import cost_at_most, cost_of, price_id
from ..messages import CallRef, Charge, SettleCall
from ..providers.estimate import estimate_input_tokens
from ..providers.model import (
    Answer,
    AnyRequest,
    Billed,
    CallError,
    Completion,
    EmbeddingRequest,
    ErrorClass,
    Request,
    Timeouts,
    Usage,
)
from ..settings import CompanySettings, Route
from .charges import output_at_most as output_at_most  # noqa: PLC0414 - others ask for it here
from .effects import CallModel, Embed

_SHARED = tuple(
    name for name in CallModel.__slots__ if name in Request.__slots__ and name not in ("model", "max_output")
)


def request_of(effect: CallModel | Embed, route: Route) -> AnyRequest:
    """The neutral request of a handler's call."""
    if isinstance(effect, Embed):
        return EmbeddingRequest(
            model=route.name, inputs=effect.inputs, dimensions=effect.dimensions, extra=effect.extra
        )
    return Request(
        model=route.name,
        max_output=effect.max_output if effect.max_output is not None else route.max_output,
        unsupported=route.unsupported,
        **{name: getattr(effect, name) for name in _SHARED},
    )


def intent_of(effect: CallModel | Embed, request: AnyRequest, route: Route, charge: Charge) -> CallIntent:
    """What the ledger is told before the call leaves."""
    return CallIntent(
        step=effect.step,
        fingerprint=request.fingerprint(),
        provider=route.provider,
        model=route.name,
        limit_key=route.limit_key,
        reserved_tokens=charge.total,
        reserved_input=charge.input,
        reserved_output=charge.output,
        reserved_cost=cost_reserved(request, route, tokens_in=charge.input),
    )


def cost_reserved(
    request: AnyRequest, route: Route, *, batch: bool = False, tokens_in: int | None = None
) -> int | None:
    """What a call may cost at most, in nano-dollars, by the estimate of its input and its limit on output; None: its price is unknown.

    `tokens_in`: that estimate, where it has been made: it reads every message.
    """
    return cost_at_most(
        estimate_input_tokens(request) if tokens_in is None else tokens_in,
        output_at_most(request),
        route.price,
        batch=batch,
        kept_for_an_hour=isinstance(request, Request) and request.cache_ttl == "1h",
    )


def timeouts_of(job: ClaimedJob, settings: CompanySettings) -> Timeouts:
    """The job's own deadlines, or the company's."""
    options = job.options
    return Timeouts(
        first_token=options.first_token_timeout or settings.first_token_timeout,
        no_progress=options.no_progress_timeout or settings.no_progress_timeout,
        total=options.total_timeout or settings.total_timeout,
    )


def completed(completion: Answer, route: Route | None, *, batch: bool = False) -> CallOutcome:
    """The outcome of an answered call. `route` None: what it costs is not known here. `batch`: it was part of a provider's batch."""
    price = None if route is None else route.price
    return CallOutcome(
        state="completed",
        completion=completion.to_json(),
        usage=_buckets(completion.usage),
        cost=cost_of(completion.usage, price, batch=batch),
        price_id=price_id(price),
        finish=completion.finish if isinstance(completion, Completion) else None,
        request_id=completion.request_id,
        first_token_ms=completion.first_token_ms if isinstance(completion, Completion) else None,
    )


def passed_over(completion: Completion, route: Route, *, batch: bool = False) -> CallOutcome:
    """The outcome of an answer that another model is asked instead of (a refusal): paid for like any, but no step goes by it."""
    told = {
        "class": str(completion.finish),
        "message": f"{route.name} answered with {completion.finish}; the next model was asked",
    }
    paid = completed(completion, route, batch=batch)
    return replace(paid, state="failed", completion=None, error_class=told["class"], error=told)


def failed(error: CallError) -> CallOutcome:
    """The outcome of a failed call; unknown where it may have been done and billed all the same."""
    return CallOutcome(
        state="unknown" if error.billed is Billed.MAYBE else "failed",
        request_id=error.request_id,
        error_class=error.kind,
        error=error.to_json(),
    )


def settle_completed(call: CallRef, used: Charge | None) -> SettleCall:
    """What an answered call really took."""
    return SettleCall(call=call, used=used, succeeded=True)


def settle_failed(call: CallRef, error: CallError, used: Charge | None) -> SettleCall:
    """What a failed call took, and how it failed."""
    return SettleCall(call=call, used=used, failure=str(error.kind), retry_after=error.retry_after)


def not_sent(message: str) -> CallError:
    """The failure of a call that never left."""
    return CallError(kind=ErrorClass.CANCELLED, message=message, sent=False)


def parked(message: str) -> tuple[dict[str, Any], str]:
    """The error and the reason of a job that is parked for a person to look at."""
    reason = f"parked: {message}; it may have been billed, and the job's on_unknown is 'park'"
    return {"class": "unknown_outcome", "message": reason}, reason


def _buckets(usage: Usage | None) -> dict[str, Any] | None:
    if usage is None:
        return None
    return {
        "input_uncached": usage.input_uncached,
        "cache_read": usage.cache_read,
        "cache_write": usage.cache_write,
        "cache_write_1h": usage.cache_write_1h,
        "output_visible": usage.output_visible,
        "output_reasoning": usage.output_reasoning,
    }
