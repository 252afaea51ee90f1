"""The calls of a key that are in flight, found by call, owner and job.

Who reserves anew voids what is left of an earlier lease; to look through all that is in flight for it, at each reservation, would cost more than
the rest of the reservation.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from ..messages import CallRef
from .dimensions import Charged

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Permit:
    """A granted call: what it is charged, since when, and to whom it was granted."""

    owner: str
    granted_at: float
    charged: Charged


class Permits:
    """All of them. One thread."""

    def __init__(self) -> None:
        self._of: dict[CallRef, Permit] = {}
        self._owners: Counter[str] = Counter()
        self._jobs: Counter[int] = Counter()

    def __contains__(self, call: object) -> bool:
        """Return whether a call is in flight."""
        return call in self._of

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._of)

    def get(self, call: CallRef) -> Permit | None:
        """Return the permit of a call, None if it has none."""
        return self._of.get(call)

    def all(self) -> Iterable[tuple[CallRef, Permit]]:
        """Return every call in flight with its permit, the oldest grant first."""
        return self._of.items()

    def add(self, call: CallRef, permit: Permit) -> None:
        """Note a call that was granted."""
        self._of[call] = permit
        self._owners[permit.owner] += 1
        self._jobs[call.job_id] += 1

    def drop(self, call: CallRef) -> Permit | None:
        """Forget a call; return its permit, None if it had none."""
        permit = self._of.pop(call, None)
        if permit is not None:
            _less(self._owners, permit.owner)
            _less(self._jobs, call.job_id)
        return permit

    def of(self, owner: str, job_id: int | None = None) -> list[tuple[CallRef, Permit]]:
        """Return what this owner holds, and what is in flight for this job."""
        if owner not in self._owners and job_id not in self._jobs:
            return []
        return [(call, permit) for call, permit in self._of.items() if permit.owner == owner or call.job_id == job_id]


def _less(counts: Counter[_T], what: _T) -> None:
    counts[what] -= 1
    if not counts[what]:
        del counts[what]
