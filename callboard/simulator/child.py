"""The simulator as a child process that cannot outlive its parent.

The child's standard input is a pipe whose other end only the parent holds. When the parent ends, by whatever death, the pipe ends and
the child with it. (A process that the parent *forks* without exec inherits that end; the child then lives as long as the fork.)
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from types import TracebackType
from typing import Self

from .arguments import to_arguments
from .config import SimulatorConfig


class SimulatorProcess:
    """A running simulator: its `url`, its `pid`, and `stop()`. A context manager stops it. Methods may be called from any thread."""

    def __init__(self, process: subprocess.Popen[bytes], url: str) -> None:
        self._process = process
        self.url = url

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def stop(self, timeout_seconds: float = 5.0) -> int:
        """Ask it to end and return its exit code; kill it if it has not ended in time. Harmless when it has ended already."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            return self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
        finally:
            self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def spawn_simulator(config: SimulatorConfig | None = None, *, startup_seconds: float = 20.0) -> SimulatorProcess:
    """Start a simulator in a child process and return it when it can be called.

    Its errors go to this process's standard error. Raises RuntimeError when it ends, or says no URL, within `startup_seconds`.
    """
    command = [sys.executable, "-m", "callboard.simulator", "--watch-stdin", *to_arguments(config or SimulatorConfig())]
    # A session of its own: Ctrl-C is for the parent, which may want to finish its calls before it ends the simulator.
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)  # noqa: S603 - our own module, no shell
    assert process.stdout is not None
    line = _first_line(process.stdout.fileno(), time.monotonic() + startup_seconds)
    child = SimulatorProcess(process, line.strip())
    if not line.endswith("\n"):
        code = child.stop(timeout_seconds=1.0)
        raise RuntimeError(
            f"the simulator did not start within {startup_seconds} s (exit code {code}); its standard error says why"
        )
    return child


def _first_line(descriptor: int, deadline: float) -> str:
    """Return what was written up to the first line end, or what there was of it at the deadline or the end of the output."""
    found = b""
    while not found.endswith(b"\n"):
        ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        data = os.read(descriptor, 1) if ready else b""
        if not data:
            break
        found += data
    return found.decode()
