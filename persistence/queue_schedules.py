"""The host's side of what recurs: making schedules, looking at them, and letting them rest."""

from typing import TYPE_CHECKING, Any

from .occurrences import Rhythm
from .queue_connections import QueueConnections

if TYPE_CHECKING:
    from .schedules import Schedule


class QueueSchedules(QueueConnections):
    """Schedules are on the board, so any host may make them and every worker adds their jobs, each occurrence once."""

    def schedule(
        self,
        /,
        name: str,
        type: str,  # noqa: A002  # what every queue calls it
        data: Any = None,
        *,
        cron: str | None = None,
        every: float | None = None,
        timezone: str = "UTC",
        catch_up: str = "latest",
        **fields: Any,
    ) -> "Schedule":
        """Add a job at every time that `cron` names in `timezone` (`"0 9 * * 1-5"`, `"Europe/Berlin"`), or `every` so many seconds.

        Say it at every start of the host: a schedule of this name is changed to what is said, and keeps its next time unless its rhythm is
        another. `fields` are those of `NewJob`; `unique` lets an occurrence go while the job of an earlier one is live. `catch_up`: of the
        occurrences that were due while no worker ran, the "latest" is made up for, or "all". Days on which the clocks change are described
        in `persistence.occurrences`. Raises InvalidJobError, which names the field.
        """
        from . import schedules

        every_ms = None if every is None else round(every * 1000)
        with self._writer() as connection:
            return schedules.put(
                connection,
                name,
                Rhythm(cron, every_ms, timezone),
                catch_up,
                {"type": type, "data": data, **fields},
                self.clock(),
            )

    def unschedule(self, name: str) -> bool:
        """Forget a schedule; the jobs it has added stay. False if there is none of this name."""
        from . import schedules

        with self._writer() as connection:
            return schedules.remove(connection, name)

    def pause_schedule(self, name: str) -> bool:
        """Let a schedule rest until it is resumed. False if there is none of this name."""
        from . import schedules

        with self._writer() as connection:
            return schedules.pause(connection, name, self.clock())

    def resume_schedule(self, name: str) -> bool:
        """Let it go on with the next occurrence; what was due while it rested is not made up for. False if there is none of this name."""
        from . import schedules

        with self._writer() as connection:
            return schedules.resume(connection, name, self.clock())

    def schedules(self) -> "list[Schedule]":
        """All schedules by name, each with its next and its last time."""
        from . import schedules

        with self._reader() as connection:
            return schedules.listing(connection)
