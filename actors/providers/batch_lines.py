"""What the batch formats share: ids and texts that a server sent, the lines of a results file, replies that hold them in their middle. Pure."""

import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from .adapter import USER_AGENT, HttpRequest, optional_text
from .batch_api import MAX_LINE_BYTES, BatchLine, BatchResult
from .errors import malformed, refused
from .model import CallError, ErrorClass
from .settings import ProviderSettings

CUSTOM_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_NAME = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9_.:~-]{1,256}")
_TOKENS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[{}\[\],]', re.DOTALL)
_SPACE = re.compile(rb"[\r\n]+")


def base_headers(settings: ProviderSettings, content_type: str | None = None) -> list[tuple[str, str]]:
    """Return the headers that every operation sends. Identity encoding: a compressed reply would be counted by its size after."""
    typed = [] if content_type is None else [("content-type", content_type)]
    return [
        ("user-agent", USER_AGENT),
        *typed,
        ("accept", "application/json"),
        ("accept-encoding", "identity"),
        *((name.lower(), value) for name, value in settings.headers.items()),
    ]


def is_name(value: str) -> bool:
    """Whether an id that a server gave may be put into a path: nothing in it leads elsewhere."""
    return _NAME.fullmatch(value) is not None


def bad_name(field: str, value: str) -> CallError:
    """Return the refusal of an id that is none."""
    return refused(field, f"{value[:80]!r} is not a name that this API gives")


def request_of(line: BatchLine, built: HttpRequest | CallError) -> bytes | CallError:
    """Return the body of a request that is to stand in a line, or why it cannot."""
    if CUSTOM_ID.fullmatch(line.custom_id) is None:
        return refused("custom_id", "it must be of [A-Za-z0-9_-]{1,64}, which every provider takes")
    return built if isinstance(built, CallError) else built.body


def objects(lines: Iterator[bytes]) -> Iterator[dict[str, Any] | CallError]:
    """Return the JSON objects of a file of lines, and an error for each line that holds none. Empty lines are nothing."""
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text:
            continue
        if len(text) > MAX_LINE_BYTES:
            yield malformed(f"line {number} of the results is over {MAX_LINE_BYTES} bytes")
            continue
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = None
        yield found if isinstance(found, dict) else malformed(f"line {number} of the results is not a JSON object")


def result(custom_id: Any, outcome: Any) -> BatchResult | CallError:
    """Return a line's outcome under its id, or the error of an id that cannot be one of ours."""
    if not isinstance(custom_id, str) or CUSTOM_ID.fullmatch(custom_id) is None:
        return malformed("a line of the results names none of our requests")
    return BatchResult(custom_id=custom_id, outcome=outcome)


def never_tried(why: str) -> CallError:
    """Return the error of a request that a batch ended without: it was not made, and is not paid for."""
    what = (
        "expired before this request was tried" if why == "batch_expired" else "was ended before this request was tried"
    )
    return CallError(kind=ErrorClass.CANCELLED, message=f"the batch {what}", code=why, sent=False)


def body_of(status: int, body: bytes, request_id: str | None) -> dict[str, Any] | CallError:
    """Return the JSON object in the reply of a request that was accepted."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return malformed(f"HTTP {status} with a body that is not JSON; is base_url right?", request_id=request_id)
    if not isinstance(found, dict):
        return malformed(f"HTTP {status} with JSON that is not an object", request_id=request_id)
    return found


def members(page: bytes, name: str) -> list[dict[str, Any]] | None:
    """Return the objects in a page's list, None if it has no such list."""
    try:
        found = json.loads(page)
    except (ValueError, RecursionError):
        return None
    listed = found.get(name, []) if isinstance(found, dict) else None
    return [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else None


def field_of(page: bytes, name: str) -> Any:
    """Return a field of a page, None if there is none."""
    try:
        found = json.loads(page)
    except (ValueError, RecursionError):
        return None
    return found.get(name) if isinstance(found, dict) else None


def instant_ms(value: Any) -> int | None:
    """Return an RFC 3339 instant, or a number of epoch seconds, in epoch milliseconds."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return int(value * 1000) if 0 < value < 1e11 else None
    text = optional_text(value)
    if text is None:
        return None
    try:
        return int(datetime.fromisoformat(text).timestamp() * 1000)
    except (ValueError, OverflowError):
        return None


def number(value: Any) -> int:
    """Return a count that may be a number or its text (as Google writes 64-bit ones); anything else is 0."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return int(value[:15])
    return int(value) if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def dumped(value: Any) -> bytes:
    """Return compact JSON in UTF-8."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def by_name(value: Any, name: str) -> Mapping[str, Any]:
    """Return the object in a field; an empty one where there is none."""
    found = value.get(name) if isinstance(value, Mapping) else None
    return found if isinstance(found, Mapping) else {}


class InlineReader:
    """Takes the members of the first array under one key out of a JSON reply of any size, each as a line, and drops later such arrays.

    What is held is the member under way and what stands outside the arrays, so that a batch's results need not fit in memory.
    """

    def __init__(self, key: str) -> None:
        self._key = b'"' + key.encode() + b'"'
        self._buffer = b""
        self._kept: list[bytes] = []
        self._part: list[bytes] = []  # of the member under way
        self._depth = 0  # within the array; 0: outside
        self._named = False  # the last token was the key
        self._seen = False  # the first array is over
        self._held = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Return the members that are whole now."""
        lines: list[bytes] = []
        buffer = self._buffer + data
        at = 0
        for token in _TOKENS.finditer(buffer):
            word = token.group()
            between = buffer[at : token.start()]
            if b'"' in between:
                break  # a string that is not whole: nothing behind it can be read yet
            at = token.end()
            self._held += len(between) + len(word)
            if self._depth:
                self._inside(between, word, lines)
            else:
                self._kept += (between, word)
                if self._named and word == b"[":
                    self._depth = 1
                self._named = word == self._key
        self._buffer = buffer[at:]
        return lines

    @property
    def held(self) -> int:
        """How many bytes it keeps in memory: of the member under way, and of what is outside."""
        return self._held + len(self._buffer)

    def rest(self) -> bytes:
        """Return everything else, with those arrays empty."""
        return b"".join((*self._kept, self._buffer))

    def _inside(self, between: bytes, word: bytes, lines: list[bytes]) -> None:
        if word in b"}]":
            self._depth -= 1
        over = self._depth == 0 or (self._depth == 1 and word == b",")
        self._part.append(between)
        if not over:
            self._part.append(word)
        if word in b"{[":
            self._depth += 1
        if over:
            line = _SPACE.sub(b"", b"".join(self._part)).strip()
            self._held -= sum(map(len, self._part)) + len(word)
            self._part = []
            if line and not self._seen:
                lines.append(line)
        if self._depth == 0:
            self._kept.append(word)
            self._seen = True
