"""What each provider says of a batch, in its own words. Pure."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from .batches import WINDOW_MS, Batch, Line
from .wire import dump

_GOOGLE = "type.googleapis.com/google.ai.generativelanguage.v1main."
_ANTHROPIC_KIND = {"expired": "expired", "canceled": "canceled"}


def openai_batch(batch: Batch, *, just_made: bool = False) -> dict[str, Any]:
    """Return a batch as OpenAI has it."""
    seconds = batch.created // 1000
    ended = None if batch.ended is None else batch.ended // 1000
    state = {"running": "in_progress", "ended": "completed"}.get(batch.state, batch.state)
    if batch.state == "running" and batch.cancelling is not None:
        state = "cancelling"
    over = batch.state in ("ended", "expired", "cancelled")
    good, bad = openai_files(batch)
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "model": batch.model,
        "errors": {"object": "list", "data": batch.errors} if batch.errors and not just_made else None,
        "input_file_id": batch.file_id,
        "completion_window": "24h",
        "status": "validating" if just_made else state,
        "output_file_id": f"{batch.id}-output" if over and good else None,
        "error_file_id": f"{batch.id}-errors" if over and bad else None,
        "created_at": seconds,
        "in_progress_at": None if just_made else seconds,
        "expires_at": seconds + WINDOW_MS // 1000,
        "finalizing_at": ended if batch.state == "ended" else None,
        "completed_at": ended if batch.state == "ended" else None,
        "failed_at": ended if batch.state == "failed" and not just_made else None,
        "expired_at": ended if batch.state == "expired" else None,
        "cancelling_at": None if batch.cancelling is None else batch.cancelling // 1000,
        "cancelled_at": ended if batch.state == "cancelled" else None,
        "request_counts": {
            "total": 0 if just_made else len(batch.lines),
            "completed": batch.count("done", "broken"),
            "failed": batch.count("error"),
        },
        "metadata": {"queue_batch": batch.tag} if batch.tag else None,
    }


def openai_files(batch: Batch) -> tuple[bytes, bytes]:
    """Return the output file and the error file; the last request comes first, since no order is promised."""
    good: list[bytes] = []
    bad: list[bytes] = []
    for line in reversed(batch.lines):
        told: dict[str, Any] = {"id": f"batch_req_sim_{line.number}", "custom_id": line.custom_id}
        if line.outcome in ("expired", "canceled"):
            word = "expired" if line.outcome == "expired" else "cancelled"
            error = {"code": f"batch_{word}", "message": f"This request was not run: the batch was {word}."}
            bad.append(dump({**told, "response": None, "error": error}))
        elif line.outcome in ("done", "error", "broken"):
            response = {"status_code": line.status, "request_id": f"req_sim_batch_{line.number}", "body": line.reply}
            written = dump({**told, "response": response, "error": None})
            (bad if line.outcome == "error" else good).append(_broken(written, line))
    return _lines(good), _lines(bad)


def openai_page(batches: list[Batch], *, more: bool) -> dict[str, Any]:
    """Return a page of the list."""
    return {
        "object": "list",
        "data": [openai_batch(batch) for batch in batches],
        "first_id": batches[0].id if batches else None,
        "last_id": batches[-1].id if batches else None,
        "has_more": more,
    }


def openai_file(file_id: str, size: int, now: int, expires: int | None) -> dict[str, Any]:
    """Return an uploaded file."""
    return {
        "id": file_id,
        "object": "file",
        "bytes": size,
        "created_at": now // 1000,
        "expires_at": None if expires is None else now // 1000 + expires,
        "filename": "requests.jsonl",
        "purpose": "batch",
        "status": "processed",
        "status_details": None,
    }


def anthropic_batch(batch: Batch, url: str) -> dict[str, Any]:
    """Return a batch as Anthropic has it. `url`: where the simulator is."""
    over = batch.state != "running"
    status = "ended" if over else "canceling" if batch.cancelling is not None else "in_progress"
    return {
        "id": batch.id,
        "type": "message_batch",
        "processing_status": status,
        "request_counts": {
            "processing": batch.count("pending"),
            "succeeded": batch.count("done", "broken"),
            "errored": batch.count("error", "dropped"),
            "canceled": batch.count("canceled"),
            "expired": batch.count("expired"),
        },
        "created_at": instant(batch.created),
        "expires_at": instant(batch.created + WINDOW_MS),
        "ended_at": None if batch.ended is None else instant(batch.ended),
        "archived_at": None,
        "cancel_initiated_at": None if batch.cancelling is None else instant(batch.cancelling),
        "results_url": f"{url}/v1/messages/batches/{batch.id}/results" if over else None,
    }


def anthropic_results(batch: Batch) -> bytes:
    """Return the results, the last request's first."""
    found = []
    for line in reversed(batch.lines):
        if line.outcome == "dropped":
            continue
        if line.outcome in _ANTHROPIC_KIND:
            result: dict[str, Any] = {"type": _ANTHROPIC_KIND[line.outcome]}
        elif line.outcome == "error":
            result = {"type": "errored", "error": line.reply}
        else:
            result = {"type": "succeeded", "message": line.reply}
        found.append(_broken(dump({"custom_id": line.custom_id, "result": result}), line))
    return _lines(found)


def anthropic_page(batches: list[Batch], url: str, *, more: bool) -> dict[str, Any]:
    """Return a page of the list."""
    return {
        "data": [anthropic_batch(batch, url) for batch in batches],
        "has_more": more,
        "first_id": batches[0].id if batches else None,
        "last_id": batches[-1].id if batches else None,
    }


def gemini_operation(batch: Batch) -> dict[str, Any]:
    """Return the long-running operation of a batch; one that is over holds its results twice, as Google's does."""
    states = {
        "running": "RUNNING",
        "ended": "SUCCEEDED",
        "failed": "FAILED",
        "expired": "EXPIRED",
        "cancelled": "CANCELLED",
    }
    good, bad = batch.count("done", "broken"), batch.count("error", "dropped", "expired", "canceled")
    stats = {"requestCount": str(len(batch.lines))}
    for name, number in (("successful", good), ("failed", bad), ("pending", batch.count("pending"))):
        if number:
            stats[f"{name}RequestCount"] = str(number)
    metadata: dict[str, Any] = {
        "@type": f"{_GOOGLE}GenerateContentBatch",
        "model": f"models/{batch.model}",
        "displayName": batch.tag,
        "createTime": instant(batch.created, "000"),
        "updateTime": instant(batch.ended or batch.created, "000"),
        "batchStats": stats,
        "state": f"BATCH_STATE_{states[batch.state]}",
        "name": batch.id,
    }
    operation: dict[str, Any] = {"name": batch.id, "metadata": metadata}
    if batch.state == "running":
        return operation
    operation["done"] = True
    metadata["endTime"] = instant(batch.ended or 0, "000")
    if batch.state == "failed":
        operation["error"] = {"code": 3, "message": batch.errors[0]["message"], "status": "INVALID_ARGUMENT"}
        return operation
    if batch.state == "expired":  # such a batch has no results at all
        return operation
    output = {"inlinedResponses": {"inlinedResponses": [one for line in batch.lines if (one := _gemini_line(line))]}}
    metadata["output"] = output
    operation["response"] = {"@type": f"{_GOOGLE}GenerateContentBatchOutput", **output}
    return operation


def pretty(value: Any) -> bytes:
    """Return JSON on many lines, as Google writes it."""
    return json.dumps(value, indent=2, ensure_ascii=False).encode("utf-8", "replace")


def instant(epoch_ms: int, fraction: str = "") -> str:
    """Return an instant as RFC 3339 in UTC."""
    text = datetime.fromtimestamp(epoch_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{epoch_ms % 1000:03d}{fraction}Z"


def _gemini_line(line: Line) -> dict[str, Any] | None:
    key = {"metadata": {"key": line.custom_id}}
    if line.outcome == "dropped":
        return None
    if line.outcome in ("expired", "canceled"):
        return {"error": {"code": 1, "message": f"The batch was {line.outcome}.", "status": "CANCELLED"}, **key}
    if line.outcome == "error":
        return {"error": line.reply["error"], **key}
    return {"response": None if line.outcome == "broken" else line.reply, **key}


def _broken(written: bytes, line: Line) -> bytes:
    return written[: len(written) // 2] if line.outcome == "broken" else written


def _lines(written: list[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in written)
