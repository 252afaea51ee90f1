"""What to do about a failed call, by the class of its failure, and when to try again. Pure: no clock, no randomness of its own.

A limit or a matter of keys and money is never the job's fault: the key is held, and the call waits its turn again without an attempt being
counted. What may pass costs an attempt and comes back later. What trying again cannot heal goes to the handler.
"""

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..messages import Fail, RetryLater
from ..providers.model import Billed, CallError, ErrorClass
from ..settings import RetrySettings

logger = logging.getLogger(__name__)

RetryFunction = Callable[[int, Mapping[str, Any]], float | None]
"""A host's own policy for a job type: how many attempts have failed with this one, and its error as it is stored (`class`, `message`, …).
Returns the seconds until the next attempt, None to give up. Called on a runner's thread: it must return at once."""

LONGEST = 366 * 86400.0

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
    """An attempt is used up; the next one when the policy says, but not before the provider's word (seconds)."""

    retry_after: float | None


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


def decide(error: CallError, *, on_unknown: str) -> Action:
    """The action for a failed call. A provider's own word (`x-should-retry`) goes before the class.

    But for keys and money, which are not the job's matter whatever it says: the key is held until a person has seen to it.
    """
    if error.kind in HOLDS_KEY and not (error.kind is ErrorClass.RATE and error.retryable is False):
        return ReserveAgain()
    if error.billed is Billed.MAYBE and on_unknown == "park" and not error.resumable:
        return Park()
    if error.kind is ErrorClass.CANCELLED:
        return GoBack()
    passes = error.kind in PASSES if error.retryable is None else error.retryable
    return TryLater(error.retry_after) if passes else TellHandler()


class RetryPolicies:
    """When an attempt that failed is followed by another: as configured for the job's type, or as the host's own function says."""

    def __init__(self, settings: RetrySettings, own: Mapping[str, RetryFunction]) -> None:
        self._settings = settings
        self._own = own

    def verdict(
        self,
        job_type: str,
        failures: int,
        error: dict[str, Any],
        reason: str,
        *,
        now_ms: int,
        random_value: float,
        retry_after: float | None = None,
    ) -> RetryLater | Fail:
        """Another attempt, or failed for good. `failures`: attempts that failed before this one; `random_value` is uniform in [0, 1)."""
        policy = self._settings.of(job_type)
        delay: float | None = backoff(failures, policy, retry_after, random_value)
        if job_type in self._own:
            try:
                delay = _seconds(self._own[job_type](failures + 1, error))
            except Exception:  # the host's function; its bug must not become the job's end
                logger.exception("the retry policy of %r failed; the configured one is used", job_type)
        if delay is None:
            return Fail(error, f"given up by its retry policy: {reason}")
        return RetryLater(error, now_ms + round(delay * 1000), reason, policy.max_attempts)


def _seconds(given: Any) -> float | None:
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, int | float) or not math.isfinite(given):
        raise TypeError(f"a retry policy returns seconds or None, not {given!r}")
    return min(max(0.0, float(given)), LONGEST)


def backoff(failures: int, policy: RetrySettings, retry_after: float | None, random_value: float) -> float:
    """Seconds until the next attempt by a policy, but never sooner than the provider asked.

    Full jitter: <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>. Up to 10 % on top of what the provider
    asked for, and of a fixed delay, so that jobs parked together do not wake together.
    """
    if policy.kind == "fixed":
        delay = policy.base * (1 + 0.1 * random_value if policy.jitter else 1)
    else:
        ceiling = min(policy.cap, policy.base * 2.0 ** min(failures, 30))
        delay = ceiling * random_value if policy.jitter else ceiling
    return delay if retry_after is None else max(delay, retry_after * (1 + 0.1 * random_value))
