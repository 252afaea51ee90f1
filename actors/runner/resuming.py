"""Calls that the provider goes on with: which of them an attempt takes up instead of asking anew, and which may be taken up by the next. Pure."""

from dataclasses import replace
from typing import NamedTuple

from ...persistence.model import KeptCall, Memo
from ..messages import Charge
from ..providers.model import AnyRequest, Billed, CallError, ErrorClass, Request
from ..providers.resume import HANDLE_GONE
from ..settings import CompanySettings, Route, route
from . import fallback
from .effects import CallModel, Embed
from .work import Call

CHARGE = Charge()
"""What taking up a call takes from its limit key: one request. Its tokens were charged when it was made."""


def kept_call(
    memo: Memo | None, step: str, request: AnyRequest, route: Route, settings: CompanySettings
) -> KeptCall | None:
    """Return the call of an earlier attempt that answers this very request, if its provider goes on with it."""
    kept = None if memo is None else memo.kept.get(step)
    if kept is None or not isinstance(request, Request):
        return None
    same = (kept.provider, kept.model, kept.fingerprint) == (route.provider, route.name, request.fingerprint())
    return kept if same and settings.providers[route.provider].background else None


class Beginning(NamedTuple):
    """Where a step begins: with which model, what is asked of it, which models are left to go on with, and the call that is taken up."""

    route: Route
    request: AnyRequest
    fallback: tuple[str, ...]
    kept: KeptCall | None


def beginning(
    memo: Memo | None, effect: CallModel | Embed, request: AnyRequest, where: Route, settings: CompanySettings
) -> Beginning:
    """Return the start of the chain, or the place in it whose call an earlier attempt has left to its provider."""
    first = Beginning(where, request, where.fallback, kept_call(memo, effect.step, request, where, settings))
    if first.kept is not None or memo is None or effect.step not in memo.kept:
        return first
    for place, name in enumerate(where.fallback, 1):
        other = route(settings, name)
        asked = fallback.rerouted(request, other, effect)
        kept = kept_call(memo, effect.step, asked, other, settings)
        if kept is not None:
            return Beginning(other, asked, where.fallback[place:], kept)
    return first


def taken_up(call: Call) -> KeptCall | None:
    """Return what the call goes on with once its intent is on disk: it has that one's row then. None: it is a new call."""
    return call.kept if call.kept is not None and call.kept.call_id == call.call_id else None


def judged(call: Call, error: CallError) -> CallError:
    """Return the failure of a call, marked where only our part of it has failed: it never left, or the provider's actor ended."""
    if (call.kept is None and call.handle is None) or error.resumable or error.code == HANDLE_GONE:
        return error
    if error.sent and error.kind is not ErrorClass.CANCELLED:
        return error
    return replace(error, billed=Billed.MAYBE, sent=True, resumable=True)


def again(call: Call, error: CallError) -> KeptCall | None:
    """Return what the next try of this attempt goes on with."""
    handle = call.handle or (call.kept.handle if call.kept is not None else None)
    if not error.resumable or handle is None:
        return None
    return KeptCall(
        call_id=call.call_id,
        fingerprint=call.request.fingerprint(),
        provider=call.route.provider,
        model=call.route.name,
        handle=handle,
    )


def gone(call: Call, error: CallError, *, on_unknown: str) -> bool:
    """Whether a call that was taken up is to be made anew at once: its provider has forgotten it, which is no failure of this attempt."""
    return error.code == HANDLE_GONE and call.kept is not None and on_unknown != "park"
