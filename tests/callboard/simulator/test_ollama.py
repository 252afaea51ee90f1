import json

import pytest

TEXT = "Summarise.\n\nActors keep jobs in a database. Jobs cost money and actors spend it."
SAID = "Actors keep jobs in a database."


@pytest.fixture
def ollama(simulate):
    def start(**settings):
        simulator, client = simulate(**settings)

        def ask(text=TEXT, **fields):
            body = {"model": "m-1", "messages": [{"role": "user", "content": text}], "stream": False, **fields}
            return client.http.post("/api/chat", json={k: v for k, v in body.items() if v is not None})

        return simulator, client, ask

    return start


def test_a_reply_has_every_field_of_the_format(ollama):
    simulator, _, ask = ollama()
    body = ask().json()
    assert body["message"] == {"role": "assistant", "content": SAID}
    assert (body["model"], body["done"], body["done_reason"]) == ("m-1", True, "stop")
    assert (body["eval_count"], body["prompt_eval_count"]) == (8, 20)
    assert simulator.journal()[0]["wire"] == "ollama"


def test_it_streams_unless_told_otherwise(ollama):
    _, _, ask = ollama()
    reply = ask(stream=None)
    assert reply.headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in reply.content.split(b"\n") if line]
    assert "".join(line["message"]["content"] for line in lines) == SAID
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    assert "eval_count" in lines[-1]


def test_options_and_thinking(ollama):
    _, _, ask = ollama()
    cut = ask(options={"num_predict": 2}).json()
    assert (cut["message"]["content"], cut["done_reason"]) == ("Actors", "length")
    assert ask(options={"stop": ["jobs"]}).json()["message"]["content"] == "Actors keep "
    thought = ask(think="low", stream=True)
    assert "thinking" in json.loads(thought.content.split(b"\n")[0])["message"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"model": ""}, "model is required"),
        ({"messages": []}, "messages is required"),
        ({"messages": [{"role": "developer"}]}, "invalid role"),
        ({"options": 3}, "invalid options"),
        ({"tools": [{}]}, "invalid tool"),
    ],
)
def test_an_invalid_request_is_refused_in_the_format(ollama, fields, said):
    _, _, ask = ollama()
    reply = ask(**fields)
    assert reply.status_code == 400
    assert reply.json()["error"].startswith(said)


def test_models_and_a_full_queue(ollama):
    simulator, client, ask = ollama(models=("m-1",), concurrency=1, rpm=1)
    assert ask(model="m-2").json() == {"error": "model 'm-2' not found"}
    assert [model["name"] for model in client.http.get("/api/tags").json()["models"]] == ["m-1"]
    assert [ask().status_code for _ in range(3)] == [200] * 3  # nothing is counted per minute
    simulator.faults({"fault": {"kind": "stall", "n": 0}, "times": 1})
    body = {"model": "m-1", "messages": [{"role": "user", "content": TEXT}]}
    with client.http.stream("POST", "/api/chat", json=body):
        full = ask()
    assert (full.status_code, full.json()["error"][:11]) == (503, "server busy")


def test_embeddings(ollama):
    simulator, client, _ = ollama()
    body = {"model": "m-1", "input": ["rain and wind", "rain and wind", "sun"], "dimensions": 8}
    reply = client.http.post("/api/embed", json=body).json()
    first, again, other = reply["embeddings"]
    assert first == again != other
    assert (len(first), reply["prompt_eval_count"]) == (8, 9)
    assert client.http.post("/api/embed", json={"model": "m-1", "input": 3}).status_code == 400
    assert simulator.stats()["requests"] == 2
