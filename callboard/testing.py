"""A pytest plugin for hosts: their jobs, on a real board, against a real provider that says what the test tells it to.

    def test_a_report_is_written(callboard_board, callboard_provider, callboard_drain):
        callboard_provider.replies("Summarise", "Short.")
        job = callboard_board.add("report", {"text": "…"}, model="test")
        callboard_drain({"report": my_handler})
        assert job.refresh().result == "Short."

Nothing is switched globally and nothing is mocked: the board is a SQLite file of the test's own, the provider the simulator on the loopback,
the worker an embedded `Supervisor`. Everything is imported when a fixture is first used.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from callboard.actors.runner.handlers import Handler
    from callboard.config import Config
    from callboard.persistence.job import Job
    from callboard.persistence.job_queue import JobQueue
    from callboard.simulator import Simulator

MODEL = "test"
"""The model alias that leads to the test's provider; it is the default model too."""

_LOOK_EVERY = 0.01


class TestProvider:
    """The provider of one test: a simulator, and a journal of what was asked of it."""

    __test__ = False

    def __init__(self, simulator: "Simulator") -> None:
        self.simulator = simulator

    def replies(self, contains: str, text: str, *, times: int | None = None) -> None:
        """Answer prompts that contain `contains` with `text`, `times` times (None: always). Earlier scripts go first.

        Without a script, a request with a schema is answered by an instance of it, and `call NAME {"a": 1}` in a prompt has the model ask for
        that tool (docs/simulator.md).
        """
        self.simulator.faults(
            {"match": {"contains": contains}, "times": times, "fault": {"kind": "reply", "text": text}}
        )

    def fails(self, kind: str, *, contains: str = "", times: int | None = 1, **parameters: Any) -> None:
        """Let calls fail as `docs/simulator.md` describes: `fails("status", status=429, retry_after=1)`, `fails("cut", n=3)`."""
        match = {"contains": contains} if contains else {}
        self.simulator.faults({"match": match, "times": times, "fault": {"kind": kind, **parameters}})

    @property
    def prompts(self) -> list[str]:
        """The text of the last message of every request, in the order they came; of an embedding its texts, a line each."""
        return [_asked(entry["body"]) for entry in self.simulator.journal()]


def _asked(body: dict[str, Any]) -> str:
    given = body["messages"][-1]["content"] if "messages" in body else body["input"]
    if isinstance(given, str):
        return given
    return "\n".join(
        one if isinstance(one, str) else one["text"] for one in given if isinstance(one, str) or "text" in one
    )


@pytest.fixture
def callboard_config(tmp_path: Path, callboard_provider: TestProvider) -> "Config":
    """The configuration the other fixtures share: override it in a test module to change it."""
    from callboard.actors.providers.settings import ProviderSettings
    from callboard.actors.settings import ModelSettings
    from callboard.config import Config

    settings = ProviderSettings(name=MODEL, wire="openai-chat", base_url=f"{callboard_provider.simulator.url}/v1")
    return Config(
        database=f"sqlite:///{tmp_path / 'callboard.db'}",
        providers={MODEL: settings},
        models={MODEL: ModelSettings(provider=MODEL, model=MODEL)},
        default_model=MODEL,
    )


@pytest.fixture
def callboard_provider() -> Iterator[TestProvider]:
    """A provider of the test's own, on the loopback."""
    from callboard.simulator import Simulator

    with Simulator() as simulator:
        yield TestProvider(simulator)


@pytest.fixture
def callboard_board(callboard_config: "Config") -> Iterator["JobQueue"]:
    """A queue on a database file of the test's own."""
    from callboard.persistence.job_queue import JobQueue

    with JobQueue(callboard_config.database) as queue:
        yield queue


@pytest.fixture
def callboard_drain(callboard_config: "Config", callboard_board: "JobQueue") -> Callable[..., None]:
    """`callboard_drain(handlers)` runs a worker in this process until the board has nothing left that can be done now, and stops it.

    It raises TimeoutError after `timeout` seconds (30 by default), saying what is left.
    """
    from callboard.embedded import Supervisor

    def run(handlers: "Mapping[str, Handler] | None" = None, *, timeout: float = 30.0) -> None:
        deadline = time.monotonic() + timeout
        with Supervisor(callboard_config, handlers=handlers) as supervisor:
            while True:
                status = supervisor.status()
                soon = status.next_due_ms is not None and status.next_due_ms < supervisor.now_ms() + round(
                    timeout * 1000
                )
                if status.settled and not soon:
                    return
                if time.monotonic() > deadline:
                    raise TimeoutError(
                        f"the board was not drained within {timeout:g} s; jobs by state: {callboard_board.counts()}"
                    )
                time.sleep(_LOOK_EVERY)

    return run


def assert_enqueued(queue: "JobQueue", job_type: str, **data: Any) -> "Job":
    """The newest job of a type whose data has these values. Raises AssertionError that shows what there is."""
    rows = queue.list(type=job_type, limit=1000)
    for row in rows:
        job = queue.get(row.id)
        if isinstance(job.data, dict) and all(job.data.get(name) == value for name, value in data.items()):
            return job
    raise AssertionError(f"no {job_type!r} job with {data!r} among {len(rows)} of that type")
