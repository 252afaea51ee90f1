"""A company in this process, a simulator it calls, a board on disk; and nothing of any of them left when the test ends."""

import threading
import time
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pykka
import pytest

from callboard import Config, JobQueue, Supervisor
from callboard.actors.providers.settings import ProviderSettings
from callboard.actors.settings import ModelSettings, RetrySettings, RunnerSettings
from callboard.simulator import Simulator, SimulatorConfig

PATIENCE = 20.0
"""Seconds that a wait for something that must happen may take, on a machine that is busy with other things."""


def until(holds, what="what the test waits for", timeout=PATIENCE):
    """The first true value of `holds()`."""
    deadline = time.monotonic() + timeout
    while not (value := holds()):
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {what}"
        time.sleep(0.005)  # paces the looks; what ends the wait is what is seen
    return value


class Stage:
    """What a test plays on. `company` starts a Supervisor, which ends with the test."""

    def __init__(self, stack, path: Path):
        self.stack, self.path = stack, path
        self.database = f"sqlite:///{path / 'board.db'}"
        self.queue = stack.enter_context(JobQueue(self.database, synchronous="NORMAL", poll_interval=0.005))
        self._simulator = None

    @property
    def simulator(self):
        if self._simulator is None:
            self.simulate()
        return self._simulator

    def simulate(self, **settings):
        self._simulator = self.stack.enter_context(Simulator(SimulatorConfig(**settings)))
        return self._simulator

    def config(self, **settings):
        provider = ProviderSettings(
            name="sim", wire="openai-chat", base_url=f"{self.simulator.url}/v1", allow_private=True
        )
        return Config(
            **{
                "database": self.database,
                "providers": {"sim": provider},
                "models": {"m": ModelSettings(provider="sim", model="m-1")},
                "default_model": "m",
                "poll_interval": 0.02,
                "sweep_interval": 0.1,
                "retries": RetrySettings(base=0.01, cap=0.02),
                "synchronous": "NORMAL",
                **settings,
                **self._roomy(settings),
            }
        )

    @staticmethod
    def _roomy(settings):
        """The process that runs all these tests is larger than a worker may be, and a worker over its bound starts no more runners."""
        if "profile" in settings:
            return {}
        return {"runners": msgspec.structs.replace(settings.get("runners", RunnerSettings()), memory_mb=100_000)}

    def company(self, handlers=None, *, on_failure=None, **settings):
        supervisor = Supervisor(self.config(**settings), handlers=handlers, on_failure=on_failure)
        self.stack.callback(lambda: supervisor.stop(0.0))
        return supervisor.start()

    def done(self, job, timeout=PATIENCE):
        return job.wait(timeout).row()

    def until(self, holds, what="what the test waits for"):
        return until(holds, what)

    def crash(self, supervisor, name):
        """An unknown message is a bug, and crashes its receiver."""
        life = supervisor._system.directory.find(name)
        assert life is not None
        supervisor._system.tell(name, object())
        until(lambda: life.over, f"the crash of {name}")


@pytest.fixture
def stage(tmp_path):
    threads, actors = set(threading.enumerate()), set(pykka.ActorRegistry.get_all())
    with ExitStack() as stack:
        yield Stage(stack, tmp_path)
    until(lambda: not set(threading.enumerate()) - threads, f"the end of {set(threading.enumerate()) - threads}")
    assert not set(pykka.ActorRegistry.get_all()) - actors
    assert not list(tmp_path.glob("*.lock"))
