"""What the embeddings endpoints write, byte for byte, and how it may be spoilt."""

import base64
import json
from array import array
from collections.abc import Callable
from typing import Any

from fault_kinds import Act

WIRES = {"openai-embeddings": "openai-chat", "gemini-embeddings": "gemini", "ollama-embeddings": "ollama"}
"""What a part of the table is called, and its provider's wire format."""
NAMES = tuple(WIRES)
TEXTS = ("one text", "and another")
VECTORS = ([0.5, -0.25, 1.0], [0.125, 0.0, -2.0])


def packed(vector: list[float]) -> str:
    """As OpenAI writes it when base64 is asked for."""
    return base64.b64encode(array("f", vector).tobytes()).decode()


def reply(wire: str, vectors: Any = VECTORS, *, usage: Any = 7, pack: bool = True, model: Any = "m") -> dict[str, Any]:
    """A whole reply. `usage` None: it says nothing of it."""
    if wire == "gemini":
        told: dict[str, Any] = {"embeddings": [{"values": vector} for vector in vectors]}
        return told if usage is None else {**told, "usageMetadata": {"promptTokenCount": usage}}
    if wire == "ollama":
        told = {"model": model, "embeddings": list(vectors), "total_duration": 14143917, "load_duration": 1019500}
        return told if usage is None else {**told, "prompt_eval_count": usage}
    data = [
        {"object": "embedding", "index": place, "embedding": packed(vector) if pack else vector}
        for place, vector in enumerate(vectors)
    ]
    told = {"object": "list", "data": data, "model": model}
    return told if usage is None else {**told, "usage": {"prompt_tokens": usage, "total_tokens": usage}}


def items(told: dict[str, Any]) -> list[Any]:
    """The part of a reply that holds the vectors, to be spoilt."""
    return told["data"] if "data" in told else told["embeddings"]


def put(told: dict[str, Any], place: int, vector: Any) -> dict[str, Any]:
    """Another value where a vector stands."""
    found = items(told)
    if "data" in told:
        found[place]["embedding"] = vector
    elif isinstance(found[place], dict):
        found[place]["values"] = vector
    else:
        found[place] = vector
    return told


def body(wire: str) -> bytes:
    return json.dumps(reply(wire)).encode()


def whole(result: Any, says: Any) -> bool:
    return bool(result["embeddings"] == [list(vector) for vector in (says if isinstance(says, tuple) else VECTORS)])


async def embeds(peer, wire):
    await peer.reply(body(wire))


def tells(make: Callable[[str], Any]) -> Act:
    """A reply of JSON, or of bytes that only look like it."""

    async def act(peer, wire):
        made = make(wire)
        await peer.reply(made if isinstance(made, bytes) else json.dumps(made).encode())

    return act


def spoils(spoil: Callable[[dict[str, Any]], Any], **made: Any) -> Act:
    """A whole reply after `spoil` has had it. What that returns, if anything, is sent instead."""

    def make(wire):
        told = reply(wire, **made)
        return spoil(told) or told

    return tells(make)
