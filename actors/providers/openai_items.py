"""The items of OpenAI Responses: what goes in, and what a finished response says. Pure."""

from collections.abc import Mapping
from typing import Any

from .adapter import optional_text, whole
from .errors import classify_in_body, clean, parse_error
from .model import Billed, CallError, Completion, ErrorClass, Finish, Message, Usage
from .openai_shared import argument_text, call_of, image_url, request_id_of, result_text
from .parts import Image, Opaque, Text, ToolCall, ToolResult
from .resume import HANDLE_GONE

WIRE = "openai-responses"
_INCOMPLETE = {"max_output_tokens": Finish.LENGTH, "content_filter": Finish.FILTER}
_ECHOED = frozenset({"message", "function_call"})
"""Output items that have a neutral form; all others are sent back as they came."""


def input_items(messages: tuple[Message, ...]) -> tuple[str, list[dict[str, Any]]]:
    """Return the instructions (the system messages at the beginning) and the items of the rest."""
    first = next((at for at, message in enumerate(messages) if message.role != "system"), len(messages))
    instructions = "\n\n".join(message.text for message in messages[:first])
    return instructions, [item for message in messages[first:] for item in _items(message)]


def _items(message: Message) -> list[dict[str, Any]]:
    if isinstance(message.content, str):
        return [{"role": message.role, "content": message.content}]
    items: list[dict[str, Any]] = []
    said: list[Text | Image] = []
    for part in message.content:
        if isinstance(part, Text | Image):
            said.append(part)
            continue
        _speak(message.role, said, items)
        if isinstance(part, Opaque):
            if part.wire == WIRE:
                items.append(part.data)
        elif isinstance(part, ToolCall):
            items += _led_to(part)
            items.append(
                {"type": "function_call", "call_id": part.id, "name": part.name, "arguments": argument_text(part)}
            )
        elif isinstance(part, ToolResult):
            items.append({"type": "function_call_output", "call_id": part.call_id, "output": result_text(part)})
    _speak(message.role, said, items)
    return items


def _speak(role: str, said: list[Text | Image], items: list[dict[str, Any]]) -> None:
    """Turn what was said so far into an item."""
    if any(isinstance(part, Image) for part in said):
        content: Any = [
            {"type": "input_text", "text": part.text}
            if isinstance(part, Text)
            else {"type": "input_image", "image_url": image_url(part)}
            for part in said
        ]
    else:
        content = "".join(part.text for part in said if isinstance(part, Text))
    if content:
        # What a function gave has no other role's words in it: those are the user's.
        items.append({"role": "user" if role == "tool" else role, "content": content})
    said.clear()


def _led_to(call: ToolCall) -> list[Any]:
    """What came right before a call, if it came from this wire."""
    opaque = call.opaque
    if isinstance(opaque, dict) and opaque.get("wire") == WIRE and isinstance(opaque.get("items"), list):
        return list(opaque["items"])
    return []


def read_response(
    response: dict[str, Any],
    *,
    headers: Mapping[str, str],
    at_ms: int,
    text: str | None = None,
    items: list[Any] | None = None,
) -> Completion | CallError:
    """Return what a response object that says how the call ended means.

    `text`: what a stream has shown of the answer, which is the answer then. `items`: the output that came in events, for servers that do not
    repeat it at the end.
    """
    request_id = request_id_of(headers)
    status = optional_text(response.get("status")) or ""
    partial = text or ""
    if status == "failed" or (status not in ("completed", "incomplete", "cancelled") and response.get("error")):
        said = parse_error({"error": response.get("error") or {"code": "server_error"}})
        return classify_in_body(said, headers=headers, at_ms=at_ms, partial=partial, request_id=request_id)
    if status == "cancelled":
        # By somebody else: were it CANCELLED, our own word, the job would go back to the board and pay again, for ever and uncounted.
        return CallError(
            kind=ErrorClass.TRUNCATED,
            message="the response was cancelled at the provider",
            code=HANDLE_GONE,
            billed=Billed.MAYBE,
            request_id=request_id,
            partial=partial,
        )
    if status not in ("completed", "incomplete"):
        return CallError(
            kind=ErrorClass.TRUNCATED,
            message=clean(f"the response is not over: its status is {status[:40]!r}"),
            billed=Billed.MAYBE,
            request_id=request_id,
            partial=partial,
        )
    output = response.get("output")
    found = _read_output(output if isinstance(output, list) and output else items or [], response.get("id"))
    details = response.get("incomplete_details")
    reason = optional_text(details.get("reason")) if isinstance(details, dict) else None
    if status == "incomplete":
        finish = _INCOMPLETE.get(reason or "", Finish.UNKNOWN)
    elif found.refused:
        finish = Finish.REFUSAL
    else:
        finish = Finish.TOOL if found.calls else Finish.STOP
    return Completion(
        text=text or found.text,
        finish=finish,
        raw_finish=reason or status,
        usage=_usage(response.get("usage")),
        model=optional_text(response.get("model")),
        response_id=optional_text(response.get("id")),
        request_id=request_id,
        tool_calls=tuple(found.calls),
        opaque=tuple(found.opaque),
    )


class _Output:
    """What the output items of a response hold."""

    def __init__(self) -> None:
        self.text = ""
        self.refused = False
        self.calls: list[ToolCall] = []
        self.opaque: list[Opaque] = []


def _read_output(output: list[Any], response_id: Any) -> _Output:
    """Sort the items. What is not ours to read stays before what it led to: with the call after it, or with the answer as a whole."""
    found = _Output()
    waiting: list[dict[str, Any]] = []
    for item in output:
        if not isinstance(item, dict):
            continue
        kind = optional_text(item.get("type"))
        if kind not in _ECHOED:
            if _replayable(item):
                waiting.append(item)
            continue
        if kind == "message":
            _read_message(item, found)
            found.opaque += [Opaque(wire=WIRE, data=one) for one in waiting]
        else:
            found.calls.append(
                call_of(
                    item.get("arguments"),
                    call_id=optional_text(item.get("call_id")) or optional_text(item.get("id")),
                    name=optional_text(item.get("name")) or "",
                    answer=optional_text(response_id),
                    number=len(found.calls),
                    opaque={"wire": WIRE, "items": waiting} if waiting else None,
                )
            )
        waiting = []
    found.opaque += [Opaque(wire=WIRE, data=one) for one in waiting]
    return found


def _replayable(item: dict[str, Any]) -> bool:
    """Reasoning without its encrypted content names something that the provider has not kept, and would be refused."""
    return item.get("type") != "reasoning" or bool(item.get("encrypted_content"))


def _read_message(item: dict[str, Any], found: _Output) -> None:
    content = item.get("content")
    for part in content if isinstance(content, list) else ():
        if not isinstance(part, dict):
            continue
        if part.get("type") == "refusal":
            found.refused = True
            found.text += optional_text(part.get("refusal")) or ""
        elif part.get("type") == "output_text":
            found.text += optional_text(part.get("text")) or ""


def _usage(value: Any) -> Usage | None:
    if not isinstance(value, dict) or not ("input_tokens" in value or "output_tokens" in value):
        return None
    told, written = whole(value.get("input_tokens")), whole(value.get("output_tokens"))
    of_input, of_output = value.get("input_tokens_details"), value.get("output_tokens_details")
    of_input = of_input if isinstance(of_input, dict) else {}
    of_output = of_output if isinstance(of_output, dict) else {}
    # Cached and reasoning tokens are inside the totals here; the neutral buckets are disjoint.
    read = min(whole(of_input.get("cached_tokens")), told)
    kept = min(whole(of_input.get("cache_write_tokens")), told - read)
    reasoning = min(whole(of_output.get("reasoning_tokens")), written)
    return Usage(
        input_uncached=told - read - kept,
        cache_read=read,
        cache_write=kept,
        output_visible=written - reasoning,
        output_reasoning=reasoning,
    )
