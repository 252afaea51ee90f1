"""What the scenarios share: workers as real child processes, a provider that outlives them, and the laws that must hold afterwards.

Nothing here makes time pass: every wait is for something to be seen (a request in the simulator's journal, a row, a log line), with a deadline
that only a broken run reaches.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from callboard import Config, JobQueue
from callboard.actors.providers.settings import ProviderSettings
from callboard.actors.settings import ModelSettings, PriceSettings, RetrySettings, RunnerSettings
from callboard.persistence.engine import driver
from callboard.persistence.lifecycle import TERMINAL_STATES
from callboard.simulator import Simulator, SimulatorConfig

PATIENCE = 30.0
"""Seconds that a wait for something that must happen may take, on a machine that is busy with other things."""


def until(holds: Callable[[], Any], what: str, timeout: float = PATIENCE) -> Any:
    """The first true value of `holds()`."""
    deadline = time.monotonic() + timeout
    while not (value := holds()):
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {what}"
        time.sleep(0.005)
    return value


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Worker:
    """`callboard worker` as a child process. Its stderr is read as it is written, so that a test can wait for a line of it."""

    def __init__(
        self,
        config: Config,
        *,
        env: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
        wrapper: Sequence[str] = (),
        interpreter: Sequence[str] = (),
        cwd: Path | None = None,
    ) -> None:
        self.process = subprocess.Popen(
            [*wrapper, sys.executable, *interpreter, "-m", "callboard", "worker", "--config", "-", *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            start_new_session=True,
        )
        assert self.process.stdin is not None
        self.process.stdin.write(config.to_json().encode() + b"\n")
        self.process.stdin.close()
        self._lines: list[str] = []
        self._written = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self.process.pid

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stream:
            for line in stream:
                with self._written:
                    self._lines.append(line.decode().rstrip("\n"))
                    self._written.notify_all()

    @property
    def log(self) -> list[str]:
        """The lines so far; all of them once `wait` or `kill` has returned."""
        with self._written:
            return list(self._lines)

    def sees(self, text: str) -> str | None:
        return next((line for line in self.log if text in line), None)

    def wait_for(self, text: str, timeout: float = PATIENCE) -> str:
        """The first log line with this text."""
        with self._written:
            found = self._written.wait_for(
                lambda: next((line for line in self._lines if text in line), None), timeout=timeout
            )
        assert found, f"worker {self.pid} did not log {text!r}; it said:\n" + "\n".join(line[:300] for line in self.log)
        return found

    def wait_ready(self) -> int:
        """When it was ready, in epoch milliseconds."""
        line = json.loads(self.wait_for('"event": "ready"'))
        return round(datetime.fromisoformat(line["at"]).timestamp() * 1000)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, timeout: float = PATIENCE) -> int:
        """Its exit code; its log is complete then."""
        code = self.process.wait(timeout)
        self._reader.join(PATIENCE)
        return code

    def kill(self) -> int:
        """SIGKILL, and wait for its end. Returns the moment of the kill in epoch milliseconds."""
        at = now_ms()
        self.process.kill()
        self.wait()
        return at

    def stop(self) -> int:
        """SIGTERM, and its exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def cpu_ticks(self) -> int:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])


def prompt_of(number: int) -> str:
    return f"Summarise item {number:05d}. It is a plain sentence about item {number:05d} and nothing else."


def requests_by_prompt(simulator: Simulator) -> Counter[str]:
    """How often each prompt was sent to the provider."""
    return Counter(entry["body"]["messages"][-1]["content"] for entry in simulator.journal())


class Script:
    """A Python program of a few lines in a process of its own. What it prints is read as it comes; its stdin has ended."""

    def __init__(self, code: str, *arguments: object, given: str = "") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdin is not None
        self.process.stdin.write(given)
        self.process.stdin.close()

    def read(self, lines: int | None = None) -> list[str]:
        """The next lines; or all that remain, and then it must have ended well."""
        assert self.process.stdout is not None
        if lines is not None:
            return [self.process.stdout.readline() for _ in range(lines)]
        found = self.process.stdout.read().splitlines()
        assert self.process.wait(PATIENCE) == 0
        return found

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


class World:
    """One board in a file, its host, and whatever processes a test starts on it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = directory / "board.db"
        self.queue = JobQueue(self.path)
        self._workers: list[Worker] = []
        self._scripts: list[Script] = []
        self._simulators: list[Simulator] = []

    def simulate(self, **settings: Any) -> Simulator:
        simulator = Simulator(SimulatorConfig(**settings)).start()
        self._simulators.append(simulator)
        return simulator

    def config(
        self,
        provider: Simulator | ProviderSettings | None = None,
        *,
        runners: int = 16,
        model: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> Config:
        """A worker's configuration with one model `m`, at one provider `sim`; other settings as `Config` has them."""
        if isinstance(provider, Simulator):
            provider = ProviderSettings(name="sim", wire="openai-chat", base_url=f"{provider.url}/v1")
        given: dict[str, Any] = {
            "database": f"sqlite:///{self.path}",
            "providers": {} if provider is None else {provider.name: provider},
            "models": {}
            if provider is None
            else {
                "m": ModelSettings(
                    provider=provider.name, model="model-1", price=PriceSettings(input=1, output=2), **(model or {})
                )
            },
            "default_model": None if provider is None else "m",
            "runners": RunnerSettings(max=runners),
            "retries": RetrySettings(base=0.05, cap=0.2),
            "log_format": "json",
            **settings,
        }
        return Config(**given)

    def start(self, config: Config, **options: Any) -> Worker:
        worker = Worker(config, **options)
        self._workers.append(worker)
        return worker

    def run(self, code: str, *arguments: object, given: str = "") -> Script:
        script = Script(code, *arguments, given=given)
        self._scripts.append(script)
        return script

    def add_chats(self, count: int, **fields: Any) -> list[int]:
        """Jobs whose prompts (`prompt_of`) say which of these they are. Their ids."""
        return self.queue.add_many([{"type": "chat", "data": {"prompt": prompt_of(n)}, **fields} for n in range(count)])

    def rows(self, sql: str, *parameters: Any) -> list[Any]:
        """The rows of a statement. By the same SQLite as the queue's: two copies of the library in one process undo each other's locks."""
        with closing(driver.connect(str(self.path), timeout=PATIENCE)) as connection:
            return connection.execute(sql, parameters).fetchall()

    until = staticmethod(until)
    now_ms = staticmethod(now_ms)
    prompt_of = staticmethod(prompt_of)
    requests_by_prompt = staticmethod(requests_by_prompt)

    def completed(self) -> int:
        return int(self.rows("SELECT count(*) FROM llm_jobs WHERE state = 'completed'")[0][0])

    def wait_all_ended(self, timeout: float = PATIENCE) -> None:
        open_states = "SELECT state, count(*) FROM llm_jobs WHERE state NOT IN ('completed', 'failed', 'cancelled') GROUP BY state"
        until(lambda: not self.rows(open_states), "all jobs have ended", timeout)

    def assert_sound(self) -> None:
        """The laws of the board: every row's state is its last transition, each step follows from the one before, every end is one end."""
        differing = self.rows("""
            SELECT job.id, job.state, log.to_state FROM llm_jobs AS job LEFT JOIN llm_job_transitions AS log
            ON log.id = (SELECT max(id) FROM llm_job_transitions WHERE job_id = job.id) WHERE log.to_state IS NOT job.state
        """)
        assert differing == [], "rows whose state is not their last transition"
        broken = self.rows("""
            SELECT * FROM (
                SELECT job_id, from_state, lag(to_state) OVER (PARTITION BY job_id ORDER BY id) AS before FROM llm_job_transitions
            ) WHERE from_state IS NOT before
        """)
        assert broken == [], "transitions that do not follow from the one before"
        ends = {str(state) for state in TERMINAL_STATES}
        ended: Counter[int] = Counter()
        for job_id, from_state, to_state in self.rows(
            "SELECT job_id, from_state, to_state FROM llm_job_transitions ORDER BY id"
        ):
            ended[job_id] += (to_state in ends) - (from_state in ends)
        assert set(ended.values()) <= {0, 1}, "jobs that ended twice"
        assert self.rows(
            "SELECT count(*) FROM llm_calls WHERE state = 'open' AND job_id NOT IN (SELECT id FROM llm_jobs WHERE state = 'active')"
        ) == [(0,)]
        assert self.rows("PRAGMA integrity_check") == [("ok",)]
        assert self.rows("PRAGMA foreign_key_check") == []

    def assert_paid_once(self, simulator: Simulator) -> None:
        """By the provider's journal and the ledger: no completed call was made again, and what was sent again had been cut off by a death."""
        sent = requests_by_prompt(simulator)
        prompts = {
            json.loads(data).get("prompt"): job_id
            for job_id, data in self.rows("SELECT job_id, data FROM llm_job_data")
        }
        assert set(sent) <= set(prompts)
        calls: dict[int, list[tuple[str, int | None]]] = {}
        for job_id, state, finished_at in self.rows("SELECT job_id, state, finished_at FROM llm_calls ORDER BY id"):
            calls.setdefault(job_id, []).append((state, finished_at))
        completed_at = {}
        for job_id, found in calls.items():
            states = [state for state, _ in found]
            if "completed" in states:
                assert states[-1] == "completed", f"job {job_id} made a call after the completed one: {states}"
                completed_at[job_id] = found[-1][1]
        for prompt, count in sent.items():
            job_id = prompts[prompt]
            assert count <= len(calls[job_id]), f"job {job_id}: {count} requests, but {len(calls[job_id])} intents"
        for entry in simulator.journal():
            job_id = prompts[entry["body"]["messages"][-1]["content"]]
            done = completed_at.get(job_id)
            assert done is None or entry["at"] <= done, (
                f"job {job_id} was sent again after its completion was committed"
            )

    def close(self) -> None:
        for worker in self._workers:
            if worker.process.poll() is None:
                worker.signal(signal.SIGCONT)
                worker.kill()
        for script in self._scripts:
            script.kill()
        for simulator in self._simulators:
            simulator.stop()
        self.queue.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    try:
        yield world
    finally:
        world.close()
