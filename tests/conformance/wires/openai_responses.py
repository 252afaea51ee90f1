"""OpenAI Responses."""

import itertools
import json

from callboard.actors.providers.model import ErrorClass, Finish, Scope
from callboard.actors.providers.parts import Opaque

WIRE, BASE, FRAMING = "openai-responses", "/v1", "sse"
USAGE = {
    "input_tokens": 12,
    "input_tokens_details": {"cached_tokens": 2},
    "output_tokens": 5,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 17,
}
NEVER = ("seed", "stop")
REQUEST_ID = RESPONSE_ID = LIMITS = True
FILTERED, REFUSED = {Finish.FILTER}, {Finish.REFUSAL}
CANNOT = ()
FINISHES = {
    "completed": Finish.STOP,
    "max_output_tokens": Finish.LENGTH,
    "content_filter": Finish.FILTER,
    "max_messages": Finish.UNKNOWN,
    "of_tomorrow": Finish.UNKNOWN,
}


def sse(*items):
    lines = (f"event: {item['type']}\ndata: {json.dumps(item, ensure_ascii=False)}\n\n" for item in items)
    return "".join(lines).encode()


KEEP_ALIVES = b": x\n\n" + sse(
    {"type": "keepalive", "sequence_number": 1},
    {"type": "response.in_progress", "sequence_number": 2, "response": {"id": "r", "status": "in_progress"}},
    {"type": "response.queued", "sequence_number": 3, "response": {"id": "r", "status": "queued"}},
    {"type": "of.tomorrow", "sequence_number": 4},
)


def response(status="completed", output=(), usage=True, reason=None):
    told = {"id": "r", "object": "response", "status": status, "error": None, "model": "m1", "output": list(output)}
    told["incomplete_details"] = {"reason": reason} if reason else None
    return {**told, **({"usage": USAGE} if usage else {})}


def numbered(*items):
    return sse(*({**item, "sequence_number": number} for number, item in enumerate(items)))


def stream(*events, usage=True, status="completed", reason=None, output=()):
    """The last event holds no output: servers need not repeat it."""
    begun = response("in_progress", usage=False)
    last = {"type": f"response.{status}", "sequence_number": 9999, "response": response(status, output, usage, reason)}
    flat = itertools.chain.from_iterable(event if isinstance(event, list) else [event] for event in events)
    first = ({"type": f"response.{kind}", "response": begun} for kind in ("created", "in_progress"))
    return numbered(*first, *flat) + sse(last)


END = len(stream()) - len(
    numbered(
        *(
            {"type": f"response.{kind}", "response": response("in_progress", usage=False)}
            for kind in ("created", "in_progress")
        )
    )
)


def message(text):
    part = {"type": "output_text", "text": text, "annotations": []}
    return {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [part]}


def added(index, item):
    return {"type": "response.output_item.added", "output_index": index, "item": item}


def done(index, item):
    return {"type": "response.output_item.done", "output_index": index, "item": item}


def text_events(text, index=0):
    at = {"item_id": "msg_1", "output_index": index, "content_index": 0}
    return [
        added(index, {**message(text), "content": []}),
        {"type": "response.content_part.added", **at, "part": {"type": "output_text", "text": ""}},
        *({"type": "response.output_text.delta", **at, "delta": char} for char in text),
        {"type": "response.output_text.done", **at, "text": text},
        {"type": "response.content_part.done", **at, "part": message(text)["content"][0]},
        done(index, message(text)),
    ]


def text_stream(text, usage=True):
    return stream(text_events(text), usage=usage)


def text_body(text, usage=True):
    return response(output=[message(text)], usage=usage)


def ended(raw):
    return ("completed", None) if raw == "completed" else ("incomplete", raw)


def finish_stream(raw):
    status, reason = ended(raw)
    return stream(text_events("4"), status=status, reason=reason, output=[message("4")])


def finish_body(raw):
    status, reason = ended(raw)
    return response(status, [message("4")], reason=reason)


def call_item(index, call_id, name, arguments):
    text = json.dumps(arguments, ensure_ascii=False)
    return {"type": "function_call", "id": f"fc_{index}", "call_id": call_id, "name": name, "arguments": text}


def calls_stream(calls):
    """The first call as its events tell it, without the item that closes it; the others whole."""
    events = []
    for index, call in enumerate(calls):
        item = call_item(index, *call)
        at = {"item_id": item["id"], "output_index": index}
        events.append(added(index, {**item, "arguments": ""}))
        events += [
            {"type": "response.function_call_arguments.delta", **at, "delta": char} for char in item["arguments"]
        ]
        if index:
            events.append({"type": "response.function_call_arguments.done", **at, "arguments": item["arguments"]})
            events.append(done(index, item))
    return stream(events)


def calls_body(calls):
    return response(output=[call_item(index, *call) for index, call in enumerate(calls)])


REASONING = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "sealed\u2028=="}
COMPACTED = {"type": "compaction", "id": "cmp_1", "encrypted_content": "sealed"}
OPAQUE = (Opaque(wire=WIRE, data=REASONING), Opaque(wire=WIRE, data=COMPACTED))
FORGOTTEN = {"type": "reasoning", "id": "rs_0", "summary": []}
"""Reasoning of which the provider gave nothing: to name it would be refused."""


def reasoned_stream():
    return stream(
        done(0, FORGOTTEN),
        added(1, {**REASONING, "encrypted_content": ""}),
        {"type": "response.reasoning_summary_text.delta", "output_index": 1, "summary_index": 0, "delta": "hm"},
        done(1, REASONING),
        done(2, COMPACTED),
        text_events("4", 3),
    )


def reasoned_body():
    return response(output=[FORGOTTEN, REASONING, COMPACTED, message("4")])


def error(message, kind="invalid_request_error", code=None):
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}}).encode()


ERRORS = [
    (400, error("Bad"), ErrorClass.INVALID, Scope.REQUEST),
    (400, error("Too long", code="context_length_exceeded"), ErrorClass.CONTEXT, Scope.REQUEST),
    (400, error("Locked", code="conversation_locked"), ErrorClass.CONFLICT, Scope.REQUEST),
    (401, error("Incorrect API key provided", code="invalid_api_key"), ErrorClass.AUTH, Scope.CREDENTIAL),
    (404, error("The model `m` does not exist", code="model_not_found"), ErrorClass.NOT_FOUND, Scope.MODEL),
    (429, error("Slow", "requests", "rate_limit_exceeded"), ErrorClass.RATE, Scope.MODEL),
    (429, error("Pay", "insufficient_quota", "insufficient_quota"), ErrorClass.QUOTA, Scope.CREDENTIAL),
    (500, error("Oh", "server_error"), ErrorClass.SERVER, Scope.REQUEST),
    (503, error("Busy", "server_error", "server_is_overloaded"), ErrorClass.OVERLOADED, Scope.MODEL),
]


def failed(code):
    told = {**response("failed", usage=False), "error": {"code": code, "message": "Oh"}}
    return sse({"type": "response.failed", "sequence_number": 9998, "response": told})


STREAM_ERRORS = [
    (failed("server_error"), ErrorClass.SERVER),
    (failed("rate_limit_exceeded"), ErrorClass.RATE),
    (failed("invalid_prompt"), ErrorClass.INVALID),
    (failed("image_parse_error"), ErrorClass.INVALID),
    (failed("of_tomorrow"), ErrorClass.SERVER),
    (
        sse({"type": "error", "sequence_number": 9998, "code": "server_error", "message": "Oh", "param": None}),
        ErrorClass.SERVER,
    ),
    (sse({"type": "error", "error": {"type": "invalid_request_error", "message": "Oh"}}), ErrorClass.INVALID),
]
KINDS = {
    "input_text": "text",
    "input_image": "image",
    "function_call": "tool_call",
    "function_call_output": "tool_result",
}


def said(body):
    turns = []
    for item in body["input"]:
        content = item.get("content")
        kinds = [KINDS[part["type"]] for part in content] if isinstance(content, list) else ["text"]
        turns.append((item.get("role"), kinds if "role" in item else [KINDS.get(item["type"], "opaque")]))
    return {
        "tools": [tool["name"] for tool in body.get("tools", ())],
        "schema": body.get("text", {}).get("format", {}).get("schema"),
        "system": body.get("instructions"),
        "turns": turns,
    }
