"""From a refused or failed reply to a `CallError`: one table for every provider, pure.

What a body says beats the status, because providers reuse statuses: a 429 may mean "wait" or "pay", a 400 may mean a wrong key. Bodies are
hostile and often no JSON (a proxy's HTML page, nothing at all), so every shape is accepted and none is trusted: text is redacted and cut.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from .header_values import go_duration, retry_after, should_retry, until_pacific_midnight
from .keys import redact
from .model import Billed, CallError, ErrorClass, Scope

MAX_MESSAGE_BYTES = 4096
PER_DAY = "quota_per_day"
"""The `code` of a refusal that stands until midnight, Pacific time: `retry_after` says how long that is."""

_MONEY = re.compile(
    r"insufficient_quota|billing_hard_limit|credit_balance|spend_limit|usage_limit_exceeded|billing_error|billing_not_active"
)
_MONEY_WORDS = re.compile(r"credit balance is too low|spend limit|api usage limits")
"""Looked for in messages of a 400 or 403 only: a 429's words are too alike, whether waiting helps ("quota") or not."""
_CONTEXT = re.compile(
    r"context_length_exceeded|prompt is too long|maximum context length|context window|exceed_context_size|exceeds the available context"
    r"|input token count.{0,40}exceeds|input length exceeds|too many tokens in (?:the )?(?:prompt|messages)|input length and `?max_tokens`? exceed"
)
_ACCOUNT = re.compile(r"billing|location is not supported|country|region")
_KEY = re.compile(
    r"invalid_api_key|incorrect api key|invalid api key|api key not valid|api_key_invalid|authentication_error|invalid x-api-key"
)
_OVERLOADED = re.compile(r"overloaded|unavailable_error|service_unavailable|loading model")
_CONFLICT = re.compile(r"conversation_locked|conflict_error|thread_already_continued|thread_continue_in_flight")

_TYPE_STATUS = {
    "overloaded_error": 529,
    "server_is_overloaded": 503,
    "overloaded": 503,
    "slow_down": 503,
    "unavailable_error": 503,
    "service_unavailable": 503,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "tokens": 429,
    "requests": 429,
    "timeout_error": 504,
    "api_error": 500,
    "server_error": 500,
    "invalid_request_error": 400,
    "invalid_request": 400,
    "context_length_exceeded": 400,
    "authentication_error": 401,
    "invalid_api_key": 401,
    "permission_error": 403,
    "billing_error": 402,
    "not_found_error": 404,
    "model_not_found": 404,
    "conflict_error": 409,
    "request_too_large": 413,
    "invalid_prompt": 400,
    "invalid_image": 400,
    "invalid_image_format": 400,
    "invalid_base64_image": 400,
    "invalid_image_url": 400,
    "image_too_large": 400,
    "image_too_small": 400,
    "image_parse_error": 400,
    "image_content_policy_violation": 400,
    "image_file_too_large": 400,
    "unsupported_image_media_type": 400,
    "empty_image_file": 400,
    "failed_to_download_image": 400,
    "image_file_not_found": 400,
}
"""The status that an error type or code has where none was sent: in the middle of a stream, or in the body of a 200."""


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """What an error body said. `shaped`: it was JSON of a provider's error shape, so a provider (not a proxy) wrote it.

    `wait`: seconds, where the body names them and not a header. `per_day`: a day's quota is used up, which is full again at midnight, Pacific.
    """

    message: str = ""
    type: str = ""
    code: str = ""
    detail: str = ""
    request_id: str = ""
    shaped: bool = False
    wait: float | None = None
    per_day: bool = False


def parse_error(value: Any) -> ErrorBody:
    """Read an error from parsed JSON: `error` as an object or a string, the bare object, codes as text or numbers."""
    if not isinstance(value, dict):
        return ErrorBody(message=_text(value), shaped=False)
    request_id = _text(value.get("request_id"))
    inner = value.get("error", value)
    if isinstance(inner, str):
        return ErrorBody(message=inner, code=_text(value.get("code")), request_id=request_id, shaped=True)
    if not isinstance(inner, dict):
        return ErrorBody(message=_text(inner), request_id=request_id)
    details = inner.get("details")
    google = _google_details(details)
    return ErrorBody(
        message=_text(inner.get("message") or inner.get("detail")),
        type=_text(inner.get("type") or inner.get("status")),
        code=_text(inner.get("code")),
        detail=_text(details.get("error_code"))
        if isinstance(details, dict)
        else google.reason or _text(inner.get("status")),
        request_id=request_id,
        shaped=bool(inner.get("message") or inner.get("detail") or inner.get("type") or inner.get("status")),
        wait=google.wait,
        per_day=google.per_day,
    )


class _Details(NamedTuple):
    """What Google's `details` say: `ErrorInfo.reason`, `RetryInfo.retryDelay`, and whether a `QuotaFailure` is of a day's quota."""

    reason: str = ""
    wait: float | None = None
    per_day: bool = False


def _google_details(details: Any) -> _Details:
    found = _Details()
    for detail in details[:50] if isinstance(details, list) else ():
        if not isinstance(detail, dict):
            continue
        violations = detail.get("violations")
        quotas = (
            [_text(one.get("quotaId")) for one in violations if isinstance(one, dict)]
            if isinstance(violations, list)
            else []
        )
        found = _Details(
            found.reason or _text(detail.get("reason")),
            go_duration(_text(detail.get("retryDelay"))) if found.wait is None else found.wait,
            found.per_day or any("perday" in quota.lower() for quota in quotas),
        )
    return found


def parse_error_bytes(body: bytes) -> ErrorBody:
    """Read an error from a reply's body, which may be JSON, HTML, other text or empty."""
    try:
        return parse_error(json.loads(body))
    except (ValueError, RecursionError):
        text = body[:65536].decode("utf-8", "replace")
    if "<" in text:  # a proxy's page: its words, without the mark-up
        text = re.sub(r"(?is)<(script|style)\b.*?</\1>|<[^>]*>", " ", text)
    return ErrorBody(message=" ".join(text.split()))


def status_of(error: ErrorBody) -> int:
    """Return the HTTP status an error would have had: from its code or type, else 500."""
    if error.code.isdigit() and 400 <= int(error.code[:4]) <= 599:
        return int(error.code)
    return _TYPE_STATUS.get(error.code) or _TYPE_STATUS.get(error.type) or 500


def classify_reply(
    status: int, headers: Mapping[str, str], body: bytes, *, at_ms: int, request_id: str | None = None
) -> CallError:
    """Return the error that a whole reply means. `headers` have lower-case names; `at_ms` is when it arrived."""
    if 300 <= status < 400:
        return CallError(
            kind=ErrorClass.INVALID,
            message=clean(
                f"HTTP {status}: the server redirects to {headers.get('location', 'nowhere')[:200]}. Redirects are not followed, since they would take "
                "the key along; set base_url to the final address"
            ),
            http=status,
            scope=Scope.PROVIDER,
            request_id=request_id,
        )
    return classify_error(status, headers, parse_error_bytes(body), at_ms=at_ms, http=status, request_id=request_id)


def classify_in_body(
    error: ErrorBody, *, headers: Mapping[str, str], at_ms: int, partial: str, request_id: str | None
) -> CallError:
    """Return the error that came inside a 200: as an event of a stream, or as the whole body."""
    found = classify_error(status_of(error), headers, error, at_ms=at_ms, http=None, request_id=request_id)
    unclear = bool(partial) or found.kind in (ErrorClass.SERVER, ErrorClass.OVERLOADED, ErrorClass.TIMEOUT)
    return CallError(
        kind=found.kind,
        message=found.message,
        code=found.code,
        retry_after=found.retry_after,
        retryable=found.retryable,
        scope=found.scope,
        billed=Billed.MAYBE if unclear else Billed.NO,
        request_id=found.request_id,
        partial=partial,
    )


def classify_error(
    status: int, headers: Mapping[str, str], error: ErrorBody, *, at_ms: int, http: int | None, request_id: str | None
) -> CallError:
    """Return the error for a status and what the body said. `http` is what was really received, None inside a stream."""
    kind, scope, billed = _class_of(status, error)
    named = error.code or error.detail or error.type
    wait = retry_after(headers, at_ms)
    if wait is None:
        wait = error.wait
    if kind is ErrorClass.RATE and error.per_day:
        named, wait = PER_DAY, until_pacific_midnight(at_ms)
    where = "the stream" if http is None else f"HTTP {http}"
    return CallError(
        kind=kind,
        message=clean(f"{where}: {error.message or named or 'no error message in the reply'}"),
        http=http,
        code=clean(named if named == PER_DAY else error.detail or named)[:200] or None,
        retry_after=wait,
        retryable=should_retry(headers),
        scope=scope,
        billed=billed,
        request_id=request_id or (clean(error.request_id)[:200] or None),
    )


def _class_of(status: int, error: ErrorBody) -> tuple[ErrorClass, Scope, Billed]:
    said = f"{error.type} {error.code} {error.detail} {error.message}".lower()
    named = f"{error.type} {error.code} {error.detail}".lower()
    money = _MONEY.search(named) or (status in (400, 403) and _MONEY_WORDS.search(said))
    if status == 402 or (status in (400, 403, 429) and money):
        return ErrorClass.QUOTA, Scope.CREDENTIAL, Billed.NO
    if error.type == "FAILED_PRECONDITION" and _ACCOUNT.search(said):
        # Google's word for an account that may not: without billing where it is asked for, or from a country that is not served.
        return ErrorClass.QUOTA if "billing" in said else ErrorClass.AUTH, Scope.CREDENTIAL, Billed.NO
    if status in (401, 403) or (status == 400 and _KEY.search(said)):
        return ErrorClass.AUTH, Scope.CREDENTIAL, Billed.NO
    if status in (400, 413, 422, 500) and _CONTEXT.search(said):
        return ErrorClass.CONTEXT, Scope.REQUEST, Billed.NO
    if status == 409 or (status == 400 and _CONFLICT.search(said)):
        return ErrorClass.CONFLICT, Scope.REQUEST, Billed.NO
    if status == 404:
        # An unknown model is one model's matter; an unknown path, or a page that no provider wrote, is the base_url's.
        return ErrorClass.NOT_FOUND, Scope.MODEL if "model" in said else Scope.PROVIDER, Billed.NO
    if status == 408:
        return ErrorClass.TIMEOUT, Scope.REQUEST, Billed.MAYBE
    if status == 413:
        return ErrorClass.TOO_LARGE, Scope.REQUEST, Billed.NO
    if status == 429:
        return ErrorClass.RATE, Scope.MODEL, Billed.NO
    if status in (503, 529) or (status >= 500 and _OVERLOADED.search(said)):
        return ErrorClass.OVERLOADED, Scope.MODEL, Billed.NO
    if status >= 500:
        # A provider's own 500 may be about this request alone, and is not charged. A gateway's page says nothing of what ran behind it.
        own = error.shaped and status == 500
        return ErrorClass.SERVER, Scope.REQUEST if own else Scope.PROVIDER, Billed.NO if own else Billed.MAYBE
    return ErrorClass.INVALID, Scope.REQUEST, Billed.NO


def clean(text: str) -> str:
    """Return `text` without anything shaped like a key and at most 4 KB long in UTF-8, with no control characters."""
    text = redact(text[: 4 * MAX_MESSAGE_BYTES])
    text = "".join(char if char.isprintable() else " " for char in text)
    raw = text.encode("utf-8", "replace")
    return text if len(raw) <= MAX_MESSAGE_BYTES else raw[: MAX_MESSAGE_BYTES - 3].decode("utf-8", "ignore") + "…"


def names_error(data: dict[str, Any]) -> bool:
    """Whether a reply's JSON object is an error, in any of the shapes that the formats give it."""
    return bool(data.get("error")) or data.get("object") == "error" or data.get("type") == "error"


def read_reply(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    at_ms: int,
    request_id: str | None = None,
    failed: Callable[[dict[str, Any]], Any] | None = None,
) -> dict[str, Any] | CallError:
    """Return the JSON object of a whole reply, or the error it means: by its status, or inside a 200 where `failed` finds one.

    `failed` None: `names_error`.
    """
    if not 200 <= status < 300:
        return classify_reply(status, headers, body, at_ms=at_ms, request_id=request_id)
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return malformed(f"HTTP {status} with a body that is not JSON; is base_url right?", request_id=request_id)
    if not isinstance(data, dict):
        return malformed(f"HTTP {status} with JSON that is no object", request_id=request_id)
    if (failed or names_error)(data):
        return classify_in_body(parse_error(data), headers=headers, at_ms=at_ms, partial="", request_id=request_id)
    return data


def malformed(what: str, *, partial: str = "", request_id: str | None = None) -> CallError:
    """Return the error of a reply that could not be understood. The model has probably run, so it may be billed."""
    return CallError(
        kind=ErrorClass.MALFORMED,
        message=clean(what),
        billed=Billed.YES if partial else Billed.MAYBE,
        request_id=request_id,
        partial=partial,
    )


def refused(field: str, why: str) -> CallError:
    """Return the error of a request that was not sent because of one of its fields."""
    return CallError(
        kind=ErrorClass.INVALID, message=clean(f"{field}: {why}"), code="unsupported_parameter", sent=False
    )


def _text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float):
        return str(value)
    try:
        return json.dumps(value, ensure_ascii=False)[:MAX_MESSAGE_BYTES]
    except (TypeError, ValueError):
        return ""
