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
    """A line or an event is over the cap: the peer is broken or hostile, and the stream is of no further use.

    `before`: the events that the same bytes completed before it.
    """

    before: "tuple[SSEEvent, ...]" = ()


@dataclass(frozen=True, slots=True)
class SSEEvent:
    """One event. `event` is its name ("message" when it has none), `data` its lines joined by newlines."""

    event: str
    data: str


class SSEDecoder:
    """Turns chunks of any size into events. Not thread-safe: one decoder belongs to one response.

    Comment lines are keep-alives and yield nothing. A field named `error`, which old llama.cpp servers send in place of data, becomes an
    event named "error"; so does a bare JSON object that stands on lines of its own, which is how Gemini and some proxies end a stream
    that failed. Bytes that are no UTF-8 are replaced, as the standard says.
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
        self._bare: list[bytes] = []  # the lines of an object outside of any event

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
        events: list[SSEEvent] = []
        try:
            for line in lines:
                if self._bare or line[:1] == b"{":
                    self._bare_line(line, events)
                elif line:
                    self._field(line)
                else:
                    self._dispatch(events)
            if rest:
                self._hold(rest)
        except EventTooLargeError as error:
            error.before = tuple(events)
            raise
        return events

    def close(self) -> list[SSEEvent]:
        """End the stream. An event that no blank line closed is not an event; a bare object at the end is one."""
        events: list[SSEEvent] = []
        last = b"".join(self._partial)
        self._partial, self._data = [], []
        if self._bare or last[:1] == b"{":
            self._bare.append(last)
            self._dispatch_bare(events)
        return events

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

    def _bare_line(self, line: bytes, events: list[SSEEvent]) -> None:
        """Collect an object: one line of it, or lines as pretty-printers write them, to the brace in the first column."""
        self._first_line = False
        self._data_size += len(line)
        if self._data_size > self._max:
            raise EventTooLargeError(
                f"an object in the stream is over {self._max} bytes; the server does not speak SSE as expected"
            )
        self._bare.append(line)
        if not line or line[:1] == b"}" or (len(self._bare) == 1 and line.rstrip()[-1:] == b"}"):
            self._dispatch_bare(events)

    def _dispatch_bare(self, events: list[SSEEvent]) -> None:
        events.append(SSEEvent("error", b"\n".join(self._bare).decode("utf-8", "replace")))
        self._bare, self._data, self._data_size, self._name = [], [], 0, ""

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
