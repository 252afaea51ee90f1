"""Ollama's own format, `/api/chat`, in lines of JSON."""

import json

from callboard.actors.providers.model import ErrorClass, Finish, Scope

WIRE, BASE, FRAMING = "ollama", "", "ndjson"
USAGE = {"prompt_eval_count": 12, "eval_count": 5}
KEEP_ALIVES = b"\n\r\n"
NEVER = ("parallel_tools", "cache_key", "tool_choice")
REQUEST_ID = RESPONSE_ID = LIMITS = False
FILTERED, REFUSED = {Finish.STOP}, {Finish.STOP}  # a local model filters nothing, and refuses in plain words
CANNOT = ("insufficient_quota", "cr")
FINISHES = {
    "stop": Finish.STOP,
    "length": Finish.LENGTH,
    "load": Finish.UNKNOWN,
    "unload": Finish.UNKNOWN,
    "of_tomorrow": Finish.UNKNOWN,
}


def lines(*items):
    return "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items).encode()


def line(**message):
    return {
        "model": "m1",
        "created_at": "2026-11-01T00:00:00Z",
        "message": {"role": "assistant", **message},
        "done": False,
    }


def last(reason="stop", usage=True, **message):
    durations = {"total_duration": 5, "load_duration": 1, "prompt_eval_duration": 1, "eval_duration": 3}
    told = {**line(**{"content": "", **message}), "done": True, "done_reason": reason, **durations}
    return {**told, **(USAGE if usage else {})}


END = len(lines(last()))


def text_stream(text, usage=True):
    return lines(*(line(content=char) for char in text), last(usage=usage))


def text_body(text, usage=True):
    return last(content=text, usage=usage)


def finish_stream(raw):
    return lines(line(content="4"), last(raw))


def finish_body(raw):
    return last(raw, content="4")


def told_calls(calls):
    return [{"id": call_id, "function": {"name": name, "arguments": given}} for call_id, name, given in calls]


def calls_stream(calls):
    return lines(*(line(content="", tool_calls=told_calls([call])) for call in calls), last())


def calls_body(calls):
    return last(tool_calls=told_calls(calls))


OPAQUE = ()


def reasoned_stream():
    return lines(line(content="", thinking="hm"), line(content="4"), last())


def reasoned_body():
    return last(content="4", thinking="hm")


def error(message):
    return json.dumps({"error": message}).encode()


ERRORS = [
    (400, error("invalid options"), ErrorClass.INVALID, Scope.REQUEST),
    (400, error("the input length exceeds the context length"), ErrorClass.CONTEXT, Scope.REQUEST),
    (401, error("unauthorized"), ErrorClass.AUTH, Scope.CREDENTIAL),
    (404, error("model 'm' not found"), ErrorClass.NOT_FOUND, Scope.MODEL),
    (500, error("llama runner process has terminated"), ErrorClass.SERVER, Scope.REQUEST),
    (
        503,
        error("server busy, please try again.  maximum pending requests exceeded"),
        ErrorClass.OVERLOADED,
        Scope.MODEL,
    ),
]
STREAM_ERRORS = [
    (lines({"error": "an error was encountered while running the model"}), ErrorClass.SERVER),
    (b'{"error": "no line end"}', ErrorClass.SERVER),
    (lines({"error": {"message": "Oh", "code": 503}}), ErrorClass.OVERLOADED),
]


def said(body):
    turns = []
    for message in body["messages"]:
        if message["role"] == "system":
            continue
        parts = ["tool_result"] if message["role"] == "tool" else ["text"] if message["content"] else []
        parts += ["image"] * len(message.get("images", ())) + ["tool_call"] * len(message.get("tool_calls", ()))
        turns.append((message["role"], parts))
    return {
        "tools": [tool["function"]["name"] for tool in body.get("tools", ())],
        "schema": body.get("format"),
        "system": next((message["content"] for message in body["messages"] if message["role"] == "system"), None),
        "turns": turns,
    }
