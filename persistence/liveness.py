"""Knowing that a worker process is dead the moment it is: a lock file beside the database, which the kernel lets go of with the process.

`flock` belongs to the open file, so it ends with the process however it ends, also by SIGKILL, and with the machine. It says nothing where
there is no such lock (no `fcntl`, a network disk, a file that is gone): then leases expire, which is slower and always works.

The database's own files are never opened here: closing a descriptor of one would drop the locks SQLite holds on it.
"""

import contextlib
import os
from pathlib import Path

try:
    import fcntl
except ImportError:  # not POSIX
    _fcntl = None
else:
    _fcntl = fcntl


def lock_path(database: Path, owner: str) -> Path:
    """Where the lock file of an owner is. An owner's name is a plain file name (a UUID is)."""
    if not owner or "/" in owner or os.sep in owner or "\0" in owner:
        raise ValueError(f"an owner's name must be usable in a file name: {owner!r}")
    return database.with_name(f"{database.name}.worker-{owner}.lock")


class OwnerLock:
    """Held for the life of the process that owns jobs as `owner`. Made, used and closed on any thread; children made by fork hold it too.

    Raises OSError if the file cannot be created. Where locks do not exist (`held` is False) leases alone decide.
    """

    def __init__(self, database: Path | None, owner: str) -> None:
        self.owner = owner
        self.path = None if database is None else lock_path(database, owner)
        self.held = False
        self._descriptor: int | None = None
        if self.path is None or _fcntl is None:
            return
        # Locked before it has its name, so that nobody ever sees it unlocked while we live.
        unnamed = self.path.with_name(self.path.name + ".new")
        descriptor = os.open(unnamed, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        try:
            _fcntl.flock(descriptor, _fcntl.LOCK_EX | _fcntl.LOCK_NB)
            os.write(descriptor, f"{os.getpid()}\n".encode())
            unnamed.rename(self.path)
        except OSError:
            os.close(descriptor)
            unnamed.unlink(missing_ok=True)
            raise
        self._descriptor = descriptor
        self.held = True

    def close(self, *, remove: bool = True) -> None:
        """Let go, and remove the file if the jobs of this owner are back on the board; a file that stays says at once that it is dead.

        May be called twice.
        """
        if self._descriptor is None or self.path is None:
            return
        if remove:
            with contextlib.suppress(OSError):
                self.path.unlink()
        os.close(self._descriptor)
        self._descriptor = None
        self.held = False


def is_dead(database: Path | None, owner: str) -> bool | None:
    """Whether the process that owns jobs as `owner` is dead: True, False, or None where nothing can be said. Never waits."""
    if database is None or _fcntl is None:
        return None
    try:
        descriptor = os.open(lock_path(database, owner), os.O_RDWR)
    except (OSError, ValueError):
        return None
    try:
        _fcntl.flock(descriptor, _fcntl.LOCK_EX | _fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    else:
        return True
    finally:
        os.close(descriptor)


def remove_dead(database: Path | None, owner: str) -> bool:
    """Remove the lock file of a dead owner, once its jobs are back. A living owner's file stays. Returns whether it was removed."""
    if is_dead(database, owner) is not True or database is None:
        return False
    with contextlib.suppress(OSError):
        lock_path(database, owner).unlink()
    return True


def dead_owners(database: Path | None) -> list[str]:
    """Every owner whose lock file is here and whose process is dead, with or without jobs left."""
    if database is None:
        return []
    prefix, suffix = f"{database.name}.worker-", ".lock"
    try:
        names = [path.name for path in database.parent.iterdir()]
    except OSError:
        return []
    found = [name[len(prefix) : -len(suffix)] for name in names if name.startswith(prefix) and name.endswith(suffix)]
    return sorted(owner for owner in found if is_dead(database, owner) is True)
