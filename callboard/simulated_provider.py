"""The embedded simulator as a provider: started as a child process when the first call needs it, ended with the engine.

This is what `base_url = "auto"` means, and what makes the first command work with no key and no server.
"""

from collections.abc import Callable, Hashable

import msgspec

from callboard.actors.providers.engine import CallEngine, CallEvent
from callboard.actors.providers.model import AnyRequest, Timeouts
from callboard.actors.providers.settings import ProviderSettings
from callboard.simulator.child import SimulatorProcess, spawn_simulator


class SimulatedEngine:
    """A call engine whose server is a child process of its own."""

    def __init__(self, settings: ProviderSettings, *, own_process: bool) -> None:
        self._settings = settings
        self._own_process = own_process
        self._child: SimulatorProcess | None = None
        self._engine: CallEngine | None = None

    def start(self) -> None:
        """Nothing yet: most workers never call the simulator."""

    def stop(self) -> None:
        """Abort every call, and end the child."""
        if self._engine is not None:
            self._engine.stop()
        if self._child is not None:
            self._child.stop()

    def submit(
        self, call_key: Hashable, request: AnyRequest, timeouts: Timeouts, on_event: Callable[[CallEvent], object]
    ) -> None:
        """Make a call. The first one takes the fraction of a second that the child needs to start."""
        if self._engine is None:
            self._child = spawn_simulator()
            settings = msgspec.structs.replace(self._settings, base_url=f"{self._child.url}/v1")
            self._engine = CallEngine(settings, own_process=self._own_process)
            self._engine.start()
        self._engine.submit(call_key, request, timeouts, on_event)

    def abort(self, call_key: Hashable) -> None:
        """Abort a call; unknown keys are ignored."""
        if self._engine is not None:
            self._engine.abort(call_key)
