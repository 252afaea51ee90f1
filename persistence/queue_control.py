"""The host's methods about queues as a whole: pausing them, counting, and checking the database they are in."""

from .lifecycle import JobState
from .model import QueueStatus
from .queue_connections import QueueConnections


class QueueControl(QueueConnections):
    """A part of `JobQueue`."""

    def pause(self, queue: str) -> bool:
        """Let no more jobs of this queue be claimed, by any worker, until `resume`; those that are being worked on go on.

        The queue need not have jobs yet. False if it was paused already. Raises InvalidJobError for what cannot be a queue's name.
        """
        from . import queues

        with self._writer() as connection:
            return queues.pause(connection, queue, self.clock())

    def resume(self, queue: str) -> bool:
        """Let its jobs be claimed again. False if it was not paused. Raises InvalidJobError."""
        from . import queues

        with self._writer() as connection:
            return queues.resume(connection, queue)

    def queues(self) -> list[QueueStatus]:
        """Every queue that has jobs or was ever paused, by name. Its cost does not grow with the jobs."""
        from . import queues

        with self._reader() as connection:
            return queues.queues(connection)

    def counts(self) -> dict[JobState, int]:
        """How many jobs are in each state, every state named. Its cost does not grow with the jobs."""
        totals = dict.fromkeys(JobState, 0)
        for by_state in self.counts_by_type().values():
            for state, count in by_state.items():
                totals[state] += count
        return totals

    def counts_by_type(self) -> dict[str, dict[JobState, int]]:
        """How many jobs of each type are in each state, every state named. Its cost does not grow with the jobs."""
        from . import queues

        with self._reader() as connection:
            found = queues.counts(connection)
        counts: dict[str, dict[JobState, int]] = {}
        for kind, state, count in found:
            counts.setdefault(kind, dict.fromkeys(JobState, 0))[state] = count
        return counts

    def check(self) -> list[str]:
        """What is wrong with the database, in sentences; empty if it is sound. Reads all of it: minutes on a large one."""
        from . import host_store

        with self._reader() as connection:
            return host_store.problems(connection)

    def repair(self) -> int:
        """Set right the counters that do not say how many jobs there are; returns how many were wrong. Nobody writes while it counts."""
        from . import queues

        with self._writer() as connection:
            return queues.recount(connection)
