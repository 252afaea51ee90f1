"""The endpoints of the batch APIs: which request is what, and its reply, bent as an order for a fault says.

A fault of kind `status`, `html` or `redirect` comes instead of what was asked; one of kind `cut`, `half` or `stall` after it was done: the
client is not told, and the batch is there all the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs

from . import batch_shapes as shapes
from .batches import Batch, Batches, Line, OrderError
from .http import Request
from .replies import Reply, plain
from .wire import Headers, WireError, dump

_CUSTOM_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_OPENAI_ENDPOINTS = ("/v1/chat/completions", "/v1/responses", "/v1/embeddings")
_MAX_LINES = 50_000
_MAX_INLINE = 20 * 1024 * 1024
_NDJSON = "application/x-jsonl"
_ROUTES: tuple[tuple[str, str, str, str], ...] = (
    ("POST", r"/v1/files", "openai", "upload"),
    ("GET", r"/v1/files/(?P<id>[^/]+)/content", "openai", "results"),
    ("DELETE", r"/v1/files/(?P<id>[^/]+)", "openai", "delete"),
    ("POST", r"/v1/batches", "openai", "create"),
    ("GET", r"/v1/batches", "openai", "find"),
    ("GET", r"/v1/batches/(?P<id>[^/]+)", "openai", "poll"),
    ("POST", r"/v1/batches/(?P<id>[^/]+)/cancel", "openai", "cancel"),
    ("POST", r"/v1/messages/batches", "anthropic", "create"),
    ("GET", r"/v1/messages/batches", "anthropic", "find"),
    ("GET", r"/v1/messages/batches/(?P<id>[^/]+)", "anthropic", "poll"),
    ("GET", r"/v1/messages/batches/(?P<id>[^/]+)/results", "anthropic", "results"),
    ("POST", r"/v1/messages/batches/(?P<id>[^/]+)/cancel", "anthropic", "cancel"),
    ("DELETE", r"/v1/messages/batches/(?P<id>[^/]+)", "anthropic", "delete"),
    ("POST", r"/v1beta/models/(?P<model>[^/:]+):batchGenerateContent", "gemini", "create"),
    ("GET", r"/v1beta/batches", "gemini", "find"),
    ("GET", r"/v1beta/(?P<id>batches/[^/:]+)", "gemini", "poll"),
    ("POST", r"/v1beta/(?P<id>batches/[^/:]+):cancel", "gemini", "cancel"),
    ("DELETE", r"/v1beta/(?P<id>batches/[^/:]+)", "gemini", "delete"),
)
_TABLE = tuple((verb, re.compile(pattern), wire, operation) for verb, pattern, wire, operation in _ROUTES)


class Endpoint:
    """One request to a batch API, recognised. `answer` does what it asks, once."""

    def __init__(self, batches: Batches, request: Request, wire: str, operation: str, names: Mapping[str, str]) -> None:
        self._batches = batches
        self._request = request
        self._wire = wire
        self._operation = operation
        self._names = names

    def answer(self, body: Any, *, now: int, url: str, headers: Headers) -> tuple[Reply, str | None]:
        """Return the reply and the kind of fault that bent it. `now`: epoch milliseconds; `url`: where the simulator is. Raises WireError."""
        fault = self._batches.fault(self._operation)
        kind = None if fault is None else str(fault["kind"])
        if fault is not None and kind == "status":
            message = fault.get("message") or "The simulator was told to fail this request."
            raise WireError(fault.get("status", 503), message, code=fault.get("code"))
        if fault is not None and kind == "redirect":
            return plain(307, b"", [("location", fault.get("url", "http://127.0.0.1:9/"))]), kind
        if fault is not None and kind == "html":
            page = b"<html><body><h1>An error page of a proxy</h1></body></html>"
            return plain(fault.get("status", 502), page, [], "text/html"), kind
        perform: Callable[[Any, int, str], Reply] = getattr(self, f"_{self._wire}_{self._operation}")
        reply = perform(body, now, url)
        reply.headers += headers
        if kind in ("cut", "stall"):
            reply.has_headers, reply.ending = False, "cut" if kind == "cut" else "silent"
        elif kind == "half":
            reply.steps[0].data = reply.steps[0].data[: len(reply.steps[0].data) // 2]
            reply.ending = "cut"
        return reply, kind

    # OpenAI

    def _openai_upload(self, _: Any, now: int, __: str) -> Reply:
        parts = _multipart(self._request)
        if parts.get("purpose") != b"batch" or "file" not in parts:
            raise WireError(400, "Missing required parameter: 'file', or a 'purpose' other than batch.", param="file")
        seconds = int(parts.get("expires_after[seconds]", b"0") or b"0")
        if seconds and not 3600 <= seconds <= 2_592_000:
            raise WireError(400, "Invalid 'expires_after[seconds]'.", param="expires_after")
        file_id = f"file-sim-{self._batches.next_id()}"
        self._batches.files[file_id] = parts["file"]
        return _json(shapes.openai_file(file_id, len(parts["file"]), now, seconds or None))

    def _openai_create(self, body: Any, now: int, _: str) -> Reply:
        body = _object(body)
        file_id, endpoint, metadata = body.get("input_file_id"), body.get("endpoint"), body.get("metadata")
        if file_id not in self._batches.files:
            raise WireError(404, f"No such File object: {file_id}", param="input_file_id")
        if endpoint not in _OPENAI_ENDPOINTS or body.get("completion_window") != "24h":
            raise WireError(400, "Invalid 'endpoint' or 'completion_window'.", param="endpoint")
        lines, errors = _openai_lines(self._batches.files[file_id], endpoint)
        models = [line.body["model"] for line in lines if isinstance(line.body, dict) and "model" in line.body]
        batch = Batch(
            id=f"batch_sim_{self._batches.next_id()}",
            wire="openai",
            tag=str((metadata or {}).get("queue_batch", "")),
            created=now,
            lines=lines,
            endpoint=endpoint,
            model=models[0] if models else "",
            file_id=file_id,
        )
        self._batches.add(batch)
        if errors:
            self._batches.fail(batch, errors, now)
        return _json(shapes.openai_batch(batch, just_made=True))

    def _openai_find(self, _: Any, now: int, __: str) -> Reply:
        page, more = self._page("after", now)
        return _json(shapes.openai_page(page, more=more))

    def _openai_poll(self, _: Any, now: int, __: str) -> Reply:
        return _json(shapes.openai_batch(self._batch(now)))

    def _openai_cancel(self, _: Any, now: int, __: str) -> Reply:
        batch = self._batch(now)
        if batch.state != "running":
            raise WireError(409, f"Cannot cancel a batch with status '{batch.state}'.")
        batch.cancelling = now
        return _json(shapes.openai_batch(batch))

    def _openai_results(self, _: Any, now: int, __: str) -> Reply:  # noqa: ARG002 - every endpoint has these parameters
        file_id = self._names["id"]
        if file_id in self._batches.files:
            return plain(200, self._batches.files[file_id], [], "application/octet-stream")
        name, _, kind = file_id.rpartition("-")
        batch = self._batches.all.get(name)
        if batch is None or kind not in ("output", "errors") or file_id in self._batches.deleted:
            raise WireError(404, f"No such File object: {file_id}", param="id")
        good, bad = shapes.openai_files(batch)
        return plain(200, good if kind == "output" else bad, [], "application/octet-stream")

    def _openai_delete(self, _: Any, now: int, __: str) -> Reply:  # noqa: ARG002 - every endpoint has these parameters
        file_id = self._names["id"]
        known = file_id in self._batches.files or file_id.rpartition("-")[0] in self._batches.all
        if not known or file_id in self._batches.deleted:
            raise WireError(404, f"No such File object: {file_id}", param="id")
        self._batches.files.pop(file_id, None)
        self._batches.deleted.add(file_id)
        return _json({"id": file_id, "object": "file", "deleted": True})

    # Anthropic

    def _anthropic_create(self, body: Any, now: int, url: str) -> Reply:
        if "anthropic-version" not in self._request.by_name:
            raise WireError(400, "anthropic-version: header is required")
        requests = _object(body).get("requests")
        if not isinstance(requests, list) or not requests:
            raise WireError(400, "requests: List should have at least 1 item")
        lines = []
        for index, one in enumerate(requests):
            if not isinstance(one, dict) or not isinstance(one.get("params"), dict):
                raise WireError(400, f"requests.{index}.params: Field required")
            lines.append(Line(str(one.get("custom_id")), "/v1/messages", one["params"]))
        _check_ids(lines)
        batch = Batch(f"msgbatch_sim_{self._batches.next_id()}", "anthropic", "", now, lines)
        return _json(shapes.anthropic_batch(self._batches.add(batch), url))

    def _anthropic_find(self, _: Any, now: int, url: str) -> Reply:
        page, more = self._page("after_id", now)
        return _json(shapes.anthropic_page(page, url, more=more))

    def _anthropic_poll(self, _: Any, now: int, url: str) -> Reply:
        return _json(shapes.anthropic_batch(self._batch(now), url))

    def _anthropic_cancel(self, _: Any, now: int, url: str) -> Reply:
        batch = self._batch(now)
        if batch.state == "running":
            batch.cancelling = now
        return _json(shapes.anthropic_batch(batch, url))

    def _anthropic_results(self, _: Any, now: int, __: str) -> Reply:
        batch = self._batch(now)
        if batch.state == "running":
            raise WireError(404, "The results of this batch are not available yet.")
        return plain(200, shapes.anthropic_results(batch), [], _NDJSON)

    def _anthropic_delete(self, _: Any, now: int, __: str) -> Reply:
        batch = self._batch(now)
        if batch.state == "running":
            raise WireError(400, "A batch that is in progress cannot be deleted: cancel it first.")
        self._batches.deleted.add(batch.id)
        return _json({"id": batch.id, "type": "message_batch_deleted"})

    # Gemini

    def _gemini_create(self, body: Any, now: int, _: str) -> Reply:
        if len(self._request.body) > _MAX_INLINE:
            raise WireError(400, "Request payload size exceeds the limit: 20971520 bytes.")
        made = _object(_object(body).get("batch"))
        requests = _object(_object(_object(made).get("inputConfig")).get("requests")).get("requests")
        if not isinstance(requests, list) or not requests or not isinstance(made.get("displayName"), str):
            raise WireError(400, "batch.inputConfig.requests and batch.displayName are required.")
        model = self._names["model"]
        path = f"/v1beta/models/{model}:generateContent"
        lines = []
        for one in requests:
            key = (one.get("metadata") or {}).get("key") if isinstance(one, dict) else None
            lines.append(Line(str(key), path, one.get("request") if isinstance(one, dict) else None))
        batch = Batch(f"batches/sim{self._batches.next_id()}", "gemini", made["displayName"], now, lines, model=model)
        return _google(shapes.gemini_operation(self._batches.add(batch)))

    def _gemini_find(self, _: Any, now: int, __: str) -> Reply:
        page, more = self._page("pageToken", now)
        listed: dict[str, Any] = {"operations": [shapes.gemini_operation(batch) for batch in page]} if page else {}
        return _google({**listed, "nextPageToken": page[-1].id} if more else listed)

    def _gemini_poll(self, _: Any, now: int, __: str) -> Reply:
        return _google(shapes.gemini_operation(self._batch(now)))

    def _gemini_cancel(self, _: Any, now: int, __: str) -> Reply:
        batch = self._batch(now)
        if batch.state == "running":
            batch.cancelling = now
        return _google({})

    def _gemini_delete(self, _: Any, now: int, __: str) -> Reply:
        self._batches.deleted.add(self._batch(now).id)
        return _google({})

    def _batch(self, now: int) -> Batch:
        name = self._names["id"]
        batch = self._batches.all.get(name)
        if batch is None or batch.wire != self._wire or name in self._batches.deleted:
            raise WireError(404, f"No batch is called {name}.")
        return self._batches.look(batch, now)

    def _page(self, cursor: str, now: int) -> tuple[list[Batch], bool]:
        """Return the page of the list that is asked for, newest first, and whether there are more."""
        asked = parse_qs(self._request.query)
        limit = int(asked.get("limit", asked.get("pageSize", ["20"]))[0])
        listed = [
            self._batches.look(batch, now)
            for batch in reversed(self._batches.all.values())
            if batch.wire == self._wire and batch.id not in self._batches.deleted
        ]
        after = asked.get(cursor, [""])[0]
        start = next((index + 1 for index, batch in enumerate(listed) if batch.id == after), 0)
        return listed[start : start + limit], len(listed) > start + limit


def find(batches: Batches, request: Request) -> Endpoint | None:
    """Return the endpoint of a batch API that a request is for, None for any other request."""
    for verb, pattern, wire, operation in _TABLE:
        found = pattern.fullmatch(request.path)
        if found is not None and verb == request.method:
            return Endpoint(batches, request, wire, operation, found.groupdict())
    return None


def administer(batches: Batches, request: Request, now: int) -> Reply:
    """Answer `/_simulator/batches`: all batches as they are, after what a POST asks for was done. Raises OrderError, ValueError."""
    if request.method == "POST":
        orders = json.loads(request.body)
        for order in orders if isinstance(orders, list) else [orders]:
            batches.order(order, now)
    elif request.method != "GET":
        raise OrderError(f"no {request.method} on {request.path}")
    return plain(200, dump(batches.describe()), [])


def _multipart(request: Request) -> dict[str, bytes]:
    """Return the parts of a form by their names."""
    kind, _, boundary = request.by_name.get("content-type", "").partition("boundary=")
    if not kind.startswith("multipart/form-data") or not boundary:
        raise WireError(400, "Could not parse multipart form.")
    parts: dict[str, bytes] = {}
    for part in request.body.split(b"--" + boundary.strip('"').encode())[1:-1]:
        head, _, data = part.partition(b"\r\n\r\n")
        name = re.search(rb'(?<!file)name="([^"]*)"', head)
        if name is not None:
            parts[name.group(1).decode()] = data.removesuffix(b"\r\n")
    return parts


def _openai_lines(data: bytes, endpoint: str) -> tuple[list[Line], list[dict[str, Any]]]:
    """Return the requests in a file, and what is wrong with it."""
    lines: list[Line] = []
    errors: list[dict[str, Any]] = []

    def wrong(code: str, message: str, at: int) -> None:
        errors.append({"code": code, "message": message, "param": None, "line": at})

    seen: set[str] = set()
    models: set[Any] = set()
    for number, raw in enumerate(data.split(b"\n"), 1):
        if not raw.strip():
            continue
        try:
            line = json.loads(raw)
        except ValueError:
            wrong("invalid_json_line", "This line is not parseable as valid JSON.", number)
            continue
        custom_id, body = line.get("custom_id"), line.get("body")
        if not isinstance(custom_id, str) or custom_id in seen:
            wrong("duplicate_custom_id", "The custom_id is missing or not unique.", number)
        if line.get("url") != endpoint or line.get("method") != "POST":
            wrong("invalid_url", "The URL provided for this request does not match the batch endpoint.", number)
        elif not isinstance(body, dict):
            wrong("invalid_request", "The body of this request is missing.", number)
        else:
            seen.add(str(custom_id))
            models.add(body.get("model"))
            lines.append(Line(str(custom_id), endpoint, body))
    if len(models) > 1:
        wrong("mismatched_model", "All requests of a batch must be for the same model.", len(lines))
    if not lines and not errors:
        wrong("empty_file", "The input file is empty.", 1)
    if len(lines) > _MAX_LINES:
        wrong("too_many_tasks", f"A batch may have {_MAX_LINES} requests.", _MAX_LINES + 1)
    return lines, errors


def _check_ids(lines: list[Line]) -> None:
    seen: set[str] = set()
    for index, line in enumerate(lines):
        if _CUSTOM_ID.fullmatch(line.custom_id) is None or line.custom_id in seen:
            raise WireError(
                400, f"requests.{index}.custom_id: String should match ^[a-zA-Z0-9_-]{{1,64}}$ and be unique"
            )
        seen.add(line.custom_id)


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise WireError(400, "We could not parse the JSON body of your request: send a JSON object.")
    return value


def _json(value: dict[str, Any]) -> Reply:
    return plain(200, dump(value), [])


def _google(value: dict[str, Any]) -> Reply:
    return plain(200, shapes.pretty(value), [], "application/json; charset=UTF-8")
