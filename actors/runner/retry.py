"""What to do about a failed call, by the class of its failure. Pure: no clock, no randomness of its own.

A limit or a matter of keys and money is never the job's fault: the key is held, and the call waits its turn again without an attempt being
counted. What may pass costs an attempt and comes back later. What trying again cannot heal goes to the handler.
"""

from dataclasses import dataclass

from ..providers.model import Billed, CallError, ErrorClass
from ..settings import RetrySettings

HOLDS_KEY = frozenset({ErrorClass.RATE, ErrorClass.QUOTA, ErrorClass.AUTH})
PASSES = frozenset(
    {
        ErrorClass.OVERLOADED,
        ErrorClass.SERVER,
        ErrorClass.CONNECT,
        ErrorClass.TIMEOUT,
        ErrorClass.TRUNCATED,
        ErrorClass.MALFORMED,
        ErrorClass.CONFLICT,
    }
)


@dataclass(frozen=True, slots=True)
class ReserveAgain:
    """The key is on hold: ask the limiter again."""


@dataclass(frozen=True, slots=True)
class TryLater:
    """An attempt is used up; the next one in `delay` seconds."""

    delay: float


@dataclass(frozen=True, slots=True)
class TellHandler:
    """Trying again would not help."""


@dataclass(frozen=True, slots=True)
class Park:
    """It may have been done and billed, and the job asked not to risk doing it twice."""


@dataclass(frozen=True, slots=True)
class GoBack:
    """Not the call's fault nor the job's (the provider's actor restarted): back to waiting, nothing counted."""


Action = ReserveAgain | TryLater | TellHandler | Park | GoBack


def decide(error: CallError, *, failures: int, on_unknown: str, retries: RetrySettings, random_value: float) -> Action:
    """The action for a failed call. `failures` is how many attempts failed before this one; `random_value` is uniform in [0, 1).

    A provider's own word (`x-should-retry`) goes before the class.
    """
    if error.kind in HOLDS_KEY:
        return ReserveAgain()
    if error.billed is Billed.MAYBE and on_unknown == "park":
        return Park()
    if error.kind is ErrorClass.CANCELLED:
        return GoBack()
    passes = error.kind in PASSES if error.retryable is None else error.retryable
    if not passes:
        return TellHandler()
    return TryLater(backoff(failures, retries, error.retry_after, random_value))


def backoff(failures: int, retries: RetrySettings, retry_after: float | None, random_value: float) -> float:
    """Seconds until the next attempt: full jitter over an exponential, but never sooner than the provider asked.

    Full jitter: <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>. Up to 10 % on top of what the provider
    asked for, so that jobs parked together do not wake together.
    """
    ceiling = min(retries.cap, retries.base * 2.0 ** min(failures, 30))
    jittered = ceiling * random_value
    if retry_after is None:
        return jittered
    return max(jittered, retry_after * (1 + 0.1 * random_value))
