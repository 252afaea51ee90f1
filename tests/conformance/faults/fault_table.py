"""The table of faults: what a server does, and what becomes of the job. docs/failures.md is made from it (`make failures`).

A job has two attempts (one where a deadline would have to pass twice), and the fault is there at each request unless it says `once`. Whoever
changes a row changes what is promised.
"""

from dataclasses import dataclass
from typing import Any

import fault_batches
import fault_bodies
import fault_vectors
from fault_rows_answers import ANSWERS, BODY, HEADERS, STREAM
from fault_rows_background import ROWS as BACKGROUND
from fault_rows_batches import ROWS as BATCHES
from fault_rows_http import CONNECTION, STATUS
from fault_rows_own import ROWS as OWN
from fault_rows_vectors import ROWS as VECTORS


@dataclass(frozen=True)
class Section:
    """One section of the table: its rows, each for some of its parts.

    `daily`: of which groups the rows are played in every run of the tests, by part; a part that is not named has all of them played. The rest,
    which repeat what other parts show of the same code, is played under soak.
    """

    title: str
    parts: tuple[str, ...]
    rows: tuple[Any, ...]
    daily: dict[str, tuple[str, ...]]

    def of(self, part: str) -> list[Any]:
        """The rows of a part."""
        return [row for row in self.rows if part in row.only]

    def of_each_day(self, part: str) -> list[Any]:
        """Those that every run of the tests plays."""
        return [row for row in self.of(part) if part not in self.daily or row.group in self.daily[part]]


CHATS = Section("Chats", fault_bodies.NAMES, (*CONNECTION, *STATUS, *BODY, *STREAM, *HEADERS, *ANSWERS), daily={})
BEHIND = Section(
    "Calls in the background",
    ("background",),
    BACKGROUND,
    daily={"background": ("The call is made", "It is lost after text, and followed")},
)
EMBEDDINGS = Section(
    "Embeddings",
    fault_vectors.NAMES,
    VECTORS,
    daily={
        "openai-embeddings": ("Body of a 200", "Vectors"),
        "gemini-embeddings": ("Vectors",),
        "ollama-embeddings": ("Vectors",),
    },
)
HOSTS = Section("A provider of one's own", ("own",), OWN, daily={})
LANE = Section(
    "Provider batches",
    fault_batches.NAMES,
    BATCHES,
    daily={"openai-batches": ("It is asked after",), "anthropic-batches": (), "gemini-batches": ()},
)
SECTIONS = (CHATS, BEHIND, EMBEDDINGS, HOSTS, LANE)
