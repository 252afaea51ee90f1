"""Server-sent events, decoded from bytes as they arrive.

Lines are split as *bytes* at LF, CR or CRLF and only then decoded: `str.splitlines` (and httpx's `iter_lines`) also split at U+2028, U+2029
and U+0085, which may stand unescaped inside a JSON string, and so would cut an event in two. Pure: no I/O, no clock, no thread.
"""

import re
from dataclasses import dataclass

MAX_EVENT_BYTES = 16 * 1024 * 1024
"""The largest line or event accepted."""

_LINE_END = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"


class EventTooLargeError(ValueError):
    """A line or an event is over the cap: the peer is broken or hostile, and the stream is of no further use."""


@dataclass(frozen=True, slots=True)
class SSEEvent:
    """One event. `event` is its name ("message" when it has none), `data` its lines joined by newlines."""

    event: str
    data: str


class SSEDecoder:
    """Turns chunks of any size into events. Not thread-safe: one decoder belongs to one response.

    Comment lines are keep-alives and yield nothing. A field named `error`, which old llama.cpp servers send in place of data, becomes an
    event named "error". Bytes that are no UTF-8 are replaced, as the standard says.
    """

    def __init__(self, *, max_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max = max_bytes
        self._partial: list[
            bytes
        ] = []  # pieces of a line whose end has not come; joined once, so a huge line is not copied at every chunk
        self._partial_size = 0
        self._skip_lf = False  # the last chunk ended in CR: an LF that opens the next one belongs to it
        self._first_line = True
        self._name = ""
        self._data: list[str] = []
        self._data_size = 0

    def feed(self, chunk: bytes) -> list[SSEEvent]:
        """Return the events that these bytes complete. Raises EventTooLargeError."""
        if self._skip_lf and chunk:
            self._skip_lf = False
            if chunk[:1] == b"\n":
                chunk = chunk[1:]
        if not chunk:
            return []
        has_cr = b"\r" in chunk
        if not has_cr and b"\n" not in chunk:
            self._hold(chunk)
            return []
        lines = _LINE_END.split(chunk) if has_cr else chunk.split(b"\n")
        self._skip_lf = chunk[-1:] == b"\r"
        if self._partial:
            self._partial.append(lines[0])
            lines[0] = b"".join(self._partial)
            self._partial = []
            self._partial_size = 0
        rest = lines.pop()
        if rest:
            self._hold(rest)
        events: list[SSEEvent] = []
        for line in lines:
            if line:
                self._field(line)
            else:
                self._dispatch(events)
        return events

    def close(self) -> bool:
        """End the stream. An event that no blank line closed is not an event; returns whether there was such a remainder."""
        dropped = bool(self._partial or self._data)
        self._partial, self._data = [], []
        return dropped

    def _hold(self, piece: bytes) -> None:
        self._partial.append(piece)
        self._partial_size += len(piece)
        if self._partial_size > self._max:
            raise EventTooLargeError(
                f"a line of the event stream is over {self._max} bytes; the server does not speak SSE as expected"
            )

    def _field(self, line: bytes) -> None:
        if self._first_line:
            self._first_line = False
            line = line.removeprefix(_BOM)
        raw_name, _, raw_value = line.partition(b":")  # a comment is a field without a name
        if raw_value[:1] == b" ":
            raw_value = raw_value[1:]
        if raw_name == b"data":
            self._add(raw_value)
        elif raw_name == b"event":
            self._name = raw_value.decode("utf-8", "replace")
        elif raw_name == b"error":
            self._name = "error"
            self._add(raw_value)

    def _add(self, raw_value: bytes) -> None:
        self._data_size += len(raw_value)
        if self._data_size > self._max:
            raise EventTooLargeError(
                f"an event of the stream is over {self._max} bytes; the server does not speak SSE as expected"
            )
        self._data.append(raw_value.decode("utf-8", "replace"))

    def _dispatch(self, events: list[SSEEvent]) -> None:
        self._first_line = False
        if self._data:
            events.append(SSEEvent(self._name or "message", "\n".join(self._data)))
            self._data = []
            self._data_size = 0
        self._name = ""
