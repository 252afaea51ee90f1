"""The host's methods about jobs that belong together: flows, children, what waits on what, and cancelling a tree."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .errors import InvalidJobError, JobNotFoundError
from .flow_plan import flow_nodes, single_node
from .job import Job
from .model import JobRow
from .new_job import NewJob, rows_of
from .queue_connections import QueueConnections

if TYPE_CHECKING:
    from .family import Family


class QueueFlows(QueueConnections):
    """A part of `JobQueue`."""

    def add_flow(self, jobs: Mapping[str, Any] | Iterable[Any], *, connection: Any = None) -> dict[str, Job]:
        """Add jobs that wait on each other, all in one transaction. The jobs by the names the flow calls them.

        `jobs`: by name, or a list in which each says its `name`; each a `FlowJob`, or a mapping of the fields of `NewJob` with, where it waits
        on others, `needs` (names of the flow, or ids of jobs on the board; each alone or as a pair with its policy), `policy` (for needs that
        name none: "fail", "ignore" or "continue") and `quorum` ("all", "any" or a number). The order does not matter.

        A job whose key or unique name another has is that job, and gets no new needs; so adding a flow again whose jobs all have keys adds
        nothing. `connection`: as in `add`. Raises InvalidJobError, which names the field: for a name that is unknown or used twice, for
        needs that go round in a circle, for a job that does not exist.
        """
        nodes = flow_nodes(jobs)
        now = self.clock()
        rows = []
        for node in nodes:
            try:
                rows.append(rows_of(node.job, now))
            except InvalidJobError as error:
                raise InvalidJobError(f"{node.field}.{error.field}", error.problem) from error
        from . import family

        with self._writer_in(connection) as c:
            ids = family.add_flow(c, nodes, rows, now)
        added = {node.name: Job(self._as_job_queue(), job_id) for node, job_id in zip(nodes, ids, strict=True)}
        names = jobs if isinstance(jobs, Mapping) else added
        return {name: added[name] for name in names if name is not None}

    def _add_waiting(self, job: NewJob, needs: Sequence[Any], policy: str, quorum: int | str, connection: Any) -> Job:
        """A single job that waits on others: see `JobQueue.add`."""
        node = single_node(job, needs, policy, quorum)
        now = self.clock()
        rows = rows_of(job, now)
        from . import family

        with self._writer_in(connection) as c:
            return Job(self._as_job_queue(), family.add_flow(c, [node], [rows], now)[0])

    def cancel_tree(self, job_id: int, reason: str | None = None) -> int:
        """Cancel a job with everything that is there for it. Returns how many jobs that were. Raises JobNotFoundError.

        That is: the job, if it has not ended; everything it created while it ran, and what that created; and whatever these wait on, if no other
        live job waits on it. A large tree takes several short transactions, from the top down; what a job of it creates meanwhile goes too.
        """
        from . import family, host_store

        with self._reader() as connection:
            if host_store.job_row(connection, job_id) is None:
                raise JobNotFoundError(f"there is no job {job_id} on {self.name}")
        cancelled = 0
        while True:
            with self._reader() as connection:
                members = family.tree_of(connection, job_id)
            if not members:
                return cancelled
            for start in range(0, len(members), family.CANCEL_CHUNK):
                chunk = members[start : start + family.CANCEL_CHUNK]
                with self._writer() as connection:
                    cancelled += host_store.cancel_all(
                        connection, chunk, reason or "cancelled by the host, with its tree", self.clock()
                    )

    def children(self, job_id: int) -> list[JobRow]:
        """The jobs that this one created while it ran, oldest first."""
        from . import family

        with self._reader() as connection:
            return family.children(connection, job_id)

    def dependencies(self, job_id: int) -> list[JobRow]:
        """The jobs that this one waits on or has waited on, in the order of its needs; its children included."""
        from . import family

        with self._reader() as connection:
            return family.dependencies(connection, job_id)

    def dependents(self, job_id: int) -> list[JobRow]:
        """The jobs that wait on this one or have waited on it, oldest first."""
        from . import family

        with self._reader() as connection:
            return family.dependents(connection, job_id)

    def family(self, job_id: int, *, limit: int = 500) -> "Family":
        """A job with everything below it, what it waits on and what it created, and how these belong together; about `limit` jobs at most."""
        from . import family

        with self._reader() as connection:
            return family.family_of(connection, job_id, limit=limit)

    def _as_job_queue(self) -> Any:
        return self  # every QueueFlows is a JobQueue
