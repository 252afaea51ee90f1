"""The batch APIs of the simulator as a client sees them, byte for byte where it matters, and what a test can order."""

import json

import httpx
import pytest

from callboard.simulator import Clock, Simulator, SimulatorConfig, spawn_simulator
from callboard.simulator.batches import OrderError

NOW = 1_790_000_000_000
OPENAI = {"authorization": "Bearer key-1"}
ANTHROPIC = {"x-api-key": "key-1", "anthropic-version": "2023-06-01"}
GEMINI = {"x-goog-api-key": "key-1"}


class World:
    def __init__(self, **settings):
        self.ms = NOW
        self.simulator = Simulator(
            SimulatorConfig(**{"batch_seconds": 60.0, **settings}), clock=Clock(lambda: 0.0, lambda: self.ms)
        ).start()
        self.http = httpx.Client(base_url=self.simulator.url, timeout=20.0)

    def get(self, path, headers=OPENAI):
        return self.http.get(path, headers=headers)

    def upload(self, *texts, lines=None, **fields):
        data = {"purpose": "batch", "expires_after[anchor]": "created_at", "expires_after[seconds]": "3600", **fields}
        written = lines or [openai_line(f"a-{n}", text) for n, text in enumerate(texts)]
        files = {"file": ("requests.jsonl", "\n".join(json.dumps(one) for one in written), "application/jsonl")}
        return self.http.post("/v1/files", data=data, files=files, headers=OPENAI)

    def create(self, *texts, tag="b17", **more):
        body = {
            "input_file_id": self.upload(*texts, **more).json()["id"],
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "metadata": {"queue_batch": tag},
        }
        return self.http.post("/v1/batches", json=body, headers=OPENAI).json()

    def anthropic(self, *texts):
        requests = [{"custom_id": f"a-{n}", "params": params(text)} for n, text in enumerate(texts)]
        return self.http.post("/v1/messages/batches", json={"requests": requests}, headers=ANTHROPIC)

    def gemini(self, *texts):
        requests = [
            {"request": {"contents": [{"role": "user", "parts": [{"text": text}]}]}, "metadata": {"key": f"a-{n}"}}
            for n, text in enumerate(texts)
        ]
        body = {"batch": {"displayName": "b17", "inputConfig": {"requests": {"requests": requests}}}}
        return self.http.post("/v1beta/models/m-1:batchGenerateContent", json=body, headers=GEMINI)


def params(text):
    return {"model": "m-1", "max_tokens": 50, "messages": [{"role": "user", "content": text}]}


def openai_line(custom_id, text, **more):
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": params(text), **more}


@pytest.fixture
def world():
    worlds = []

    def start(**settings):
        worlds.append(World(**settings))
        return worlds[-1]

    yield start
    for one in worlds:
        one.http.close()
        one.simulator.stop()


def test_openai(world):
    w = world()
    uploaded = w.upload("Cats sleep.").json()
    assert uploaded == {
        "id": "file-sim-1",
        "object": "file",
        "bytes": uploaded["bytes"],
        "created_at": NOW // 1000,
        "expires_at": NOW // 1000 + 3600,
        "filename": "requests.jsonl",
        "purpose": "batch",
        "status": "processed",
        "status_details": None,
    }
    assert w.get("/v1/files/file-sim-1/content").content == json.dumps(openai_line("a-0", "Cats sleep.")).encode()
    made = w.create("Cats sleep.", "Dogs run.")
    assert (made["status"], made["request_counts"]["total"], made["metadata"]) == (
        "validating",
        0,
        {"queue_batch": "b17"},
    )
    running = w.get(f"/v1/batches/{made['id']}").json()
    assert (running["status"], running["request_counts"]) == ("in_progress", {"total": 2, "completed": 0, "failed": 0})
    assert running["expires_at"] == NOW // 1000 + 86_400
    w.ms += 60_000
    ended = w.get(f"/v1/batches/{made['id']}").json()
    assert (ended["status"], ended["request_counts"]) == ("completed", {"total": 2, "completed": 2, "failed": 0})
    assert (ended["error_file_id"], ended["errors"]) == (None, None)
    output = w.get(f"/v1/files/{ended['output_file_id']}/content").text
    last, first = [json.loads(line) for line in output.splitlines()]
    assert (first["custom_id"], last["custom_id"], first["error"]) == ("a-0", "a-1", None)  # in no order
    assert first["response"]["status_code"] == 200
    assert first["response"]["body"]["choices"][0]["message"]["content"] == "Cats sleep."
    assert w.http.delete(f"/v1/files/{ended['output_file_id']}", headers=OPENAI).json()["deleted"]
    assert w.get(f"/v1/files/{ended['output_file_id']}/content").status_code == 404


def test_anthropic(world):
    w = world()
    made = w.anthropic("Cats sleep.", "Dogs run.").json()
    assert made["processing_status"] == "in_progress"
    assert made["request_counts"] == {"processing": 2, "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0}
    assert (made["created_at"], made["results_url"]) == ("2026-09-21T14:13:20.000Z", None)
    assert w.get(f"/v1/messages/batches/{made['id']}/results", ANTHROPIC).status_code == 404
    assert w.http.delete(f"/v1/messages/batches/{made['id']}", headers=ANTHROPIC).status_code == 400
    w.ms += 60_000
    ended = w.get(f"/v1/messages/batches/{made['id']}", ANTHROPIC).json()
    assert (ended["processing_status"], ended["request_counts"]["succeeded"]) == ("ended", 2)
    assert ended["results_url"] == f"{w.simulator.url}/v1/messages/batches/{made['id']}/results"
    last, first = [json.loads(line) for line in w.get(ended["results_url"], ANTHROPIC).text.splitlines()]
    assert (first["custom_id"], last["custom_id"]) == ("a-0", "a-1")
    assert first["result"]["type"] == "succeeded"
    assert first["result"]["message"]["content"] == [{"type": "text", "text": "Cats sleep."}]
    assert (
        w.http.delete(f"/v1/messages/batches/{made['id']}", headers=ANTHROPIC).json()["type"] == "message_batch_deleted"
    )
    assert w.get(f"/v1/messages/batches/{made['id']}", ANTHROPIC).status_code == 404


def test_gemini(world):
    w = world()
    reply = w.gemini("Cats sleep.", "Dogs run.")
    made = reply.json()
    assert reply.content.count(b"\n") > 5  # on many lines, as Google writes
    assert made["name"] == made["metadata"]["name"] == "batches/sim1"
    assert (made["metadata"]["state"], made["metadata"]["displayName"]) == ("BATCH_STATE_RUNNING", "b17")
    assert made["metadata"]["batchStats"] == {"requestCount": "2", "pendingRequestCount": "2"}
    w.ms += 60_000
    ended = w.get("/v1beta/batches/sim1", GEMINI).json()
    assert (ended["done"], ended["metadata"]["state"]) == (True, "BATCH_STATE_SUCCEEDED")
    inline = ended["response"]["inlinedResponses"]["inlinedResponses"]
    assert ended["metadata"]["output"]["inlinedResponses"]["inlinedResponses"] == inline
    assert [one["metadata"]["key"] for one in inline] == ["a-0", "a-1"]
    assert inline[0]["response"]["candidates"][0]["content"]["parts"][0]["text"] == "Cats sleep."
    assert w.http.post("/v1beta/batches/sim1:cancel", headers=GEMINI).json() == {}
    assert w.http.delete("/v1beta/batches/sim1", headers=GEMINI).json() == {}
    assert w.get("/v1beta/batches/sim1", GEMINI).status_code == 404


def test_lists_are_newest_first_and_paged(world):
    w = world()
    ids = [w.create("Cats sleep.", tag=f"b{n}")["id"] for n in range(3)]
    page = w.get("/v1/batches?limit=2").json()
    assert ([one["id"] for one in page["data"]], page["has_more"]) == ([ids[2], ids[1]], True)
    page = w.get(f"/v1/batches?limit=2&after={page['last_id']}").json()
    assert ([one["id"] for one in page["data"]], page["has_more"]) == ([ids[0]], False)
    ids = [w.anthropic("Cats sleep.").json()["id"] for _ in range(2)]
    page = w.get("/v1/messages/batches?limit=1", ANTHROPIC).json()
    assert ([one["id"] for one in page["data"]], page["has_more"], page["last_id"]) == ([ids[1]], True, ids[1])
    names = [w.gemini("Cats sleep.").json()["name"] for _ in range(2)]
    page = w.get("/v1beta/batches?pageSize=1", GEMINI).json()
    assert [one["name"] for one in page["operations"]] == [names[1]]
    page = w.get(f"/v1beta/batches?pageSize=1&pageToken={page['nextPageToken']}", GEMINI).json()
    assert ([one["name"] for one in page["operations"]], "nextPageToken" in page) == ([names[0]], False)


@pytest.mark.parametrize(
    ("lines", "code", "line"),
    [
        ([openai_line("a", "x"), openai_line("a", "y")], "duplicate_custom_id", 2),
        ([openai_line("a", "x", url="/v1/embeddings")], "invalid_url", 1),
        ([openai_line("a", "x", body=None)], "invalid_request", 1),
        (
            [openai_line("a", "x"), {**openai_line("b", "y"), "body": {**params("y"), "model": "m-2"}}],
            "mismatched_model",
            2,
        ),
    ],
)
def test_openai_validates_after_it_has_taken_the_file(world, lines, code, line):
    w = world()
    made = w.create(lines=lines)
    assert (made["status"], made["errors"]) == ("validating", None)
    failed = w.get(f"/v1/batches/{made['id']}").json()
    assert (failed["status"], failed["output_file_id"], failed["error_file_id"]) == ("failed", None, None)
    assert [(error["code"], error["line"]) for error in failed["errors"]["data"]] == [(code, line)]
    assert w.simulator.stats()["batch_requests"] == 0


def test_anthropic_refuses_bad_ids_at_once(world):
    w = world()
    for ids in (["a.b"], ["a", "a"], ["x" * 65]):
        requests = [{"custom_id": custom_id, "params": params("x")} for custom_id in ids]
        reply = w.http.post("/v1/messages/batches", json={"requests": requests}, headers=ANTHROPIC)
        assert (reply.status_code, reply.json()["error"]["type"]) == (400, "invalid_request_error")
    assert w.simulator.batches() == []


def test_keys_are_asked_for(world):
    w = world(keys=("key-2",))
    assert w.get("/v1/batches").status_code == 401
    assert w.get("/v1/messages/batches", ANTHROPIC).status_code == 401
    assert w.upload("x").status_code == 401
    assert w.get("/v1/batches", {"authorization": "Bearer key-2"}).status_code == 200


def test_batches_that_wait_for_an_order(world):
    w = world(batch_seconds=float("inf"))
    first, second = w.create("Cats sleep.", "slow", "bad"), w.create("Dogs run.")
    w.ms += 10**9
    assert w.get(f"/v1/batches/{first['id']}").json()["status"] == "in_progress"
    w.simulator.batches(
        {"do": "lines", "contains": "slow", "outcome": "error", "status": 429, "times": 1},
        {"do": "lines", "contains": "bad", "outcome": "drop"},
        {"do": "end", "id": first["id"]},
    )
    ended = w.get(f"/v1/batches/{first['id']}").json()
    assert ended["request_counts"] == {"total": 3, "completed": 1, "failed": 1}
    (bad,) = [json.loads(line) for line in w.get(f"/v1/files/{ended['error_file_id']}/content").text.splitlines()]
    assert (bad["custom_id"], bad["response"]["status_code"]) == ("a-1", 429)
    told = w.simulator.batches({"do": "expire", "id": second["id"], "done": 0})
    assert [(one["id"], one["state"], one["tag"]) for one in told] == [
        (first["id"], "ended", "b17"),
        (second["id"], "expired", "b17"),
    ]
    assert [one["outcome"] for one in told[0]["requests"]] == ["done", "error", "dropped"]
    assert w.simulator.stats()["batches"] == 2
    assert w.simulator.stats()["batch_requests"] == 2  # those that were run: a dropped one was not
    assert [entry["path"] for entry in w.simulator.journal()].count("/v1/batches") == 2


def test_orders_over_http(world):
    w = world()
    w.create("Cats sleep.")
    told = w.http.post("/_simulator/batches", json=[{"do": "end"}]).json()
    assert told == w.http.get("/_simulator/batches").json() == w.simulator.batches()
    assert told[0]["state"] == "ended"
    wrong = w.http.post("/_simulator/batches", json={"do": "end", "id": told[0]["id"]})
    assert wrong.status_code == 400
    assert w.http.delete("/_simulator/batches").status_code == 400


@pytest.mark.parametrize(
    ("order", "named"),
    [
        ("end", "do"),
        ({"do": "explode"}, "explode"),
        ({"do": "end", "when": 1}, "when"),
        ({"do": "end", "id": 1}, "id"),
        ({"do": "end", "id": "nobody"}, "nobody"),
        ({"do": "lines", "outcome": "melt"}, "outcome"),
        ({"do": "lines"}, "outcome"),
        ({"do": "fault", "on": "create"}, "kind"),
        ({"do": "fault", "on": "lunch", "kind": "cut"}, "on"),
        ({"do": "fault", "on": "create", "kind": "cut", "times": True}, "times"),
    ],
)
def test_a_mistake_in_an_order_is_named(world, order, named):
    with pytest.raises(OrderError, match=named):
        world().simulator.batches(order)


def test_a_request_that_fails_after_it_was_done(world):
    w = world()
    w.simulator.batches({"do": "fault", "on": "create", "kind": "cut", "times": 1})
    with pytest.raises(httpx.RemoteProtocolError):
        w.anthropic("Cats sleep.")
    assert len(w.simulator.batches()) == 1
    entry = w.simulator.journal()[-1]
    assert (entry["outcome"], entry["status"], entry["fault"]) == ("fault:cut", None, "cut")
    assert w.anthropic("Cats sleep.").status_code == 200


def test_a_request_that_fails_before_anything_is_done(world):
    w = world()
    w.simulator.batches({"do": "fault", "on": "create", "kind": "status", "status": 529, "times": 1})
    reply = w.anthropic("Cats sleep.")
    assert (reply.status_code, reply.json()["error"]["type"]) == (529, "overloaded_error")
    assert w.simulator.batches() == []


def test_a_stalled_request_ends_with_its_client(world):
    w = world()
    w.simulator.batches({"do": "fault", "on": "poll", "kind": "stall", "times": 1})
    made = w.create("Cats sleep.")
    with pytest.raises(httpx.ReadTimeout):
        w.http.get(f"/v1/batches/{made['id']}", headers=OPENAI, timeout=0.05)
    entry = w.simulator.wait_for(lambda journal: journal[-1]["outcome"])[-1]
    assert entry["outcome"] == "aborted_by_client"


def test_how_long_a_batch_takes_must_be_a_time():
    with pytest.raises(ValueError, match="batch_seconds"):
        SimulatorConfig(batch_seconds=-1.0)
    with pytest.raises(ValueError, match="batch_seconds"):
        SimulatorConfig(batch_seconds=float("nan"))


def test_batches_outlive_their_client():
    with spawn_simulator(SimulatorConfig(batch_seconds=float("inf"))) as simulator:
        body = {"requests": [{"custom_id": "a", "params": params("Cats sleep.")}]}
        with httpx.Client(base_url=simulator.url, headers=ANTHROPIC) as one:
            made = one.post("/v1/messages/batches", json=body).json()
        with httpx.Client(base_url=simulator.url, headers=ANTHROPIC) as another:
            assert another.post("/_simulator/batches", json={"do": "end"}).status_code == 200
            assert another.get(f"/v1/messages/batches/{made['id']}").json()["processing_status"] == "ended"
