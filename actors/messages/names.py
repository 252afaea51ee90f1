"""Who is who: the names actors are addressed by, and what calls are keyed by."""

from typing import Literal, NamedTuple

from ...persistence.limit_rules import Charge as Charge  # noqa: PLC0414 - part of the protocol
from ...persistence.model import Lease

Cause = Literal["loss", "deferral", "handback"]
"""Why a job goes back to waiting: its runner died, a limit makes it wait, or it was simply put back. The first two are counted."""

ROOT = "company"
STORE = "store"
DISPATCHER = "dispatcher"
RUNNERS = "runners"
LIMITERS = "limiters"
PROVIDERS = "providers"


def limiter_name(limit_key: str) -> str:
    """The directory name of the limiter of a key."""
    return f"limiter:{limit_key}"


def provider_name(provider: str) -> str:
    """The directory name of a provider's actor."""
    return f"provider:{provider}"


class CallRef(NamedTuple):
    """One call of one claim of a job: what permits and in-flight calls are keyed by. `number` counts from 1 within the lease."""

    job_id: int
    epoch: int
    number: int

    @property
    def lease(self) -> Lease:
        """The lease it was made under."""
        return Lease(self.job_id, self.epoch)
