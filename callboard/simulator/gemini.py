"""The Gemini wire format: requests, replies, and chunks of a stream that ends with its body.

The model stands in the path, so an object of these classes is of one model. Requests are read as strictly as the provider reads them: a field
that it does not know is refused.
"""

# ruff: noqa: D102 - wire.Wire documents every method

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from .buckets import Level, Rejection
from .config import DEFAULT_MODEL, SimulatorConfig
from .extractive import estimate_tokens, pieces
from .tools import Tools
from .vectors import DIMENSIONS, embed
from .wire import IMAGE_TOKENS, Answer, Call, Headers, StreamParts, WireError, dump, text_of

MAX_EMBEDDINGS = 100
_ROLES = frozenset({"user", "model"})
_FIELDS = frozenset(
    {
        "contents",
        "systemInstruction",
        "tools",
        "toolConfig",
        "generationConfig",
        "safetySettings",
        "cachedContent",
        "serviceTier",
    }
)
_PARTS = frozenset({"text", "inlineData", "functionCall", "functionResponse", "thought", "thoughtSignature"})
_STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
    529: "UNAVAILABLE",
}
_STATUS_OF_KIND = {kind: status for status, kind in _STATUSES.items() if status != 529}
_FINISH = {"length": "MAX_TOKENS", "refusal": "SAFETY"}
_QUOTAS = {
    "requests": "GenerateRequestsPerMinutePerProjectPerModel",
    "requests_per_day": "GenerateRequestsPerDayPerProjectPerModel",
    "input_tokens": "GenerateContentInputTokensPerModelPerMinute",
    "concurrency": "ConcurrentRequestsPerProjectPerModel",
}
_GOOGLE = "type.googleapis.com/google.rpc."
_BROKEN = b'data: {"candidates": [{"content": {"parts": [{"text": "\n\n'


class Gemini:
    """`generateContent` and `streamGenerateContent` of one model. See `wire.Wire` for what each method promises."""

    name = "gemini"

    def __init__(self, model: str = "", *, stream: bool = False) -> None:
        self._model = model
        self._stream = stream

    def api_key(self, headers: Mapping[str, str]) -> str:
        return headers.get("x-goog-api-key", "")

    def read(self, body: Any, headers: Mapping[str, str]) -> Call:  # noqa: ARG002 - this format has nothing in its headers
        if not isinstance(body, dict):
            raise WireError(400, "Invalid JSON payload received. Expected an object.")
        refuse_unknown(body, _FIELDS)
        turns = body.get("contents")
        if not isinstance(turns, list) or not turns:
            raise WireError(400, "* GenerateContentRequest.contents: contents is not specified")
        for index, turn in enumerate(turns):
            _check_turn(turn, index)
        settings = body.get("generationConfig") or {}
        if not isinstance(settings, dict):
            raise WireError(400, "Invalid value at 'generation_config'")
        limit, stops = settings.get("maxOutputTokens"), settings.get("stopSequences") or []
        if limit is not None and (not isinstance(limit, int) or limit < 1):
            raise WireError(400, "* GenerateContentRequest.generation_config.max_output_tokens: must be positive.")
        if not isinstance(stops, list) or len(stops) > 5 or not all(isinstance(one, str) for one in stops):
            raise WireError(400, "* GenerateContentRequest.generation_config.stop_sequences: at most 5 are supported.")
        system = body.get("systemInstruction")
        everything = [part for turn in turns for part in turn["parts"]]
        results = [part["functionResponse"] for part in turns[-1]["parts"] if "functionResponse" in part]
        images = sum("inlineData" in part for part in everything)
        all_text = "\n".join([text_of(system.get("parts") if isinstance(system, dict) else None), text_of(everything)])
        said = [turn for turn in turns if turn.get("role", "user") == "user"]
        thinking = settings.get("thinkingConfig")
        return Call(
            model=self._model,
            text="\n".join(map(_result_text, results)) if results else text_of(said[-1]["parts"]) if said else "",
            all_text=all_text,
            input_tokens=max(1, estimate_tokens(all_text)) + IMAGE_TOKENS * images,
            max_tokens=limit,
            stream=self._stream,
            stop=tuple(stops),
            include_usage=True,
            tools=_tools(body),
            after_tools=bool(results),
            schema=settings.get("responseJsonSchema"),
            reasons=isinstance(thinking, dict) and "thinkingLevel" in thinking,
        )

    def model_unknown(self, model: str) -> WireError:
        return WireError(404, f"models/{model} is not found for API version v1beta, or is not supported.")

    def key_refused(self, key: str) -> WireError:
        if not key:
            return WireError(403, "Method doesn't allow unregistered callers. Please use API Key.")
        return WireError(400, "API key not valid. Please pass a valid API key.", code="API_KEY_INVALID")

    def too_many(self, rejection: Rejection, model: str) -> WireError:
        quota = {
            "quotaMetric": "generativelanguage.googleapis.com/generate_content_requests",
            "quotaId": _QUOTAS[rejection.dimension],
            "quotaDimensions": {"model": model, "location": "global"},
            "quotaValue": str(rejection.limit),
        }
        details: list[dict[str, Any]] = [{"@type": _GOOGLE + "QuotaFailure", "violations": [quota]}]
        if not math.isinf(rejection.wait_seconds):
            wait = f"{math.ceil(rejection.wait_seconds * 1000) / 1000:g}s"
            details.append({"@type": _GOOGLE + "RetryInfo", "retryDelay": wait})
        return WireError(429, "You exceeded your current quota.", details=details)

    def error(self, error: WireError, request_id: str) -> bytes:  # noqa: ARG002 - this format has no such id
        details = list(error.details)
        if error.code is not None:
            details.append({"@type": _GOOGLE + "ErrorInfo", "reason": error.code, "domain": "googleapis.com"})
        said: dict[str, Any] = {"code": error.status, "message": error.message}
        said["status"] = error.kind or _STATUSES.get(error.status, "UNKNOWN")
        return dump({"error": {**said, **({"details": details} if details else {})}})

    def error_event(self, kind: str, message: str, code: str | None) -> bytes:
        return b"data: " + self.error(WireError(self.error_status(kind), message, kind=kind, code=code), "") + b"\n\n"

    def error_status(self, kind: str) -> int:
        return _STATUS_OF_KIND.get(kind, 500)

    def headers(self, request_id: str, elapsed_ms: int) -> Headers:  # noqa: ARG002 - this format has no such id
        return [("server-timing", f"gfet4t7; dur={elapsed_ms}")]

    def limit_headers(self, levels: Mapping[str, Level], now_ms: int) -> Headers:  # noqa: ARG002 - it says nothing of them
        return []

    def retry_headers(self, wait_seconds: float) -> Headers:  # noqa: ARG002 - the wait is in the body
        return []

    def limits(self, config: SimulatorConfig) -> dict[str, int]:
        sizes = {
            "requests": config.rpm,
            "requests_per_day": config.rpd,
            "input_tokens": config.tpm if config.input_tpm is None else config.input_tpm,
        }
        return {name: size for name, size in sizes.items() if size is not None}

    def charges(self, call: Call) -> dict[str, int]:
        return {"requests": 1, "requests_per_day": 1, "input_tokens": call.input_tokens}

    def output_dimension(self) -> str | None:
        return None

    def completion(self, call: Call, answer: Answer, number: int, created: int) -> bytes:  # noqa: ARG002 - no time in this format
        return dump(_reply(call, answer, number, _all_parts(answer, number), last=True))

    def stream(self, call: Call, answer: Answer, number: int, created: int) -> StreamParts:
        if answer.calls:
            share = -(-answer.output_tokens // len(answer.calls))
            said = [
                (share, _event(_reply(call, answer, number, [part], last=False))) for part in _all_parts(answer, number)
            ]
        elif answer.finish == "content_filter":
            said = []
        else:
            said = [(tokens, self.text_event(call, piece, number, created)) for tokens, piece in pieces(answer.text)]
        ending = _event(_reply(call, answer, number, [{"text": ""}], last=True))
        # The last chunk is all there is of an end: without it nothing says that the answer is whole.
        return StreamParts(head=[], text=said, tail=[], terminal=ending)

    def text_event(self, call: Call, text: str, number: int, created: int) -> bytes:  # noqa: ARG002 - no time in this format
        part: dict[str, Any] = {"content": {"role": "model", "parts": [{"text": text}]}, "index": 0}
        return _event({"candidates": [part], **_envelope(call, number)})

    def ping(self) -> bytes:
        return b""  # there are none

    def broken_event(self) -> bytes:
        return _BROKEN

    def models(self, names: tuple[str, ...]) -> bytes:
        methods = ["generateContent", "countTokens", "embedContent"]
        listed = [
            {"name": f"models/{name}", "displayName": name, "supportedGenerationMethods": methods}
            for name in names or (DEFAULT_MODEL,)
        ]
        return dump({"models": listed})


class GeminiEmbeddings(Gemini):
    """`batchEmbedContents` of one model."""

    def read(self, body: Any, headers: Mapping[str, str]) -> Call:  # noqa: ARG002 - this format has nothing in its headers
        requests = body.get("requests") if isinstance(body, dict) else None
        if not isinstance(requests, list) or not requests:
            raise WireError(400, "* BatchEmbedContentsRequest.requests: requests is not specified")
        if len(requests) > MAX_EMBEDDINGS:
            raise WireError(
                400, f"* BatchEmbedContentsRequest.requests: at most {MAX_EMBEDDINGS} requests can be in one batch"
            )
        texts: list[str] = []
        dimensions = None
        for index, one in enumerate(requests):
            content = one.get("content") if isinstance(one, dict) else None
            text = text_of(content.get("parts")) if isinstance(content, dict) else ""
            if not isinstance(one, dict) or one.get("model") != f"models/{self._model}":
                raise WireError(
                    400, f"* BatchEmbedContentsRequest.requests[{index}].model: must be models/{self._model}"
                )
            if not text:
                raise WireError(
                    400, f"* BatchEmbedContentsRequest.requests[{index}].content: contents is not specified"
                )
            texts.append(text)
            dimensions = one.get("outputDimensionality") or dimensions
        if dimensions is not None and (not isinstance(dimensions, int) or not 1 <= dimensions <= 4096):
            raise WireError(400, "Invalid value at 'output_dimensionality'")
        return Call(
            model=self._model,
            text=texts[0],
            all_text="\n".join(texts),
            input_tokens=sum(map(estimate_tokens, texts)),
            max_tokens=None,
            stream=False,
            stop=(),
            include_usage=True,
            inputs=tuple(texts),
            dimensions=dimensions,
        )

    def completion(self, call: Call, answer: Answer, number: int, created: int) -> bytes:  # noqa: ARG002 - nothing of these
        return dump({"embeddings": [{"values": embed(text, call.dimensions or DIMENSIONS)} for text in call.inputs]})


def refuse_unknown(body: dict[str, Any], known: frozenset[str]) -> None:
    """Refuse a field that the format does not know, as its parser does. Raises WireError."""
    for name in body:
        if name not in known:
            raise WireError(400, f'Invalid JSON payload received. Unknown name "{name}": Cannot find field.')


def _check_turn(turn: Any, index: int) -> None:
    where = f"contents[{index}]"
    if not isinstance(turn, dict) or turn.get("role", "user") not in _ROLES:
        raise WireError(400, f"Please use a valid role: user, model. ({where})")
    parts = turn.get("parts")
    if not isinstance(parts, list) or not parts:
        raise WireError(400, f"* GenerateContentRequest.{where}.parts: contents.parts must not be empty.")
    for part in parts:
        if not isinstance(part, dict):
            raise WireError(400, f"Invalid value at '{where}.parts'")
        refuse_unknown(part, _PARTS)
        result = part.get("functionResponse")
        if result is not None and not isinstance(result.get("response") if isinstance(result, dict) else None, dict):
            raise WireError(400, f"Invalid value at '{where}.parts.function_response.response' (Struct)")


def _tools(body: dict[str, Any]) -> Tools:
    schemas: dict[str, Any] = {}
    for tool in body.get("tools") or ():
        declared = tool.get("functionDeclarations") if isinstance(tool, dict) else None
        for one in declared or ():
            if not isinstance(one, dict) or not isinstance(one.get("name"), str):
                raise WireError(400, "* GenerateContentRequest.tools[0].function_declarations[0].name: must be set")
            schemas[one["name"]] = one.get("parametersJsonSchema")
    settings = body.get("toolConfig")
    calling = settings.get("functionCallingConfig") if isinstance(settings, dict) else None
    calling = calling if isinstance(calling, dict) else {}
    allowed = calling.get("allowedFunctionNames") or []
    choice = {"NONE": "none", "ANY": "required"}.get(str(calling.get("mode")), "auto")
    return Tools(schemas, allowed[0] if choice == "required" and len(allowed) == 1 else choice)


def _result_text(result: dict[str, Any]) -> str:
    value = result["response"].get("result", result["response"])
    return value if isinstance(value, str) else dump(value).decode()


def _all_parts(answer: Answer, number: int) -> list[dict[str, Any]]:
    if not answer.calls:
        return [{"text": answer.text}]
    return [
        {
            "functionCall": {"id": f"call_sim_{number}_{index}", "name": name, "args": arguments},
            "thoughtSignature": f"c2ltdWxhdGVk{number}{index}",
        }
        for index, (name, arguments) in enumerate(answer.calls)
    ]


def _reply(call: Call, answer: Answer, number: int, parts: list[dict[str, Any]], *, last: bool) -> dict[str, Any]:
    if answer.finish == "content_filter":
        reply: dict[str, Any] = {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}
    else:
        candidate: dict[str, Any] = {"content": {"role": "model", "parts": parts}, "index": 0}
        if last:
            candidate["finishReason"] = _FINISH.get(answer.finish, "STOP")
        reply = {"candidates": [candidate]}
    if last and answer.with_usage:
        reply["usageMetadata"] = _usage(answer)
    return {**reply, **_envelope(call, number)}


def _usage(answer: Answer) -> dict[str, Any]:
    return {
        "promptTokenCount": answer.input_tokens,
        "candidatesTokenCount": answer.output_tokens,
        "thoughtsTokenCount": answer.reasoning_tokens,
        "totalTokenCount": answer.input_tokens + answer.output_tokens + answer.reasoning_tokens,
    }


def _envelope(call: Call, number: int) -> dict[str, Any]:
    return {"modelVersion": call.model, "responseId": f"sim{number}"}


def _event(data: dict[str, Any]) -> bytes:
    return b"data: " + dump(data) + b"\r\n\r\n"
