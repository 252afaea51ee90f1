"""Gemini's parts and the neutral ones, in both directions. Pure.

A `thoughtSignature` must come back unchanged on the part that it came with. On a function call it is kept with the call; a text that is
signed, and a signature that comes with an empty text, are kept whole as opaque parts.
"""

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from .adapter import optional_text
from .openai_shared import call_of
from .parts import Image, Message, Opaque, Part, Text, ToolCall, ToolResult

WIRE = "gemini"
_SIGNATURE = "thoughtSignature"


class Content(NamedTuple):
    """An answer's parts in neutral terms."""

    text: str
    tool_calls: tuple[ToolCall, ...]
    opaque: tuple[Opaque, ...]


def content_of(parts: Iterable[Any], answer: str | None) -> Content:
    """Return what the parts of an answer say. `answer` is its id. Parts that are no objects are left out."""
    texts: list[str] = []
    calls: list[ToolCall] = []
    opaque: list[Opaque] = []
    for part in parts:
        if not isinstance(part, dict):
            continue
        texts.append(part_text(part))
        call = part.get("functionCall")
        if isinstance(call, dict):
            signature = part.get(_SIGNATURE)
            calls.append(
                call_of(
                    call.get("args"),
                    call_id=optional_text(call.get("id")),
                    name=optional_text(call.get("name")) or "",
                    answer=answer,
                    number=len(calls),
                    opaque=None if signature is None else {WIRE: signature},
                )
            )
        elif _SIGNATURE in part:
            opaque.append(Opaque(wire=WIRE, data=part))
    return Content("".join(texts), tuple(calls), tuple(opaque))


def part_text(part: Any) -> str:
    """Return the text of a part that is part of the answer; of a thought or anything else, nothing."""
    text = part.get("text") if isinstance(part, dict) and not part.get("thought") else None
    return text if isinstance(text, str) else ""


def contents(messages: tuple[Message, ...]) -> list[dict[str, Any]]:
    """Return the turns without the system ones. Neighbours of one role are one turn; results of calls come first in it."""
    names = {call.id: call.name for message in messages for call in message.tool_calls}
    turns: list[dict[str, Any]] = []
    for message in messages:
        if message.role == "system":
            continue
        role = "model" if message.role == "assistant" else "user"
        parts = _model_parts(message.parts) if role == "model" else [_part(part, names) for part in message.parts]
        parts = [part for part in parts if part is not None]
        if not parts:
            continue
        if turns and turns[-1]["role"] == role:
            turns[-1]["parts"] += parts
        else:
            turns.append({"role": role, "parts": parts})
    for turn in turns:
        turn["parts"].sort(key=lambda part: "functionResponse" not in part)
    return turns


def _model_parts(parts: tuple[Part, ...]) -> list[dict[str, Any] | None]:
    """Return an answer's parts: thoughts, the text with what of it was signed at its end, the calls."""
    kept = [
        part.data for part in parts if isinstance(part, Opaque) and part.wire == WIRE and isinstance(part.data, dict)
    ]
    text = "".join(part.text for part in parts if isinstance(part, Text))
    signed: list[dict[str, Any] | None] = []
    for part in reversed([part for part in kept if not part.get("thought")]):
        said = part_text(part)
        if text.endswith(said):
            text = text[: len(text) - len(said)]
            signed.insert(0, part)
        else:  # somebody changed the text: its signature stays, as one of nothing
            signed.insert(0, {**part, "text": ""})
    thoughts: list[dict[str, Any] | None] = [part for part in kept if part.get("thought")]
    calls = [_part(part, {}) for part in parts if isinstance(part, ToolCall)]
    return [*thoughts, {"text": text} if text else None, *signed, *calls]


def _part(part: Part, names: dict[str, str]) -> dict[str, Any] | None:
    match part:
        case Text(text=text):
            return {"text": text} if text else None
        case Image(data=data, media_type=media):
            return {"inlineData": {"mimeType": media, "data": data}}
        case ToolCall():
            given = part.arguments if part.raw is None else {"invalid_json": part.raw}
            call = {"functionCall": {"id": part.id, "name": part.name, "args": given}}
            signature = part.opaque.get(WIRE) if isinstance(part.opaque, dict) else None
            return call if signature is None else {**call, _SIGNATURE: signature}
        case ToolResult():
            name = part.name or names.get(part.call_id, "")
            return {"functionResponse": {"id": part.call_id, "name": name, "response": _response(part)}}
        case Opaque():
            return None


def _response(result: ToolResult) -> dict[str, Any]:
    """Return what a function gave as the object that the format wants: under `result` or `error`, as value where it is JSON."""
    try:
        value = json.loads(result.content)
    except (ValueError, RecursionError):
        value = result.content
    return {"error" if result.is_error else "result": value}
