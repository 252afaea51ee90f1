"""The worker process that `callboard map` starts for itself and keeps alive."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from callboard.config import Config

from .errors import InputError

if TYPE_CHECKING:
    from callboard.process import WorkerProcess

MAX_RESTARTS = 3
_MEANINGS = {
    70: "it gave up after too many failures",
    78: "its configuration is not usable",
    -9: "it was killed (kill -9, or out of memory)",
}
_STOP_SECONDS = 35.0


class WorkerFailedError(InputError):
    """The worker cannot be kept alive; the rows that are left stay on the board."""


class OwnWorker:
    """A child that ends with this process, however that ends. Not for several threads."""

    def __init__(self, config: Config) -> None:
        # Its log would run through the progress line; warnings may.
        self._config = msgspec.structs.replace(config, log_level="warning")
        self._process: WorkerProcess | None = None
        self._restarts = 0

    def start(self) -> None:
        """Start the process. It may take a moment to begin."""
        from callboard.process import spawn

        self._process = spawn(self._config)

    def keep_alive(self, say: Callable[[str], None]) -> None:
        """Start it again if it has died, saying why. Raises WorkerFailedError when it dies too often or for a reason that stays."""
        if self._process is None or self._process.returncode is None:
            return
        code = self._process.stop()
        why = _MEANINGS.get(code, f"a signal ended it ({-code})" if code < 0 else f"exit code {code}")
        if code == 78 or self._restarts >= MAX_RESTARTS:
            raise WorkerFailedError(
                f"the worker process ended: {why}",
                "its last messages are above; `callboard doctor` looks for the cause",
            )
        self._restarts += 1
        say(f"the worker process ended: {why}; starting another ({self._restarts} of {MAX_RESTARTS})")
        self.start()

    def stop(self) -> None:
        """Stop it in order: what runs may finish, the rest goes back to the board."""
        if self._process is not None:
            self._process.stop(timeout=_STOP_SECONDS)
