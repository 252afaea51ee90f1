"""A fair queue before the database's write lock, for the processes and threads of one machine.

SQLite gives its lock to whoever asks at the right moment. A worker that commits and begins again at once leaves a host that asks every
millisecond hardly a moment: an `add` beside a worker flat out took 24 ms at the 99th percentile without this queue, and 9 with it. So a writer first takes the *gate*, then the *slot*, then lets the gate go
and begins; who has just written must go round by the gate again, where the next one already stands.

It is a courtesy, not a lock: writers that know nothing of it (plain SQL), a directory where its files cannot be made, a system without
`flock`, or a writer that stands still with the slot all leave SQLite's own lock to decide, after its own timeout. The kernel lets go of both
when a process ends, however it ends. The files hold nothing and stay.
"""

import contextlib
import os
import time
from pathlib import Path

try:
    import fcntl
except ImportError:  # not POSIX
    _fcntl = None
else:
    _fcntl = fcntl

_ASK_EVERY = 0.0005
"""Seconds between two tries for what another holds. Not a blocking `flock`: that could not be given up."""


class Turnstile:
    """One writer's place at it. One thread at a time."""

    def __init__(self, database: Path) -> None:
        self._paths = [database.with_name(f"{database.name}.{part}") for part in ("gate", "slot")]
        self._files: list[int] | None = None
        self._usable = _fcntl is not None
        self._held = False

    def enter(self, patience: float) -> bool:
        """Wait for the turn, `patience` seconds at most. Returns whether it has come; if not, go on without."""
        if not self._usable or not self._open():
            return False
        assert self._files is not None
        gate, slot = self._files
        deadline = time.monotonic() + patience
        if _take(gate, deadline):
            self._held = _take(slot, deadline)
            _give(gate)
        return self._held

    def leave(self) -> None:
        """Let the next one in. Harmless without a turn."""
        if self._held and self._files is not None:
            self._held = False
            _give(self._files[1])

    def close(self) -> None:
        """Leave, and close the files."""
        self.leave()
        for descriptor in self._files or ():
            os.close(descriptor)
        self._files = None

    def _open(self) -> bool:
        if self._files is None:
            opened: list[int] = []
            try:
                for path in self._paths:
                    opened.append(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))  # noqa: PERF401  # closed below if one fails
            except OSError:
                for descriptor in opened:
                    os.close(descriptor)
                self._usable = False
                return False
            self._files = opened
        return True


def _take(descriptor: int, deadline: float) -> bool:
    assert _fcntl is not None
    while True:
        try:
            _fcntl.flock(descriptor, _fcntl.LOCK_EX | _fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_ASK_EVERY)
        except OSError:  # a file system without locks
            return False
        else:
            return True


def _give(descriptor: int) -> None:
    assert _fcntl is not None
    with contextlib.suppress(OSError):
        _fcntl.flock(descriptor, _fcntl.LOCK_UN)
