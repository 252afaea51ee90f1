import json

import pytest

from callboard.actors.providers.gemini import Gemini
from callboard.actors.providers.gemini_embeddings import GeminiEmbeddings
from callboard.actors.providers.keys import Secret
from callboard.actors.providers.model import (
    CallError,
    EmbeddingRequest,
    ErrorClass,
    Finish,
    Message,
    Request,
    Tool,
    Usage,
)
from callboard.actors.providers.parts import Image, Text, ToolCall, ToolResult
from callboard.actors.providers.settings import ProviderSettings
from callboard.actors.providers.sse import SSEEvent

ADAPTER, EMBEDDER = Gemini(), GeminiEmbeddings()
NOW = 1_790_000_000_000
ADD = Tool(name="add", description="Adds.", parameters={"type": "object", "properties": {"a": {"type": "integer"}}})


def provider(**more):
    return ProviderSettings(name="g", wire="gemini", base_url="https://generativelanguage.googleapis.com", **more)


def encode(key=None, settings=None, **fields):
    request = Request(**{"model": "gemini-x", "messages": (Message("user", "hi"),), "stream": False, **fields})
    return ADAPTER.encode(request, key=key, settings=settings or provider())


def sent(**fields):
    return json.loads(encode(**fields).body)


def test_body_byte_for_byte():
    found = encode(
        messages=(Message("system", "Be brief."), Message("user", "2+2?"), Message("system", "Be kind.")),
        max_output=64,
        temperature=0.0,
        top_p=1.0,
        stop=("END",),
        seed=1,
        stream=True,
        extra={"safetySettings": []},
    )
    assert (found.method, found.path) == ("POST", "/v1beta/models/gemini-x:streamGenerateContent?alt=sse")
    assert found.body.decode() == (
        '{"systemInstruction":{"parts":[{"text":"Be brief.\\n\\nBe kind."}]},"contents":[{"role":"user","parts":[{"text":"2+2?"}]}],'
        '"generationConfig":{"maxOutputTokens":64,"temperature":0.0,"topP":1.0,"stopSequences":["END"],"seed":1},"safetySettings":[]}'
    )


def test_the_least_request():
    found = encode(key=Secret("AIza-1"))
    assert found.path == "/v1beta/models/gemini-x:generateContent"
    assert found.body == b'{"contents":[{"role":"user","parts":[{"text":"hi"}]}]}'
    assert ("x-goog-api-key", "AIza-1") in found.headers
    assert "AIza-1" not in found.path


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("models/gemini-x", "/v1beta/models/gemini-x"),
        ("tunedModels/mine-1", "/v1beta/tunedModels/mine-1"),
        ("a?key=b&c#d%2f", "/v1beta/models/a%3Fkey%3Db%26c%23d%252f"),
        ("m:streamGenerateContent", "/v1beta/models/m%3AstreamGenerateContent"),
    ],
)
def test_a_model_stays_one_segment_of_the_path(model, path):
    assert encode(model=model).path == path + ":generateContent"


@pytest.mark.parametrize(
    "model",
    ["", "..", "models/..", "models/", "../x", "models/../x", "files/x", "a/b", "models/a/b", "/x", "x\r\ny", ". ."],
)
def test_a_model_that_would_lead_elsewhere_is_refused(model):
    refused = encode(model=model)
    assert (refused.kind, refused.sent) == (ErrorClass.INVALID, False)
    assert isinstance(
        EMBEDDER.encode(EmbeddingRequest(model=model, inputs=("x",)), key=None, settings=provider()), CallError
    )


@pytest.mark.parametrize("name", ["contents", "systemInstruction", "generationConfig", "model"])
def test_extra_may_not_go_round_the_request(name):
    assert encode(extra={name: 1}).kind is ErrorClass.INVALID


@pytest.mark.parametrize(
    ("choice", "config"),
    [
        (None, None),
        ("auto", {"mode": "AUTO"}),
        ("none", {"mode": "NONE"}),
        ("required", {"mode": "ANY"}),
        ("add", {"mode": "ANY", "allowedFunctionNames": ["add"]}),
    ],
)
def test_tools_and_their_choice(choice, config):
    body = sent(tools=(ADD,), tool_choice=choice)
    assert body["tools"] == [
        {"functionDeclarations": [{"name": "add", "description": "Adds.", "parametersJsonSchema": ADD.parameters}]}
    ]
    assert body.get("toolConfig") == (config and {"functionCallingConfig": config})
    assert "toolConfig" not in sent(tool_choice=choice)


@pytest.mark.parametrize(
    ("effort", "config"),
    [
        ("none", {"thinkingBudget": 0}),
        ("minimal", {"thinkingLevel": "MINIMAL"}),
        ("xhigh", {"thinkingLevel": "XHIGH"}),
        ("max", {"thinkingLevel": "XHIGH"}),
    ],
)
def test_effort(effort, config):
    assert sent(effort=effort)["generationConfig"] == {"thinkingConfig": config}


def test_a_schema_goes_with_its_media_type():
    schema = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
    assert sent(schema=schema)["generationConfig"] == {
        "responseMimeType": "application/json",
        "responseJsonSchema": schema,
    }


def test_what_it_would_refuse_is_not_sent():
    assert encode(stop=tuple("abcdef")).message.startswith("stop:")
    by_url = (Message("user", (Text("What?"), Image(url="https://example.org/x.png"))),)
    assert encode(messages=by_url).message.startswith("images:")


def test_calls_results_and_signatures_go_back_as_they_came():
    messages = (
        Message("user", "2+2?"),
        Message(
            "assistant",
            (
                Text("Well."),
                ToolCall(id="c1", name="add", arguments={"a": 1}, opaque={"gemini": "s1"}),
                ToolCall(id="c2", name="add", raw="{oh", opaque={"another": "x"}),
            ),
        ),
        Message("user", "By the way"),
        Message("tool", (ToolResult(call_id="c1", content='{"v": 4}'),)),
        Message("tool", (ToolResult(call_id="c2", content="no JSON", name="other", is_error=True),)),
    )
    _, model, user = sent(messages=messages)["contents"]
    assert model == {
        "role": "model",
        "parts": [
            {"text": "Well."},
            {"functionCall": {"id": "c1", "name": "add", "args": {"a": 1}}, "thoughtSignature": "s1"},
            {"functionCall": {"id": "c2", "name": "add", "args": {"invalid_json": "{oh"}}},
        ],
    }
    assert user == {
        "role": "user",
        "parts": [
            {"functionResponse": {"id": "c1", "name": "add", "response": {"result": {"v": 4}}}},
            {"functionResponse": {"id": "c2", "name": "other", "response": {"error": "no JSON"}}},
            {"text": "By the way"},
        ],
    }


def reply(*parts, finish="STOP", **more):
    return {"candidates": [{"content": {"role": "model", "parts": list(parts)}, "finishReason": finish}], **more}


def test_a_signed_text_goes_back_with_its_signature_and_only_once():
    parts = [
        {"text": "hm", "thought": True, "thoughtSignature": "s0"},
        {"text": "Hello "},
        {"text": "world", "thoughtSignature": "s1"},
        {"functionCall": {"name": "now"}},
    ]
    found = ADAPTER.decode_body(200, {}, json.dumps(reply(*parts, responseId="r")).encode(), at_ms=NOW)
    assert found.text == "Hello world"
    (call,) = found.tool_calls
    assert (call.name, call.arguments, call.opaque) == ("now", {}, None)
    assert call.id.startswith("call_")
    made = {"functionCall": {"id": call.id, "name": "now", "args": {}}}
    back = sent(messages=(Message("user", "hi"), found.message()))["contents"][1]["parts"]
    assert back == [*parts[:3], made]
    changed = Message("assistant", (*found.opaque, Text("Something else")))
    back = sent(messages=(Message("user", "hi"), changed))["contents"][1]["parts"]
    assert back == [parts[0], {"text": "Something else"}, {"text": "", "thoughtSignature": "s1"}]


def test_calls_without_ids_get_the_same_ones_every_time_and_others_in_another_answer():
    ids = set()
    for answer in ("r1", "r1", "r2"):
        raw = json.dumps(reply({"functionCall": {"name": "a"}}, {"functionCall": {"name": "a"}}, responseId=answer))
        ids |= {call.id for call in ADAPTER.decode_body(200, {}, raw.encode(), at_ms=NOW).tool_calls}
    assert len(ids) == 4


BLOCKED = {"promptFeedback": {"blockReason": "OTHER"}, "usageMetadata": {"promptTokenCount": 3}}


def test_a_blocked_prompt_is_a_result():
    whole = ADAPTER.decode_body(200, {}, json.dumps(BLOCKED).encode(), at_ms=NOW)
    decoder = ADAPTER.stream_decoder({}, at_ms=NOW)
    decoder.feed(SSEEvent("message", json.dumps(BLOCKED)))
    for found in (whole, decoder.finish(eof=True)):
        assert (found.text, found.finish, found.raw_finish) == ("", Finish.FILTER, "OTHER")
        assert found.usage == Usage(input_uncached=3)


def test_usage_in_disjoint_buckets():
    usage = {
        "promptTokenCount": 40,
        "cachedContentTokenCount": 30,
        "candidatesTokenCount": 5,
        "thoughtsTokenCount": 20,
        "toolUsePromptTokenCount": 7,
        "totalTokenCount": 72,
    }
    raw = json.dumps(reply({"text": "x"}, usageMetadata=usage)).encode()
    found = ADAPTER.decode_body(200, {}, raw, at_ms=NOW).usage
    assert found == Usage(input_uncached=17, cache_read=30, output_visible=5, output_reasoning=20)
    assert found.total == 72


def test_after_the_finish_reason_only_tokens_are_counted():
    decoder = ADAPTER.stream_decoder({}, at_ms=NOW)
    decoder.feed(SSEEvent("message", json.dumps(reply({"text": "4"}))))
    late = {**reply({"text": "5"}, finish="OTHER"), "usageMetadata": {"promptTokenCount": 3}}
    assert decoder.feed(SSEEvent("message", json.dumps(late))) == []
    decoder.feed(SSEEvent("message", "{broken"))
    decoder.feed(SSEEvent("error", '{"error": {"code": 500}}'))
    found = decoder.finish(eof=True)
    assert (found.text, found.finish, found.usage) == ("4", Finish.STOP, Usage(input_uncached=3))


# Embeddings.


def embed(**fields):
    request = EmbeddingRequest(**{"model": "embed-1", "inputs": ("a", "b"), **fields})
    return EMBEDDER.encode(request, key=Secret("k"), settings=provider())


def test_embeddings_are_asked_for_together():
    found = embed(dimensions=8, extra={"taskType": "RETRIEVAL_QUERY"})
    assert found.path == "/v1beta/models/embed-1:batchEmbedContents"
    shared = {"model": "models/embed-1", "outputDimensionality": 8, "taskType": "RETRIEVAL_QUERY"}
    assert json.loads(found.body) == {
        "requests": [{**shared, "content": {"parts": [{"text": text}]}} for text in ("a", "b")]
    }


@pytest.mark.parametrize(
    "fields",
    [
        {"inputs": ()},
        {"inputs": ("",)},
        {"inputs": ("x",) * 101},
        {"extra": {"content": {}}},
        {"model": ".."},
    ],
)
def test_embeddings_that_are_not_sent(fields):
    assert embed(**fields).sent is False


def test_vectors_come_in_the_order_of_the_texts():
    raw = json.dumps({"embeddings": [{"values": [1, 0.5]}, {"values": [0, 1]}]}).encode()
    found = EMBEDDER.decode_body(200, {}, raw, at_ms=NOW, inputs=2)
    assert [list(vector) for vector in found.vectors] == [[1.0, 0.5], [0.0, 1.0]]
    assert found.usage is None


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"{}",
        b'{"embeddings": [{"values": [1]}]}',
        b'{"embeddings": [{"values": [1]}, {"values": []}]}',
        b'{"embeddings": [{"values": [1]}, {"values": ["x"]}]}',
        b'{"embeddings": [{"values": [1]}, {"values": [1, 2]}]}',
        b'{"embeddings": [{"values": [1]}, null]}',
        b'{"embeddings": [{"values": [1]}, {"values": [2]}, {"values": [3]}]}',
    ],
)
def test_vectors_that_are_not_all_there_spoil_the_reply(raw):
    assert EMBEDDER.decode_body(200, {}, raw, at_ms=NOW, inputs=2).kind is ErrorClass.MALFORMED


def test_a_refused_embedding():
    raw = b'{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "Oh"}}'
    assert EMBEDDER.decode_body(429, {}, raw, at_ms=NOW, inputs=2).kind is ErrorClass.RATE
    assert EMBEDDER.decode_body(200, {}, raw, at_ms=NOW, inputs=2).kind is ErrorClass.RATE
