"""OpenAI's embeddings: the request byte for byte, vectors in the order of their texts, and over HTTP against the simulator."""

import json
import math
from array import array

import pytest

from callboard.actors.providers.engine import Failed, Finished
from callboard.actors.providers.keys import Secret
from callboard.actors.providers.model import CallError, EmbeddingRequest, Embeddings, ErrorClass
from callboard.actors.providers.openai_embeddings import OpenAIEmbeddings
from callboard.actors.providers.parts import vector_to_base64
from callboard.actors.providers.settings import ProviderSettings
from callboard.simulator import Simulator, SimulatorConfig

EMBEDDER = OpenAIEmbeddings()
NOW = 1_790_000_000_000
REQUEST = EmbeddingRequest(model="e", inputs=("Grü\u2028ß", "two"))


def settings(**more):
    return ProviderSettings(name="openai", wire="openai-chat", base_url="https://api.openai.com/v1", **more)


def encode(request, key=None, **more):
    return EMBEDDER.encode(request, key=key, settings=settings(**more))


def decode(value, inputs=2, status=200):
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return EMBEDDER.decode_body(status, {"x-request-id": "q"}, raw, at_ms=NOW, inputs=inputs)


def item(index, vector):
    return {"object": "embedding", "index": index, "embedding": vector}


def packed(*numbers):
    return vector_to_base64(array("f", numbers))


def test_body_byte_for_byte():
    sent = encode(REQUEST, key=Secret("k-e-y"))
    assert (sent.method, sent.path) == ("POST", "/embeddings")
    assert sent.body.decode() == '{"model":"e","input":["Grü\u2028ß","two"],"encoding_format":"base64"}'
    assert ("authorization", "Bearer k-e-y") in sent.headers
    assert ("accept", "application/json") in sent.headers
    more = json.loads(encode(EmbeddingRequest(model="e", inputs=("x",), dimensions=8, extra={"user": "u"})).body)
    assert more == {"model": "e", "input": ["x"], "encoding_format": "base64", "dimensions": 8, "user": "u"}


def test_what_is_unsupported_is_left_out_or_refused():
    request = EmbeddingRequest(model="e", inputs=("x",), dimensions=8, extra={"user": "u"})
    names = frozenset({"encoding_format", "dimensions", "user"})
    assert json.loads(encode(request, unsupported=names).body) == {"model": "e", "input": ["x"]}
    refused = encode(request, unsupported=frozenset({"dimensions"}), on_unsupported="error")
    assert refused.message.startswith("dimensions:")


@pytest.mark.parametrize(
    ("inputs", "extra", "field"),
    [
        ((), {}, "inputs:"),
        (("x", ""), {}, "inputs[1]:"),
        (("x",) * 2049, {}, "inputs:"),
        (("x",), {"input": ["y"]}, "extra.input:"),
        (("x",), {"user": float("nan")}, "request:"),
    ],
)
def test_what_would_be_refused_is_not_sent(inputs, extra, field):
    found = encode(EmbeddingRequest(model="e", inputs=inputs, extra=extra))
    assert isinstance(found, CallError)
    assert (found.kind, found.sent) == (ErrorClass.INVALID, False)
    assert found.message.startswith(field)


def test_vectors_are_in_the_order_of_the_texts():
    usage = {"prompt_tokens": 8, "total_tokens": 8}
    for first, second in (([1.0, 0.5], [-2, 0]), (packed(1.0, 0.5), packed(-2, 0))):
        found = decode({"data": [item(1, second), item(0, first)], "model": "e-1", "usage": usage})
        assert [list(vector) for vector in found.vectors] == [[1.0, 0.5], [-2.0, 0.0]]
        assert (found.usage.input, found.usage.output, found.model, found.request_id) == (8, 0, "e-1", "q")
        assert Embeddings.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_a_server_that_numbers_nothing_and_counts_nothing():
    found = decode({"data": [{"embedding": [1.0]}, {"embedding": [2.0]}]})
    assert [list(vector) for vector in found.vectors] == [[1.0], [2.0]]
    assert found.usage is None


@pytest.mark.parametrize(
    "data",
    [
        [item(0, [1.0])],
        [item(0, [1.0]), item(0, [1.0])],
        [item(0, [1.0]), item(2, [1.0])],
        [item(0, [1.0]), item(-1, [1.0])],
        [item(0, [1.0]), item(True, [1.0])],
        [item(0, [1.0]), item("1", [1.0])],
        [item(0, [1.0]), item(1, [])],
        [item(0, [1.0]), item(1, "AA")],
        [item(0, [1.0]), item(1, "not base64!")],
        [item(0, [1.0]), item(1, "AAAA")],
        [item(0, [1.0]), item(1, None)],
        [item(0, [1.0]), item(1, ["x"])],
        [item(0, [1.0]), item(1, [1.0, 2.0])],
        [item(0, [1.0]), "x"],
        [item(0, [1.0]), item(1, [1.0]), item(2, [1.0])],
        [item(0, [1.0]), item(1, [1.0]), item(1, [2.0])],
        None,
    ],
    ids=str,
)
def test_one_vector_that_is_wrong_spoils_them_all(data):
    assert decode({"data": data}).kind is ErrorClass.MALFORMED


@pytest.mark.parametrize("raw", [b"", b"<html>", b"[]", b"null", b"{}"])
def test_a_200_that_holds_nothing(raw):
    assert decode(raw).kind is ErrorClass.MALFORMED


def test_refusals():
    body = {"error": {"message": "Slow", "type": "requests", "code": "rate_limit_exceeded"}}
    assert decode(body, status=429).kind is ErrorClass.RATE
    assert decode(body).kind is ErrorClass.RATE
    assert decode(b"<html>", status=502).kind is ErrorClass.SERVER


# Over HTTP.


@pytest.fixture(scope="module")
def simulator():
    with Simulator(SimulatorConfig(rpm=100_000, tpm=100_000_000)) as running:
        yield running


def cosine(one, other):
    return sum(a * b for a, b in zip(one, other, strict=True))


def test_similar_texts_are_near_each_other(simulator, start_engine, call):
    engine = start_engine(f"{simulator.url}/v1")
    texts = ("The cat sleeps on the wall.", "A cat sleeps on a wall.", "Stocks fell in London today.")
    end, heard = call(engine, EmbeddingRequest(model="e", inputs=texts, dimensions=256))
    assert isinstance(end, Finished), end
    one, near, far = end.completion.vectors
    assert [len(vector) for vector in end.completion.vectors] == [256] * 3
    assert math.isclose(cosine(one, one), 1.0, rel_tol=1e-5)
    assert cosine(one, near) > cosine(one, far) + 0.3
    assert end.completion.usage.total > 0
    assert end.completion.total_ms is not None
    assert end.limits.tokens_remaining is not None
    assert heard.events[:-1] == []
    floats, _ = call(
        start_engine(f"{simulator.url}/v1", unsupported=frozenset({"encoding_format"})),
        EmbeddingRequest(model="e", inputs=texts, dimensions=256),
    )
    assert floats.completion.vectors == end.completion.vectors
    entry = simulator.journal()[-1]
    assert (entry["path"], "encoding_format" in entry["body"]) == ("/v1/embeddings", False)


def test_as_many_as_fit_and_no_more(simulator, start_engine, call):
    engine = start_engine(f"{simulator.url}/v1")
    end, _ = call(engine, EmbeddingRequest(model="e", inputs=("word",) * EMBEDDER.max_inputs, dimensions=2))
    assert len(end.completion.vectors) == 2048
    requests = len(simulator.journal())
    end, _ = call(engine, EmbeddingRequest(model="e", inputs=("word",) * 2049))
    assert isinstance(end, Failed)
    assert not end.error.sent
    assert len(simulator.journal()) == requests


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ({"kind": "status", "status": 429}, ErrorClass.RATE),
        ({"kind": "html"}, ErrorClass.SERVER),
        ({"kind": "malformed_json"}, ErrorClass.MALFORMED),
        ({"kind": "cut", "n": 1}, ErrorClass.TRUNCATED),
        ({"kind": "empty"}, ErrorClass.MALFORMED),
    ],
    ids=lambda value: value["kind"] if isinstance(value, dict) else None,
)
def test_faults(simulator, start_engine, call, fault, kind):
    simulator.faults({"fault": fault, "times": 1})
    end, _ = call(start_engine(f"{simulator.url}/v1"), REQUEST)
    assert end.error.kind is kind
