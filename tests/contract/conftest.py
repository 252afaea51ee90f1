"""Programs that are not ours on a board that is: the statements of docs/sql-contract.md, and a worker to do what they ask for."""

import json
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from callboard import Config
from callboard.actors.providers.settings import ProviderSettings
from callboard.actors.settings import ModelSettings, PriceSettings
from callboard.persistence.engine import open_database
from callboard.simulator import Simulator, SimulatorConfig

DOCUMENT = Path(__file__).parents[2] / "docs" / "sql-contract.md"


def statements():
    """The statements of the document by the heading they stand under, as they stand."""
    found = defaultdict(list)
    heading = ""
    for part in re.split(r"(^## [^\n]*$|^```sql\n.*?^```$)", DOCUMENT.read_text(), flags=re.MULTILINE | re.DOTALL):
        if part.startswith("## "):
            heading = part.removeprefix("## ")
        elif part.startswith("```sql\n"):
            found[heading].append(part.removeprefix("```sql\n").removesuffix("```"))
    return dict(found)


class Board:
    """A board in a file, a worker that can be run on it, and a shell."""

    def __init__(self, path, simulator):
        self.path = path
        self.config = Config(
            database=f"sqlite:///{path}",
            providers={"sim": ProviderSettings(name="sim", wire="openai-chat", base_url=f"{simulator.url}/v1")},
            models={"m": ModelSettings(provider="sim", model="model-1", price=PriceSettings(input=1, output=2))},
            default_model="m",
            log_level="warning",
        )
        open_database(self.config.database).close()

    def work(self):
        """A worker process does what can be done, and ends."""
        done = subprocess.run(
            [sys.executable, "-m", "callboard", "worker", "--config", "-", "--once"],
            input=self.config.to_json() + "\n",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        # 1: there is a job that is not due yet.
        assert done.returncode in {0, 1}, done.stderr

    def shell(self, sql, *, fails=False):
        """The rows that the `sqlite3` shell prints for these statements; or what it complains of."""
        done = subprocess.run(
            ["sqlite3", "-batch", "-bail", "-json", str(self.path)],
            input=sql,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if fails:
            assert done.returncode != 0, done.stdout
            return done.stderr
        assert (done.returncode, done.stderr) == (0, "")
        return [
            row for rows in re.findall(r"\[.*?\](?=\n\[|\n*\Z)", done.stdout, re.DOTALL) for row in json.loads(rows)
        ]


@pytest.fixture
def simulator():
    with Simulator(SimulatorConfig()) as simulator:
        yield simulator


@pytest.fixture
def board(tmp_path, simulator):
    return Board(tmp_path / "board.db", simulator)


@pytest.fixture
def document():
    return statements()


@pytest.fixture(autouse=True)
def _a_shell():
    if shutil.which("sqlite3") is None:
        pytest.skip("there is no sqlite3 shell here: apt install sqlite3")
