"""Lines of JSON, decoded from bytes as they arrive: how Ollama streams.

As in `sse.py`, lines are split as *bytes*, here at LF alone: U+2028 and its like may stand unescaped inside a JSON string, and CR is white
space of JSON. Pure: no I/O, no clock, no thread.
"""

from .sse import MAX_EVENT_BYTES, EventTooLargeError, SSEEvent

_BOM = b"\xef\xbb\xbf"


class NDJSONDecoder:
    """Turns chunks of any size into lines, each as an event named "message". Not thread-safe: one decoder belongs to one response.

    Blank lines are keep-alives and yield nothing. Bytes that are no UTF-8 are replaced.
    """

    def __init__(self, *, max_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max = max_bytes
        self._partial: list[bytes] = []  # joined once, so that a huge line is not copied at every chunk
        self._size = 0
        self._begun = False

    def feed(self, chunk: bytes) -> list[SSEEvent]:
        """Return the lines that these bytes complete. Raises EventTooLargeError."""
        lines = chunk.split(b"\n")
        events: list[SSEEvent] = []
        try:
            for line in lines[:-1]:
                self._hold(line)
                events += self._line()
            self._hold(lines[-1])
        except EventTooLargeError as error:
            error.before = tuple(events)
            raise
        return events

    def close(self) -> list[SSEEvent]:
        """End the stream. A last line without its end counts: JSON says itself whether it is whole."""
        return self._line()

    def _hold(self, piece: bytes) -> None:
        if not piece:
            return
        self._partial.append(piece)
        self._size += len(piece)
        if self._size > self._max:
            raise EventTooLargeError(
                f"a line of the stream is over {self._max} bytes; the server does not send lines of JSON as expected"
            )

    def _line(self) -> list[SSEEvent]:
        line = b"".join(self._partial)
        self._partial, self._size = [], 0
        if not self._begun:
            line = line.removeprefix(_BOM)
            self._begun = True
        line = line.strip()
        return [SSEEvent("message", line.decode("utf-8", "replace"))] if line else []
