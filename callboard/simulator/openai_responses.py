"""The OpenAI Responses wire format: input items, named and numbered events, and the response object that they end with."""

# ruff: noqa: D102 - wire.Wire documents every method

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .extractive import estimate_tokens, pieces
from .openai_chat import OpenAIWire, count_images, read_model, read_schema, read_tools, told_calls
from .wire import IMAGE_TOKENS, Answer, Call, StreamParts, WireError, dump, last_user_text, text_of

_STATUS = {"length": ("incomplete", "max_output_tokens"), "content_filter": ("incomplete", "content_filter")}
_BROKEN = b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"\n\n'
_NO_ROOM = frozenset({"stop", "seed", "n", "messages", "response_format", "max_tokens", "max_completion_tokens"})
"""Fields of Chat Completions that this endpoint refuses."""


class OpenAIResponses(OpenAIWire):
    """Responses. See `wire.Wire` for what each method promises."""

    def read(self, body: Any, headers: Mapping[str, str]) -> Call:  # noqa: ARG002 - this format has nothing in its headers
        model = read_model(body)
        for name in sorted(_NO_ROOM & body.keys()):
            raise WireError(400, f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter")
        if body.get("background") is True and body.get("store") is False:
            raise WireError(400, "Background responses require 'store' to be true.", param="background")
        items = _items(body)
        instructions = body.get("instructions")
        told = [instructions] if isinstance(instructions, str) else []
        all_text = "\n".join([*told, *(_text(item) for item in items)])
        after_tools = items[-1].get("type") == "function_call_output"
        text_format = body["text"].get("format") if isinstance(body.get("text"), dict) else None
        reasoning = body.get("reasoning")
        effort = reasoning.get("effort") if isinstance(reasoning, dict) else None
        return Call(
            model=model,
            text=_outputs(items) if after_tools else last_user_text(items),
            all_text=all_text,
            input_tokens=max(1, estimate_tokens(all_text)) + IMAGE_TOKENS * count_images(items, "input_image"),
            max_tokens=_max_tokens(body),
            stream=body.get("stream") is True,
            stop=(),
            include_usage=True,
            tools=read_tools(body, nested=False),
            after_tools=after_tools,
            schema=read_schema(text_format, "text.format", nested=False),
            reasons=effort not in (None, "none"),
        )

    def completion(self, call: Call, answer: Answer, number: int, created: int) -> bytes:
        return dump(_finished(call, answer, number, created))

    def stream(self, call: Call, answer: Answer, number: int, created: int) -> StreamParts:
        begun = response_object(call, number, created, "in_progress")
        numbered = _Numbered()
        head = [
            numbered.event("response.created", response=begun),
            numbered.event("response.in_progress", response=begun),
        ]
        text: list[tuple[int, bytes]] = []
        tail: list[bytes] = []
        items = _output(answer, number)
        for index, item in enumerate(items):
            last = index == len(items) - 1
            before, middle, after = _item_events(numbered, answer, item, index)
            if not text and not middle:
                head += before + after
            elif last:
                text += [(0, event) for event in before] if text else []
                head += [] if text else before
                text += middle
                tail += after
            else:
                text += [(0, event) for event in before] + middle + [(0, event) for event in after]
        finished = _finished(call, answer, number, created)
        terminal = numbered.event(f"response.{finished['status']}", response=finished)
        return StreamParts(head=head, text=text, tail=tail, terminal=terminal)

    def text_event(self, call: Call, text: str, number: int, created: int) -> bytes:  # noqa: ARG002 - an event names none of these
        return _event({"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": text})

    def error_event(self, kind: str, message: str, code: str | None) -> bytes:
        return _event({"type": "error", "code": code or kind, "message": message, "param": None})

    def ping(self) -> bytes:
        return _event({"type": "keepalive"})

    def broken_event(self) -> bytes:
        return _BROKEN


def response_id(number: int) -> str:
    """Return the id of the response to a request."""
    return f"resp_sim_{number}"


def response_object(call: Call, number: int, created: int, status: str) -> dict[str, Any]:
    """Return a response that has no output yet."""
    return {
        "id": response_id(number),
        "object": "response",
        "created_at": created,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "model": call.model,
        "output": [],
        "usage": None,
    }


class _Numbered:
    """Makes events, numbered in their order."""

    def __init__(self) -> None:
        self._next = 0

    def event(self, kind: str, **fields: Any) -> bytes:
        data = {"type": kind, "sequence_number": self._next, **fields}
        self._next += 1
        return _event(data)


def _finished(call: Call, answer: Answer, number: int, created: int) -> dict[str, Any]:
    status, reason = _STATUS.get(answer.finish, ("completed", None))
    response = response_object(call, number, created, status)
    response["output"] = _output(answer, number)
    if reason is not None:
        response["incomplete_details"] = {"reason": reason}
    if answer.with_usage:
        written = answer.output_tokens + answer.reasoning_tokens
        response["usage"] = {
            "input_tokens": answer.input_tokens,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": written,
            "output_tokens_details": {"reasoning_tokens": answer.reasoning_tokens},
            "total_tokens": answer.input_tokens + written,
        }
    else:
        del response["usage"]
    return response


def _output(answer: Answer, number: int) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    if answer.reasoning_tokens:
        items.append(
            {"type": "reasoning", "id": f"rs_sim_{number}", "summary": [], "encrypted_content": f"sealed-{number}"}
        )
    for call_id, name, arguments in told_calls(answer, number):
        items.append(
            {
                "type": "function_call",
                "id": f"fc{call_id}",
                "call_id": call_id,
                "name": name,
                "arguments": arguments,
                "status": "completed",
            }
        )
    if not answer.calls:
        part: dict[str, Any] = {"type": "output_text", "text": answer.text, "annotations": []}
        if answer.finish == "refusal":
            part = {"type": "refusal", "refusal": answer.text}
        items.append(
            {
                "type": "message",
                "id": f"msg_sim_{number}",
                "role": "assistant",
                "status": "completed",
                "content": [part],
            }
        )
    return items


def _item_events(
    numbered: _Numbered, answer: Answer, item: dict[str, Any], index: int
) -> tuple[list[bytes], list[tuple[int, bytes]], list[bytes]]:
    """What opens an output item, what carries it (with its tokens), and what closes it; numbered in that order."""
    at = {"item_id": item["id"], "output_index": index}
    kind = item["type"]
    if kind == "function_call":
        before = [numbered.event("response.output_item.added", output_index=index, item={**item, "arguments": ""})]
        middle = [
            (tokens, numbered.event("response.function_call_arguments.delta", **at, delta=piece))
            for tokens, piece in pieces(item["arguments"])
        ]
        after = [numbered.event("response.function_call_arguments.done", **at, arguments=item["arguments"])]
    elif kind == "message":
        refused = answer.finish == "refusal"
        name, field = ("refusal", "refusal") if refused else ("output_text", "text")
        part = item["content"][0]
        before = [
            numbered.event("response.output_item.added", output_index=index, item={**item, "content": []}),
            numbered.event("response.content_part.added", **at, content_index=0, part={**part, field: ""}),
        ]
        middle = [
            (tokens, numbered.event(f"response.{name}.delta", **at, content_index=0, delta=piece))
            for tokens, piece in pieces(answer.text)
        ]
        after = [
            numbered.event(f"response.{name}.done", **at, content_index=0, **{field: answer.text}),
            numbered.event("response.content_part.done", **at, content_index=0, part=part),
        ]
    else:
        before, middle = [numbered.event("response.output_item.added", output_index=index, item=item)], []
        after = []
    after.append(numbered.event("response.output_item.done", output_index=index, item=item))
    return before, middle, after


def _items(body: dict[str, Any]) -> list[dict[str, Any]]:
    given = body.get("input")
    if isinstance(given, str) and given:
        return [{"role": "user", "content": given}]
    if not isinstance(given, list) or not given:
        raise WireError(400, "Missing required parameter: 'input'.", param="input", code="missing_required_parameter")
    calls = {item.get("call_id") for item in given if isinstance(item, dict) and item.get("type") == "function_call"}
    for index, item in enumerate(given):
        known = isinstance(item, dict) and (item.get("role") in _ROLES or isinstance(item.get("type"), str))
        if not known:
            raise WireError(400, f"Invalid value for 'input[{index}]'.", param=f"input[{index}]", code="invalid_value")
        if item.get("type") == "function_call_output" and item.get("call_id") not in calls:
            raise WireError(
                400, f"No tool call found for function call output with call_id {item.get('call_id')}.", param="input"
            )
    return given


_ROLES = frozenset({"developer", "system", "user", "assistant"})


def _text(item: dict[str, Any]) -> str:
    if item.get("type") == "function_call_output":
        return text_of(item.get("output"))
    return text_of(item.get("content"))


def _outputs(items: list[dict[str, Any]]) -> str:
    """What the functions gave at the end of the input."""
    texts: list[str] = []
    for item in reversed(items):
        if item.get("type") != "function_call_output":
            break
        texts.insert(0, _text(item))
    return "\n".join(texts)


def _max_tokens(body: dict[str, Any]) -> int | None:
    value = body.get("max_output_tokens")
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise WireError(
            400,
            f"Invalid 'max_output_tokens': expected an integer >= 1, but got {value!r:.40}.",
            param="max_output_tokens",
            code="integer_below_min_value",
        )
    return value


def _event(data: dict[str, Any]) -> bytes:
    return b"event: " + str(data["type"]).encode() + b"\ndata: " + dump(data) + b"\n\n"
