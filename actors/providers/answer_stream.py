"""What the readers of streamed answers share, whatever the wire format: the text so far, its progress, and how it ended."""

from collections.abc import Mapping

from .adapter import Framing
from .model import CallError


class AnswerStream:
    """The state of one streamed answer. A format's reader adds `feed` and `finish`."""

    framing: Framing = "sse"

    def __init__(self, headers: Mapping[str, str], at_ms: int) -> None:
        self._headers = headers
        self._at_ms = at_ms
        self._pieces: list[str] = []
        self._raw_finish: str | None = None
        self._model: str | None = None
        self._id: str | None = None
        self._error: CallError | None = None
        self._done = False
        self._progress = 0

    @property
    def terminal(self) -> bool:
        """Whether the format's end marker or an error has come."""
        return self._done or self._error is not None

    @property
    def progress(self) -> int:
        """How many events carried a piece of the answer."""
        return self._progress

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._pieces)
