"""What each provider writes under each error status, byte for byte, and how its streams are taken apart and put together."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

WIRES_AT = Path(__file__).parents[1] / "wires"
NAMES = ("openai-chat", "openai-responses", "anthropic-messages", "gemini", "ollama")
TEXT = "Seven words are said, and no more."


def _load(name: str) -> ModuleType:
    path = WIRES_AT / f"{name.replace('-', '_')}.py"
    spec = importlib.util.spec_from_file_location(f"faults_wire_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


WIRES = {name: _load(name) for name in NAMES}
_AFTER_TEXT = {"openai-chat": 3, "openai-responses": 1, "anthropic-messages": 2, "gemini": 1, "ollama": 1}
"""How many events at the end of a stream come after the last text: the finish reason, the usage, the marker."""
_BEFORE_TEXT = {"openai-chat": 1, "openai-responses": 2, "anthropic-messages": 2, "gemini": 0, "ollama": 0}


def events(wire: str, whole: bytes) -> list[bytes]:
    """The events of a stream, each with its end."""
    end = b"\n" if WIRES[wire].FRAMING == "ndjson" else b"\n\n"
    return [piece + end for piece in whole.split(end) if piece]


def whole(wire: str, *, usage: bool = True) -> bytes:
    return WIRES[wire].text_stream(TEXT, usage)


def opening(wire: str) -> bytes:
    """The stream up to its last text."""
    return b"".join(events(wire, whole(wire))[: -_AFTER_TEXT[wire]])


def before_text(wire: str) -> bytes:
    """The stream up to its first text."""
    return b"".join(events(wire, whole(wire))[: _BEFORE_TEXT[wire]])


def closing(wire: str) -> bytes:
    """The stream after its last text."""
    return b"".join(events(wire, whole(wire))[-_AFTER_TEXT[wire] :])


def one_text(wire: str) -> bytes:
    """One event with a piece of text."""
    piece = b'"S"' if wire != "openai-responses" else b'"delta": "S"'
    return next(event for event in events(wire, whole(wire)) if piece in event)


def framed(wire: str, line: bytes) -> bytes:
    """A line as an event of the wire."""
    return line + b"\n" if WIRES[wire].FRAMING == "ndjson" else b"data: " + line + b"\n\n"


def unknown_events(wire: str) -> bytes:
    """Events of tomorrow."""
    if wire == "ollama":
        return b'{"of_tomorrow": [1, 2]}\n'
    return b'event: of.tomorrow\ndata: {"type": "of.tomorrow", "object": "of.tomorrow", "of": 1}\n\nretry: 3\n\n'


def body(wire: str, *, usage: bool = True) -> bytes:
    return json.dumps(WIRES[wire].text_body(TEXT, usage)).encode()


def finished(wire: str, raw: str) -> bytes:
    return WIRES[wire].finish_stream(raw)


_OPENAI = {
    "invalid": ("Invalid value: 'x'.", "invalid_request_error", "invalid_value"),
    "context": ("This model's maximum context length is 8 tokens.", "invalid_request_error", "context_length_exceeded"),
    "key": ("Incorrect API key provided: sk-***.", "invalid_request_error", "invalid_api_key"),
    "auth": ("Incorrect API key provided: sk-***.", "invalid_request_error", "invalid_api_key"),
    "money": ("You have no credit.", "billing_error", None),
    "permission": ("Your country is not supported.", "request_forbidden", "unsupported_country_region_territory"),
    "model": ("The model `m` does not exist.", "invalid_request_error", "model_not_found"),
    "path": ("Invalid URL (POST /v9).", "invalid_request_error", None),
    "timeout": ("Request timed out.", "server_error", None),
    "conflict": ("Conflict.", "invalid_request_error", None),
    "size": ("Request too large.", "invalid_request_error", None),
    "validation": ("temperature: not a number", "invalid_request_error", None),
    "rate": ("Rate limit reached for requests.", "requests", "rate_limit_exceeded"),
    "quota": ("You exceeded your current quota.", "insufficient_quota", "insufficient_quota"),
    "server": ("The server had an error.", "server_error", None),
    "gateway": ("Gateway timeout.", "server_error", None),
    "overloaded": ("The engine is overloaded.", "server_error", "server_is_overloaded"),
}
_ANTHROPIC = {
    "invalid": ("invalid_request_error", "max_tokens: not a number"),
    "context": ("invalid_request_error", "prompt is too long: 9 tokens > 8 maximum"),
    "key": ("authentication_error", "invalid x-api-key"),
    "auth": ("authentication_error", "invalid x-api-key"),
    "money": ("billing_error", "Your credit balance is too low"),
    "permission": ("permission_error", "Not for this workspace"),
    "model": ("not_found_error", "model: m"),
    "path": ("not_found_error", "Not found"),
    "timeout": ("timeout_error", "Timed out"),
    "conflict": ("conflict_error", "Conflict"),
    "size": ("request_too_large", "Request exceeds the maximum size"),
    "validation": ("invalid_request_error", "temperature: not a number"),
    "rate": ("rate_limit_error", "This request would exceed your limit"),
    "quota": ("rate_limit_error", "Limit reached"),
    "server": ("api_error", "Internal server error"),
    "gateway": ("timeout_error", "Timed out"),
    "overloaded": ("overloaded_error", "Overloaded"),
}
_GEMINI = {
    "invalid": ("INVALID_ARGUMENT", "Invalid value at 'generation_config'"),
    "context": ("INVALID_ARGUMENT", "The input token count (9) exceeds the maximum number of tokens allowed (8)."),
    "key": ("INVALID_ARGUMENT", "API key not valid. Please pass a valid API key."),
    "auth": ("UNAUTHENTICATED", "Request had invalid authentication credentials."),
    "money": ("FAILED_PRECONDITION", "Please enable billing on your project."),
    "permission": ("PERMISSION_DENIED", "Permission denied."),
    "model": ("NOT_FOUND", "models/m is not found for API version v1beta"),
    "path": ("NOT_FOUND", "Requested entity was not found."),
    "timeout": ("DEADLINE_EXCEEDED", "Deadline exceeded"),
    "conflict": ("ABORTED", "The operation was aborted."),
    "size": ("INVALID_ARGUMENT", "Request payload size exceeds the limit"),
    "validation": ("INVALID_ARGUMENT", "Invalid value"),
    "rate": ("RESOURCE_EXHAUSTED", "Quota exceeded"),
    "quota": ("RESOURCE_EXHAUSTED", "You exceeded your current quota"),
    "server": ("INTERNAL", "An internal error has occurred"),
    "gateway": ("DEADLINE_EXCEEDED", "Deadline exceeded"),
    "overloaded": ("UNAVAILABLE", "The model is overloaded."),
}
_OLLAMA = {
    "invalid": "invalid options",
    "context": "the input length exceeds the context length",
    "key": "invalid api key",
    "auth": "unauthorized",
    "money": "a subscription is needed",
    "permission": "forbidden",
    "model": "model 'm' not found, try pulling it first",
    "path": "path was not found",
    "timeout": "timed out waiting for the server",
    "conflict": "conflict",
    "size": "http: request body too large",
    "validation": "invalid temperature",
    "rate": "too many requests",
    "quota": "you have reached your weekly usage limit",
    "server": "llama runner process has terminated: exit status 2",
    "gateway": "timed out",
    "overloaded": "server busy, please try again.  maximum pending requests exceeded",
}
GOOGLE = "type.googleapis.com/google.rpc."
_GEMINI_DETAILS = {
    "key": [{"@type": GOOGLE + "ErrorInfo", "reason": "API_KEY_INVALID", "domain": "googleapis.com"}],
    "quota": [
        {
            "@type": GOOGLE + "QuotaFailure",
            "violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}],
        }
    ],
}


def error(wire: str, what: str, status: int) -> bytes:
    """The body of a refusal."""
    if wire == "ollama":
        return json.dumps({"error": _OLLAMA[what]}).encode()
    if wire == "gemini":
        named, message = _GEMINI[what]
        inner = {"code": status, "message": message, "status": named, "details": _GEMINI_DETAILS.get(what, [])}
        return json.dumps({"error": inner}).encode()
    if wire == "anthropic-messages":
        kind, message = _ANTHROPIC[what]
        told = {"type": kind, "message": message}
        if what == "quota":
            told["details"] = {"error_code": "enforced_spend_limit_reached"}
        return json.dumps({"type": "error", "error": told, "request_id": "req_1"}).encode()
    message, kind, code = _OPENAI[what]
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}}).encode()


def stream_error(wire: str) -> bytes:
    """An error event that says: a fault of the server's."""
    if wire == "ollama":
        return b'{"error": "an error was encountered while running the model"}\n'
    if wire in ("anthropic-messages", "openai-responses"):
        told = {"type": "error", "error": {"type": "server_error", "message": "Oh"}}
        if wire == "anthropic-messages":
            told["error"]["type"] = "api_error"
        return WIRES[wire].sse(told)
    return framed(wire, error(wire, "server", 500))


def finish_of(wire: str, what: str) -> str:
    """What the wire calls a reason to stop: length or filter."""
    if what == "length":
        return {
            "openai-chat": "length",
            "openai-responses": "max_output_tokens",
            "anthropic-messages": "max_tokens",
            "gemini": "MAX_TOKENS",
            "ollama": "length",
        }[wire]
    return {
        "openai-chat": "content_filter",
        "openai-responses": "content_filter",
        "anthropic-messages": "refusal",
        "gemini": "SAFETY",
        "ollama": "stop",
    }[wire]


def refusal(wire: str) -> bytes:
    """A stream in which the model will not answer, in OpenAI's own field for it."""
    told = WIRES[wire]
    if wire == "openai-chat":
        return told.stream(told.chunk(refusal="No."))
    part = {"type": "refusal", "refusal": "No."}
    item = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [part]}
    at = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    return told.stream(
        told.added(0, {**item, "content": []}),
        {"type": "response.refusal.delta", **at, "delta": "No."},
        {"type": "response.refusal.done", **at, "refusal": "No."},
        told.done(0, item),
        output=[item],
    )


BLOCKED = WIRES["gemini"].sse({"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 12}})
"""What Gemini says to a prompt that it will not read: a reply without candidates."""
