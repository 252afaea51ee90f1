"""Every request the simulator saw, in memory and, if asked, in a file that survives the kill of any process.

A test that kills processes proves with it that nothing was sent twice, so a line is written at a request's arrival, before anything
is done about it, and another at its end; each in one `write` to a file opened for appending, without a buffer of our own.
API keys are replaced by the start of their SHA-256 before anything is stored.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

KEPT_ENTRIES = 10_000
"""Entries kept in memory; the oldest are dropped beyond it. The file keeps all."""
KEPT_BYTES = 64 * 1024 * 1024
"""Raw body bytes of the entries kept in memory; the oldest are dropped beyond it."""

_SECRET_HEADERS = frozenset(
    {"authorization", "proxy-authorization", "x-api-key", "api-key", "x-goog-api-key", "cookie"}
)


def fingerprint(key: str) -> str:
    """Return the first 8 hex digits of a key's SHA-256: enough to tell a test's keys apart, and no key."""
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()[:8]


def redacted(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return headers without their secrets. Of `Authorization: Bearer KEY` the key alone is fingerprinted, as of `x-api-key: KEY`."""
    return {
        name: f"<redacted>{fingerprint(value.rpartition(' ')[2])}" if name in _SECRET_HEADERS else value
        for name, value in headers
    }


class Journal:
    """The entries, oldest first. Used by the server's event loop alone.

    `changed` is called after every arrival and every end.
    """

    def __init__(self, path: Path | None, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._entries: deque[tuple[int, dict[str, Any]]] = deque()
        self._bytes = 0
        self._path = path
        self._file: int | None = None

    def started(self, at: int, url: str) -> None:
        """Open the file, and mark in it that a simulator begins to count at 1 here. Raises OSError when it cannot be opened."""
        if self._path is not None:
            self._file = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
            size = os.fstat(self._file).st_size
            if size and os.pread(self._file, 1, size - 1) != b"\n":
                os.write(self._file, b"\n")  # the last run was killed in the middle of a line
        self._append({"event": "started", "at": at, "url": url})

    def arrived(self, entry: dict[str, Any], raw: bytes) -> None:
        """Record a request before anything is done about it; fills in its `sha256`, and `status`, `outcome`, `ended_at` as None."""
        entry["sha256"] = hashlib.sha256(raw).hexdigest()
        entry.update(status=None, outcome=None, ended_at=None)
        self._entries.append((len(raw), entry))
        self._bytes += len(raw)
        while len(self._entries) > KEPT_ENTRIES or (self._bytes > KEPT_BYTES and len(self._entries) > 1):
            self._bytes -= self._entries.popleft()[0]
        self._append({"event": "arrived", **entry})
        self._changed()

    def ended(self, entry: dict[str, Any], **facts: Any) -> None:
        """Record how a request ended."""
        entry.update(facts)
        self._append({"event": "ended", "n": entry["n"], **facts})
        self._changed()

    def entries(self) -> list[dict[str, Any]]:
        """Return copies of the entries in memory."""
        return [dict(entry) for _, entry in self._entries]

    def close(self) -> None:
        """Close the file. Entries stay readable."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _append(self, line: dict[str, Any]) -> None:
        if self._file is not None:
            os.write(self._file, json.dumps(line, separators=(",", ":")).encode() + b"\n")


def read_journal(path: Path) -> list[dict[str, Any]]:
    """Return the entries in a journal file, each with its end filled in where it has one. A line cut short by a kill is left out.

    A file may hold several runs of a simulator, each counting from 1: an entry's `run` says which.
    """
    entries: list[dict[str, Any]] = []
    open_entries: dict[int, dict[str, Any]] = {}
    run = 0
    for line in path.read_bytes().split(b"\n"):
        try:
            record = json.loads(line)
        except ValueError:
            continue
        event = record.pop("event")
        if event == "started":
            run += 1
            open_entries = {}
        elif event == "arrived":
            entries.append({**record, "run": run})
            open_entries[record["n"]] = entries[-1]
        elif record["n"] in open_entries:
            open_entries.pop(record["n"]).update(record)
    return entries
