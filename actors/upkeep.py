"""What time brings besides claims: schedules that are due, old jobs that go, prices that have changed. For the store's actor, in its transactions."""

import logging

from ..persistence import retention, schedules
from ..persistence.claims import FOREVER
from ..persistence.engine import Connection
from . import prices

logger = logging.getLogger(__name__)

_DAY_MS = 86_400_000


class Upkeep:
    """Remembers how late it has been, so that a clock that is set back is noticed. For one thread."""

    def __init__(self, retention_days: float) -> None:
        self._kept_ms = round(retention_days * _DAY_MS)
        self._latest = (
            FOREVER  # nobody knows what the clock did while no worker ran: the first time counts as a step back
        )

    def fire_schedules(self, c: Connection, now: int) -> int:
        """Add the jobs of the schedules that are due. Returns how many."""
        if now < self._latest and (rearmed := schedules.rearm(c, now)):
            logger.warning("the clock was set back: %d schedules are due earlier than they were put off to", rearmed)
        self._latest = now
        return schedules.fire_due(c, now)

    def prune(self, c: Connection, now: int) -> int:
        """Delete some of the jobs that ended too long ago, few enough for one transaction; returns how many. And see whether prices have changed."""
        prices.look_again()
        return retention.prune(c, now - self._kept_ms) if self._kept_ms else 0
