"""Anthropic's Message Batches: the requests go with the call that makes the batch, and its results come as lines. Pure.

The provider keeps no name of ours with a batch. One that was asked for and not heard of is known by when it was made and how many requests it
has: certain only if exactly one fits, and even then its results must be compared with what was asked.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import quote, urlsplit

from .adapter import HttpRequest, adapter_for, optional_text
from .batch_api import (
    BatchFound,
    BatchLine,
    BatchPhase,
    BatchResult,
    BatchStatus,
    CancelBatch,
    CreateBatch,
    DeleteFile,
    FetchResults,
    FileDeleted,
    FindBatch,
    LineReader,
    Operation,
    PollBatch,
    Report,
    Upload,
    UploadFile,
)
from .batch_lines import (
    bad_name,
    base_headers,
    body_of,
    by_name,
    dumped,
    field_of,
    instant_ms,
    is_name,
    members,
    never_tried,
    number,
    objects,
    request_of,
    result,
)
from .errors import classify_error, classify_reply, clean, malformed, parse_error, refused, status_of
from .keys import Secret
from .model import Answer, AnyRequest, Billed, CallError, EmbeddingRequest, ErrorClass, Scope
from .settings import ProviderSettings

PATH = "/v1/messages/batches"
PAGE = 100
CLOCK_SKEW_MS = 120_000
"""How far the provider's clock may be from ours, when a batch is known by its age."""
_COUNTS = ("processing", "succeeded", "errored", "canceled", "expired")


class AnthropicBatches:
    """`{base_url}/v1/messages/batches`."""

    uploads = False
    max_requests = 100_000
    max_bytes = 256_000_000
    one_model = False

    def endpoint(self, request: AnyRequest) -> str | None:
        """Return the one endpoint; there are no embeddings."""
        return None if isinstance(request, EmbeddingRequest) else "/v1/messages"

    def line(self, line: BatchLine, *, settings: ProviderSettings) -> bytes | CallError:
        """Return `{"custom_id", "params"}`."""
        if isinstance(line.request, EmbeddingRequest):
            return refused("type", f"provider {settings.name!r} ({settings.wire}) has no embeddings")
        adapter = adapter_for("anthropic-messages")
        body = request_of(line, adapter.encode(replace(line.request, stream=False), key=None, settings=settings))
        if isinstance(body, CallError):
            return body
        return dumped({"custom_id": line.custom_id})[:-1] + b',"params":' + body + b"}"

    def encode(
        self, operation: Operation, *, key: Secret | None, settings: ProviderSettings, cursor: str | None = None
    ) -> HttpRequest | Upload | CallError:
        """Return the request of an operation."""
        match operation:
            case UploadFile():
                return refused("operation", "this API takes no file: the requests go with CreateBatch")
            case CreateBatch(path=path):
                if path is None:
                    return refused("path", "this API makes a batch of the requests themselves, not of an uploaded file")
                request = HttpRequest("POST", PATH, _headers(key, settings, "application/json"), b"")
                return Upload(request=request, head=b'{"requests":[', path=path, tail=b"]}", array=True)
            case FindBatch():
                after = "" if cursor is None else f"&after_id={quote(cursor, safe='')}"
                return HttpRequest("GET", f"{PATH}?limit={PAGE}{after}", _headers(key, settings), b"")
            case FetchResults(ref=ref):
                own = _own_path(ref, settings.base_url)
                if isinstance(own, CallError):
                    return own
                return HttpRequest("GET", own, _headers(key, settings), b"")
            case PollBatch(batch_id) | CancelBatch(batch_id) | DeleteFile(batch_id):
                if not is_name(batch_id):
                    return bad_name("batch_id", batch_id)
                method = {PollBatch: "GET", CancelBatch: "POST", DeleteFile: "DELETE"}[type(operation)]
                below = f"{PATH}/{batch_id}" + ("/cancel" if method == "POST" else "")
                return HttpRequest(method, below, _headers(key, settings), b"")

    def decode(
        self, operation: Operation, status: int, headers: Mapping[str, str], body: bytes, *, at_ms: int
    ) -> Report | CallError:
        """Return what a whole reply means."""
        request_id = optional_text(headers.get("request-id"))
        if not 200 <= status < 300:
            if isinstance(operation, DeleteFile) and status == 404:
                return FileDeleted()
            return classify_reply(status, headers, body, at_ms=at_ms, request_id=request_id)
        data = body_of(status, body, request_id)
        if isinstance(data, CallError):
            return data
        if isinstance(operation, DeleteFile):
            return FileDeleted()
        found = _status(data)
        return found or malformed(f"HTTP {status} with JSON that is no batch", request_id=request_id)

    def more(self, operation: FindBatch, page: bytes) -> str | None:
        """Return the last id of a page, unless it reaches back to before the batch was asked for."""
        listed = members(page, "data") or []
        if not listed or field_of(page, "has_more") is not True:
            return None
        oldest = instant_ms(listed[-1].get("created_at"))
        if oldest is not None and oldest < operation.since - CLOCK_SKEW_MS:
            return None
        return optional_text(listed[-1].get("id"))

    def found(self, operation: FindBatch, pages: Sequence[bytes], *, complete: bool) -> BatchFound | CallError:
        """Return the one batch that was made since and has as many requests. None, or several, is not certain."""
        fitting: list[BatchStatus] = []
        for page in pages:
            listed = members(page, "data")
            if listed is None:
                return malformed("the list of batches is not one")
            fitting += [status for one in listed if (status := _status(one)) is not None and _fits(operation, status)]
        if len(fitting) == 1:
            return BatchFound(status=fitting[0], certain=complete)
        return BatchFound(status=None, certain=False)

    def reader(self, operation: Operation) -> LineReader | None:  # noqa: ARG002 - the same for every operation
        """Return None: a reply of results is nothing but lines."""
        return None

    def results(self, lines: Iterator[bytes], *, at_ms: int) -> Iterator[BatchResult | CallError]:
        """Read the results."""
        for data in objects(lines):
            yield (
                data
                if isinstance(data, CallError)
                else result(data.get("custom_id"), _outcome(by_name(data, "result"), at_ms=at_ms))
            )

    def kept(self, *, file_id: str | None, batch_id: str | None, results: tuple[str, ...]) -> tuple[str, ...]:  # noqa: ARG002 - all there is is the batch
        """Return the batch: its requests and results are deleted with it."""
        return () if batch_id is None else (batch_id,)


def _headers(
    key: Secret | None, settings: ProviderSettings, content_type: str | None = None
) -> tuple[tuple[str, str], ...]:
    headers = [*base_headers(settings, content_type), ("anthropic-version", settings.version)]
    if settings.workspace:
        headers.append(("anthropic-workspace-id", settings.workspace))
    if key is not None:
        headers.append(("x-api-key", key.reveal()))
    return tuple(headers)


def _own_path(url: str, base_url: str) -> str | CallError:
    """Return the path below the base URL that a URL from the server names. Another host, port or scheme is refused: the key stays at home."""
    base = urlsplit(base_url)
    try:
        asked = urlsplit(url)
        same = _origin(asked) == _origin(base)
    except ValueError:
        same = False
    if not same or not url.isascii() or not url.isprintable() or " " in url or asked.username or asked.fragment:
        return CallError(
            kind=ErrorClass.INVALID,
            message=clean(
                f"results_url: {url[:200]!r} is not at {base.scheme}://{base.netloc}, where the key belongs; it is not followed"
            ),
            scope=Scope.PROVIDER,
            sent=False,
        )
    prefix = base.path.rstrip("/")
    if not asked.path.startswith(f"{prefix}/"):
        return refused("results_url", f"{url[:200]!r} is not below base_url")
    return asked.path[len(prefix) :] + (f"?{asked.query}" if asked.query else "")


def _origin(url: Any) -> tuple[str, str | None, int]:
    return url.scheme, url.hostname, url.port or (443 if url.scheme == "https" else 80)


def _fits(operation: FindBatch, status: BatchStatus) -> bool:
    return (
        status.batch_id not in operation.known
        and status.total == operation.requests
        and status.created_at is not None
        and status.created_at >= operation.since - CLOCK_SKEW_MS
    )


def _status(data: dict[str, Any]) -> BatchStatus | None:
    batch_id = optional_text(data.get("id"))
    if batch_id is None or not is_name(batch_id):
        return None
    counts = by_name(data, "request_counts")
    total = sum(number(counts.get(name)) for name in _COUNTS)
    url = optional_text(data.get("results_url"))
    ended = data.get("processing_status") == "ended"
    return BatchStatus(
        batch_id=batch_id,
        phase=BatchPhase.ENDED if ended else BatchPhase.RUNNING,
        done=total - number(counts.get("processing")),
        total=total,
        results=(url,) if ended and url is not None else (),
        created_at=instant_ms(data.get("created_at")),
        expires_at=instant_ms(data.get("expires_at")),
    )


def _outcome(found: Mapping[str, Any], *, at_ms: int) -> Answer | CallError:
    kind = found.get("type")
    if kind == "succeeded":
        return adapter_for("anthropic-messages").decode_body(200, {}, dumped(found.get("message")), at_ms=at_ms)
    if kind == "errored":
        error = parse_error(found.get("error"))
        status = status_of(error)
        # What a batch could not do is not on the bill, whatever it was.
        return replace(classify_error(status, {}, error, at_ms=at_ms, http=status, request_id=None), billed=Billed.NO)
    if kind in ("expired", "canceled", "cancelled"):
        return never_tried("batch_expired" if kind == "expired" else "batch_cancelled")
    return malformed(f"a line of the results is of the unknown type {str(kind)[:40]!r}")
