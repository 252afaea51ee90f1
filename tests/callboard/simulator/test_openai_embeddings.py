import base64
import struct

import pytest


@pytest.fixture
def embed(simulate):
    def start(**settings):
        simulator, client = simulate(**settings)

        def ask(**body):
            body = {"model": "e-1", "input": ["one", "two"], **body}
            return client.http.post("/v1/embeddings", json=body, headers={"authorization": "Bearer key-1"})

        return simulator, ask

    return start


def test_numbers_and_base64_are_the_same_vectors(embed):
    simulator, ask = embed()
    plain = ask().json()
    packed = ask(encoding_format="base64").json()
    assert [item["index"] for item in plain["data"]] == [0, 1]
    for one, other in zip(plain["data"], packed["data"], strict=True):
        numbers = struct.unpack("<64f", base64.b64decode(other["embedding"]))
        assert numbers == pytest.approx(one["embedding"], abs=1e-6)
        assert sum(number * number for number in numbers) == pytest.approx(1.0, abs=1e-5)
    assert plain["usage"] == {"prompt_tokens": 2, "total_tokens": 2}
    assert (simulator.journal()[0]["wire"], simulator.journal()[0]["path"]) == ("openai", "/v1/embeddings")


def test_one_text_and_its_dimensions(embed):
    _, ask = embed()
    (item,) = ask(input="one", dimensions=3).json()["data"]
    assert len(item["embedding"]) == 3


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"input": []}, "'input'"),
        ({"input": [""]}, "empty string"),
        ({"input": [1]}, "'input'"),
        ({"input": ["x"] * 2049}, "2048"),
        ({"input": "x" * 40_000}, "8192 tokens"),
        ({"input": ["x" * 30_000] * 41}, "300000 tokens"),
        ({"encoding_format": "int8"}, "encoding_format"),
        ({"dimensions": 0}, "dimensions"),
        ({"model": None}, "model"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_the_provider_refuses(embed, body, said):
    _, ask = embed()
    reply = ask(**body)
    assert reply.status_code == 400
    assert said in reply.json()["error"]["message"]


def test_limits_and_faults_are_those_of_chat(embed):
    simulator, ask = embed(tpm=3)
    assert ask().headers["x-ratelimit-remaining-tokens"] == "1"
    assert ask().status_code == 429
    simulator.faults({"fault": {"kind": "status", "status": 503}, "times": 1})
    assert ask(model="e-2").status_code == 503
