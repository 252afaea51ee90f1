"""What a provider's actor is told, and what it tells."""

from dataclasses import dataclass

from ..providers.batch_api import Operation, Report
from ..providers.model import Answer, AnyRequest, CallError, Timeouts
from .names import CallRef


@dataclass(frozen=True, slots=True, kw_only=True)
class StartCall:
    """Make this call; its intent is on disk. Facts about it go to `reply_to`, facts about limits to its limiter."""

    reply_to: str
    call: CallRef
    limit_key: str
    request: AnyRequest
    timeouts: Timeouts


@dataclass(frozen=True, slots=True)
class AbortCall:
    """Close the connection of this call now. It still ends with CallFailed (cancelled)."""

    call: CallRef


@dataclass(frozen=True, slots=True)
class TextArrived:
    """A piece of the answer."""

    call: CallRef
    text: str


@dataclass(frozen=True, slots=True)
class CallFinished:
    """The answer is complete."""

    call: CallRef
    completion: Answer


@dataclass(frozen=True, slots=True)
class CallFailed:
    """The call is over without an answer."""

    call: CallRef
    error: CallError


@dataclass(frozen=True, slots=True, kw_only=True)
class StartExchange:
    """Perform an operation of the provider's batch API. Answered with ExchangeFinished, or CallFailed."""

    reply_to: str
    call: CallRef
    operation: Operation


@dataclass(frozen=True, slots=True)
class ExchangeFinished:
    """What the provider said."""

    call: CallRef
    report: Report
