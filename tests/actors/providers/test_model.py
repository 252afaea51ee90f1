"""The neutral model's JSON forms: what the ledger has kept must be found again by every later release."""

import hashlib
import json
from array import array
from dataclasses import asdict, replace

from callboard.actors.providers.model import (
    CallError,
    Completion,
    EmbeddingRequest,
    Embeddings,
    ErrorClass,
    Finish,
    Message,
    Request,
    Tool,
    Usage,
    answer_from_json,
    request_from_json,
)
from callboard.actors.providers.parts import Opaque, Text, ToolCall

REQUEST = Request(
    model="m-1",
    messages=(Message("system", "Be brief."), Message("user", "Grüße, 你好 🌊")),
    max_output=50,
    temperature=0.5,
    stop=("END",),
    extra={"a": {"b": [1, None]}},
)


def test_a_fingerprint_is_the_hash_of_all_that_decides_the_answer() -> None:
    body = REQUEST.to_json()
    del body["stream"]
    text = json.dumps(body, sort_keys=True, ensure_ascii=False)
    assert REQUEST.fingerprint() == hashlib.sha256(text.encode()).hexdigest()
    for same in ({"stream": False}, {"cache_key": "k", "cache_ttl": "1h"}):
        assert replace(REQUEST, **same).fingerprint() == REQUEST.fingerprint()
    others = (
        {"seed": 9},
        {"tools": (Tool(name="add"),)},
        {"schema": {"type": "object"}},
        {"effort": "high"},
        {"model": "other"},
    )
    assert len({replace(REQUEST, **other).fingerprint() for other in ({}, *others)}) == 1 + len(others)


def test_a_request_comes_back_from_json() -> None:
    parts = (Opaque(wire="gemini", data=[1]), Text("So."), ToolCall(id="c", name="add", arguments={"a": 1}))
    rich = replace(
        REQUEST,
        messages=(*REQUEST.messages, Message("assistant", parts)),
        tools=(Tool(name="add"),),
        schema={"type": "object"},
    )
    embedding = EmbeddingRequest(model="m", inputs=("a", "b"), dimensions=3)
    named = replace(rich, model="answer", schema_name="verdict")
    for request in (REQUEST, rich, named, embedding):
        assert request_from_json(json.loads(json.dumps(request.to_json()))) == request


def test_vectors_come_back_from_json() -> None:
    found = Embeddings(vectors=(array("f", [0.5, -1.25]), array("f", [])), usage=Usage(input_uncached=3), model="m")
    assert answer_from_json(json.loads(json.dumps(found.to_json()))) == found


def test_a_completion_comes_back_from_json() -> None:
    usage = Usage(input_uncached=3, output_visible=4)
    completion = Completion(text="Hallo.", finish=Finish.STOP, usage=usage, model="m-1", total_ms=12)
    assert set(completion.to_json()) == set(asdict(completion)) - {"tool_calls", "opaque", "data"}
    rich = replace(
        completion, tool_calls=(ToolCall(id="c", name="add", raw="{"),), opaque=(Opaque(wire="w", data={}),), data=[1]
    )
    assert Completion.from_json(json.loads(json.dumps(rich.to_json()))) == rich
    assert Completion.from_json(json.loads(json.dumps(completion.to_json()))) == completion
    without = Completion(text="", finish=Finish.STOP)
    assert Completion.from_json(without.to_json()) == without


def test_an_error_says_what_it_knows() -> None:
    error = CallError(kind=ErrorClass.RATE, message="too many", http=429, retry_after=1.5, partial="half an")
    told = error.to_json()
    assert told["class"] == "rate"
    assert (told["message"], told["http"], told["retry_after"], told["sent"]) == ("too many", 429, 1.5, True)
    assert "partial" not in told
    assert "code" not in told
