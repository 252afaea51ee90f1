"""How long a key that was refused is left alone (pure).

A refusal says more than our own count does: the provider counts differently, others use the same account, the key is wrong, the
money is gone. So the whole key waits, for at least as long as the provider asked, and longer each time in a row that it refuses.
"""

import math
from dataclasses import dataclass

PATIENT_KINDS = frozenset({"auth", "quota"})
"""Kinds of refusal (`ErrorClass`) that heal when a person does something, not by waiting: tried again much less often."""

LONGEST_HOLD = 86_400.0
"""Seconds. A provider that asks for more is asked again after a day."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Seconds: the first hold, doubled with each refusal in a row, up to the cap."""

    base: float
    cap: float

    def delay(self, refusals: int, jitter: float) -> float:
        """Return the hold after so many refusals in a row (1 is the first); `jitter` in 0..1 chooses within the upper half."""
        ceiling = min(self.cap, self.base * 2.0 ** min(refusals - 1, 32))
        return ceiling * (0.5 + jitter / 2)


BRISK = Backoff(base=1.0, cap=60.0)
PATIENT = Backoff(base=30.0, cap=600.0)


@dataclass(frozen=True, slots=True)
class Hold:
    """Nothing is granted before `until` (seconds on the limiter's clock). `kind`: rate, quota, auth, or breaker."""

    until: float
    reason: str
    kind: str = "rate"


@dataclass(slots=True)
class HoldState:
    """The hold of one key and how it came about."""

    hold: Hold | None = None
    refusals: int = 0
    refused_at: float = -math.inf

    def standing(self, now: float) -> Hold | None:
        """Return the hold if it still stands."""
        return self.hold if self.hold is not None and self.hold.until > now else None

    def refuse(
        self, kind: str, retry_after: float | None, reason: str, *, granted_at: float | None, now: float, jitter: float
    ) -> Hold:
        """Hold after a refusal, never shorter than a hold that stands, nor than `retry_after`.

        Only a call that was granted after the last refusal counts as another one in a row: the rest of a burst was on its way already.
        """
        standing = self.standing(now)
        if granted_at > self.refused_at if granted_at is not None else standing is None:
            self.refusals += 1
            self.refused_at = now
        asked = retry_after if retry_after is not None and not math.isnan(retry_after) else 0.0
        backoff = PATIENT if kind in PATIENT_KINDS else BRISK
        until = now + min(LONGEST_HOLD, max(asked, backoff.delay(max(1, self.refusals), jitter)))
        if standing is None or until > standing.until:
            self.hold = Hold(until, reason, kind)
        assert self.hold is not None
        return self.hold

    def impose(self, hold: Hold) -> None:
        """Take over a hold that was decided elsewhere, if it is longer than what stands."""
        if self.hold is None or hold.until > self.hold.until:
            self.hold = hold

    def lift(self) -> None:
        """End the hold and the row of refusals: a person said so."""
        self.hold, self.refusals = None, 0

    def succeed(self, granted_at: float) -> bool:
        """End the row of refusals if this call was granted after the last one; return whether it did."""
        if self.hold is None or granted_at < self.hold.until:
            return False
        self.hold, self.refusals = None, 0
        return True
