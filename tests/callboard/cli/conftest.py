"""The command line in this process on real files, and the provider's simulator beside it."""

import os
from dataclasses import dataclass

import pytest

from callboard.__main__ import run
from callboard.simulator import Simulator, SimulatorConfig


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current directory and an environment without settings or keys."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("CALLBOARD_") or name.endswith("_API_KEY")]:
        monkeypatch.delenv(name)
    return tmp_path


@pytest.fixture
def cli(here, capfd):
    """Run a command; what it printed and its exit code."""

    def call(*arguments: object) -> Result:
        capfd.readouterr()
        code = run([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return Result(code, out, err)

    return call


@pytest.fixture
def provider(here):
    """A simulator in this process, and a callboard.toml that makes it the default model."""
    with Simulator(SimulatorConfig()) as simulator:
        (here / "callboard.toml").write_text(
            'default_model = "local:m"\n[retries]\nbase = 0.05\ncap = 0.1\n'
            f'[providers.local]\nwire = "openai-chat"\nbase_url = "{simulator.url}/v1"\n'
        )
        yield simulator
