"""The job that drives a group: texts of several jobs, embedded by one ordinary call of this job.

It seals the group, asks, and shares out the answer; each is a transaction, and the call is a step, so that a crash in between repeats nothing
that was paid for. A group that is refused is halved, each half a group of its own, until what is wrong stands alone.
"""

import hashlib
from collections.abc import Generator, Iterable
from typing import Any

from ...persistence.batch_orders import Divide, LetDivided, ListMembers, Load, Member, Move, Refuse, Seal
from ...persistence.batches import BatchRow, NewRequest
from ...persistence.claims import read_options
from ...persistence.group_orders import Adopt, Alike, ListAlike, Part, ShareOut, shares
from ...persistence.model import CallOutcome, ClaimedJob
from ..providers.model import EmbeddingRequest, Embeddings, ErrorClass, Usage
from ..settings import CompanySettings, UnknownModelError, route
from . import booking, embed, joining
from .chat_data import InvalidDataError
from .effects import CallFailedError, Effect, Embed, OrderOnBoard

AT_ONCE = 200
"""Jobs adopted in one transaction."""
_OF_THE_INPUT = frozenset({ErrorClass.INVALID, ErrorClass.CONTEXT, ErrorClass.TOO_LARGE})
"""Failures that one text may be the cause of."""

Driving = Generator[Effect, Any, Any]


def drive_group(job: ClaimedJob, settings: CompanySettings) -> Driving:
    """See the group through to its end, from wherever it stands."""
    batch: BatchRow | None = yield OrderOnBoard(Load())
    if batch is None:
        return {"group": None}
    if batch.state == "open":
        yield from _adopt(batch, settings)
        batch = yield OrderOnBoard(Seal())
    told = {"group": batch.id, "provider": batch.provider}
    if batch.state == "failed" and batch.error and "divided" in batch.error:
        yield from _divide(batch, str(batch.error.get("message", "")))
    if batch.state != "sealed":
        return {**told, "state": batch.state}
    members = yield from _members()
    if not members:
        yield OrderOnBoard(Move(state="applied"))
        return {**told, "state": "applied", "requests": 0}
    requests = [EmbeddingRequest.from_json(member.request) for member in members]
    # Named by who is in it: an answer kept from before is this group's only if it is for the same texts in the same order.
    step = f"group-{_digest(member.id for member in members)}"
    first = requests[0]
    asked = Embed(
        step=step,
        inputs=tuple(text for request in requests for text in request.inputs),
        model=job.model,
        dimensions=first.dimensions,
        extra=first.extra,
    )
    try:
        found: Embeddings = yield asked
    except CallFailedError as failed:
        error = failed.error
        if len(members) > 1 and error.kind in _OF_THE_INPUT:
            yield from _divide(batch, error.message)
            return {**told, "state": "failed", "requests": len(members)}
        for place in range(0, len(members), AT_ONCE):
            yield OrderOnBoard(Refuse([(member.id, error.to_json()) for member in members[place : place + AT_ONCE]]))
        yield OrderOnBoard(Move(state="failed", error=error.to_json()))
        return {**told, "state": "failed", "requests": len(members)}
    yield OrderOnBoard(ShareOut(step, parts_of(members, requests, found)))
    yield OrderOnBoard(Move(state="applied"))
    return {**told, "state": "applied", "requests": len(members)}


def parts_of(members: list[Member], requests: list[EmbeddingRequest], found: Embeddings) -> list[Part]:
    """What each member is answered, as if it had been asked for alone; its usage is its share, as it is booked. Pure."""
    parts, place = [], 0
    weights = [max(1, member.tokens) for member in members]
    used = shares(0 if found.usage is None else found.usage.total, weights)
    for member, request, weight, share in zip(members, requests, weights, used, strict=True):
        usage = None if found.usage is None else Usage(input_uncached=share)
        own = Embeddings(
            vectors=found.vectors[place : place + len(request.inputs)],
            usage=usage,
            model=found.model,
            request_id=found.request_id,
            total_ms=found.total_ms,
        )
        place += len(request.inputs)
        parts.append(Part(member.id, own.to_json(), weight))
    return parts


def _members() -> Generator[Effect, Any, list[Member]]:
    members: list[Member] = []
    while True:
        page = yield OrderOnBoard(ListMembers("waiting", members[-1].id if members else 0))
        if not page:
            return members
        members += page


def _adopt(batch: BatchRow, settings: CompanySettings) -> Driving:
    """Take in the waiting jobs that ask for the same, as long as there is room."""
    own = settings.embeddings
    requests, size, tokens = batch.requests, batch.bytes, batch.tokens
    while True:
        found: list[Alike] = yield OrderOnBoard(ListAlike(joining.EMBED, AT_ONCE))
        taken: list[tuple[int, NewRequest]] = []
        for alike in found:
            new = _request_of(alike, settings)
            if new is None or new.group_key != batch.group_key:
                continue
            if (
                requests + 1 > new.bounds.requests
                or size + new.size > own.max_bytes
                or tokens + new.tokens > own.max_tokens
            ):
                break
            requests, size, tokens = requests + 1, size + new.size, tokens + new.tokens
            taken.append((alike.job_id, new))
        if not taken:
            return
        yield OrderOnBoard(Adopt(taken))
        if len(taken) < len(found):  # the rest is of another kind, or there is no more room
            return


def _request_of(alike: Alike, settings: CompanySettings) -> NewRequest | None:
    """What a waiting job will ask for, if that is one request which may go with others; as its own handler would say it."""
    options = read_options(alike.options)
    if options.latency != "now" or options.budget is not None or options.cache is not None:
        return None
    try:
        asked = embed.parse(alike.data)
        where = route(settings, alike.model)
        most = embed.inputs_per_call(settings, alike.model)
    except (InvalidDataError, UnknownModelError, CallFailedError):
        return None  # its handler will say what is wrong
    if list(embed.spans(asked.inputs, most)) != [(0, len(asked.inputs))]:
        return None
    step = f"{asked.step}[0:{len(asked.inputs)}]"
    model = alike.model or settings.default_model or ""
    return joining.in_group(settings, where, step, model, booking.request_of(asked, where), past=None, tag="")


def _divide(batch: BatchRow, message: str) -> Driving:
    outcome = CallOutcome(state="failed", error={"class": "invalid", "message": message})
    tags = (f"{batch.tag}-1", f"{batch.tag}-2")
    while (yield OrderOnBoard(Divide(outcome, tags))):
        pass
    yield OrderOnBoard(LetDivided())


def _digest(ids: Iterable[int]) -> str:
    return hashlib.sha256(",".join(map(str, ids)).encode()).hexdigest()[:16]
