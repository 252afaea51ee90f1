"""What a runner is told."""

from dataclasses import dataclass

from ...persistence.model import ClaimedJob, Lease


@dataclass(frozen=True, slots=True)
class RunJob:
    """Perform this job under its lease."""

    job: ClaimedJob


@dataclass(frozen=True, slots=True)
class RevokeJob:
    """The lease is void (`LeasesLost`): abort and drop the work."""

    lease: Lease


@dataclass(frozen=True, slots=True)
class HandBack:
    """Abort the work and send the job back to waiting, its attempt refunded (shutdown)."""

    reason: str
