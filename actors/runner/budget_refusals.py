"""What becomes of a job whose call a budget has no room for. Pure."""

from ...persistence.budgets import HELD_BY
from ..messages import Fail, IntentRefused, Release
from ..settings import CompanySettings, UnknownModelError, route
from .work import Call

MOST_DOWNGRADES = 3
"""Budgets may send a call on from each to the next, but not in a circle."""


def verdict(refused: IntentRefused) -> Fail | Release:
    """Fail for good, or wait without an attempt being counted: until a period ends, a budget is raised, or calls in flight are settled."""
    if refused.action in ("pause", "wait") and refused.until_ms is not None:
        return Release(
            cause="deferral", reason=refused.reason, held_by=f"{HELD_BY}{refused.key}", held_until_ms=refused.until_ms
        )
    return Fail({"class": "budget", "message": refused.reason, "budget": refused.key}, refused.reason)


def goes_on(refused: IntentRefused, call: Call, settings: CompanySettings) -> bool:
    """Whether another, cheaper model is to be asked: the budget names one that there is, and this call is not to it yet."""
    if refused.action != "downgrade" or call.downgrades >= MOST_DOWNGRADES:
        return False
    try:
        cheaper = route(settings, refused.model)
    except UnknownModelError:
        return False
    return (cheaper.provider, cheaper.name) != (call.route.provider, call.route.name)
