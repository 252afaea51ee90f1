"""The batch formats as pure functions: the bytes of every operation, and what replies mean."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    FindBatch,
    PollBatch,
    Upload,
    UploadFile,
    batch_format_for,
)
from callboard.actors.providers.batch_lines import InlineReader, instant_ms, is_name
from callboard.actors.providers.keys import Secret
from callboard.actors.providers.model import (
    Billed,
    CallError,
    Completion,
    EmbeddingRequest,
    ErrorClass,
    Finish,
    Message,
    Request,
    Scope,
)
from callboard.actors.providers.settings import ProviderSettings

KEY = Secret("sk-test-0123456789")
OPENAI = ProviderSettings(
    name="o", wire="openai-chat", base_url="https://api.openai.com/v1", organization="org", project="p"
)
ANTHROPIC = ProviderSettings(name="a", wire="anthropic-messages", base_url="https://api.anthropic.com", workspace="w")
GEMINI = ProviderSettings(name="g", wire="gemini", base_url="https://generativelanguage.googleapis.com")
SETTINGS = {"openai-chat": OPENAI, "anthropic-messages": ANTHROPIC, "gemini": GEMINI}
REQUEST = Request(model="m", messages=(Message("user", "a\nb\u2028"),), max_output=5, stream=True)
FIND = FindBatch(tag="b17", since=1_790_000_000_000, requests=2)


def encode(wire, operation, **given):
    return batch_format_for(wire).encode(operation, key=KEY, settings=SETTINGS[wire], **given)


def decode(wire, operation, body, status=200, headers=None):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return batch_format_for(wire).decode(operation, status, headers or {}, raw, at_ms=0)


def results(wire, *lines):
    written = (line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines)
    return list(batch_format_for(wire).results(iter(written), at_ms=0))


def test_openais_bytes():
    line = batch_format_for("openai-chat").line(BatchLine(custom_id="job9-1", request=REQUEST), settings=OPENAI)
    body = '{"model":"m","messages":[{"role":"user","content":"a\\nb\u2028"}],"max_completion_tokens":5}'
    assert line.decode() == f'{{"custom_id":"job9-1","method":"POST","url":"/v1/chat/completions","body":{body}}}'
    upload = encode("openai-chat", UploadFile(path="/x/requests", tag="b17"))
    assert isinstance(upload, Upload)
    assert (upload.request.method, upload.request.path, upload.path, upload.array) == (
        "POST",
        "/files",
        "/x/requests",
        False,
    )
    headers = dict(upload.request.headers)
    assert headers["authorization"] == "Bearer sk-test-0123456789"
    assert (headers["openai-organization"], headers["openai-project"]) == ("org", "p")
    boundary = headers["content-type"].partition("boundary=")[2]
    assert (upload.head + b"FILE" + upload.tail).decode() == "\r\n".join(
        [
            f"--{boundary}",
            'content-disposition: form-data; name="purpose"',
            "",
            "batch",
            f"--{boundary}",
            'content-disposition: form-data; name="expires_after[anchor]"',
            "",
            "created_at",
            f"--{boundary}",
            'content-disposition: form-data; name="expires_after[seconds]"',
            "",
            "604800",
            f"--{boundary}",
            'content-disposition: form-data; name="file"; filename="b17.jsonl"',
            "content-type: application/jsonl",
            "",
            "FILE",
            f"--{boundary}--",
            "",
        ]
    )
    made = encode("openai-chat", CreateBatch(tag="b17", model="m", endpoint="/v1/embeddings", file_id="file-1"))
    assert (made.method, made.path) == ("POST", "/batches")
    assert made.body.decode() == (
        '{"input_file_id":"file-1","endpoint":"/v1/embeddings","completion_window":"24h","metadata":{"queue_batch":"b17"}}'
    )


def test_anthropics_bytes():
    line = batch_format_for("anthropic-messages").line(
        BatchLine(custom_id="job9-1", request=REQUEST), settings=ANTHROPIC
    )
    params = '{"model":"m","max_tokens":5,"messages":[{"role":"user","content":"a\\nb\u2028"}]}'
    assert line.decode() == f'{{"custom_id":"job9-1","params":{params}}}'
    made = encode("anthropic-messages", CreateBatch(tag="b17", model="m", endpoint="/v1/messages", path="/x"))
    assert (made.request.method, made.request.path, made.array) == ("POST", "/v1/messages/batches", True)
    assert (made.head, made.tail) == (b'{"requests":[', b"]}")
    headers = dict(made.request.headers)
    assert headers["x-api-key"] == "sk-test-0123456789"
    assert (headers["anthropic-version"], headers["anthropic-workspace-id"]) == ("2023-06-01", "w")


@pytest.mark.parametrize(
    ("wire", "operation", "line"),
    [
        ("openai-chat", FIND, "GET /batches?limit=100"),
        ("openai-chat", PollBatch("batch_1"), "GET /batches/batch_1"),
        ("openai-chat", CancelBatch("batch_1"), "POST /batches/batch_1/cancel"),
        ("openai-chat", FetchResults(batch_id="batch_1", ref="file-2", path="/x"), "GET /files/file-2/content"),
        ("openai-chat", DeleteFile("file-2"), "DELETE /files/file-2"),
        ("anthropic-messages", FIND, "GET /v1/messages/batches?limit=100"),
        ("anthropic-messages", PollBatch("msgbatch_1"), "GET /v1/messages/batches/msgbatch_1"),
        ("anthropic-messages", CancelBatch("msgbatch_1"), "POST /v1/messages/batches/msgbatch_1/cancel"),
        ("anthropic-messages", DeleteFile("msgbatch_1"), "DELETE /v1/messages/batches/msgbatch_1"),
        (
            "gemini",
            CreateBatch(tag="b", model="gemini-x", endpoint="batchGenerateContent", path="/x"),
            "POST /v1beta/models/gemini-x:batchGenerateContent",
        ),
        ("gemini", FIND, "GET /v1beta/batches?pageSize=100"),
        ("gemini", PollBatch("batches/1"), "GET /v1beta/batches/1"),
        ("gemini", CancelBatch("batches/1"), "POST /v1beta/batches/1:cancel"),
        ("gemini", DeleteFile("batches/1"), "DELETE /v1beta/batches/1"),
        ("gemini", DeleteFile("files/1"), "DELETE /v1beta/files/1"),
        ("gemini", FetchResults(batch_id="batches/1", ref="inline", path="/x"), "GET /v1beta/batches/1"),
        (
            "gemini",
            FetchResults(batch_id="batches/1", ref="files/2", path="/x"),
            "GET /download/v1beta/files/2:download?alt=media",
        ),
    ],
)
def test_the_request_of_every_operation(wire, operation, line):
    built = encode(wire, operation)
    built = built.request if isinstance(built, Upload) else built
    assert f"{built.method} {built.path}" == line
    assert built.body == b""
    assert sum("sk-test-0123456789" in value for _, value in built.headers) == 1
    assert "sk-test" not in repr(built)


@pytest.mark.parametrize("wire", sorted(SETTINGS))
@pytest.mark.parametrize(
    "name", ["../files", "a/b", "a?b", "a#b", "", ".", "..", "a b", "é", "batches/../x", "a%2fb", "a\r\nb"]
)
def test_no_name_from_a_server_leads_elsewhere(wire, name):
    """Ids come from replies: none of them may change which path, let alone which host, the key is sent to."""
    prefix = "batches/" if wire == "gemini" else ""
    for operation in (PollBatch(prefix + name), CancelBatch(prefix + name), DeleteFile(prefix + name)):
        error = encode(wire, operation)
        assert isinstance(error, CallError)
        assert not error.sent
    if wire != "anthropic-messages":
        assert isinstance(encode(wire, FetchResults(batch_id=prefix + name, ref=prefix + name, path="/x")), CallError)
    found = decode(
        wire, PollBatch("x"), {"id": name, "name": prefix + name, "processing_status": "ended", "status": "completed"}
    )
    assert isinstance(found, CallError)
    assert not is_name(name)


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/v1/messages/batches/b/results",
        "http://api.anthropic.com/v1/messages/batches/b/results",
        "https://api.anthropic.com:444/v1/messages/batches/b/results",
        "https://api.anthropic.com@evil.example/results",
        "https://evil.example\\@api.anthropic.com/results",
        "https://x@api.anthropic.com/v1/results",
        "//evil.example/results",
        "/v1/messages/batches/b/results",
        "https://[/",
        "https://api.anthropic.com/v1/ results",
        "file:///etc/passwd",
        "",
    ],
)
def test_results_elsewhere_are_not_fetched(url):
    error = encode("anthropic-messages", FetchResults(batch_id="b", ref=url, path="/x"))
    assert isinstance(error, CallError)
    assert (error.kind, error.sent, error.billed) == (ErrorClass.INVALID, False, Billed.NO)


def test_results_at_home_are_fetched():
    url = "https://API.anthropic.com:443/v1/messages/batches/b/results?page=2"
    assert (
        encode("anthropic-messages", FetchResults(batch_id="b", ref=url, path="/x")).path
        == "/v1/messages/batches/b/results?page=2"
    )
    below = ProviderSettings(name="a", wire="anthropic-messages", base_url="https://gate.example/anthropic/")
    fetch = FetchResults(batch_id="b", ref="https://gate.example/anthropic/v1/messages/batches/b/results", path="/x")
    built = batch_format_for("anthropic-messages").encode(fetch, key=KEY, settings=below)
    assert built.path == "/v1/messages/batches/b/results"
    outside = FetchResults(batch_id="b", ref="https://gate.example/other/v1/results", path="/x")
    assert isinstance(batch_format_for("anthropic-messages").encode(outside, key=KEY, settings=below), CallError)


@pytest.mark.parametrize(
    ("status", "files", "phase", "refs"),
    [
        ("validating", {}, BatchPhase.RUNNING, ()),
        ("in_progress", {}, BatchPhase.RUNNING, ()),
        ("finalizing", {"output_file_id": "f-1"}, BatchPhase.RUNNING, ()),
        ("cancelling", {}, BatchPhase.RUNNING, ()),
        ("something_new", {}, BatchPhase.RUNNING, ()),
        ("completed", {"output_file_id": "f-1", "error_file_id": None}, BatchPhase.ENDED, ("f-1",)),
        ("completed", {"output_file_id": None, "error_file_id": "f-2"}, BatchPhase.ENDED, ("f-2",)),
        ("expired", {"output_file_id": "f-1", "error_file_id": "f-2"}, BatchPhase.ENDED, ("f-1", "f-2")),
        ("cancelled", {}, BatchPhase.ENDED, ()),
        ("failed", {}, BatchPhase.FAILED, ()),
        ("failed", {"output_file_id": "f-1"}, BatchPhase.ENDED, ("f-1",)),
    ],
)
def test_openais_states(status, files, phase, refs):
    counts = {"total": 3, "completed": 1, "failed": 1}
    reply = {
        "id": "batch_1",
        "status": status,
        "created_at": 1_790_000_000,
        "request_counts": counts,
        "new": {"a": 1},
        **files,
    }
    found = decode("openai-chat", PollBatch("batch_1"), reply)
    assert (found.phase, found.results, found.done, found.total) == (phase, refs, 2, 3)
    assert found.created_at == 1_790_000_000_000


def test_why_openai_refused_a_batch():
    errors = [
        {"code": "invalid_json_line", "line": 7, "message": "bad", "param": None},
        {"code": "x", "line": 3, "message": "worse"},
    ]
    found = decode(
        "openai-chat", PollBatch("b"), {"id": "b", "status": "failed", "errors": {"object": "list", "data": errors}}
    )
    assert (found.error, found.failure, found.bad_lines) == ("bad; worse", ErrorClass.INVALID, (3, 7))
    full = [{"code": "token_limit_exceeded", "message": "Enqueued token limit reached for m in organization o."}]
    found = decode("openai-chat", PollBatch("b"), {"id": "b", "status": "failed", "errors": {"data": full}})
    assert (found.failure, found.bad_lines) == (ErrorClass.RATE, ())
    broke = [{"code": "billing_hard_limit_reached", "message": "Billing hard limit has been reached."}]
    found = decode("openai-chat", PollBatch("b"), {"id": "b", "status": "failed", "errors": {"data": broke}})
    assert found.failure is ErrorClass.QUOTA
    silent = decode("openai-chat", PollBatch("b"), {"id": "b", "status": "failed"})
    assert "did not say why" in silent.error


def test_too_many_enqueued_tokens_is_a_limit_and_no_fault_of_the_batch():
    said = {
        "error": {
            "message": "Enqueued token limit reached for m",
            "type": "invalid_request_error",
            "code": "token_limit_exceeded",
        }
    }
    create = CreateBatch(tag="b", model="m", endpoint="/v1/chat/completions", file_id="f")
    error = decode("openai-chat", create, said, status=400)
    assert (error.kind, error.scope, error.billed) == (ErrorClass.RATE, Scope.MODEL, Billed.NO)
    other = decode("openai-chat", create, {"error": {"message": "no such endpoint"}}, status=400)
    assert other.kind is ErrorClass.INVALID


@pytest.mark.parametrize(
    ("status", "phase"),
    [("in_progress", BatchPhase.RUNNING), ("canceling", BatchPhase.RUNNING), ("ended", BatchPhase.ENDED)],
)
def test_anthropics_states(status, phase):
    counts = {"processing": 1, "succeeded": 2, "errored": 3, "canceled": 4, "expired": 5}
    reply = {
        "id": "msgbatch_1",
        "processing_status": status,
        "request_counts": counts,
        "created_at": "2026-09-21T14:13:20.123456Z",
        "expires_at": "2026-09-22T14:13:20Z",
        "results_url": "https://api.anthropic.com/v1/messages/batches/msgbatch_1/results",
    }
    found = decode("anthropic-messages", PollBatch("msgbatch_1"), reply)
    assert (found.phase, found.done, found.total) == (phase, 14, 15)
    assert found.results == ((reply["results_url"],) if phase is BatchPhase.ENDED else ())
    assert (found.created_at, found.expires_at) == (1_790_000_000_123, 1_790_086_400_000)


@pytest.mark.parametrize("prefix", ["BATCH_STATE_", "JOB_STATE_"])
@pytest.mark.parametrize(
    ("state", "phase"),
    [
        ("QUEUED", BatchPhase.RUNNING),
        ("PENDING", BatchPhase.RUNNING),
        ("RUNNING", BatchPhase.RUNNING),
        ("UPDATING", BatchPhase.RUNNING),
        ("PAUSED", BatchPhase.RUNNING),
        ("CANCELLING", BatchPhase.RUNNING),
        ("SUCCEEDED", BatchPhase.ENDED),
        ("PARTIALLY_SUCCEEDED", BatchPhase.ENDED),
        ("CANCELLED", BatchPhase.ENDED),
        ("EXPIRED", BatchPhase.ENDED),
        ("FAILED", BatchPhase.FAILED),
    ],
)
def test_geminis_states(prefix, state, phase):
    stats = {"requestCount": "3", "successfulRequestCount": "1", "failedRequestCount": "1"}
    batch = {
        "name": "batches/1",
        "displayName": "b17",
        "state": prefix + state,
        "batchStats": stats,
        "createTime": "2026-09-21T14:13:20Z",
    }
    for reply in ({"name": "batches/1", "metadata": batch}, batch):
        found = decode("gemini", PollBatch("batches/1"), reply)
        assert (found.batch_id, found.phase, found.done, found.total) == ("batches/1", phase, 2, 3)
        assert found.created_at == 1_790_000_000_000
        assert (found.error is None) == (phase is not BatchPhase.FAILED)


def test_geminis_results_are_where_they_are():
    inline = {"inlinedResponses": {"inlinedResponses": []}}
    done = {"name": "batches/1", "done": True, "metadata": {"state": "BATCH_STATE_SUCCEEDED"}, "response": inline}
    assert decode("gemini", PollBatch("batches/1"), done).results == ("inline",)
    raw = {"name": "batches/1", "state": "JOB_STATE_SUCCEEDED", "output": {"responsesFile": "files/7"}}
    assert decode("gemini", PollBatch("batches/1"), raw).results == ("files/7",)
    failed = {
        "name": "batches/1",
        "done": True,
        "metadata": {"state": "BATCH_STATE_FAILED"},
        "error": {"code": 8, "message": "Quota"},
    }
    found = decode("gemini", PollBatch("batches/1"), failed)
    assert (found.phase, found.failure, found.error) == (BatchPhase.FAILED, ErrorClass.RATE, "Quota")
    assert decode("gemini", CancelBatch("batches/1"), {}) == BatchStatus(batch_id="batches/1", phase=BatchPhase.RUNNING)


def test_lines_of_openais_results():
    body = {
        "id": "c",
        "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"content": "4"}}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1},
    }
    ok, rate, late, gone, bad, odd, nobody = results(
        "openai-chat",
        {
            "id": "r",
            "custom_id": "a-1",
            "response": {"status_code": 200, "request_id": "req_1", "body": body, "new": 1},
            "error": None,
        },
        {
            "id": "r",
            "custom_id": "a-2",
            "response": {
                "status_code": 429,
                "request_id": "req_2",
                "body": {"error": {"message": "slow", "code": "rate_limit_exceeded"}},
            },
            "error": None,
        },
        {"id": "r", "custom_id": "a-3", "response": None, "error": {"code": "batch_expired", "message": "late"}},
        {"id": "r", "custom_id": "a-4", "response": None, "error": {"code": "batch_cancelled", "message": "gone"}},
        b'{"custom_id": "a-5", "resp',
        {"id": "r", "custom_id": "a-6"},
        {"id": "r", "custom_id": "../7", "response": None, "error": {"code": "x", "message": "y"}},
    )
    assert isinstance(ok, BatchResult)
    assert (ok.custom_id, ok.outcome.text, ok.outcome.finish, ok.outcome.request_id) == (
        "a-1",
        "4",
        Finish.STOP,
        "req_1",
    )
    assert (ok.outcome.usage.input, ok.outcome.usage.output) == (3, 1)
    assert (rate.outcome.kind, rate.outcome.http, rate.outcome.request_id) == (ErrorClass.RATE, 429, "req_2")
    for line, code in ((late, "batch_expired"), (gone, "batch_cancelled")):
        assert (line.outcome.kind, line.outcome.code, line.outcome.sent) == (ErrorClass.CANCELLED, code, False)
    assert (bad.kind, odd.outcome.kind, nobody.kind) == (ErrorClass.MALFORMED,) * 3
    assert "line 5" in bad.message


def test_lines_of_anthropics_results():
    message = {
        "id": "msg",
        "model": "m",
        "content": [{"type": "text", "text": "4"}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 3, "output_tokens": 1},
    }
    overloaded = {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}
    invalid = {"type": "error", "error": {"type": "invalid_request_error", "message": "bad"}}
    ok, busy, bad, late, gone, odd = results(
        "anthropic-messages",
        {"custom_id": "a-1", "result": {"type": "succeeded", "message": message}},
        {"custom_id": "a-2", "result": {"type": "errored", "error": overloaded}},
        {"custom_id": "a-3", "result": {"type": "errored", "error": invalid}},
        {"custom_id": "a-4", "result": {"type": "expired"}},
        {"custom_id": "a-5", "result": {"type": "canceled"}},
        {"custom_id": "a-6", "result": {"type": "new"}},
    )
    assert (ok.outcome.text, ok.outcome.usage.total) == ("4", 4)
    assert (busy.outcome.kind, busy.outcome.billed) == (ErrorClass.OVERLOADED, Billed.NO)
    assert (bad.outcome.kind, bad.outcome.billed) == (ErrorClass.INVALID, Billed.NO)
    assert (late.outcome.code, gone.outcome.code) == ("batch_expired", "batch_cancelled")
    assert odd.outcome.kind is ErrorClass.MALFORMED


def test_lines_of_geminis_results():
    response = {
        "candidates": [{"content": {"role": "model", "parts": [{"text": "4"}]}, "finishReason": "STOP"}],
        "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 1},
    }
    inline, file, rate, gone, odd, nobody = results(
        "gemini",
        {"response": response, "metadata": {"key": "a-1"}},
        {"key": "a-2", "response": response},
        {"error": {"code": 8, "message": "slow", "status": "RESOURCE_EXHAUSTED"}, "metadata": {"key": "a-3"}},
        {"error": {"code": 1, "message": "gone"}, "metadata": {"key": "a-4"}},
        {"metadata": {"key": "a-5"}},
        {"response": response},
    )
    for line, key in ((inline, "a-1"), (file, "a-2")):
        assert isinstance(line.outcome, Completion)
        assert (line.custom_id, line.outcome.text, line.outcome.usage.total) == (key, "4", 4)
    assert (rate.outcome.kind, rate.outcome.billed) == (ErrorClass.RATE, Billed.NO)
    assert (gone.outcome.kind, gone.outcome.sent) == (ErrorClass.CANCELLED, False)
    assert (odd.outcome.kind, nobody.kind) == (ErrorClass.MALFORMED, ErrorClass.MALFORMED)


def test_empty_lines_are_nothing_and_other_json_is_an_error():
    assert results("openai-chat", b"", b"  \r\n") == []
    assert [one.kind for one in results("openai-chat", b"[]", b"null", b"\xff")] == [ErrorClass.MALFORMED] * 3


@pytest.mark.parametrize("wire", sorted(SETTINGS))
def test_custom_ids_that_not_every_provider_takes_are_not_sent(wire):
    batches = batch_format_for(wire)
    for custom_id in ("", "a.b", "a:b", "a b", "x" * 65, "é"):
        error = batches.line(BatchLine(custom_id=custom_id, request=REQUEST), settings=SETTINGS[wire])
        assert error.kind is ErrorClass.INVALID
    if batches.endpoint(EmbeddingRequest(model="m", inputs=("x",))) is None:
        line = BatchLine(custom_id="a", request=EmbeddingRequest(model="m", inputs=("x",)))
        assert batches.line(line, settings=SETTINGS[wire]).kind is ErrorClass.INVALID


def page(wire, batches, **more):
    name = "operations" if wire == "gemini" else "data"
    return json.dumps({name: batches, **more}).encode()


def test_looking_for_a_tag_at_openai():
    batches = batch_format_for("openai-chat")
    mine = {"id": "b-1", "status": "failed", "created_at": 1_790_000_100, "metadata": {"queue_batch": "b17"}}
    again = {**mine, "id": "b-2", "status": "in_progress"}
    other = {"id": "b-3", "status": "completed", "created_at": 1_790_000_050, "metadata": None}
    old = {**other, "id": "b-4", "created_at": 1_780_000_000}
    first = page("openai-chat", [other], has_more=True)
    assert batches.more(FIND, first) == "b-3"
    assert encode("openai-chat", FIND, cursor="b-3").path == "/batches?limit=100&after=b-3"
    assert batches.more(FIND, page("openai-chat", [other, old], has_more=True)) is None
    assert batches.more(FIND, page("openai-chat", [mine], has_more=True)) is None
    assert batches.more(FIND, page("openai-chat", [other], has_more=False)) is None
    assert batches.found(FIND, [first, page("openai-chat", [mine, again])], complete=True).status.batch_id == "b-2"
    assert batches.found(FIND, [first], complete=True) == BatchFound(status=None, certain=True)
    assert batches.found(FIND, [first], complete=False) == BatchFound(status=None, certain=False)
    assert isinstance(batches.found(FIND, [b"<html>"], complete=True), CallError)


def test_looking_for_a_batch_at_anthropic():
    batches = batch_format_for("anthropic-messages")

    def batch(name, total, created="2026-09-21T14:13:30Z"):
        return {
            "id": name,
            "processing_status": "in_progress",
            "created_at": created,
            "request_counts": {"processing": total},
        }

    def look(*listed, complete=True):
        return batches.found(FIND, [page("anthropic-messages", [one]) for one in listed], complete=complete)

    assert look(batch("a", 2), batch("b", 3)).status.batch_id == "a"
    assert look(batch("a", 2)).certain
    assert not look(batch("a", 2), complete=False).certain
    assert look(batch("a", 2), batch("b", 2)) == BatchFound(status=None, certain=False)
    assert look(batch("a", 3)) == BatchFound(status=None, certain=False)
    assert look(batch("a", 2, "2026-09-21T14:11:19Z")).status is None  # two minutes before, and a second
    assert look(batch("a", 2, "2026-09-21T14:11:21Z")).status is not None
    known = FindBatch(tag="t", since=FIND.since, requests=2, known=("a",))
    two = page("anthropic-messages", [batch("a", 2), batch("b", 2)])
    assert batches.found(known, [two], complete=True).status.batch_id == "b"


def test_looking_for_a_tag_at_gemini():
    batches = batch_format_for("gemini")
    mine = {"name": "batches/1", "metadata": {"displayName": "b17", "state": "BATCH_STATE_RUNNING"}}
    other = {"name": "batches/2", "metadata": {"displayName": "b18", "state": "BATCH_STATE_RUNNING"}}
    assert batches.more(FIND, page("gemini", [other], nextPageToken="t/1")) == "t/1"
    assert encode("gemini", FIND, cursor="t/1").path == "/v1beta/batches?pageSize=100&pageToken=t%2F1"
    assert batches.more(FIND, page("gemini", [mine], nextPageToken="t")) is None
    assert batches.found(FIND, [page("gemini", [other, mine])], complete=True).status.batch_id == "batches/1"
    assert batches.found(FIND, [b"{}"], complete=True) == BatchFound(status=None, certain=True)


@pytest.mark.parametrize("wire", sorted(SETTINGS))
def test_a_file_that_is_gone_is_deleted(wire):
    name = "batches/1" if wire == "gemini" else "f-1"
    assert decode(wire, DeleteFile(name), {"error": {"message": "no"}}, status=404) == FileDeleted()
    assert decode(wire, DeleteFile(name), {}) == FileDeleted()
    assert isinstance(decode(wire, DeleteFile(name), {}, status=500), CallError)


@pytest.mark.parametrize("wire", sorted(SETTINGS))
@pytest.mark.parametrize("body", [b"", b"<html>hi</html>", b"[]", b"{}", b'{"id":7}', b"\xff"])
def test_a_reply_that_is_no_batch(wire, body):
    error = decode(wire, PollBatch("x"), body)
    assert error.kind is ErrorClass.MALFORMED


MEMBER = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=8)
    | st.sampled_from(['"', "\\", "inlinedResponses", "]},[{"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(
    members=st.lists(st.dictionaries(st.text(max_size=4), MEMBER, max_size=3), max_size=4),
    indent=st.sampled_from([None, 2]),
    size=st.integers(1, 30),
)
def test_results_are_taken_out_of_a_reply_at_any_boundary(members, indent, size):
    output = {"inlinedResponses": {"inlinedResponses": members}}
    reply = {"name": "inlinedResponses", "metadata": {"output": output, "n": 1.5}, "done": True, "response": output}
    raw = json.dumps(reply, indent=indent, ensure_ascii=False).encode()
    reader = InlineReader("inlinedResponses")
    lines = [line for start in range(0, len(raw), size) for line in reader.feed(raw[start : start + size])]
    assert [json.loads(line) for line in lines] == members
    assert not any(b"\n" in line for line in lines)
    empty = {"inlinedResponses": {"inlinedResponses": []}}
    assert json.loads(reader.rest()) == {**reply, "metadata": {"output": empty, "n": 1.5}, "response": empty}


def test_a_reply_that_broke_off_leaves_no_json():
    raw = json.dumps({"response": {"inlinedResponses": {"inlinedResponses": [{"a": 1}, {"b": 2}]}}}).encode()
    for cut in range(len(raw)):
        reader = InlineReader("inlinedResponses")
        reader.feed(raw[:cut])
        with pytest.raises(ValueError):
            json.loads(reader.rest())


def test_a_reply_is_not_kept_in_memory():
    reader = InlineReader("inlinedResponses")
    reader.feed(b'{"inlinedResponses":[')
    for _ in range(1000):
        assert len(reader.feed(b'{"text":"' + b"x" * 1000 + b'"},')) == 1
        assert reader.held < 100
    reader.feed(b'{"text":"' + b"x" * 5000)
    assert reader.held > 5000


def test_instants():
    assert instant_ms("2026-09-21T14:13:20Z") == instant_ms(1_790_000_000) == 1_790_000_000_000
    assert instant_ms("2026-09-21T16:13:20.5+02:00") == 1_790_000_000_500
    assert instant_ms("2026-09-21T14:13:20.123456789Z") == 1_790_000_000_123
    assert [instant_ms(odd) for odd in (None, "", "soon", True, -1, 1e300, [])] == [None] * 7
