"""When another model is asked instead, and what it is asked. Pure.

A model's alias names those to go on with (`fallback`) and after what (`fallback_on`). The chain is that of the model the job named, walked once
within an attempt; the next attempt begins at its start. Each call is a row of the ledger with the model that was really asked.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..messages import CallDeferred
from ..providers.model import AnyRequest, Billed, CallError, Completion, EmbeddingRequest, Finish
from ..settings import Route
from .effects import CallModel, Embed
from .work import Call

_PASSED_OVER = {Finish.REFUSAL: "refusal", Finish.FILTER: "filter"}


def applies(error: CallError, call: Call, *, on_unknown: str) -> bool:
    """Whether the next model of the chain is to be asked after this failure.

    Not where the call may have been billed and the job would rather have that looked at than pay again.
    """
    if not call.fallback or (error.billed is Billed.MAYBE and on_unknown == "park"):
        return False
    return str(error.kind) in call.fallback_on


def deferral(error: CallError, call: Call, now_ms: int, otherwise: float) -> CallDeferred:
    """When a model that was just refused may be had again, for a chain that has no other: as its provider says, or after `otherwise` seconds.

    Too soon costs nothing: the job is not claimed while all of its chain is held.
    """
    seconds = otherwise if error.retry_after is None else error.retry_after
    return CallDeferred(
        call=call.ref,
        until_ms=now_ms + round(seconds * 1000),
        limit_key=call.route.limit_key,
        reason=f"{call.route.limit_key}: {error.message}",
        kind=str(error.kind),
    )


def passes_over(completion: Completion, call: Call) -> bool:
    """Whether the next model is to be asked because this one would not answer."""
    return bool(call.fallback) and _PASSED_OVER.get(completion.finish) in call.fallback_on


def passed_over_by(completion: Completion, where: Route) -> bool:
    """The same of an answer that a batch has brought."""
    return bool(where.fallback) and _PASSED_OVER.get(completion.finish) in where.fallback_on


def was_passed_over(refused: Mapping[str, Any], call: Call) -> bool:
    """Whether what a batch's request was refused for is such an answer (`booking.passed_over`)."""
    named = refused.get("class")
    return bool(call.fallback) and named in _PASSED_OVER.values() and named in call.fallback_on


def rerouted(request: AnyRequest, where: Route, effect: CallModel | Embed) -> AnyRequest:
    """The request as another model is asked it. What the handler said of the answer's length holds; what the first model's alias said does not."""
    if isinstance(request, EmbeddingRequest):
        return replace(request, model=where.name)
    asked = effect.max_output if isinstance(effect, CallModel) else None
    return replace(
        request,
        model=where.name,
        max_output=asked if asked is not None else where.max_output,
        unsupported=where.unsupported,
    )
