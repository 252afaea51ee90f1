"""Google Gemini, `generateContent` and `streamGenerateContent?alt=sse`."""

import json

from callboard.actors.providers.model import ErrorClass, Finish, Scope
from callboard.actors.providers.parts import Opaque

WIRE, BASE, FRAMING = "gemini", "", "sse"
USAGE = {"promptTokenCount": 12, "cachedContentTokenCount": 2, "candidatesTokenCount": 5, "totalTokenCount": 17}
KEEP_ALIVES = b": x\n\n"
NEVER = ("parallel_tools", "cache_key")
REQUEST_ID = LIMITS = False
RESPONSE_ID = True
FILTERED, REFUSED = {Finish.FILTER}, {Finish.FILTER}
CANNOT = ("missing_terminal",)
FINISHES = {
    "STOP": Finish.STOP,
    "MAX_TOKENS": Finish.LENGTH,
    "SAFETY": Finish.FILTER,
    "RECITATION": Finish.FILTER,
    "PROHIBITED_CONTENT": Finish.FILTER,
    "SPII": Finish.FILTER,
    "BLOCKLIST": Finish.FILTER,
    "MALFORMED_FUNCTION_CALL": Finish.UNKNOWN,
    "OTHER": Finish.UNKNOWN,
    "OF_TOMORROW": Finish.UNKNOWN,
}


def sse(*items):
    return "".join(f"data: {json.dumps(item, ensure_ascii=False)}\n\n" for item in items).encode()


def reply(*parts, finish=None, usage=USAGE):
    candidate = {"index": 0, "content": {"role": "model", "parts": list(parts)}}
    if finish:
        candidate["finishReason"] = finish
    said = {"candidates": [candidate], "modelVersion": "m1", "responseId": "r"}
    return {**said, **({"usageMetadata": usage} if usage else {})}


FIRST = {"promptTokenCount": 12, "totalTokenCount": 12}
"""Usage is cumulative: only the last one counts."""


def last(finish="STOP", usage=True):
    return reply({"text": ""}, finish=finish, usage=USAGE if usage else None)


END = len(sse(last()))


def text_stream(text, usage=True):
    return sse(*(reply({"text": char}, usage=FIRST if usage else None) for char in text), last(usage=usage))


def text_body(text, usage=True):
    return reply({"text": text}, finish="STOP", usage=USAGE if usage else None)


def finish_stream(raw):
    return sse(reply({"text": "4"}), last(raw))


def finish_body(raw):
    return reply({"text": "4"}, finish=raw)


def call_part(call_id, name, arguments):
    return {"functionCall": {"id": call_id, "name": name, "args": arguments}, "thoughtSignature": f"sig-{call_id}"}


def calls_stream(calls):
    return sse(*(reply(call_part(*call), usage=FIRST) for call in calls), last())


def calls_body(calls):
    return reply(*(call_part(*call) for call in calls), finish="STOP")


SIGNED = {"text": "", "thoughtSignature": "sig=="}
OPAQUE = (Opaque(wire=WIRE, data=SIGNED),)
THOUGHT = {"text": "hm\u2028", "thought": True}


def reasoned_stream():
    return sse(reply(THOUGHT, usage=FIRST), reply({"text": "4"}), reply(SIGNED), last())


def reasoned_body():
    return reply(THOUGHT, {"text": "4"}, SIGNED, finish="STOP")


def error(code, status, message="Oh", *details):
    return json.dumps(
        {"error": {"code": code, "status": status, "message": message, "details": list(details)}}
    ).encode()


GOOGLE = "type.googleapis.com/google.rpc."
BAD_KEY = {"@type": GOOGLE + "ErrorInfo", "reason": "API_KEY_INVALID", "domain": "googleapis.com"}
SOON = {"@type": GOOGLE + "RetryInfo", "retryDelay": "14s"}
ERRORS = [
    (400, error(400, "INVALID_ARGUMENT", "Bad"), ErrorClass.INVALID, Scope.REQUEST),
    (
        400,
        error(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.", BAD_KEY),
        ErrorClass.AUTH,
        Scope.CREDENTIAL,
    ),
    (400, error(400, "INVALID_ARGUMENT", "Bad", BAD_KEY), ErrorClass.AUTH, Scope.CREDENTIAL),
    (
        400,
        error(400, "INVALID_ARGUMENT", "The input token count (9) exceeds the maximum number of tokens allowed (8)."),
        ErrorClass.CONTEXT,
        Scope.REQUEST,
    ),
    (
        400,
        error(400, "FAILED_PRECONDITION", "Please enable billing on your project."),
        ErrorClass.QUOTA,
        Scope.CREDENTIAL,
    ),
    (
        400,
        error(400, "FAILED_PRECONDITION", "User location is not supported for the API use."),
        ErrorClass.AUTH,
        Scope.CREDENTIAL,
    ),
    (401, error(401, "UNAUTHENTICATED"), ErrorClass.AUTH, Scope.CREDENTIAL),
    (403, error(403, "PERMISSION_DENIED"), ErrorClass.AUTH, Scope.CREDENTIAL),
    (404, error(404, "NOT_FOUND", "models/m is not found"), ErrorClass.NOT_FOUND, Scope.MODEL),
    (409, error(409, "ABORTED"), ErrorClass.CONFLICT, Scope.REQUEST),
    (429, error(429, "RESOURCE_EXHAUSTED", "Quota exceeded", SOON), ErrorClass.RATE, Scope.MODEL),
    (500, error(500, "INTERNAL"), ErrorClass.SERVER, Scope.REQUEST),
    (503, error(503, "UNAVAILABLE"), ErrorClass.OVERLOADED, Scope.MODEL),
    (504, error(504, "DEADLINE_EXCEEDED"), ErrorClass.SERVER, Scope.PROVIDER),
]
OH = {"error": {"code": 503, "status": "UNAVAILABLE", "message": "Oh"}}
STREAM_ERRORS = [
    (sse(OH), ErrorClass.OVERLOADED),
    (json.dumps(OH).encode() + b"\n", ErrorClass.OVERLOADED),
    (json.dumps(OH, indent=2).encode(), ErrorClass.OVERLOADED),
    (json.dumps(OH, indent=2).encode() + b"\n\n", ErrorClass.OVERLOADED),
    (b"event: error\n" + sse({"error": {"code": 500, "status": "INTERNAL", "message": "Oh"}}), ErrorClass.SERVER),
]


def said(body):
    turns = [(content["role"], [kind(part) for part in content["parts"]]) for content in body["contents"]]
    declared = [one for tool in body.get("tools", ()) for one in tool["functionDeclarations"]]
    return {
        "tools": [one["name"] for one in declared],
        "schema": body.get("generationConfig", {}).get("responseJsonSchema"),
        "system": body.get("systemInstruction", {}).get("parts", [{}])[0].get("text"),
        "turns": turns,
    }


def kind(part):
    for name, told in (("functionCall", "tool_call"), ("functionResponse", "tool_result"), ("inlineData", "image")):
        if name in part:
            return told
    return "opaque" if "thoughtSignature" in part else "text"
