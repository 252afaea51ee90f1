"""What a rate limiter is told, and what it answers."""

from dataclasses import dataclass
from typing import Any

from ..providers.model import LimitSnapshot
from .names import CallRef, Charge


@dataclass(frozen=True, slots=True, kw_only=True)
class ReserveCall:
    """May this call go? Higher priority first."""

    reply_to: str
    call: CallRef
    charge: Charge
    priority: int


@dataclass(frozen=True, slots=True)
class CallGranted:
    """It may, now. The permit is the CallRef; settle it, whatever happens."""

    call: CallRef


@dataclass(frozen=True, slots=True, kw_only=True)
class CallDeferred:
    """Not before `until_ms`: longer than a runner should wait. The reservation is gone."""

    call: CallRef
    until_ms: int
    limit_key: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SettleCall:
    """A granted call is over. `tokens`: what it really used (None: unknown, the charge stands). `sent` False: nothing left, refund it all."""

    call: CallRef
    tokens: int | None
    sent: bool = True
    refund_tokens: bool = False


@dataclass(frozen=True, slots=True)
class WithdrawCall:
    """The caller no longer wants this reservation, granted or not; it was not sent."""

    call: CallRef


@dataclass(frozen=True, slots=True)
class LimitsObserved:
    """A provider's reply began: the call was counted by now, and these were its headers (None: it said nothing of limits)."""

    call: CallRef
    snapshot: LimitSnapshot | None


@dataclass(frozen=True, slots=True)
class KeyRefused:
    """The provider refused this key: hold it. `retry_after` in seconds, None: not said. `scope` is a `Scope`, `kind` an `ErrorClass`."""

    call: CallRef
    kind: str
    scope: str
    retry_after: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class DescribeLimits:
    """How do the limits stand? Answered with `LimitsDescribed`."""

    reply_to: str


@dataclass(frozen=True, slots=True)
class LimitsDescribed:
    """One key's limits as a JSON-ready mapping."""

    limit_key: str
    description: dict[str, Any]
