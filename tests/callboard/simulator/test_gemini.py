import json

import pytest

TEXT = "Summarise.\n\nActors keep jobs in a database. Jobs cost money and actors spend it."
PATH = "/v1beta/models/m-1:"


@pytest.fixture
def gemini(simulate):
    def start(**settings):
        simulator, client = simulate(**settings)

        def ask(method="generateContent", text=TEXT, key="key-1", **fields):
            body = {"contents": [{"role": "user", "parts": [{"text": text}]}], **fields}
            return client.http.post(PATH + method, json=body, headers={"x-goog-api-key": key})

        return simulator, client, ask

    return start


def test_a_reply_has_every_field_of_the_format(gemini):
    simulator, _, ask = gemini()
    body = ask().json()
    (candidate,) = body["candidates"]
    assert candidate["content"]["role"] == "model"
    assert candidate["content"]["parts"] == [{"text": "Actors keep jobs in a database."}]
    assert (candidate["finishReason"], candidate["index"]) == ("STOP", 0)
    usage = body["usageMetadata"]
    assert usage["totalTokenCount"] == usage["promptTokenCount"] + usage["candidatesTokenCount"]
    assert (body["modelVersion"], body["responseId"]) == ("m-1", "sim1")
    (entry,) = simulator.journal()
    assert (entry["wire"], entry["model"], entry["usage"]["output_tokens"]) == ("gemini", "m-1", 8)
    assert "key-1" not in json.dumps(entry)


def test_a_stream_ends_with_its_body(gemini):
    _, _, ask = gemini()
    reply = ask("streamGenerateContent?alt=sse")
    assert reply.headers["content-type"].startswith("text/event-stream")
    chunks = [json.loads(line[6:]) for line in reply.content.decode().split("\r\n") if line]
    texts = [chunk["candidates"][0]["content"]["parts"][0]["text"] for chunk in chunks]
    assert "".join(texts) == "Actors keep jobs in a database."
    assert [chunk["candidates"][0].get("finishReason") for chunk in chunks] == [None] * (len(chunks) - 1) + ["STOP"]
    assert "usageMetadata" in chunks[-1]


def test_a_model_in_the_path_may_hold_anything(simulate):
    simulator, client = simulate()
    body = {"contents": [{"parts": [{"text": TEXT}]}]}
    assert client.http.post("/v1beta/models/a%3Fb%3Ac:generateContent", json=body).status_code == 200
    assert simulator.journal()[0]["model"] == "a?b:c"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"contents": []}, "contents is not specified"),
        ({"contents": [{"role": "assistant", "parts": [{"text": "x"}]}]}, "valid role"),
        ({"contents": [{"role": "user", "parts": []}]}, "must not be empty"),
        ({"contents": [{"role": "user", "parts": [{"txt": "x"}]}]}, 'Unknown name "txt"'),
        ({"messages": []}, 'Unknown name "messages"'),
        ({"generationConfig": {"stopSequences": list("abcdef")}}, "at most 5"),
        ({"generationConfig": {"maxOutputTokens": 0}}, "must be positive"),
        ({"contents": [{"parts": [{"functionResponse": {"name": "f", "response": 4}}]}]}, "Struct"),
    ],
)
def test_an_invalid_request_is_refused_in_the_format(gemini, fields, said):
    _, _, ask = gemini()
    reply = ask(**fields)
    error = reply.json()["error"]
    assert (reply.status_code, error["code"], error["status"]) == (400, 400, "INVALID_ARGUMENT")
    assert said in error["message"]


def test_keys_and_models(gemini):
    _, client, ask = gemini(keys=("right",), models=("m-1",))
    wrong = ask(key="wrong")
    assert (wrong.status_code, wrong.json()["error"]["details"][0]["reason"]) == (400, "API_KEY_INVALID")
    assert client.http.post(PATH + "generateContent", json={}).status_code == 403
    assert ask(key="right").status_code == 200
    headers = {"x-goog-api-key": "right"}
    body = {"contents": [{"parts": [{"text": "x"}]}]}
    missing = client.http.post("/v1beta/models/m-2:generateContent", json=body, headers=headers)
    assert (missing.status_code, missing.json()["error"]["status"]) == (404, "NOT_FOUND")
    listed = client.http.get("/v1beta/models", headers=headers).json()
    assert [model["name"] for model in listed["models"]] == ["models/m-1"]
    nowhere = client.http.post("/v1beta/models/m-1:think", json={}, headers=headers)
    assert (nowhere.status_code, nowhere.json()["error"]["code"]) == (404, 404)


def test_limits_are_told_in_errors_alone(gemini, manual_clock):
    _, _, ask = gemini(clock=manual_clock.clock(), rpm=2, rpd=3)
    admitted = ask()
    assert not [name for name in admitted.headers if "limit" in name or "retry" in name]
    ask()
    refused = ask()
    error = refused.json()["error"]
    quota, retry = error["details"]
    assert (refused.status_code, error["status"]) == (429, "RESOURCE_EXHAUSTED")
    assert "PerMinute" in quota["violations"][0]["quotaId"]
    assert retry["retryDelay"] == "30s"
    manual_clock.seconds += 30
    assert ask().status_code == 200
    manual_clock.seconds += 60
    quota, retry = ask().json()["error"]["details"]
    assert "PerDay" in quota["violations"][0]["quotaId"]
    assert float(retry["retryDelay"].rstrip("s")) > 3600 * 7
    manual_clock.seconds += 86400
    assert ask().status_code == 200


def test_a_request_larger_than_the_limit_is_told_no_wait(gemini):
    _, _, ask = gemini(input_tpm=3)
    (quota,) = ask().json()["error"]["details"]
    assert "InputTokens" in quota["violations"][0]["quotaId"]


def test_embeddings(simulate):
    simulator, client = simulate()
    one = {"model": "models/m-1", "content": {"parts": [{"text": "rain and wind"}]}, "outputDimensionality": 8}
    path = PATH + "batchEmbedContents"
    vectors = client.http.post(path, json={"requests": [one, one]}).json()["embeddings"]
    assert vectors[0] == vectors[1]
    assert len(vectors[0]["values"]) == 8
    assert simulator.journal()[0]["usage"]["output_tokens"] == 0
    for wrong in (
        {},
        {"requests": [one] * 101},
        {"requests": [{**one, "model": "models/m-2"}]},
        {"requests": [{**one, "content": {"parts": [{"text": ""}]}}]},
        {"requests": [{**one, "outputDimensionality": -1}]},
    ):
        assert client.http.post(path, json=wrong).status_code == 400
