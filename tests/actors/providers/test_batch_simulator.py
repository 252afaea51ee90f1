"""Every operation of every batch API, over real HTTP, against the simulator."""

import dataclasses
import os
import stat
import threading
from pathlib import Path

import pytest

from callboard.actors.providers.batch_api import (
    BatchFound,
    BatchLine,
    BatchPhase,
    BatchResult,
    BatchStatus,
    CancelBatch,
    CreateBatch,
    DeleteFile,
    FetchResults,
    FileDeleted,
    FileUploaded,
    FindBatch,
    PollBatch,
    UploadFile,
    batch_format_for,
)
from callboard.actors.providers.engine import CallEngine, Failed
from callboard.actors.providers.model import (
    Billed,
    CallError,
    Completion,
    EmbeddingRequest,
    Embeddings,
    ErrorClass,
    Message,
    Request,
)
from callboard.actors.providers.settings import ProviderSettings
from callboard.simulator import Clock, Simulator, SimulatorConfig

WAIT = 20.0
WIRES = ["openai-chat", "openai-responses", "anthropic-messages", "gemini"]
BASES = {"openai-chat": "/v1", "openai-responses": "/v1"}


class Lane:
    """One provider at one simulator: what the batch lane does with them, step by step."""

    def __init__(self, url, wire, folder):
        base = url + BASES.get(wire, "")
        self.settings = ProviderSettings(name="test", wire=wire, base_url=base, key_env="TEST_KEY")
        self.engine = CallEngine(self.settings, environ={"TEST_KEY": "sk-test-0123456789"})
        self.engine.start()
        self.format = batch_format_for(wire)
        self.folder = folder
        self.model = "m-1"

    def do(self, operation, timeouts=None):
        told, ended = [], threading.Event()

        def hear(event):
            told.append(event)
            ended.set()

        self.engine.exchange(object(), operation, hear, *(() if timeouts is None else (timeouts,)))
        assert ended.wait(WAIT)
        (event,) = told
        return event.error if isinstance(event, Failed) else event.report

    def write(self, requests, name="requests.jsonl"):
        path = self.folder / name
        lines = [
            self.format.line(BatchLine(custom_id=key, request=request), settings=self.settings)
            for key, request in requests.items()
        ]
        assert all(isinstance(line, bytes) for line in lines), lines
        path.write_bytes(b"".join(line + b"\n" for line in lines))
        return str(path)

    def order(self, requests, tag="b17"):
        """The operation that makes a batch of these requests, its file uploaded where the API takes one."""
        path, first = self.write(requests), next(iter(requests.values()))
        file_id = None
        if self.format.uploads:
            uploaded = self.do(UploadFile(path=path, tag=tag))
            assert isinstance(uploaded, FileUploaded), uploaded
            file_id, path = uploaded.file_id, None
        endpoint = self.format.endpoint(first)
        return CreateBatch(tag=tag, model=self.model, endpoint=endpoint, file_id=file_id, path=path)

    def create(self, requests, tag="b17"):
        status = self.do(self.order(requests, tag))
        assert isinstance(status, BatchStatus), status
        return status

    def poll(self, batch_id):
        status = self.do(PollBatch(batch_id))
        assert isinstance(status, BatchStatus), status
        return status

    def fetch(self, status):
        """All the results, by their ids, and what was no result."""
        found, broken = {}, []
        for number, ref in enumerate(status.results):
            path = self.folder / f"results-{number}"
            fetched = self.do(FetchResults(batch_id=status.batch_id, ref=ref, path=str(path)))
            assert not isinstance(fetched, CallError), fetched
            assert path.stat().st_size == fetched.size
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            for one in self.format.results(iter(path.read_bytes().splitlines(keepends=True)), at_ms=0):
                if isinstance(one, BatchResult):
                    assert one.custom_id not in found
                    found[one.custom_id] = one.outcome
                else:
                    broken.append(one)
        return found, broken


@pytest.fixture
def ticking():
    return {"ms": 1_790_000_000_000}


@pytest.fixture
def simulator(ticking):
    clock = Clock(lambda: 0.0, lambda: ticking["ms"])
    with Simulator(SimulatorConfig(batch_seconds=60.0), clock=clock) as running:
        yield running


@pytest.fixture(params=WIRES)
def lane(request, simulator, tmp_path):
    made = Lane(simulator.url, request.param, tmp_path)
    yield made
    made.engine.stop()


def chats(*texts):
    return {
        f"job{n}-1": Request(model="m-1", messages=(Message("user", text),), max_output=50)
        for n, text in enumerate(texts)
    }


def paths(simulator):
    return [entry["path"] for entry in simulator.journal()]


def test_a_batch_from_its_making_to_its_results(lane, simulator, ticking):
    status = lane.create(chats("Cats sleep. ☕\u2028", "Dogs \r\n run.", "Birds fly."))
    assert (status.phase, status.results) == (BatchPhase.RUNNING, ())
    assert lane.poll(status.batch_id).phase is BatchPhase.RUNNING
    ticking["ms"] += 60_000
    ended = lane.poll(status.batch_id)
    assert (ended.phase, ended.done, ended.total) == (BatchPhase.ENDED, 3, 3)
    assert ended.created_at == ticking["ms"] - 60_000
    found, broken = lane.fetch(ended)
    assert broken == []
    assert sorted(found) == ["job0-1", "job1-1", "job2-1"]
    assert all(isinstance(outcome, Completion) and outcome.usage.output for outcome in found.values())
    assert "sleep" in found["job0-1"].text
    assert "fly" in found["job2-1"].text
    assert simulator.stats()["batches"] == 1
    assert simulator.stats()["batch_requests"] == 3


def test_what_is_kept_can_be_forgotten_and_twice(lane, simulator, ticking):
    order = lane.order(chats("Cats sleep."))
    status = lane.do(order)
    ticking["ms"] += 60_000
    ended = lane.poll(status.batch_id)
    kept = lane.format.kept(file_id=order.file_id, batch_id=ended.batch_id, results=ended.results)
    assert kept
    for ref in kept * 2:
        assert lane.do(DeleteFile(ref)) == FileDeleted()
    gone = lane.do(FetchResults(batch_id=ended.batch_id, ref=ended.results[0], path=str(lane.folder / "gone")))
    assert gone.kind is ErrorClass.NOT_FOUND
    assert not any(path.name.startswith("gone") for path in lane.folder.iterdir())


def test_a_batch_that_was_made_and_not_heard_of_is_found(lane, simulator, ticking):
    lane.create(chats("one", "two", "three"), tag="before")
    simulator.batches({"do": "fault", "on": "create", "kind": "cut", "times": 1})
    order = lane.order(chats("Cats sleep.", "Dogs run."))
    since = ticking["ms"]
    lost = lane.do(order)
    assert (lost.kind, lost.billed, lost.sent) == (ErrorClass.CONNECT, Billed.MAYBE, True)
    assert simulator.stats()["batches"] == 2
    found = lane.do(FindBatch(tag="b17", since=since, requests=2))
    assert isinstance(found, BatchFound)
    assert found.certain
    assert found.status.batch_id == simulator.batches()[1]["id"]
    ticking["ms"] += 60_000
    results, _ = lane.fetch(lane.poll(found.status.batch_id))
    assert len(results) == 2


def test_a_batch_that_is_not_there_is_not_found(lane, simulator, ticking):
    known = lane.create(chats("Cats sleep."), tag="another").batch_id
    found = lane.do(FindBatch(tag="b17", since=ticking["ms"], requests=1, known=(known,)))
    # Without a tag, "none" is never for certain.
    assert found == BatchFound(status=None, certain=lane.settings.wire != "anthropic-messages")


def test_a_batch_is_found_behind_many_pages(lane, simulator, ticking):
    lane.create(chats("Cats sleep.", "Dogs run."))
    since = ticking["ms"]
    for number in range(230):
        simulator._server._batches.add(
            dataclasses.replace(
                next(iter(simulator._server._batches.all.values())),
                id=f"{'batches/' if lane.settings.wire == 'gemini' else 'b-'}other{number}",
                tag="other",
                lines=[],
            )
        )
    found = lane.do(FindBatch(tag="b17", since=since, requests=2))
    assert found.certain
    assert found.status.batch_id == simulator.batches()[0]["id"]
    assert len(simulator.journal()) == (1 if not lane.format.uploads else 2) + 3


def test_lines_that_fail_do_not_take_the_others_along(lane, simulator, ticking):
    simulator.batches(
        {"do": "lines", "contains": "slow", "outcome": "error", "status": 429},
        {"do": "lines", "contains": "bad", "outcome": "error", "status": 400},
        {"do": "lines", "contains": "lost", "outcome": "drop"},
        {"do": "lines", "contains": "broken", "outcome": "break"},
    )
    status = lane.create(chats("Cats sleep.", "slow", "bad", "lost", "broken"))
    ticking["ms"] += 60_000
    found, broken = lane.fetch(lane.poll(status.batch_id))
    assert isinstance(found.pop("job0-1"), Completion)
    assert {key: error.kind for key, error in found.items() if key != "job4-1"} == {
        "job1-1": ErrorClass.RATE,
        "job2-1": ErrorClass.INVALID,
    }
    assert all(error.billed is Billed.NO for key, error in found.items() if key != "job4-1")
    # A line that is cut is an error of no request, but where the results are one JSON a response that is none.
    kinds = [error.kind for error in (*broken, *(found[key] for key in found if key == "job4-1"))]
    assert kinds == [ErrorClass.MALFORMED]


@pytest.mark.parametrize("how", ["expire", "cancel"])
def test_a_batch_that_ends_early_keeps_what_was_done(lane, simulator, ticking, how):
    status = lane.create(chats("Cats sleep.", "Dogs run.", "Birds fly."))
    simulator.batches({"do": how, "done": 1})
    ended = lane.poll(status.batch_id)
    assert ended.phase is BatchPhase.ENDED
    found, _ = lane.fetch(ended)
    if lane.settings.wire == "gemini" and how == "expire":
        assert (found, ended.results) == ({}, ())  # an expired batch has no results there
        return
    assert isinstance(found.pop("job0-1"), Completion)
    code = "batch_expired" if how == "expire" else "batch_cancelled"
    assert {(error.kind, error.code, error.sent, error.billed) for error in found.values()} == {
        (ErrorClass.CANCELLED, code, False, Billed.NO)
    }
    assert len(found) == 2


def test_cancelling(lane, simulator):
    status = lane.create(chats("Cats sleep."))
    assert isinstance(lane.do(CancelBatch(status.batch_id)), BatchStatus)
    assert lane.poll(status.batch_id).phase is BatchPhase.ENDED
    assert simulator.stats()["batch_requests"] == 0


def test_a_batch_that_was_refused_after_it_was_taken(lane, simulator):
    status = lane.create(chats("Cats sleep.", "Dogs run."))
    simulator.batches({"do": "fail", "message": "Line 2 is bad.", "code": "invalid_request", "line": 2})
    failed = lane.poll(status.batch_id)
    if lane.settings.wire == "anthropic-messages":
        assert failed.phase is BatchPhase.ENDED  # requests are refused one by one there
        return
    assert (failed.phase, failed.failure, failed.results) == (BatchPhase.FAILED, ErrorClass.INVALID, ())
    assert "Line 2 is bad." in failed.error
    assert failed.bad_lines == (() if lane.settings.wire == "gemini" else (2,))
    assert simulator.stats()["batch_requests"] == 0


FAULTS = [
    ({"kind": "status", "status": 503}, ErrorClass.OVERLOADED),
    ({"kind": "status", "status": 429}, ErrorClass.RATE),
    ({"kind": "status", "status": 401}, ErrorClass.AUTH),
    ({"kind": "html", "status": 502}, ErrorClass.SERVER),
    ({"kind": "redirect"}, ErrorClass.INVALID),
    ({"kind": "cut"}, ErrorClass.CONNECT),
    ({"kind": "half"}, ErrorClass.TRUNCATED),
]


@pytest.mark.parametrize("on", ["create", "poll", "find", "results", "cancel", "delete", "upload"])
def test_faults(tmp_path, simulator, ticking, on):
    """Every operation with every fault, at the one API that has them all; what the formats add to it is tested with their bytes."""
    lane = Lane(simulator.url, "openai-chat", tmp_path)
    try:
        order = lane.order(chats("Cats sleep."))
        ended = lane.do(order)
        ticking["ms"] += 60_000
        ended = lane.poll(ended.batch_id)
        for fault, kind in FAULTS:
            operation = {
                "create": order,
                "poll": PollBatch(ended.batch_id),
                "find": FindBatch(tag="b17", since=ticking["ms"], requests=1),
                "results": FetchResults(batch_id=ended.batch_id, ref=ended.results[0], path=str(tmp_path / "got")),
                "cancel": CancelBatch(lane.do(order).batch_id) if on == "cancel" else None,
                "delete": DeleteFile(lane.order(chats("Dogs run.")).file_id) if on == "delete" else None,
                "upload": UploadFile(path=str(tmp_path / "requests.jsonl"), tag="b17"),
            }[on]
            simulator.batches({"do": "fault", "on": on, "times": 1, **fault})
            before = len(simulator.journal())
            error = lane.do(operation)
            assert isinstance(error, CallError), fault
            assert error.kind is kind
            assert len(simulator.journal()) == before + 1  # nothing is tried twice down here
            unsure = on == "create" and fault["kind"] in ("cut", "half", "html")
            assert error.billed is (Billed.MAYBE if unsure else Billed.NO), fault
            assert not (tmp_path / "got").exists()
            assert not (tmp_path / "got.part").exists()
            again = lane.do(operation)
            if on == "cancel" and fault["kind"] in ("cut", "half"):
                assert again.kind is ErrorClass.CONFLICT  # it was done, and what is over cannot be cancelled
            else:
                assert not isinstance(again, CallError), fault
            (tmp_path / "got").unlink(missing_ok=True)
    finally:
        lane.engine.stop()


def test_embeddings_in_a_batch(tmp_path, simulator, ticking):
    lane = Lane(simulator.url, "openai-chat", tmp_path)
    try:
        requests = {f"job{n}-1": EmbeddingRequest(model="m-1", inputs=("cats", "dogs")) for n in range(2)}
        status = lane.create(requests)
        ticking["ms"] += 60_000
        found, broken = lane.fetch(lane.poll(status.batch_id))
        assert broken == []
        assert {key: (type(answer), len(answer.vectors)) for key, answer in found.items()} == {
            "job0-1": (Embeddings, 2),
            "job1-1": (Embeddings, 2),
        }
    finally:
        lane.engine.stop()


def test_a_file_of_requests_that_is_refused_names_the_line(tmp_path, simulator):
    lane = Lane(simulator.url, "openai-chat", tmp_path)
    try:
        path = lane.write({**chats("Cats sleep."), "other-1": Request(model="m-2", messages=(Message("user", "x"),))})
        with Path(path).open("ab") as file:
            file.write(b"{not json\n")
        uploaded = lane.do(UploadFile(path=path, tag="t"))
        order = CreateBatch(tag="t", model="m-1", endpoint="/v1/chat/completions", file_id=uploaded.file_id)
        failed = lane.poll(lane.do(order).batch_id)
        assert (failed.phase, failed.bad_lines) == (BatchPhase.FAILED, (2, 3))
    finally:
        lane.engine.stop()


def test_a_file_that_is_not_there(lane):
    path = str(lane.folder / "nowhere")
    operation = (
        UploadFile(path=path, tag="t")
        if lane.format.uploads
        else CreateBatch(tag="t", model="m-1", endpoint="batchGenerateContent", path=path)
    )
    error = lane.do(operation)
    assert (error.kind, error.code, error.sent, error.billed) == (ErrorClass.INVALID, "file", False, Billed.NO)
    assert os.strerror(2) in error.message
