"""OpenAI's Files and Batch endpoints: a file of requests is uploaded, a batch is made of it, and its results are two files. Pure.

The batch carries our tag in its metadata, so that one that was asked for and not heard of is found again in the list.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from .adapter import HttpRequest, adapter_for, embedder_for, optional_text
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
    FileUploaded,
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
from .errors import classify_error, classify_reply, clean, malformed, parse_error
from .keys import Secret
from .model import Answer, AnyRequest, CallError, EmbeddingRequest, ErrorClass, Scope
from .settings import ProviderSettings

KEPT_SECONDS = 7 * 86_400
"""How long the provider keeps an uploaded file if nobody deletes it: the window is a day, and a worker may be down for some."""
PAGE = 100
CLOCK_SKEW_MS = 300_000
"""How far the provider's clock may be from ours, when batches are looked for by their age."""

_PHASES = {
    "completed": BatchPhase.ENDED,
    "expired": BatchPhase.ENDED,
    "cancelled": BatchPhase.ENDED,
    "failed": BatchPhase.FAILED,
}
"""What is not here (validating, in_progress, finalizing, cancelling, and what may yet come) goes on."""


class OpenAIBatches:
    """`{base_url}/files` and `{base_url}/batches`, for chat completions and embeddings."""

    uploads = True
    max_requests = 50_000
    max_bytes = 200_000_000
    one_model = True
    wire = "openai-chat"
    chat_endpoint = "/v1/chat/completions"

    def endpoint(self, request: AnyRequest) -> str | None:
        """Return the `url` of its line."""
        return "/v1/embeddings" if isinstance(request, EmbeddingRequest) else self.chat_endpoint

    def line(self, line: BatchLine, *, settings: ProviderSettings) -> bytes | CallError:
        """Return `{"custom_id", "method", "url", "body"}`."""
        body = request_of(line, self._built(line.request, settings))
        if isinstance(body, CallError):
            return body
        head = {"custom_id": line.custom_id, "method": "POST", "url": self.endpoint(line.request)}
        return dumped(head)[:-1] + b',"body":' + body + b"}"

    def encode(
        self, operation: Operation, *, key: Secret | None, settings: ProviderSettings, cursor: str | None = None
    ) -> HttpRequest | Upload | CallError:
        """Return the request of an operation."""
        match operation:
            case UploadFile(path=path, tag=tag):
                return _upload(path, tag, _headers(key, settings))
            case CreateBatch(file_id=file_id, endpoint=endpoint, tag=tag):
                body = {
                    "input_file_id": file_id,
                    "endpoint": endpoint,
                    "completion_window": "24h",
                    "metadata": {"queue_batch": tag},
                }
                headers = _headers(key, settings, "application/json")
                return HttpRequest("POST", "/batches", headers, dumped(body))
            case FindBatch():
                after = "" if cursor is None else f"&after={quote(cursor, safe='')}"
                return HttpRequest("GET", f"/batches?limit={PAGE}{after}", _headers(key, settings), b"")
            case PollBatch(batch_id) | CancelBatch(batch_id):
                if not is_name(batch_id):
                    return bad_name("batch_id", batch_id)
                if isinstance(operation, PollBatch):
                    return HttpRequest("GET", f"/batches/{batch_id}", _headers(key, settings), b"")
                return HttpRequest("POST", f"/batches/{batch_id}/cancel", _headers(key, settings), b"")
            case FetchResults(ref=ref):
                if not is_name(ref):
                    return bad_name("ref", ref)
                return HttpRequest("GET", f"/files/{ref}/content", _headers(key, settings), b"")
            case DeleteFile(file_id):
                if not is_name(file_id):
                    return bad_name("file_id", file_id)
                return HttpRequest("DELETE", f"/files/{file_id}", _headers(key, settings), b"")

    def decode(
        self, operation: Operation, status: int, headers: Mapping[str, str], body: bytes, *, at_ms: int
    ) -> Report | CallError:
        """Return what a whole reply means."""
        request_id = optional_text(headers.get("x-request-id"))
        if not 200 <= status < 300:
            if isinstance(operation, DeleteFile) and status == 404:
                return FileDeleted()
            error = classify_reply(status, headers, body, at_ms=at_ms, request_id=request_id)
            return _waiting(error) if isinstance(operation, CreateBatch) else error
        data = body_of(status, body, request_id)
        if isinstance(data, CallError):
            return data
        if isinstance(operation, DeleteFile):
            return FileDeleted()
        found = optional_text(data.get("id"))
        if found is None or not is_name(found):
            return malformed(f"HTTP {status} with JSON that has no id", request_id=request_id)
        return FileUploaded(found) if isinstance(operation, UploadFile) else _status(found, data)

    def more(self, operation: FindBatch, page: bytes) -> str | None:
        """Return the last id of a page, unless the tag was on it or it reaches back to before the batch was asked for."""
        listed = members(page, "data") or []
        if not listed or field_of(page, "has_more") is not True or _tagged(operation, listed):
            return None
        oldest = instant_ms(listed[-1].get("created_at"))
        if oldest is not None and oldest < operation.since - CLOCK_SKEW_MS:
            return None
        return optional_text(listed[-1].get("id"))

    def found(self, operation: FindBatch, pages: Sequence[bytes], *, complete: bool) -> BatchFound | CallError:
        """Return the batch with our tag. If there are several, one that did not fail comes before one that did."""
        found: list[BatchStatus] = []
        for page in pages:
            listed = members(page, "data")
            if listed is None:
                return malformed("the list of batches is not one")
            found += _tagged(operation, listed)
        found.sort(key=lambda status: status.phase is BatchPhase.FAILED)
        return BatchFound(status=found[0] if found else None, certain=complete or bool(found))

    def reader(self, operation: Operation) -> LineReader | None:  # noqa: ARG002 - the same for every operation
        """Return None: a file of results is nothing but lines."""
        return None

    def results(self, lines: Iterator[bytes], *, at_ms: int) -> Iterator[BatchResult | CallError]:
        """Read an output or an error file; their lines have one shape."""
        for data in objects(lines):
            yield (
                data if isinstance(data, CallError) else result(data.get("custom_id"), self._outcome(data, at_ms=at_ms))
            )

    def kept(self, *, file_id: str | None, batch_id: str | None, results: tuple[str, ...]) -> tuple[str, ...]:  # noqa: ARG002 - a batch itself cannot be deleted
        """Return the files: that of the requests and those of the results."""
        return (*(() if file_id is None else (file_id,)), *results)

    def _built(self, request: AnyRequest, settings: ProviderSettings) -> HttpRequest | CallError:
        if isinstance(request, EmbeddingRequest):
            embedder = embedder_for(self.wire)
            assert embedder is not None
            return embedder.encode(request, key=None, settings=settings)
        return adapter_for(self.wire).encode(replace(request, stream=False), key=None, settings=settings)

    def _outcome(self, data: dict[str, Any], *, at_ms: int) -> Answer | CallError:
        response = by_name(data, "response")
        status, body = response.get("status_code"), response.get("body")
        request_id = optional_text(response.get("request_id"))
        if not isinstance(status, int) or isinstance(status, bool):
            error = parse_error(data)
            if error.code == "batch_expired" or error.code in ("batch_cancelled", "batch_canceled"):
                return never_tried("batch_expired" if error.code == "batch_expired" else "batch_cancelled")
            if not error.shaped and not error.code:
                return malformed("a line of the results has neither a response nor an error")
            return classify_error(500, {}, error, at_ms=at_ms, http=500, request_id=request_id)
        raw = dumped(body)
        headers = {} if request_id is None else {"x-request-id": request_id}
        if not 200 <= status < 300:
            return classify_reply(status, headers, raw, at_ms=at_ms, request_id=request_id)
        if isinstance(body, dict) and body.get("object") == "list":
            embedder = embedder_for(self.wire)
            assert embedder is not None
            vectors = body.get("data")
            inputs = len(vectors) if isinstance(vectors, list) else 0
            return embedder.decode_body(status, headers, raw, at_ms=at_ms, inputs=inputs)
        return adapter_for(self.wire).decode_body(status, headers, raw, at_ms=at_ms)


class OpenAIResponsesBatches(OpenAIBatches):
    """As `OpenAIBatches`, for responses."""

    wire = "openai-responses"
    chat_endpoint = "/v1/responses"


def _headers(
    key: Secret | None, settings: ProviderSettings, content_type: str | None = None
) -> tuple[tuple[str, str], ...]:
    headers = base_headers(settings, content_type)
    if key is not None:
        headers.append(("authorization", f"Bearer {key.reveal()}"))
    if settings.organization:
        headers.append(("openai-organization", settings.organization))
    if settings.project:
        headers.append(("openai-project", settings.project))
    return tuple(headers)


def _upload(path: str, tag: str, headers: tuple[tuple[str, str], ...]) -> Upload:
    # A line of JSON holds no carriage return, so the boundary, which follows one, cannot occur in the file whatever it is.
    boundary = "callboard-" + hashlib.sha256(tag.encode()).hexdigest()[:32]
    fields = {
        "purpose": "batch",
        "expires_after[anchor]": "created_at",
        "expires_after[seconds]": str(KEPT_SECONDS),
    }
    parts = [
        f'--{boundary}\r\ncontent-disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    ]
    named = f'--{boundary}\r\ncontent-disposition: form-data; name="file"; filename="{quote(tag, safe="")}.jsonl"\r\n'
    return Upload(
        request=HttpRequest(
            "POST", "/files", (*headers, ("content-type", f"multipart/form-data; boundary={boundary}")), b""
        ),
        head=("".join(parts) + named + "content-type: application/jsonl\r\n\r\n").encode(),
        path=path,
        tail=f"\r\n--{boundary}--\r\n".encode(),
    )


def _waiting(error: CallError) -> CallError:
    """Return the error of a batch that is not taken because too many tokens wait already: a limit, though it comes as a 400."""
    if error.kind is ErrorClass.INVALID and _full(f"{error.code} {error.message}"):
        return replace(error, kind=ErrorClass.RATE, scope=Scope.MODEL)
    return error


def _full(said: str) -> bool:
    said = said.lower()
    return "enqueued token limit" in said or "token_limit_exceeded" in said


def _failure(errors: list[dict[str, Any]]) -> ErrorClass:
    """Return what a refused batch died of: money and keys are another matter than its lines."""
    kinds = {classify_error(400, {}, parse_error(one), at_ms=0, http=400, request_id=None).kind for one in errors}
    return next((kind for kind in (ErrorClass.QUOTA, ErrorClass.AUTH) if kind in kinds), ErrorClass.INVALID)


def _tagged(operation: FindBatch, listed: list[dict[str, Any]]) -> list[BatchStatus]:
    return [
        _status(str(one["id"]), one)
        for one in listed
        if by_name(one, "metadata").get("queue_batch") == operation.tag
        and is_name(str(one.get("id")))
        and one["id"] not in operation.known
    ]


def _status(batch_id: str, data: dict[str, Any]) -> BatchStatus:
    counts = by_name(data, "request_counts")
    files = (optional_text(data.get("output_file_id")), optional_text(data.get("error_file_id")))
    results = tuple(file for file in files if file is not None)
    phase = _PHASES.get(str(data.get("status")), BatchPhase.RUNNING)
    listed = by_name(data, "errors").get("data")
    errors = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    said = "; ".join(f"{one.get('message') or one.get('code')}" for one in errors[:5]) or None
    failure = None
    if phase is BatchPhase.FAILED:
        if results:  # it failed on the way: what was done is there and paid for
            phase = BatchPhase.ENDED
        said = said or "the provider refused the batch and did not say why"
        failure = ErrorClass.RATE if _full(json.dumps(errors)) else _failure(errors)
    return BatchStatus(
        batch_id=batch_id,
        phase=phase,
        done=number(counts.get("completed")) + number(counts.get("failed")),
        total=number(counts.get("total")),
        results=results if phase is BatchPhase.ENDED else (),
        created_at=instant_ms(data.get("created_at")),
        expires_at=instant_ms(data.get("expires_at")),
        error=None if said is None else clean(said),
        failure=failure,
        bad_lines=tuple(sorted({number(one.get("line")) for one in errors} - {0})),
    )
