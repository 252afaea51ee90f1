"""`spawn`: the host launches the worker as a child process and watches it, as an Electron app forks a utility process."""

import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Self

from callboard.config import Config, load_config


class WorkerProcess:
    """A worker that this process started. Its pipe is its life-line: when the host dies, however it dies, the worker ends within 2 s."""

    def __init__(self, process: subprocess.Popen[bytes], *, detached: bool) -> None:
        self._process = process
        self.detached = detached

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code (70: gave up, 78: bad configuration, negative: the signal that killed it), None while it runs."""
        return self._process.poll()

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; returns the exit code. Raises TimeoutError after `timeout` seconds."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"worker {self.pid} was still running after {timeout:g} s") from None

    def stop(self, timeout: float = 40.0) -> int:
        """Ask it to drain and wait for its end, `timeout` seconds at most, then kill it: the board takes its jobs back. Returns the exit code."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._close()
        return self._process.returncode

    def _close(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def spawn(
    config: Config | None = None, *, detach: bool = False, once: bool = False, env: Mapping[str, str] | None = None
) -> WorkerProcess:
    """Start a worker as a child process, in a session of its own, and return at once.

    `config`: what `load_config()` finds if None; it travels over the child's stdin and is on no command line. `detach`: the worker outlives
    this process. `once`: it ends when the board has nothing left to do. `env`: its environment (keys are read from it), this
    process's if None. Its messages go to this process's stderr. Raises OSError if it cannot be started.
    """
    config = load_config() if config is None else config
    command = [sys.executable, "-m", "callboard", "worker", "--config", "-"]
    if once:
        command.append("--once")
    if not detach:
        command.append("--watch-stdin")
    process = subprocess.Popen(  # noqa: S603  # our own interpreter and module, no shell
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
        env=dict(env if env is not None else os.environ),
    )
    assert process.stdin is not None
    worker = WorkerProcess(process, detached=detach)
    try:
        process.stdin.write(config.to_json().encode() + b"\n")
        process.stdin.flush()
    except BrokenPipeError:
        pass  # it ended at once, and said why on stderr; its return code tells
    if detach:
        worker._close()  # noqa: SLF001  # the same module
    return worker
