"""The host's methods about requests that go out together."""

from typing import TYPE_CHECKING

from .job import Job
from .queue_connections import QueueConnections

if TYPE_CHECKING:
    from .batches import BatchInfo, RequestInfo


class QueueBatches(QueueConnections):
    """A part of `JobQueue`."""

    def batches(self, *, every: bool = False, limit: int = 100) -> "list[BatchInfo]":
        """The provider batches and embedding groups that are under way, newest first; with `every`, those that are over as well."""
        from . import batches

        with self._reader() as connection:
            return batches.listed(connection, every=every, limit=limit)

    def batches_of(self, job: int | Job) -> "list[RequestInfo]":
        """The requests of a job that went with others, or wait to, oldest first: the step, and the batch it is in."""
        from . import batches

        with self._reader() as connection:
            return batches.requests_of(connection, job if isinstance(job, int) else job.id)
