"""The host's side of letting go: cleaning up what has ended, by hand."""

from collections.abc import Callable

from .errors import InvalidJobError
from .lifecycle import TERMINAL_STATES, JobState
from .queue_connections import QueueConnections


class QueueRetention(QueueConnections):
    """Workers prune by themselves what ended `retention_days` ago; this is for more than that."""

    def clean(
        self,
        *,
        older_than: float,
        state: JobState | str | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> int:
        """Delete what ended more than `older_than` seconds ago, of one state (completed, failed or cancelled) or all three. Returns how many.

        It goes in short transactions, each of which is for good; `progress(deleted)` is called after each. What a live job waits on is kept.
        Raises InvalidJobError for a state that does not end a job.
        """
        from . import retention

        if older_than < 0:
            raise InvalidJobError("older_than", f"must not be negative: {older_than}")
        try:
            states = TERMINAL_STATES if state is None else frozenset({JobState(state)})
        except ValueError:
            states = frozenset()
        if not states or not states <= TERMINAL_STATES:
            raise InvalidJobError("state", f"must be one of {', '.join(sorted(TERMINAL_STATES))}, not {state!r}")
        before = self.clock() - round(older_than * 1000)
        place, deleted = retention.BEGINNING, 0
        while True:
            with self._reader() as connection:
                ids, place = retention.ended(connection, before, after=place, states=states)
            if not ids:
                return deleted
            with self._writer() as connection:
                deleted += retention.delete(connection, ids)
            if progress is not None:
                progress(deleted)
