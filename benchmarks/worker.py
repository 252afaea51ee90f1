"""A worker process under measurement: started, waited for, and read through /proc."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Self

from callboard import Config
from callboard.actors.providers.settings import ProviderSettings
from callboard.actors.settings import LimitSettings, ModelSettings, PriceSettings, RunnerSettings
from callboard.persistence.engine import driver

from .handlers import HANDLERS

ROOT = Path(__file__).parents[1]
PATIENCE = 600.0
_TICK = os.sysconf("SC_CLK_TCK")


def config(
    path: Path,
    *,
    runners: int,
    url: str | None = None,
    synchronous: str = "FULL",
    limits: LimitSettings | None = None,
    **settings: Any,
) -> Config:
    """A worker's configuration: the handlers here, and a model `m` at the provider of this URL if there is one."""
    given: dict[str, Any] = {"providers": {}, "models": {}, "default_model": None}
    if url is not None:
        provider = ProviderSettings(name="bench", wire="openai-chat", base_url=f"{url}/v1", max_in_flight=1000)
        model = ModelSettings(provider="bench", model="m", limits=limits, price=PriceSettings(input=1, output=2))
        given = {"providers": {"bench": provider}, "models": {"m": model}, "default_model": "m"}
    return Config(
        database=f"sqlite:///{path}",
        profile="solo" if runners == 1 else "pool",
        runners=RunnerSettings(max=runners),
        handlers=HANDLERS,
        synchronous=synchronous,  # type: ignore[arg-type]  # one of the two words
        log_level="warning",
        **given,
        **settings,
    )


class Worker:
    """`callboard worker` as a child process. `ready_after`: seconds from its start until it was ready for work."""

    def __init__(self, config: Config) -> None:
        started = time.perf_counter()
        self._directory = tempfile.TemporaryDirectory(prefix="callboard-bench-worker-")
        notify = f"{self._directory.name}/notify"
        self._notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)  # told as systemd would be
        self._notified.bind(notify)
        self._notified.settimeout(60)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "callboard", "worker", "--config", "-"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            cwd=ROOT,
            env={**os.environ, "NOTIFY_SOCKET": notify},
            start_new_session=True,
        )
        assert self.process.stdin is not None
        with self.process.stdin as stdin:
            stdin.write(config.to_json().encode() + b"\n")
        try:
            self._notified.recv(64)
        except TimeoutError:
            self.process.kill()
            raise
        self.ready_after = time.perf_counter() - started

    def cpu_seconds(self) -> float:
        """CPU time so far, to the tick (10 ms)."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICK

    def cpu_of_threads(self) -> float:
        """CPU time so far of the threads that live now, to the nanosecond: for moments in which little happens."""
        return sum(
            int(file.read_text().split()[0]) / 1e9
            for file in Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
        )

    def memory_mb(self, field: str = "VmRSS") -> float:
        """`VmRSS`: resident now; `VmHWM`: the most there ever was."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) / 1024
        raise RuntimeError(f"the worker has ended: /proc does not tell its {field}")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)
        self._notified.close()
        self._directory.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


@contextmanager
def reader(path: Path) -> Iterator[Any]:
    """A plain connection to the board."""
    with closing(driver.connect(str(path), timeout=60, isolation_level=None)) as connection:
        yield connection


def wait_until_ended(path: Path, worker: Worker, every: float = 0.02) -> None:
    """Until no job waits or is active. Looks at two partial indexes only, so that looking costs the worker nothing."""
    open_jobs = "SELECT EXISTS (SELECT 1 FROM llm_jobs WHERE state = 'waiting') OR EXISTS (SELECT 1 FROM llm_jobs WHERE state = 'active') OR EXISTS (SELECT 1 FROM llm_jobs WHERE state = 'delayed')"
    deadline = time.monotonic() + PATIENCE
    with reader(path) as connection:
        while connection.execute(open_jobs).fetchone()[0]:
            if worker.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the worker did not finish its jobs (exit code {worker.process.poll()})")
            time.sleep(every)


def span_seconds(path: Path) -> float:
    """From the first claim to the last end, by the board's own log."""
    with reader(path) as connection:
        first, last = connection.execute(
            "SELECT min(CASE WHEN to_state = 'active' THEN at END), max(at) FROM llm_job_transitions"
        ).fetchone()
    return max(1, last - first) / 1000
