"""Gemini's batches: the requests go inside the call that makes the batch (so below 20 MB), and the results inside the finished operation. Pure.

The call gives a long-running operation: `{name, metadata: {state, batchStats, output}, done, response | error}`; some servers give the batch
itself, without the operation around it. States are called BATCH_STATE_* or JOB_STATE_*. The `displayName` is our tag.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import quote

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
    InlineReader,
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
from .errors import ErrorBody, classify_error, clean, malformed, parse_error, refused, status_of
from .keys import Secret
from .model import Answer, AnyRequest, Billed, CallError, EmbeddingRequest, ErrorClass
from .settings import ProviderSettings

INLINE = "inline"
"""The `ref` of results that are inside the operation."""
PAGE = 100
_RESULTS = "inlinedResponses"
_PHASES = {
    "SUCCEEDED": BatchPhase.ENDED,
    "PARTIALLY_SUCCEEDED": BatchPhase.ENDED,
    "CANCELLED": BatchPhase.ENDED,
    "EXPIRED": BatchPhase.ENDED,
    "FAILED": BatchPhase.FAILED,
}
"""What is not here (QUEUED, PENDING, RUNNING, UPDATING, CANCELLING, PAUSED, and what may yet come) goes on."""
_WAITING = ("quota", "resource_exhausted", "resource exhausted")


class GeminiBatches:
    """`{base_url}/v1beta/models/{model}:batchGenerateContent` and `{base_url}/v1beta/batches`."""

    uploads = False
    max_requests = 50_000
    max_bytes = 19_000_000
    """Below the 20 MB that a request may have, by what stands around the lines."""
    one_model = True

    def endpoint(self, request: AnyRequest) -> str | None:
        """Return the one method; embeddings are not taken, because a line of theirs holds one text only."""
        return None if isinstance(request, EmbeddingRequest) else "batchGenerateContent"

    def line(self, line: BatchLine, *, settings: ProviderSettings) -> bytes | CallError:
        """Return `{"request", "metadata": {"key"}}`."""
        if isinstance(line.request, EmbeddingRequest):
            return refused("type", "embeddings are not sent in Gemini's batches")
        adapter = adapter_for("gemini")
        body = request_of(line, adapter.encode(replace(line.request, stream=False), key=None, settings=settings))
        if isinstance(body, CallError):
            return body
        return b'{"request":' + body + b',"metadata":' + dumped({"key": line.custom_id}) + b"}"

    def encode(
        self, operation: Operation, *, key: Secret | None, settings: ProviderSettings, cursor: str | None = None
    ) -> HttpRequest | Upload | CallError:
        """Return the request of an operation."""
        match operation:
            case UploadFile():
                return refused("operation", "the requests go with CreateBatch here, not in a file")
            case CreateBatch(path=path, model=model, endpoint=endpoint, tag=tag):
                if path is None:
                    return refused("path", "a batch is made of the requests themselves here, not of an uploaded file")
                if not is_name(model):
                    return bad_name("model", model)
                head = b'{"batch":{"displayName":%b,"inputConfig":{"requests":{"requests":[' % dumped(tag)
                request = HttpRequest(
                    "POST", f"/v1beta/models/{model}:{endpoint}", _headers(key, settings, "application/json"), b""
                )
                return Upload(request=request, head=head, path=path, tail=b"]}}}}", array=True)
            case FindBatch():
                after = "" if cursor is None else f"&pageToken={quote(cursor, safe='')}"
                return HttpRequest("GET", f"/v1beta/batches?pageSize={PAGE}{after}", _headers(key, settings), b"")
            case FetchResults(ref=ref) if ref != INLINE:
                path = _path(ref, "files")
                if path is None:
                    return bad_name("ref", ref)
                return HttpRequest("GET", f"/download{path}:download?alt=media", _headers(key, settings), b"")
            case PollBatch(batch_id) | CancelBatch(batch_id) | DeleteFile(batch_id) | FetchResults(batch_id=batch_id):
                collection = (
                    "files" if isinstance(operation, DeleteFile) and batch_id.startswith("files/") else "batches"
                )
                path = _path(batch_id, collection)
                if path is None:
                    return bad_name("batch_id", batch_id)
                if isinstance(operation, CancelBatch):
                    return HttpRequest("POST", f"{path}:cancel", _headers(key, settings), b"")
                method = "DELETE" if isinstance(operation, DeleteFile) else "GET"
                return HttpRequest(method, path, _headers(key, settings), b"")

    def decode(
        self, operation: Operation, status: int, headers: Mapping[str, str], body: bytes, *, at_ms: int
    ) -> Report | CallError:
        """Return what a whole reply means."""
        if not 200 <= status < 300:
            if isinstance(operation, DeleteFile) and status == 404:
                return FileDeleted()
            return adapter_for("gemini").classify(status, headers, body, at_ms=at_ms)
        data = body_of(status, body, None)
        if isinstance(data, CallError):
            return data
        match operation:
            case DeleteFile():
                return FileDeleted()
            case CancelBatch(batch_id) if "name" not in data:  # it answers with an empty object
                return BatchStatus(batch_id=batch_id, phase=BatchPhase.RUNNING)
        return _status(data) or malformed(f"HTTP {status} with JSON that is no batch")

    def more(self, operation: FindBatch, page: bytes) -> str | None:
        """Return the next page's token, unless the tag was on this one. The order of the list is not promised, so age decides nothing."""
        if _tagged(operation, members(page, "operations") or members(page, "batches") or []):
            return None
        return optional_text(field_of(page, "nextPageToken"))

    def found(self, operation: FindBatch, pages: Sequence[bytes], *, complete: bool) -> BatchFound | CallError:
        """Return the batch with our tag. If there are several, one that did not fail comes before one that did."""
        found: list[BatchStatus] = []
        for page in pages:
            listed = members(page, "operations")
            if listed is None:
                return malformed("the list of batches is not one")
            found += _tagged(operation, listed or members(page, "batches") or [])
        found.sort(key=lambda status: status.phase is BatchPhase.FAILED)
        return BatchFound(status=found[0] if found else None, certain=complete or bool(found))

    def reader(self, operation: Operation) -> LineReader | None:
        """Return what keeps the results out of the way: every reply about a batch that has ended holds them."""
        if isinstance(operation, FetchResults) and operation.ref != INLINE:
            return None
        return InlineReader(_RESULTS)

    def results(self, lines: Iterator[bytes], *, at_ms: int) -> Iterator[BatchResult | CallError]:
        """Read the results: inline ones have their key in `metadata`, those of a file beside the response."""
        for data in objects(lines):
            if isinstance(data, CallError):
                yield data
                continue
            key = by_name(data, "metadata").get("key") or data.get("key")
            yield result(key, _outcome(data, at_ms=at_ms))

    def kept(self, *, file_id: str | None, batch_id: str | None, results: tuple[str, ...]) -> tuple[str, ...]:  # noqa: ARG002 - no file was uploaded
        """Return the batch, with which its requests and inline results go, and files of results."""
        return (*(() if batch_id is None else (batch_id,)), *(ref for ref in results if ref != INLINE))


def _headers(
    key: Secret | None, settings: ProviderSettings, content_type: str | None = None
) -> tuple[tuple[str, str], ...]:
    headers = base_headers(settings, content_type)
    if key is not None:
        headers.append(("x-goog-api-key", key.reveal()))
    return tuple(headers)


def _path(name: str, collection: str) -> str | None:
    """Return the path of a resource called `batches/…` or `files/…`, None for a name that is none of these."""
    kind, _, rest = name.partition("/")
    return f"/v1beta/{kind}/{rest}" if kind == collection and is_name(rest) else None


def _tagged(operation: FindBatch, listed: list[dict[str, Any]]) -> list[BatchStatus]:
    return [
        status
        for one in listed
        if (by_name(one, "metadata") or one).get("displayName") == operation.tag
        and (status := _status(one)) is not None
        and status.batch_id not in operation.known
    ]


def _status(data: dict[str, Any]) -> BatchStatus | None:
    batch = by_name(data, "metadata") or data
    name = optional_text(data.get("name")) or optional_text(batch.get("name"))
    if name is None or _path(name, "batches") is None:
        return None
    state = str(batch.get("state") or "").removeprefix("BATCH_STATE_").removeprefix("JOB_STATE_")
    phase = _PHASES.get(state, BatchPhase.RUNNING)
    stats = by_name(batch, "batchStats")
    good, bad = number(stats.get("successfulRequestCount")), number(stats.get("failedRequestCount"))
    outputs = [by_name(data, "response"), by_name(batch, "output")]
    file = next((found for one in outputs if (found := optional_text(one.get("responsesFile")))), None)
    inline = any(_RESULTS in one for one in outputs)
    results = (file,) if file is not None else (INLINE,) if inline else ()
    error = by_name(data, "error") or by_name(batch, "error")
    if data.get("done") is True and phase is BatchPhase.RUNNING:
        phase = BatchPhase.FAILED if error and not results else BatchPhase.ENDED
    if phase is BatchPhase.FAILED and results:  # it failed on the way: what was done is there and paid for
        phase = BatchPhase.ENDED
    said = optional_text(error.get("message"))
    failure = None
    if phase is BatchPhase.FAILED:
        said = said or "the provider ended the batch as failed and did not say why"
        failure = ErrorClass.RATE if _waits(error) else ErrorClass.INVALID
    return BatchStatus(
        batch_id=name,
        phase=phase,
        done=good + bad,
        total=number(stats.get("requestCount")),
        results=results if phase is BatchPhase.ENDED else (),
        created_at=instant_ms(batch.get("createTime")),
        error=None if said is None else clean(said),
        failure=failure,
    )


def _waits(error: Mapping[str, Any]) -> bool:
    said = f"{error.get('status')} {error.get('message')}".lower()
    return error.get("code") in (8, 429) or any(word in said for word in _WAITING)


def _outcome(data: dict[str, Any], *, at_ms: int) -> Answer | CallError:
    if by_name(data, "error"):
        error = parse_error(data)
        if error.code in ("1", "CANCELLED"):
            return never_tried("batch_cancelled")
        status = _http_status(error)
        return replace(classify_error(status, {}, error, at_ms=at_ms, http=status, request_id=None), billed=Billed.NO)
    response = data.get("response")
    if not isinstance(response, dict):
        return malformed("a line of the results has neither a response nor an error")
    return adapter_for("gemini").decode_body(200, {}, dumped(response), at_ms=at_ms)


_RPC_STATUS = {"1": 499, "3": 400, "4": 504, "5": 404, "7": 403, "8": 429, "9": 400, "13": 500, "14": 503, "16": 401}
"""HTTP statuses of the gRPC codes that the errors inside a batch have."""


def _http_status(error: ErrorBody) -> int:
    return _RPC_STATUS.get(error.code) or status_of(error)
