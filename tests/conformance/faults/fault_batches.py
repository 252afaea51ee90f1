"""The batch APIs of three providers, byte for byte, and how each of their requests may go wrong."""

import json
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote, urlsplit

import fault_bodies as wires
from fault_kinds import Act

WIRES = {"openai-batches": "openai-chat", "anthropic-batches": "anthropic-messages", "gemini-batches": "gemini"}
"""What a part of the table is called, and its provider's wire format."""
NAMES = tuple(WIRES)
KINDS = ("upload", "create", "find", "poll", "fetch", "alone")
"""Requests that are counted. `alone`: a job's call by itself, when batches have failed it."""
_ROUTES = {
    "openai-chat": (
        ("POST", r"/files", "upload"),
        ("GET", r"/files/[^/]+/content", "fetch"),
        ("DELETE", r"/files/[^/]+", "delete"),
        ("POST", r"/batches", "create"),
        ("GET", r"/batches", "find"),
        ("GET", r"/batches/[^/]+", "poll"),
    ),
    "anthropic-messages": (
        ("POST", r"/v1/messages/batches", "create"),
        ("GET", r"/v1/messages/batches", "find"),
        ("GET", r"/v1/messages/batches/[^/]+", "poll"),
        ("GET", r"/v1/messages/batches/[^/]+/results", "fetch"),
        ("DELETE", r"/v1/messages/batches/[^/]+", "delete"),
    ),
    "gemini": (
        ("POST", r"/v1beta/models/m:batchGenerateContent", "create"),
        ("GET", r"/v1beta/batches", "find"),
        ("GET", r"/v1beta/batches/[^/]+", "poll"),
        ("DELETE", r"/v1beta/batches/[^/]+", "delete"),
    ),
}


def kind_of(peer, wire: str) -> str:
    """What a request is; at Gemini the results are fetched by asking for the batch once more, after it has been said to be over."""
    path = (
        unquote(urlsplit(peer.path).path)
        .removeprefix(f"/{peer.name}")
        .removeprefix(wires.WIRES[wire].BASE if wire == "openai-chat" else "")
    )
    for method, pattern, kind in _ROUTES[wire]:
        if peer.method == method and re.fullmatch(pattern, path):
            over = peer.kept.get("over", set())
            return "fetch" if wire == "gemini" and kind == "poll" and path.rpartition("/")[2] in over else kind
    return "alone"


def plays(**acts: Act | list[Act]) -> Act:
    """What is done with the first, second, … request of each kind. Where they are several, what comes after them is good; one goes on for ever."""

    async def act(peer, wire):
        kind = kind_of(peer, wire)
        peer.kinds[kind] += 1
        given = acts.get(kind, good)
        if isinstance(given, list):
            given = given[peer.kinds[kind] - 1] if peer.kinds[kind] <= len(given) else good
        await given(peer, wire)

    return act


async def good(peer, wire):
    kind = kind_of(peer, wire)
    if kind == "alone":
        await peer.stream(wire, wires.whole(wire))
    elif kind == "fetch" and wire != "gemini":
        await peer.reply(
            b"".join(line + b"\n" for line in lines(asked(peer), wire)), headers=("content-type: application/x-jsonl",)
        )
    else:
        await peer.reply(dumped(reply(peer, wire)))


def dumped(value: Any) -> bytes:
    return json.dumps(value).encode()


def reply(peer, wire: str) -> dict[str, Any]:
    """What is said to anything but the fetching of a file and a call by itself. Whatever is asked for is done."""
    kind = kind_of(peer, wire)
    if kind == "upload":
        files = peer.kept.setdefault("files", {})
        files[f"file-{len(files)}"] = peer.body.split(b"application/jsonl\r\n\r\n")[1].split(b"\r\n--")[0]
        return {"id": f"file-{len(files) - 1}", "object": "file", "purpose": "batch"}
    if kind == "create":
        return batch(peer, wire, make(peer, wire), over=False)
    if kind == "find":
        made = [batch(peer, wire, one, over=False) for one in peer.kept.get("batches", {}).values()]
        return {"operations": made} if wire == "gemini" else {"data": made, "has_more": False}
    if kind == "delete":
        return {"id": "gone", "deleted": True}
    return batch(peer, wire, asked(peer), over=True)


def make(peer, wire: str) -> dict[str, Any]:
    """Make the batch that a request asks for."""
    batches = peer.kept.setdefault("batches", {})
    told = json.loads(peer.body)
    name = f"b{len(batches)}"
    if wire == "openai-chat":
        ids = [json.loads(line)["custom_id"] for line in peer.kept["files"][told["input_file_id"]].splitlines()]
        tag = told["metadata"]["queue_batch"]
    elif wire == "gemini":
        ids = [one["metadata"]["key"] for one in told["batch"]["inputConfig"]["requests"]["requests"]]
        tag = told["batch"]["displayName"]
    else:
        ids, tag = [one["custom_id"] for one in told["requests"]], ""
    batches[name] = {"name": name, "ids": ids, "tag": tag, "at": time.time()}
    return batches[name]


def asked(peer) -> dict[str, Any]:
    """The batch that a request names."""
    found = re.search(r"\bb\d+\b", urlsplit(peer.path).path)
    return peer.kept["batches"][found.group()]


def batch(
    peer, wire: str, one: dict[str, Any], *, over: bool = True, results: bool = True, **more: Any
) -> dict[str, Any]:
    """A batch in its provider's words. `results`: whether there are any."""
    name, count, at = one["name"], len(one["ids"]), int(one["at"])
    instant = datetime.fromtimestamp(one["at"], UTC).isoformat()
    if wire == "openai-chat":
        told = {
            "id": name,
            "object": "batch",
            "status": "completed" if over else "validating",
            "created_at": at,
            "output_file_id": f"file-out-{name}" if over and results else None,
            "error_file_id": None,
            "errors": None,
            "request_counts": {"total": count, "completed": count * over, "failed": 0},
            "metadata": {"queue_batch": one["tag"]},
        }
    elif wire == "anthropic-messages":
        told = {
            "id": name,
            "type": "message_batch",
            "processing_status": "ended" if over else "in_progress",
            "request_counts": {
                "processing": count * (not over),
                "succeeded": count * over,
                "errored": 0,
                "canceled": 0,
                "expired": 0,
            },
            "created_at": instant,
            "results_url": f"http://{peer.host()}/{peer.name}/v1/messages/batches/{name}/results"
            if over and results
            else None,
        }
    else:
        if over and more.get("done", True) and kind_of(peer, wire) == "poll":
            peer.kept.setdefault("over", set()).add(name)
        state = "SUCCEEDED" if over else "PENDING"
        metadata = {
            "state": f"BATCH_STATE_{state}",
            "displayName": one["tag"],
            "createTime": instant,
            "batchStats": {"requestCount": str(count)},
        }
        told = {"name": f"batches/{name}", "metadata": {**metadata, **more.pop("metadata", {})}}
        if over:
            told["done"] = True
        if over and results:
            told["response"] = {
                "inlinedResponses": {"inlinedResponses": [json.loads(line) for line in lines(one, wire)]}
            }
    return {**told, **more}


def lines(one: dict[str, Any], wire: str) -> list[bytes]:
    """The results of all requests of a batch."""
    return [answered(wire, custom_id) for custom_id in one["ids"]]


def answered(wire: str, custom_id: str, body: Any = None) -> bytes:
    """One result: an answer."""
    body = wires.WIRES[wire].text_body(wires.TEXT) if body is None else body
    if wire == "openai-chat":
        return dumped(
            {
                "id": "x",
                "custom_id": custom_id,
                "response": {"status_code": 200, "request_id": "q", "body": body},
                "error": None,
            }
        )
    if wire == "gemini":
        return dumped({"response": body, "metadata": {"key": custom_id}})
    return dumped({"custom_id": custom_id, "result": {"type": "succeeded", "message": body}})


def failed(wire: str, custom_id: str, what: str, status: int) -> bytes:
    """One result: a refusal."""
    told = json.loads(wires.error(wire, what, status))
    if wire == "openai-chat":
        return dumped(
            {
                "id": "x",
                "custom_id": custom_id,
                "response": {"status_code": status, "request_id": "q", "body": told},
                "error": None,
            }
        )
    if wire == "gemini":
        return dumped({**told, "metadata": {"key": custom_id}})
    return dumped({"custom_id": custom_id, "result": {"type": "errored", "error": told}})


def untried(wire: str, custom_id: str, why: str) -> bytes:
    """One result: the batch was over before this request was tried."""
    if wire == "openai-chat":
        return dumped(
            {
                "id": "x",
                "custom_id": custom_id,
                "response": None,
                "error": {"code": f"batch_{why}", "message": "Not run."},
            }
        )
    if wire == "gemini":
        return dumped(
            {
                "error": {"code": 1, "message": f"The batch was {why}.", "status": "CANCELLED"},
                "metadata": {"key": custom_id},
            }
        )
    return dumped({"custom_id": custom_id, "result": {"type": "expired" if why == "expired" else "canceled"}})


def with_lines(change: Callable[[str, list[str]], list[bytes]], end: bytes = b"\n") -> Act:
    """Other results than those that are due. `change`: from the ids of the batch to its lines."""

    async def act(peer, wire):
        made = change(wire, asked(peer)["ids"])
        if wire == "gemini":
            told = batch(peer, wire, asked(peer), results=False)
            listed = b", ".join(made)
            raw = dumped({**told, "response": 0}).replace(
                b'"response": 0', b'"response": {"inlinedResponses": {"inlinedResponses": [%b]}}' % listed
            )
            await peer.reply(raw)
        else:
            await peer.reply(b"\n".join(made) + (end if made else b""))

    return act


def as_batch(**more: Any) -> Act:
    """The batch in other words."""

    async def act(peer, wire):
        kind = kind_of(peer, wire)
        one = make(peer, wire) if kind == "create" else asked(peer)
        await peer.reply(dumped(batch(peer, wire, one, **{"over": kind != "create", **more})))

    return act


async def goes_on(peer, wire):
    await peer.reply(dumped(batch(peer, wire, asked(peer), over=False)))


def unheard(how: str = "close") -> Act:
    """What is asked for is done, and nobody is told."""

    async def act(peer, wire):
        told = dumped(reply(peer, wire))
        if how == "close":
            peer.close()
        elif how == "reset":
            peer.reset()
        elif how == "half":
            await peer.reply(told[: len(told) // 2], length=len(told))
        elif how == "500":
            await peer.reply(wires.error(wire, "server", 500), "500 Oh")
        elif how == "502":
            await peer.reply(b"<html><h1>Bad gateway</h1></html>", "502 Bad", ("content-type: text/html",))
        elif how == "silence":
            await peer.stall()
        else:
            await peer.reply(b"", "200 OK")

    return act


def whole(result: Any, says: Any) -> bool:
    return bool(result["text"] == says)
