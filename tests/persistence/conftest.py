"""A real board in a file or in memory, and shorthands for putting jobs on it and taking them off."""

import multiprocessing
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from callboard.persistence import claims
from callboard.persistence.engine import Connection, Database, open_database
from callboard.persistence.job_queue import JobQueue
from callboard.persistence.model import ClaimedJob

NOW = 1_700_000_000_000


class Board:
    """A database with one connection of a worker and a host's queue, whose clock stands at `now` until it is moved."""

    def __init__(self, database: Database) -> None:
        self.now = NOW
        self.database = database
        self.c: Connection = database.connect()
        self.c.pragma("synchronous", "OFF")  # a test loses nothing in a power cut
        self.queue = JobQueue(database, clock=lambda: self.now)

    def add(self, kind: str = "chat", **fields: Any) -> int:
        return self.queue.add(kind, **fields).id

    def claim(
        self, slots: int = 1, owner: str = "worker-a", lane: str = "default|chat||", **more: Any
    ) -> list[ClaimedJob]:
        settings: dict[str, Any] = {
            "quotas": {lane: slots},
            "lease_until": self.now + 30_000,
            "now": self.now,
            "actor": "store",
            **more,
        }
        with self.c.write():
            return claims.claim(self.c, owner=owner, slots=slots, **settings)

    def started(self, **fields: Any) -> ClaimedJob:
        """A job that is being worked on."""
        wanted = self.add(**fields)
        (job,) = self.claim()
        assert job.id == wanted
        return job

    def move(self, function: Callable[..., Any], *args: Any, **named: Any) -> Any:
        """One store function in a transaction of its own."""
        with self.c.write():
            return function(self.c, *args, **named)

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        return self.c.script(statement)

    def snapshot(self) -> dict[str, list[tuple[Any, ...]]]:
        """Every row of every table of ours."""
        tables = [
            name
            for (name,) in self.sql(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name GLOB 'llm_*' ORDER BY name"
            )
        ]
        return {table: self.sql(f"SELECT * FROM {table}") for table in tables}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "board.db"


@pytest.fixture
def url(path: Path) -> str:
    return f"sqlite:///{path}"


@pytest.fixture(scope="session")
def empty_board(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A board made once, closed, and copied for each test: making one takes longer than most tests."""
    made = tmp_path_factory.mktemp("template") / "board.db"
    database = open_database(f"sqlite:///{made}")
    database.close()
    return made


@pytest.fixture
def board(url: str, path: Path, empty_board: Path) -> Iterator[Board]:
    shutil.copy(empty_board, path)
    database = open_database(url, synchronous="NORMAL")
    board = Board(database)
    yield board
    board.queue.close()
    board.c.close()
    database.close()


@pytest.fixture
def spawn(monkeypatch: pytest.MonkeyPatch) -> Any:
    """New processes that find the tests' modules however pytest was started. Last on the path, so that the package is found as ever."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(Path(__file__).parents[2])])
    return multiprocessing.get_context("spawn")
