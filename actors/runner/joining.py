"""Which requests go with others', under which key, and within which bounds. Pure."""

import json
from typing import Any

from ...persistence.batches import Bounds, Kind, NewRequest
from ...persistence.model import Batched
from ..cost import cost_at_most
from ..providers.adapter import embedder_for
from ..providers.batch_api import BatchFormat, BatchLine, batch_format_for
from ..providers.estimate import estimate_input_tokens
from ..providers.model import AnyRequest, CallError, EmbeddingRequest, ErrorClass
from ..providers.settings import ProviderSettings
from ..settings import CompanySettings, Route
from . import booking

EMBED = "embed"
"""The job type whose calls are grouped: a built-in, so that beginning it again when the answer is there costs nothing."""
_LONGEST_ID = "0" * 19 + "-" + "0" * 19
ROUNDS_OF_A_GROUP = 3


def in_batch(
    settings: CompanySettings,
    where: Route,
    step: str,
    model: str,
    request: AnyRequest,
    *,
    past: Batched | None,
    deadline: int | None,
    now: int,
    tag: str,
) -> NewRequest | CallError | None:
    """The request as one of a provider's batch; the reason why it cannot be sent at all; or None, if it is to be asked for by itself.

    That is where the provider has no batch API for it, its deadline is near, it left a batch for that before, or batches have failed it.
    """
    own = settings.batch
    provider = settings.providers[where.provider]
    form = batch_format_for(provider.wire)
    endpoint = None if form is None else form.endpoint(request)
    if form is None or endpoint is None:
        return None
    if past is not None and (past.late or past.rounds >= own.max_rounds):
        return None
    if deadline is not None and deadline - now < own.deadline_margin * 1000:
        return None
    line = form.line(BatchLine(custom_id=_LONGEST_ID, request=request), settings=provider)
    if isinstance(line, CallError):
        return line
    tokens = estimate_input_tokens(request)
    bounds = bounds_of(settings, form)
    if len(line) + 1 > bounds.bytes or tokens > bounds.tokens:
        return None
    return NewRequest(
        step=step,
        kind="batch",
        provider=where.provider,
        group_key=_key("batch", where, provider, endpoint, where.name if form.one_model else "any model"),
        endpoint=endpoint,
        model=model,
        fingerprint=request.fingerprint(),
        limit_key=where.limit_key,
        request=request.to_json(),
        size=len(line) + 1,
        tokens=tokens,
        reserved_cost=cost_at_most(tokens, booking.output_at_most(request), where.price, batch=True),
        tag=tag,
        bounds=bounds,
        deadline=deadline,
        # The provider may take its whole window: what must be there within that and a little must not wait here.
        hurry=deadline is not None and deadline - now < 86_400_000 + 10 * own.max_age * 1000,
    )


def bounds_of(settings: CompanySettings, form: BatchFormat) -> Bounds:
    """When a batch is full: as configured, within what its provider takes."""
    own = settings.batch
    return Bounds(
        requests=min(own.max_requests, form.max_requests),
        bytes=min(own.max_bytes, form.max_bytes),
        tokens=own.max_tokens,
        age_ms=round(own.max_age * 1000),
    )


def in_group(
    settings: CompanySettings,
    where: Route,
    step: str,
    model: str,
    request: AnyRequest,
    *,
    past: Batched | None,
    tag: str,
) -> NewRequest | None:
    """The request as part of a group that is embedded by one call; None if it is to go by itself: it is large enough, or groups have failed it."""
    own = settings.embeddings
    provider = settings.providers[where.provider]
    if not own.group or not isinstance(request, EmbeddingRequest):
        return None
    if past is not None and (past.rounds >= ROUNDS_OF_A_GROUP or past.late):
        return None
    embedder = None if provider.wire == "own" else embedder_for(provider.wire)
    if embedder is None:
        return None
    most = min(own.max_inputs, embedder.max_inputs)
    size, tokens = sum(len(text.encode("utf-8", "replace")) for text in request.inputs), estimate_input_tokens(request)
    if 2 * len(request.inputs) > most or 2 * size > own.max_bytes or 2 * tokens > own.max_tokens:
        return None
    return NewRequest(
        step=step,
        kind="group",
        provider=where.provider,
        group_key=_key("group", where, provider, _shape(request), where.name),
        endpoint="embeddings",
        model=model,
        fingerprint=request.fingerprint(),
        limit_key=where.limit_key,
        request=request.to_json(),
        size=size,
        tokens=tokens,
        reserved_cost=None,
        tag=tag,
        # A group is bounded by its texts; one request of it may hold several.
        bounds=Bounds(
            requests=max(1, most // len(request.inputs)),
            bytes=own.max_bytes,
            tokens=own.max_tokens,
            age_ms=max(1, round(own.max_age * 1000)),
        ),
    )


def _shape(request: EmbeddingRequest) -> str:
    """What decides how a text is embedded, besides the model; and how many there are, so that a group is full by its requests."""
    return json.dumps([request.dimensions, request.extra, len(request.inputs)], sort_keys=True, ensure_ascii=False)


def _key(kind: Kind, where: Route, provider: ProviderSettings, endpoint: str, model: str) -> str:
    key = provider.key_env or provider.key_file or provider.key_keyring or "no key"
    return f"{kind}|{where.provider}|{endpoint}|{provider.base_url}|{key}|{provider.version}|{model}"


def error_from_json(stored: dict[str, Any]) -> CallError:
    """What `CallError.to_json` wrote, as a failure to be told."""
    try:
        kind = ErrorClass(stored.get("class", ""))
    except ValueError:
        kind = ErrorClass.INVALID
    known = {name: stored[name] for name in ("http", "code", "request_id") if stored.get(name) is not None}
    return CallError(kind=kind, message=str(stored.get("message", "refused")), **known)
