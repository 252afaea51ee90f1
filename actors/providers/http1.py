"""The reply half of HTTP/1.1 (RFC 9112), read from bytes as they come. Pure: no I/O, no clock, no thread.

It knows what a client of JSON APIs meets, and nothing else: no upgrades, no HTTP/1.0 connection that stays open, no transfer coding but
`chunked`. What is ambiguous is an error and not a guess (two different lengths, a line of a header without a name), because a reply whose end is
mistaken gives the next call on the connection another one's answer.
"""

import re
from enum import Enum, auto

MAX_HEAD_BYTES = 100 * 1024
"""Bytes of a status line with its headers, of a chunk's first line, and of trailers."""

_STATUS_LINE = re.compile(rb"HTTP/1\.([0-9]) ([1-9][0-9]{2})(?: [^\x00-\x08\x0a-\x1f]*)?")
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_BAD_IN_VALUE = re.compile(rb"[\x00\r]")
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\x00\r]*)?\r")
_END_OF_HEAD = re.compile(rb"\n\r?\n")
_LENGTH = re.compile(rb"[0-9]{1,18}")


class BadReplyError(ValueError):
    """What the server sent is not HTTP/1.1, or ended before its end. Of no further use, as is its connection."""


class _At(Enum):
    HEAD = auto()
    SIZED = auto()
    CHUNK_LINE = auto()
    CHUNK = auto()
    CHUNK_END = auto()
    TRAILERS = auto()
    UNTIL_CLOSE = auto()
    DONE = auto()


class ReplyParser:
    """Reads one reply. `feed` it what comes, and tell it the `end` of the connection. Not thread-safe.

    `headers` has lower-case names; of one that came more than once the values are joined by commas, as RFC 9110 has it. It is None until the
    whole head has come. Interim replies (1xx) are passed over.
    """

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] | None = None
        self._at = _At.HEAD
        self._held = b""
        self._left = 0  # bytes of the chunk, or of the body
        self._stays_open = False
        self._excess = False
        self._broken: BadReplyError | None = None

    @property
    def done(self) -> bool:
        """Whether the reply has come to its end."""
        return self._at is _At.DONE

    @property
    def broken(self) -> bool:
        """Whether what came last was no HTTP: `feed` and `end` raise."""
        return self._broken is not None

    @property
    def reusable(self) -> bool:
        """Whether the connection may carry another request: this reply ended where it said, and the server keeps it open."""
        return self._at is _At.DONE and self._stays_open and not self._excess

    def feed(self, data: bytes) -> list[bytes]:
        """Return the pieces of the body that these bytes hold. Raises BadReplyError: at once, or, after a good beginning, when fed again."""
        if self._broken is not None:
            raise self._broken
        pieces: list[bytes] = []
        try:
            self._read(data, pieces)
        except BadReplyError as error:
            if self.headers is None:
                raise
            self._broken = error
        return pieces

    def _read(self, data: bytes, pieces: list[bytes]) -> None:
        if self._held:
            data, self._held = self._held + data, b""
        position = 0
        while position < len(data):
            match self._at:
                case _At.CHUNK_LINE:
                    end = data.find(b"\n", position)
                    if end < 0:
                        self._hold(data, position)
                        return
                    self._begin_chunk(data[position:end])
                    position = end + 1
                case _At.CHUNK | _At.SIZED:
                    piece = data[position : position + self._left]
                    pieces.append(piece)
                    position += len(piece)
                    self._left -= len(piece)
                    if not self._left:
                        self._at = _At.CHUNK_END if self._at is _At.CHUNK else _At.DONE
                case _At.CHUNK_END:
                    if not data.startswith(b"\r\n", position):
                        if data[position:] == b"\r":
                            self._hold(data, position)
                            return
                        raise BadReplyError("a chunk is longer than it says")
                    position += 2
                    self._at = _At.CHUNK_LINE
                case _At.HEAD:
                    found = _END_OF_HEAD.search(data, position)
                    if found is None:
                        self._hold(data, position)
                        return
                    self._read_head(data[position : found.start()])
                    position = found.end()
                case _At.TRAILERS:  # lines that nobody asked for, up to an empty one
                    end = data.find(b"\n", position)
                    if end < 0:
                        self._hold(data, position)
                        return
                    self._left += end + 1 - position
                    if self._left > MAX_HEAD_BYTES:
                        raise BadReplyError(f"its trailers are over {MAX_HEAD_BYTES} bytes")
                    if data[position:end] in (b"", b"\r"):
                        self._at = _At.DONE
                    position = end + 1
                case _At.UNTIL_CLOSE:
                    pieces.append(data[position:])
                    break
                case _At.DONE:
                    self._excess = True
                    break

    def end(self) -> None:
        """The connection has ended. Raises BadReplyError if the reply has not."""
        if self._broken is not None:
            raise self._broken
        if self._at is _At.UNTIL_CLOSE:
            self._at = _At.DONE
        elif self._at is _At.HEAD:
            raise BadReplyError("the server closed the connection without a reply")
        elif self._at is not _At.DONE:
            raise BadReplyError("the server closed the connection before the end of its reply")

    def _hold(self, data: bytes, position: int) -> None:
        self._held = data[position:] if position else data
        _check_length(self._held)

    def _begin_chunk(self, line: bytes) -> None:
        _check_length(line)
        found = _CHUNK_LINE.fullmatch(line)
        if found is None:
            raise BadReplyError("a chunk does not say how long it is")
        self._left = int(found[1], 16)
        self._at = _At.CHUNK if self._left else _At.TRAILERS

    def _read_head(self, head: bytes) -> None:
        _check_length(head)
        lines = [line.removesuffix(b"\r") for line in head.split(b"\n")]
        found = _STATUS_LINE.fullmatch(lines[0])
        if found is None:
            raise BadReplyError("its first line is not that of HTTP/1")
        status = int(found[2])
        if 100 <= status < 200:
            if status == 101:
                raise BadReplyError("it switches to another protocol, which nobody asked for")
            return  # interim: the real one follows
        self.status = status
        fields = _fields(lines[1:])
        closes = b"close" in {
            word.strip().lower() for value in fields.get("connection", []) for word in value.split(b",")
        }
        self._at = self._body(fields)
        self._stays_open = found[1] != b"0" and not closes and self._at is not _At.UNTIL_CLOSE
        self.headers = {name: ", ".join(_text(value) for value in values) for name, values in fields.items()}

    def _body(self, fields: dict[str, list[bytes]]) -> _At:
        """How the body's end is known (RFC 9112, 6.3)."""
        if self.status in (204, 304):
            return _At.DONE
        if codings := fields.get("transfer-encoding"):
            if [coding.lower() for coding in codings] != [b"chunked"]:
                raise BadReplyError("its transfer coding is not chunked")
            return _At.CHUNK_LINE
        lengths = {part.strip() for value in fields.get("content-length", []) for part in value.split(b",")}
        if not lengths:
            return _At.UNTIL_CLOSE
        length = lengths.pop()
        if lengths or _LENGTH.fullmatch(length) is None:
            raise BadReplyError("its content-length is no number, or several")
        self._left = int(length)
        return _At.SIZED if self._left else _At.DONE


def _check_length(line: bytes) -> None:
    """Refuse what is too long, whether it came in one piece or in many."""
    if len(line) > MAX_HEAD_BYTES:
        raise BadReplyError(f"its head, or a line between its chunks, is over {MAX_HEAD_BYTES} bytes")


def _fields(lines: list[bytes]) -> dict[str, list[bytes]]:
    """Header fields by their lower-case names. A line that begins with white space goes on with the one before it (RFC 9112, 5.2)."""
    fields: dict[str, list[bytes]] = {}
    values: list[bytes] | None = None
    for line in lines:
        if line[:1] in (b" ", b"\t") and values is not None:
            values[-1] += b" " + line.strip(b" \t")
        else:
            name, colon, value = line.partition(b":")
            if not colon or _NAME.fullmatch(name) is None:
                raise BadReplyError("a line of its head is no header field")
            values = fields.setdefault(name.decode("ascii").lower(), [])
            values.append(value.strip(b" \t"))
        if _BAD_IN_VALUE.search(values[-1]):
            raise BadReplyError("a header field holds a control character")
    return fields


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")
