"""OpenAI Chat Completions, and the servers that speak it."""

import json

from callboard.actors.providers.model import ErrorClass, Finish, Scope

WIRE, BASE, FRAMING = "openai-chat", "/v1", "sse"
USAGE = {"prompt_tokens": 12, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 2}}
KEEP_ALIVES = b": keep-alive\n\n:\n\n"
END = 0  # the finish reason completes it, and some servers never send [DONE]
NEVER = ()
REQUEST_ID = RESPONSE_ID = LIMITS = True
FILTERED, REFUSED = {Finish.FILTER}, {Finish.REFUSAL}
CANNOT = ()
FINISHES = {
    "stop": Finish.STOP,
    "length": Finish.LENGTH,
    "tool_calls": Finish.TOOL,
    "function_call": Finish.TOOL,
    "content_filter": Finish.FILTER,
    "of_tomorrow": Finish.UNKNOWN,
}


def sse(*items):
    lines = (item if isinstance(item, str) else json.dumps(item, ensure_ascii=False) for item in items)
    return "".join(f"data: {line}\n\n" for line in lines).encode()


def chunk(finish=None, **delta):
    return {"id": "r", "model": "m1", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def stream(*deltas, finish="stop", usage=True):
    last = [{"id": "r", "model": "m1", "choices": [], "usage": USAGE}] if usage else []
    return sse(chunk(content="", role="assistant"), *deltas, chunk(finish), *last, "[DONE]")


def body(finish="stop", usage=True, **message):
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", **message}}
    return {"id": "r", "model": "m1", "choices": [choice], **({"usage": USAGE} if usage else {})}


def text_stream(text, usage=True):
    return stream(*(chunk(content=char) for char in text), usage=usage)


def text_body(text, usage=True):
    return body(content=text, usage=usage)


def finish_stream(raw):
    return stream(chunk(content="4"), finish=raw)


def finish_body(raw):
    return body(raw, content="4")


def calls_stream(calls):
    deltas = []
    for index, (call_id, name, arguments) in enumerate(calls):
        function = {"name": name, "arguments": ""}
        deltas.append(chunk(tool_calls=[{"index": index, "id": call_id, "type": "function", "function": function}]))
        deltas += [
            chunk(tool_calls=[{"index": index, "function": {"arguments": char}}])
            for char in json.dumps(arguments, ensure_ascii=False)
        ]
    return stream(*deltas, finish="tool_calls")


def calls_body(calls):
    told = [
        {
            "id": call_id,
            "type": "function",
            "function": {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)},
        }
        for call_id, name, arguments in calls
    ]
    return body("tool_calls", content=None, tool_calls=told)


def error(message, kind="invalid_request_error", code=None):
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}}).encode()


ERRORS = [
    (400, error("Bad"), ErrorClass.INVALID, Scope.REQUEST),
    (400, error("Too long", code="context_length_exceeded"), ErrorClass.CONTEXT, Scope.REQUEST),
    (401, error("Incorrect API key provided", code="invalid_api_key"), ErrorClass.AUTH, Scope.CREDENTIAL),
    (404, error("The model `m` does not exist", code="model_not_found"), ErrorClass.NOT_FOUND, Scope.MODEL),
    (409, error("conversation_locked"), ErrorClass.CONFLICT, Scope.REQUEST),
    (429, error("Slow", "requests", "rate_limit_exceeded"), ErrorClass.RATE, Scope.MODEL),
    (429, error("Pay", "insufficient_quota", "insufficient_quota"), ErrorClass.QUOTA, Scope.CREDENTIAL),
    (500, error("Oh", "server_error"), ErrorClass.SERVER, Scope.REQUEST),
    (503, error("Busy", "server_error", "server_is_overloaded"), ErrorClass.OVERLOADED, Scope.MODEL),
]
STREAM_ERRORS = [
    (sse({"error": {"message": "Oh", "type": "server_error", "code": None}}), ErrorClass.SERVER),
    (sse({"error": {"message": "Slow", "type": "requests", "code": "rate_limit_exceeded"}}), ErrorClass.RATE),
    (b'error: {"code":503,"message":"Loading model","type":"unavailable_error"}\n\n', ErrorClass.OVERLOADED),
    (b'{"error": {"message": "Oh", "type": "server_error"}}\n', ErrorClass.SERVER),
    (sse({"error": "Oh"}), ErrorClass.SERVER),
]


def said(body):
    kinds = []
    for message in body["messages"]:
        content = message.get("content")
        parts = (
            ["text"] if isinstance(content, str) and content else [part["type"] for part in content or [] if content]
        )
        parts = ["tool_result"] if message["role"] == "tool" else ["image" if p == "image_url" else p for p in parts]
        kinds.append((message["role"], parts + ["tool_call"] * len(message.get("tool_calls") or ())))
    schema = body.get("response_format", {}).get("json_schema", {}).get("schema")
    return {
        "tools": [tool["function"]["name"] for tool in body.get("tools", ())],
        "schema": schema,
        "system": next((message["content"] for message in body["messages"] if message["role"] == "system"), None),
        "turns": [kind for kind in kinds if kind[0] != "system"],
    }


OPAQUE = ()  # what these servers call reasoning is to be read, not to be sent back


def reasoned_stream():
    return stream(chunk(reasoning_content="hm"), chunk(content="4"))


def reasoned_body():
    return body(content="4", reasoning_content="hm")
