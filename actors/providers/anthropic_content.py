"""Anthropic's content blocks and the neutral parts, in both directions. Pure.

What only Anthropic can read (thinking with its signature, redacted thinking, the blocks of its server tools) is kept as it came and goes back
unchanged and in order, as the format demands: a changed thinking block is refused.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

from .adapter import optional_text
from .openai_shared import call_of
from .parts import Image, Message, Opaque, Part, Text, ToolCall, ToolResult

WIRE = "anthropic-messages"
_ORDER = {"text": 1, "tool_use": 2}
"""The order in which `Completion.message` gives parts back: what is opaque first."""


class Content(NamedTuple):
    """An answer's blocks in neutral terms."""

    text: str
    tool_calls: tuple[ToolCall, ...]
    opaque: tuple[Opaque, ...]


def content_of(blocks: Iterable[Any], answer: str | None) -> Content:
    """Return what the blocks of an answer say. `answer` is its id. Blocks that are no objects are left out."""
    known = [block for block in blocks if isinstance(block, dict)]
    texts: list[str] = []
    calls: list[ToolCall] = []
    opaque: list[Opaque] = []
    for number, block in enumerate(known):
        kind = block.get("type")
        if kind == "text":
            texts.append(block_text(block))
        elif kind == "tool_use":
            name, call_id = optional_text(block.get("name")) or "", optional_text(block.get("id"))
            calls.append(call_of(block.get("input"), call_id=call_id, name=name, answer=answer, number=number))
        else:
            opaque.append(Opaque(wire=WIRE, data=block))
    ranks = [_ORDER.get(str(block.get("type")), 0) for block in known]
    if opaque and ranks != sorted(ranks):
        # Thinking between text and calls has to stay there, so the answer goes back as one piece.
        opaque = [Opaque(wire=WIRE, data=known)]
    return Content("".join(texts), tuple(calls), tuple(opaque))


def block_text(block: Any) -> str:
    """Return the text of a text block; of anything else, nothing."""
    if isinstance(block, dict) and block.get("type") == "text" and isinstance(block.get("text"), str):
        return str(block["text"])
    return ""


def turns(messages: tuple[Message, ...]) -> list[dict[str, Any]]:
    """Return the turns without the system ones. Neighbours of one role are one turn, which the format asks for; results come first in it."""
    found: list[tuple[str, list[Message]]] = []
    for message in messages:
        role = "user" if message.role == "tool" else message.role
        if role == "system":
            continue
        if found and found[-1][0] == role:
            found[-1][1].append(message)
        else:
            found.append((role, [message]))
    return [{"role": role, "content": _content(together)} for role, together in found]


def _content(messages: list[Message]) -> str | list[dict[str, Any]]:
    if all(isinstance(part, Text) for message in messages for part in message.parts):
        return "\n\n".join(message.text for message in messages)
    blocks = [block for message in messages for block in _blocks(message.parts)]
    return sorted(blocks, key=lambda block: block.get("type") != "tool_result")


def _blocks(parts: tuple[Part, ...]) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    for part in parts:
        if isinstance(part, Opaque) and part.wire == WIRE and isinstance(part.data, list):
            return part.data
        if (block := _block(part)) is not None:
            blocks.append(block)
    return blocks


def _block(part: Part) -> dict[str, Any] | None:
    match part:
        case Text(text=text):
            return {"type": "text", "text": text} if text else None  # an empty one is refused
        case Image(url=url) if url:
            return {"type": "image", "source": {"type": "url", "url": url}}
        case Image(data=data, media_type=media):
            return {"type": "image", "source": {"type": "base64", "media_type": media, "data": data}}
        case ToolCall():
            # `input` must be an object: what was no JSON is shown to the model as what it is.
            given = part.arguments if part.raw is None else {"invalid_json": part.raw}
            return {"type": "tool_use", "id": part.id, "name": part.name, "input": given}
        case ToolResult():
            result = {"type": "tool_result", "tool_use_id": part.call_id, "content": part.content}
            return {**result, "is_error": True} if part.is_error else result
        case Opaque(wire=wire, data=data):
            return data if wire == WIRE and isinstance(data, dict) else None
