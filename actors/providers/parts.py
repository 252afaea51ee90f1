"""What a message is made of: text, images, the calls of tools and their results, and what only its provider can read.

A message's `content` is text, or a tuple of parts where text is not enough. The JSON forms are those of a job's data and of a conversation's
log: a string, or a list of objects with a `type`. Pure.
"""

import base64
import sys
from array import array
from dataclasses import dataclass, field
from typing import Any, Self

ROLES = ("system", "user", "assistant", "tool")
MAX_IMAGE_BASE64 = 28_000_000
"""Characters: 20 MB, the most that any of the providers takes."""
IMAGE_TYPES = ("image/png", "image/jpeg", "image/gif", "image/webp")


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of text."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A picture: its base64 `data` and `media_type`, or a `url` that the provider, never we, will fetch; not all of them do."""

    data: str = field(default="", repr=False)
    media_type: str = ""
    url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """The model asks for a function to be called. `raw` is what it sent instead of a JSON object, where it did; `arguments` is empty then.

    `id` is the provider's, or made by the adapter where it gives none. `opaque`: what the provider wants back unchanged with it.
    """

    id: str
    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    raw: str | None = None
    opaque: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolResult:
    """What a function that was called gave. `name` is the function's: some formats go by it."""

    call_id: str
    content: str
    name: str = ""
    is_error: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Opaque:
    """What only a provider of this `wire` can read, as it came: it is sent back to such a one and left out for others."""

    wire: str
    data: Any


Part = Text | Image | ToolCall | ToolResult | Opaque
_FIELDS: dict[type[Part], dict[str, type]] = {
    Text: {"text": str},
    Image: {"data": str, "media_type": str, "url": str},
    ToolCall: {"id": str, "name": str, "arguments": dict, "raw": str, "opaque": object},
    ToolResult: {"call_id": str, "content": str, "name": str, "is_error": bool},
    Opaque: {"wire": str, "data": object},
}
"""The fields of each kind of part, and what they hold in JSON."""
_TYPES = {"text": Text, "image": Image, "tool_call": ToolCall, "tool_result": ToolResult, "opaque": Opaque}
_NAMES = {kind: name for name, kind in _TYPES.items()}


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. `role` is system, user, assistant or tool (which holds the results of calls); `content` is text, or parts."""

    role: str
    content: str | tuple[Part, ...]

    @property
    def parts(self) -> tuple[Part, ...]:
        """Its content as parts, whichever it is."""
        if isinstance(self.content, str):
            return (Text(self.content),) if self.content else ()
        return self.content

    @property
    def text(self) -> str:
        """The text in it, without anything else."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content if isinstance(part, Text))

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The calls in it."""
        return tuple(part for part in self.parts if isinstance(part, ToolCall))

    @property
    def tool_results(self) -> tuple[ToolResult, ...]:
        """The results in it."""
        return tuple(part for part in self.parts if isinstance(part, ToolResult))

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready form: `{"role", "content"}`."""
        return {"role": self.role, "content": content_to_json(self.content)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The inverse of `to_json`. Raises ValueError, naming what is wrong."""
        return cls(data["role"], content_from_json(data["content"]))


def content_to_json(content: str | tuple[Part, ...]) -> str | list[dict[str, Any]]:
    """A message's content in its JSON form."""
    return content if isinstance(content, str) else [part_to_json(part) for part in content]


def content_from_json(data: Any) -> str | tuple[Part, ...]:
    """The inverse of `content_to_json`. Raises ValueError, naming the place of what is wrong."""
    if isinstance(data, str):
        return data
    if not isinstance(data, list) or not data:
        raise ValueError("expected text, or a list of parts")
    parts = []
    for index, part in enumerate(data):
        try:
            parts.append(part_from_json(part))
        except ValueError as error:
            raise ValueError(f"[{index}]{error}") from None
    return tuple(parts)


def part_to_json(part: Part) -> dict[str, Any]:
    """A part in its JSON form; what is at its default is left out."""
    told = {"type": _NAMES[type(part)]}
    for name in part.__slots__:
        value = getattr(part, name)
        if value not in (None, "", False) or name in ("text", "content"):
            told[name] = value
    return told


def part_from_json(data: Any) -> Any:
    """The inverse of `part_to_json`. Raises ValueError; its message begins with the field, as `.name: …`."""
    if not isinstance(data, dict):
        raise ValueError(f": expected an object with a type, got {type(data).__name__}")  # noqa: TRY004 - one error for all bad data
    kind = _TYPES.get(str(data.get("type")))
    if kind is None:
        raise ValueError(f".type: expected one of {', '.join(_TYPES)}, got {data.get('type')!r:.60}")
    fields = _FIELDS[kind]
    given = {name: value for name, value in data.items() if name != "type"}
    for name, value in given.items():
        if name not in fields:
            raise ValueError(f".{name}: is not a field of {data['type']} (its fields: {', '.join(fields)})")
        if not isinstance(value, fields[name]):
            raise ValueError(f".{name}: expected {fields[name].__name__}, got {type(value).__name__}")  # noqa: TRY004
    try:
        part = kind(**given)
    except TypeError:
        raise ValueError(f": {data['type']} is not complete (its fields: {', '.join(fields)})") from None
    if isinstance(part, Image):
        _check_image(part)
    return part


def vector_to_base64(vector: "array[float]") -> str:
    """A vector as base64 of little-endian 32-bit floats."""
    return base64.b64encode(_little(vector).tobytes()).decode("ascii")


def vector_from_base64(text: str) -> "array[float]":
    """The inverse of `vector_to_base64`. Raises ValueError."""
    vector = array("f")
    vector.frombytes(base64.b64decode(text, validate=True))
    return _little(vector)


def _little(vector: "array[float]") -> "array[float]":
    if sys.byteorder == "little":
        return vector
    swapped = array("f", vector)
    swapped.byteswap()
    return swapped


def _check_image(image: Image) -> None:
    if bool(image.data) == bool(image.url):
        raise ValueError(": an image has either data or url")
    if image.url and not image.url.startswith("https://"):
        raise ValueError(".url: expected an https:// address")
    if image.data and image.media_type not in IMAGE_TYPES:
        raise ValueError(f".media_type: expected one of {', '.join(IMAGE_TYPES)}, got {image.media_type!r:.60}")
    if len(image.data) > MAX_IMAGE_BASE64:
        raise ValueError(f".data: {len(image.data)} characters are over the limit of {MAX_IMAGE_BASE64}")
