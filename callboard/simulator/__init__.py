"""A real HTTP server that speaks the providers' wire formats, for the first run, the tests and the benchmarks."""

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
