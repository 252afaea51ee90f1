"""The files of one batch, beside the database: the requests on their way, the results as they came. For their owner's eyes only.

They are a convenience: what is lost of them is written or fetched again.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

SQLITE = "sqlite:///"
PIECE = 1 << 20


class Spool:
    """A folder of mode 0700 with files of mode 0600. Raises OSError for a disk that will not have them."""

    def __init__(self, database: str, batch: int) -> None:
        path = database.removeprefix(SQLITE)
        on_disk = database.startswith(SQLITE) and path and not path.startswith(":memory:")
        self._home = Path(f"{path}-batches") if on_disk else _elsewhere()
        self._folder = self._home / str(batch)

    @property
    def requests(self) -> Path:
        """The lines as they are sent."""
        return self._folder / "requests.jsonl"

    def results(self, place: int) -> Path:
        """One of the files of results; its folder is there."""
        self._make()
        return self._folder / f"results-{place}.jsonl"

    @contextmanager
    def writing(self) -> Iterator[BinaryIO]:
        """Write the requests anew. The file has its name only when it is whole."""
        self._make()
        part = self._folder / "requests.part"
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            yield file
        part.replace(self.requests)

    def holds(self, sha256: str | None) -> bool:
        """Whether the requests are here, as they were written."""
        if not self.requests.exists():
            return False
        digest = hashlib.sha256()
        with self.requests.open("rb") as file:
            while piece := file.read(PIECE):
                digest.update(piece)
        return digest.hexdigest() == sha256

    def custom_ids(self, numbers: Sequence[int]) -> list[int]:
        """The requests that these lines (from 1) are; none, if that cannot be told."""
        if not numbers or not self.requests.exists():
            return []
        wanted, found = set(numbers), []
        with self.requests.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if number in wanted:
                    name = json.loads(line).get("custom_id", "")
                    tail = str(name).rpartition("-")[2]
                    if tail.isdecimal():
                        found.append(int(tail))
        return found

    def remove(self) -> None:
        """Forget them all."""
        with suppress(OSError):  # another worker may be removing them too, or use the folder above
            for file in self._folder.iterdir():
                file.unlink(missing_ok=True)
            self._folder.rmdir()
        with suppress(OSError):
            self._home.rmdir()

    def _make(self) -> None:
        for folder in (self._home, self._folder):
            folder.mkdir(mode=0o700, exist_ok=True)


def _elsewhere() -> Path:
    """Where the files of a board in memory are."""
    from tempfile import gettempdir  # it imports compressors that a worker needs for nothing else

    return Path(gettempdir()) / f"callboard-batches-{os.getpid()}"
