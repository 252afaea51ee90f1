"""Anthropic Messages."""

import json

from callboard.actors.providers.model import ErrorClass, Finish, Scope
from callboard.actors.providers.parts import Opaque

WIRE, BASE, FRAMING = "anthropic-messages", "", "sse"
USAGE = {"input_tokens": 10, "cache_read_input_tokens": 2, "output_tokens": 5}
KEEP_ALIVES = b': x\n\nevent: ping\ndata: {"type": "ping"}\n\n'
NEVER = ("seed",)
REQUEST_ID = RESPONSE_ID = LIMITS = True
FILTERED, REFUSED = {Finish.REFUSAL}, {Finish.REFUSAL}
CANNOT = ()
FINISHES = {
    "end_turn": Finish.STOP,
    "stop_sequence": Finish.STOP,
    "max_tokens": Finish.LENGTH,
    "tool_use": Finish.TOOL,
    "pause_turn": Finish.PAUSE,
    "refusal": Finish.REFUSAL,
    "model_context_window_exceeded": Finish.CONTEXT,
    "of_tomorrow": Finish.UNKNOWN,
}


def sse(*items):
    lines = (f"event: {item['type']}\ndata: {json.dumps(item, ensure_ascii=False)}\n\n" for item in items)
    return "".join(lines).encode()


STOP = {"type": "message_stop"}
END = len(sse(STOP))


def start(index, **block):
    return {"type": "content_block_start", "index": index, "content_block": block}


def delta(index, kind, **piece):
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **piece}}


def stop(index):
    return {"type": "content_block_stop", "index": index}


def stream(*items, finish="end_turn", usage=True):
    first = {"usage": {**USAGE, "output_tokens": 1}} if usage else {}
    last = {"usage": {"output_tokens": 5}} if usage else {}
    return sse(
        {"type": "message_start", "message": {"id": "r", "model": "m1", "content": [], **first}},
        {"type": "ping"},
        *items,
        {"type": "message_delta", "delta": {"stop_reason": finish, "stop_sequence": None}, **last},
        STOP,
    )


def body(*content, finish="end_turn", usage=True):
    message = {"type": "message", "id": "r", "role": "assistant", "model": "m1", "content": list(content)}
    return {**message, "stop_reason": finish, "stop_sequence": None, **({"usage": USAGE} if usage else {})}


def text_stream(text, usage=True):
    pieces = (delta(0, "text_delta", text=char) for char in text)
    return stream(start(0, type="text", text=""), *pieces, stop(0), usage=usage)


def text_body(text, usage=True):
    return body({"type": "text", "text": text}, usage=usage)


def finish_stream(raw):
    return stream(start(0, type="text", text=""), delta(0, "text_delta", text="4"), stop(0), finish=raw)


def finish_body(raw):
    return body({"type": "text", "text": "4"}, finish=raw)


def calls_stream(calls):
    items = []
    for index, (call_id, name, arguments) in enumerate(calls):
        text = json.dumps(arguments, ensure_ascii=False) if arguments else ""  # nothing at all means no arguments
        items += [
            start(index, type="tool_use", id=call_id, name=name, input={}),
            *(delta(index, "input_json_delta", partial_json=char) for char in ["", *text]),
            stop(index),
        ]
    return stream(*items, finish="tool_use")


def calls_body(calls):
    content = [{"type": "tool_use", "id": call_id, "name": name, "input": given} for call_id, name, given in calls]
    return body(*content, finish="tool_use")


THINKING = {"type": "thinking", "thinking": "hm\u2028", "signature": "sig=="}
REDACTED = {"type": "redacted_thinking", "data": "blob"}
OPAQUE = (Opaque(wire=WIRE, data=THINKING), Opaque(wire=WIRE, data=REDACTED))


def reasoned_stream():
    return stream(
        start(0, type="thinking", thinking="", signature=""),
        *(delta(0, "thinking_delta", thinking=char) for char in THINKING["thinking"]),
        delta(0, "signature_delta", signature=THINKING["signature"]),
        stop(0),
        start(1, **REDACTED),
        stop(1),
        start(2, type="text", text=""),
        delta(2, "text_delta", text="4"),
        stop(2),
    )


def reasoned_body():
    return body(THINKING, REDACTED, {"type": "text", "text": "4"})


def error(kind, message="Oh", **more):
    return json.dumps(
        {"type": "error", "error": {"type": kind, "message": message, **more}, "request_id": "r1"}
    ).encode()


ERRORS = [
    (400, error("invalid_request_error"), ErrorClass.INVALID, Scope.REQUEST),
    (
        400,
        error("invalid_request_error", "prompt is too long: 9 tokens > 8 maximum"),
        ErrorClass.CONTEXT,
        Scope.REQUEST,
    ),
    (
        400,
        error("invalid_request_error", "Your credit balance is too low"),
        ErrorClass.QUOTA,
        Scope.CREDENTIAL,
    ),
    (401, error("authentication_error", "invalid x-api-key"), ErrorClass.AUTH, Scope.CREDENTIAL),
    (402, error("billing_error"), ErrorClass.QUOTA, Scope.CREDENTIAL),
    (403, error("permission_error"), ErrorClass.AUTH, Scope.CREDENTIAL),
    (404, error("not_found_error", "model: m"), ErrorClass.NOT_FOUND, Scope.MODEL),
    (409, error("conflict_error"), ErrorClass.CONFLICT, Scope.REQUEST),
    (413, error("request_too_large"), ErrorClass.TOO_LARGE, Scope.REQUEST),
    (429, error("rate_limit_error"), ErrorClass.RATE, Scope.MODEL),
    (
        429,
        error("rate_limit_error", details={"error_code": "enforced_spend_limit_reached"}),
        ErrorClass.QUOTA,
        Scope.CREDENTIAL,
    ),
    (500, error("api_error"), ErrorClass.SERVER, Scope.REQUEST),
    (504, error("timeout_error"), ErrorClass.SERVER, Scope.PROVIDER),
    (529, error("overloaded_error"), ErrorClass.OVERLOADED, Scope.MODEL),
]
STREAM_ERRORS = [
    (sse({"type": "error", "error": {"type": kind, "message": "Oh"}}), mapped)
    for kind, mapped in (
        ("overloaded_error", ErrorClass.OVERLOADED),
        ("rate_limit_error", ErrorClass.RATE),
        ("api_error", ErrorClass.SERVER),
        ("timeout_error", ErrorClass.SERVER),
        ("invalid_request_error", ErrorClass.INVALID),
        ("of_tomorrow", ErrorClass.SERVER),
    )
]
KINDS = {"tool_use": "tool_call", "thinking": "opaque", "redacted_thinking": "opaque"}


def said(body):
    turns = []
    for message in body["messages"]:
        content = message["content"]
        blocks = [{"type": "text"}] if isinstance(content, str) else content
        turns.append((message["role"], [KINDS.get(block["type"], block["type"]) for block in blocks]))
    return {
        "tools": [tool["name"] for tool in body.get("tools", ())],
        "schema": body.get("output_config", {}).get("format", {}).get("schema"),
        "system": body.get("system"),
        "turns": turns,
    }
