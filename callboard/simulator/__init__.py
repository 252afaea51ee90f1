"""A real HTTP server that speaks the providers' wire formats, for the first run, the tests and the benchmarks.

Names are imported when they are first used: a worker starts the simulator as a process of its own, and must not hold its server too.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .child import SimulatorProcess, spawn_simulator
    from .config import SimulatorConfig
    from .faults import FaultError
    from .journal import fingerprint, read_journal
    from .server import Clock
    from .simulator import Simulator

__all__ = [
    "Clock",
    "FaultError",
    "Simulator",
    "SimulatorConfig",
    "SimulatorProcess",
    "fingerprint",
    "read_journal",
    "spawn_simulator",
]

_HOME = {
    "Clock": "server",
    "FaultError": "faults",
    "Simulator": "simulator",
    "SimulatorConfig": "config",
    "SimulatorProcess": "child",
    "fingerprint": "journal",
    "read_journal": "journal",
    "spawn_simulator": "child",
}


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{home}", __name__), name)
