"""A worker's hold on a database: its connection factory, its name as an owner of leases, and the lock that shows it alive."""

from typing import Literal, Self

from . import liveness
from .engine import Connection, Database, open_database
from .errors import DatabaseError


class WorkerBoard:
    """An opened board under one owner name. Any thread."""

    def __init__(self, database: Database, owner: str) -> None:
        self.owner = owner
        self._database = database
        self._lock = liveness.OwnerLock(database.path, owner)
        self._clear_up()

    @classmethod
    def open(
        cls, url: str, *, owner: str, synchronous: Literal["FULL", "NORMAL"] = "FULL", busy_timeout: float = 10.0
    ) -> Self:
        """Open `url` as `owner`, a name that is fresh for every start of a process. Raises DatabaseError, and OSError for the lock file.

        `busy_timeout` (seconds) is below the lease's life, so that waiting for a stranger's lock never costs a lease unnoticed.
        """
        return cls(open_database(url, synchronous=synchronous, busy_timeout=busy_timeout), owner)

    def connect(self) -> Connection:
        """A connection of its own for the caller, who closes it."""
        return self._database.connect()

    def is_dead(self, owner: str) -> bool | None:
        """Whether the process of another owner is dead; None: it cannot be told, and its leases must expire."""
        return liveness.is_dead(self._database.path, owner)

    def forget(self, owner: str) -> None:
        """A dead owner has no jobs left: remove its lock file."""
        liveness.remove_dead(self._database.path, owner)

    def close(self) -> None:
        """Let go of the lock and the database. May be called twice.

        If jobs are left under this owner (the company gave up), the lock's file stays: the next worker sees that they are a dead one's, takes
        them back at once and does not wait for their leases to end.
        """
        if self._lock.held:
            self._lock.close(remove=self._has_let_go())
        self._database.close()

    def _has_let_go(self) -> bool:
        try:
            with self._database.connect() as connection:
                return self.owner not in _owners(connection)
        except DatabaseError:
            return False

    def _clear_up(self) -> None:
        """Lock files of the dead that held no job when they died."""
        dead = liveness.dead_owners(self._database.path)
        if not dead:
            return
        with self._database.connect() as connection:
            still_owning = _owners(connection)
        for owner in dead:
            if owner not in still_owning:
                self.forget(owner)


def _owners(connection: Connection) -> set[str]:
    from .claims import owners

    return set(owners(connection))
