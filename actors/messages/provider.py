"""What a provider's actor is told, and what it tells."""

from dataclasses import dataclass
from typing import Any

from ..providers.batch_api import Operation, Report
from ..providers.model import Answer, AnyRequest, CallError, Timeouts
from .names import CallRef


@dataclass(frozen=True, slots=True, kw_only=True)
class StartCall:
    """Make this call; its intent is on disk. Facts about it go to `reply_to`, facts about limits to its limiter.

    `handle`: take up the call that it names, which the provider goes on with, instead of asking anew.
    """

    reply_to: str
    call: CallRef
    limit_key: str
    request: AnyRequest
    timeouts: Timeouts
    handle: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class AbortCall:
    """Close the connection of this call now. It still ends with CallFailed (cancelled).

    `keep`: a provider that goes on with it may, since another attempt will take it up; else it is ended there too.
    """

    call: CallRef
    keep: bool = False


@dataclass(frozen=True, slots=True)
class EndKept:
    """End at the provider the call that goes on there under this handle (JSON): nobody wants it any more."""

    handle: dict[str, Any]


@dataclass(frozen=True, slots=True)
class CallHeld:
    """The provider goes on with this call whatever becomes of us; `handle` (JSON) is what it can be taken up by."""

    call: CallRef
    handle: dict[str, Any]


@dataclass(frozen=True, slots=True)
class TextArrived:
    """A piece of the answer."""

    call: CallRef
    text: str


@dataclass(frozen=True, slots=True)
class CallFinished:
    """The answer is complete. `text`: the last of it, which came with the end and in no `TextArrived`."""

    call: CallRef
    completion: Answer
    text: str = ""


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
