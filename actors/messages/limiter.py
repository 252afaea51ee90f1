"""What a rate limiter is told, and what it answers."""

from dataclasses import dataclass
from typing import Any

from ...persistence.limit_rules import Gate
from ..providers.model import LimitSnapshot
from .names import CallRef, Charge


@dataclass(frozen=True, slots=True, kw_only=True)
class ReserveCall:
    """May this call go? Higher priority first.

    `assumed_output`: what of the charge is a guess at the output of a call that sets no limit; the limiter knows better what such calls take.
    """

    reply_to: str
    call: CallRef
    charge: Charge
    priority: int
    assumed_output: int = 0


@dataclass(frozen=True, slots=True)
class CallGranted:
    """It may, now. The permit is the CallRef; settle it, whatever happens. `gate`: what its intent is to be checked and charged by."""

    call: CallRef
    gate: Gate


@dataclass(frozen=True, slots=True, kw_only=True)
class CallDeferred:
    """Not before `until_ms`: longer than a runner should wait. The reservation is gone. `kind`: of the hold, as in `LimitHold`; rate without one."""

    call: CallRef
    until_ms: int
    limit_key: str
    reason: str
    kind: str = "rate"


@dataclass(frozen=True, slots=True, kw_only=True)
class SettleCall:
    """A granted call is over. `used`: what it really took (None: unknown, the charge stands; NOTHING: it never left).

    `succeeded`: it was answered. `failure`: the `ErrorClass` if it was not, with the provider's wish of when to come back (seconds).
    """

    call: CallRef
    used: Charge | None
    succeeded: bool = False
    failure: str | None = None
    retry_after: float | None = None


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
