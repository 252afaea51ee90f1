"""The engine's side of a batch API, against a server whose every byte the test decides."""

import asyncio
import json
import logging
import os
import stat
import threading
import tracemalloc

import pytest

from callboard.actors.kernel.actor import Actor
from callboard.actors.kernel.system import ActorSystem
from callboard.actors.messages import CallFailed, CallRef, ExchangeFinished, KeyRefused, StartExchange, limiter_name
from callboard.actors.providers import exchange as exchange_module
from callboard.actors.providers.actor import ProviderActor
from callboard.actors.providers.batch_api import (
    BatchStatus,
    CreateBatch,
    DeleteFile,
    FetchResults,
    FileDeleted,
    FileUploaded,
    FindBatch,
    PollBatch,
    ResultsFetched,
    UploadFile,
)
from callboard.actors.providers.engine import CallEngine, Failed
from callboard.actors.providers.model import Billed, ErrorClass, Scope, Timeouts
from callboard.actors.providers.settings import ProviderSettings

WAIT = 20.0
LINE = b'{"custom_id":"a-1","response":{"status_code":200,"body":{}}}\n'


def body(value):
    return json.dumps(value).encode()


@pytest.fixture
def do():
    def perform(engine, operation, timeouts=None):
        told, ended = [], threading.Event()

        def hear(event):
            told.append(event)
            ended.set()

        engine.exchange(object(), operation, hear, timeouts)
        assert ended.wait(WAIT)
        (event,) = told
        return event.error if isinstance(event, Failed) else event.report

    return perform


@pytest.fixture
def fetch(serve, start_engine, do, tmp_path):
    """Fetch results from a server that answers with these bytes."""

    def from_bytes(answer, wire="openai-chat", ref="f-1", **more):
        engine = start_engine(serve(answer).url, wire=wire)
        return do(engine, FetchResults(batch_id="batches/1", ref=ref, path=str(tmp_path / "results"), **more))

    return from_bytes


@pytest.fixture
def listen(serve):
    """Let a handler of whole connections listen, where a server of whole requests would hold too much; returns its URL."""
    server, listening = serve(hold), []

    def start(handler):
        making = asyncio.start_server(handler, "127.0.0.1", 0)
        listening.append(asyncio.run_coroutine_threadsafe(making, server.loop).result(WAIT))
        return f"http://127.0.0.1:{listening[-1].sockets[0].getsockname()[1]}"

    yield start
    for one in listening:
        server.loop.call_soon_threadsafe(one.close)


def nothing_is_left(folder):
    assert [path.name for path in folder.iterdir() if path.name.startswith("results")] == []


def closing(data):
    """An answer whose end is the connection's."""

    async def answer(exchange):
        await exchange.send(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n" + data)
        exchange.writer.close()

    return answer


@pytest.mark.parametrize("ending", [b"", b"\n"])
def test_a_file_of_requests_is_sent_as_it_is(serve, start_engine, do, tmp_path, ending):
    path = tmp_path / "requests"
    path.write_bytes(LINE * 9000 + LINE.strip() + ending)  # more than two pieces

    async def answer(exchange):
        await exchange.reply(body({"id": "file-1"}))

    server = serve(answer)
    engine = start_engine(server.url)
    assert do(engine, UploadFile(path=str(path), tag="b17")) == FileUploaded("file-1")
    assert server.seen[0].line == "POST /files HTTP/1.1"
    assert "transfer-encoding" not in {name.lower() for name in server.seen[0].headers}
    boundary = server.seen[0].headers["content-type"].partition("boundary=")[2].encode()
    parts = server.seen[0].body.split(b"--" + boundary)
    assert parts[4].partition(b"\r\n\r\n")[2] == path.read_bytes() + b"\r\n"


@pytest.mark.parametrize("ending", [b"", b"\n"])
@pytest.mark.parametrize("count", [1, 2, 9000])
@pytest.mark.parametrize("wire", ["anthropic-messages", "gemini"])
def test_lines_become_the_members_of_an_array(serve, start_engine, do, tmp_path, wire, count, ending):
    path = tmp_path / "requests"
    path.write_bytes(b"\n".join([LINE.strip()] * count) + ending)

    async def answer(exchange):
        await exchange.reply(body({"id": "msgbatch_1", "name": "batches/1", "processing_status": "in_progress"}))

    server = serve(answer)
    create = CreateBatch(tag="b17", model="m", endpoint="batchGenerateContent", path=str(path))
    assert isinstance(do(start_engine(server.url, wire=wire), create), BatchStatus)
    sent = json.loads(server.seen[0].body)
    if wire == "gemini":
        assert sent["batch"]["displayName"] == "b17"
        sent = sent["batch"]["inputConfig"]["requests"]
    assert sent["requests"] == [json.loads(LINE)] * count


def test_a_piece_may_end_between_two_lines(serve, start_engine, do, tmp_path, monkeypatch):
    path = tmp_path / "requests"
    path.write_bytes(b'{"a":1}\n{"a":2}\n{"a":3}\n')

    async def answer(exchange):
        await exchange.reply(body({"id": "msgbatch_1"}))

    server = serve(answer)
    engine = start_engine(server.url, wire="anthropic-messages")
    for size in range(1, 10):
        monkeypatch.setattr(exchange_module, "PIECE", size)
        do(engine, CreateBatch(tag="t", model="m", endpoint="", path=str(path)))
        assert json.loads(server.seen[-1].body)["requests"] == [{"a": 1}, {"a": 2}, {"a": 3}]


def test_a_batch_is_not_held_in_memory(listen, start_engine, do, tmp_path):
    size = 40_000_000
    path = tmp_path / "requests"
    path.write_bytes((LINE * (size // len(LINE) + 1))[:size])
    sizes = []

    async def swallow(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        left = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        while left:
            left -= len(await reader.read(min(left, 65536)))
        sizes.append(left)
        reply = body({"id": "file-1"})
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(reply), reply))
        writer.close()
        await writer.wait_closed()

    engine = start_engine(listen(swallow))
    do(engine, PollBatch("../warm"))  # loads what is loaded once
    tracemalloc.start()
    try:
        assert do(engine, UploadFile(path=str(path), tag="t")) == FileUploaded("file-1")
        assert tracemalloc.get_traced_memory()[1] < 6_000_000
    finally:
        tracemalloc.stop()
    assert sizes == [0]


def test_more_than_the_api_takes_is_not_sent(serve, start_engine, do, tmp_path):
    async def answer(exchange):
        await exchange.reply(b"{}")

    server = serve(answer)
    path = tmp_path / "requests"
    with path.open("wb") as file:
        file.truncate(19_000_001)  # a hole: no disk is used
    create = CreateBatch(tag="t", model="m", endpoint="batchGenerateContent", path=str(path))
    error = do(start_engine(server.url, wire="gemini"), create)
    assert (error.kind, error.sent) == (ErrorClass.INVALID, False)
    assert server.connections == 0


def test_results_are_written_and_kept_from_others(fetch, tmp_path):
    async def answer(exchange):
        await exchange.reply(LINE * 9000)

    old = os.umask(0)
    try:
        (tmp_path / "results").write_bytes(b"of an earlier try, and longer than this one" * 100_000)
        (tmp_path / "results.part").write_bytes(b"of a try that was killed")
        assert fetch(answer) == ResultsFetched(len(LINE) * 9000)
    finally:
        os.umask(old)
    assert (tmp_path / "results").read_bytes() == LINE * 9000
    assert stat.S_IMODE((tmp_path / "results").stat().st_mode) == 0o600
    assert not (tmp_path / "results.part").exists()


@pytest.mark.parametrize("data", [b"", b"\n", LINE, LINE.strip(), LINE + LINE.strip(), b"\xef\xbb\xbf" + LINE])
def test_results_without_a_length_are_whole_if_their_last_line_is(fetch, tmp_path, data):
    assert fetch(closing(data)) == ResultsFetched(len(data))
    assert (tmp_path / "results").read_bytes() == data


async def short(exchange):
    await exchange.send(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n" + LINE)
    exchange.writer.close()


async def unended(exchange):
    await exchange.open_stream(LINE)
    exchange.writer.close()


async def reset(exchange):
    await exchange.open_stream(LINE)
    exchange.writer.transport.abort()


@pytest.mark.parametrize(
    "answer", [short, unended, reset, closing(LINE[:-3]), closing(LINE * 9000 + LINE[:20]), closing(b'{"a')]
)
def test_results_that_broke_off_are_noticed(fetch, tmp_path, answer):
    error = fetch(answer)
    assert (error.kind, error.billed) == (ErrorClass.TRUNCATED, Billed.NO), error
    nothing_is_left(tmp_path)


@pytest.mark.parametrize("data", [b"<html>Log in to the hotel's network</html>", b"OK\n", b"[" + LINE.strip() + b"]\n"])
def test_results_that_are_none(fetch, tmp_path, data):
    assert fetch(closing(data)).kind is ErrorClass.MALFORMED
    nothing_is_left(tmp_path)


def test_results_over_the_cap(fetch, tmp_path):
    async def for_ever(exchange):
        await exchange.open_stream()
        while True:
            await exchange.chunk(LINE * 1000)

    error = fetch(for_ever, max_bytes=1_000_000)
    assert error.kind is ErrorClass.MALFORMED
    assert "over 1000000 bytes" in error.message
    nothing_is_left(tmp_path)


def test_a_line_over_the_cap(fetch, tmp_path, monkeypatch):
    monkeypatch.setattr(exchange_module, "MAX_LINE_BYTES", 1_000_000)

    async def for_ever(exchange):
        await exchange.open_stream(b'{"a":"')
        while True:
            await exchange.chunk(b"x" * 65536)

    assert fetch(for_ever).kind is ErrorClass.MALFORMED
    nothing_is_left(tmp_path)


def operation_with(responses):
    output = {"inlinedResponses": {"inlinedResponses": responses}}
    return {
        "name": "batches/1",
        "done": True,
        "metadata": {"state": "BATCH_STATE_SUCCEEDED", "output": output},
        "response": output,
    }


def test_inline_results_become_lines_once(fetch, tmp_path):
    responses = [{"response": {"text": "a\nb" * 5000}, "metadata": {"key": f"a-{n}"}} for n in range(100)]
    raw = json.dumps(operation_with(responses), indent=2).encode()

    async def answer(exchange):
        await exchange.reply(raw)

    fetched = fetch(answer, wire="gemini", ref="inline")
    assert fetched.size == (tmp_path / "results").stat().st_size
    lines = (tmp_path / "results").read_bytes().splitlines()
    assert [json.loads(line) for line in lines] == responses


def test_inline_results_that_broke_off_are_noticed(fetch, tmp_path):
    raw = body(operation_with([{"response": {}, "metadata": {"key": "a-1"}}]))
    error = fetch(closing(raw[:-1]), wire="gemini", ref="inline")
    assert error.kind is ErrorClass.TRUNCATED
    nothing_is_left(tmp_path)


def test_a_poll_does_not_keep_the_results_that_come_with_it(serve, start_engine, do, monkeypatch):
    monkeypatch.setattr(exchange_module, "MAX_BODY_BYTES", 50_000)  # a hundredth of the reply
    raw = body(
        operation_with([{"response": {"text": "x" * 20_000}, "metadata": {"key": f"a-{n}"}} for n in range(250)])
    )

    async def answer(exchange):
        await exchange.reply(raw)

    found = do(start_engine(serve(answer).url, wire="gemini"), PollBatch("batches/1"))
    assert isinstance(found, BatchStatus)
    assert found.results == ("inline",)


def test_a_reply_over_the_cap(serve, start_engine, do, monkeypatch):
    monkeypatch.setattr(exchange_module, "MAX_BODY_BYTES", 100_000)

    async def for_ever(exchange):
        await exchange.open_stream(b'{"id":"')
        while True:
            await exchange.chunk(b"x" * 65536)

    assert do(start_engine(serve(for_ever).url), PollBatch("b-1")).kind is ErrorClass.MALFORMED


def test_results_at_another_host_are_refused_before_anything_is_sent(serve, start_engine, do, tmp_path):
    async def answer(exchange):
        await exchange.reply(LINE)

    home, elsewhere = serve(answer), serve(answer)
    fetch = FetchResults(
        batch_id="b", ref=f"{elsewhere.url}/v1/messages/batches/b/results", path=str(tmp_path / "results")
    )
    error = do(start_engine(home.url, wire="anthropic-messages"), fetch)
    assert (error.kind, error.scope, error.sent) == (ErrorClass.INVALID, Scope.PROVIDER, False)
    assert (home.connections, elsewhere.connections) == (0, 0)
    nothing_is_left(tmp_path)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("wire", ["openai-chat", "anthropic-messages", "gemini"])
def test_redirects_are_refused_and_the_key_goes_nowhere_else(serve, start_engine, do, tmp_path, wire, status):
    async def ok(exchange):
        await exchange.reply(LINE)

    elsewhere = serve(ok)

    async def redirect(exchange):
        await exchange.reply(b"", status=f"{status} Moved", headers=[f"location: {elsewhere.url}/x"])

    server = serve(redirect)
    engine = start_engine(server.url, wire=wire)
    (tmp_path / "requests").write_bytes(LINE)
    ref = (
        f"{server.url}/v1/messages/batches/b/results"
        if wire == "anthropic-messages"
        else "f-1"
        if wire == "openai-chat"
        else "inline"
    )
    for operation in (
        PollBatch("batches/1" if wire == "gemini" else "b-1"),
        FetchResults(batch_id="batches/1", ref=ref, path=str(tmp_path / "results")),
        CreateBatch(tag="t", model="m", endpoint="batchGenerateContent", file_id="f", path=str(tmp_path / "requests")),
    ):
        error = do(engine, operation)
        assert (error.kind, error.http, error.billed) == (ErrorClass.INVALID, status, Billed.NO)
    assert elsewhere.connections == 0
    nothing_is_left(tmp_path)


def test_a_refusal_that_comes_before_the_upload_is_over(listen, start_engine, do, tmp_path):
    path = tmp_path / "requests"
    with path.open("wb") as file:
        file.truncate(30_000_000)

    async def refuse(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        said = body({"error": {"message": "Incorrect API key provided", "code": "invalid_api_key"}})
        writer.write(
            b"HTTP/1.1 401 Unauthorized\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(said), said)
        )
        await writer.drain()
        while await reader.read(1_000_000):
            pass
        writer.close()
        await writer.wait_closed()

    error = do(start_engine(listen(refuse)), UploadFile(path=str(path), tag="t"))
    assert (error.kind, error.http, error.scope) == (ErrorClass.AUTH, 401, Scope.CREDENTIAL)


async def hold(exchange):
    await exchange.gone()


@pytest.mark.parametrize(
    ("timeouts", "code"),
    [
        (Timeouts(first_token=0.05, no_progress=None, total=None), "first_token"),
        (Timeouts(first_token=None, no_progress=None, total=0.05), "total"),
    ],
)
def test_deadlines(serve, start_engine, do, timeouts, code):
    error = do(start_engine(serve(hold).url), PollBatch("b-1"), timeouts)
    assert (error.kind, error.code, error.billed) == (ErrorClass.TIMEOUT, code, Billed.NO)


def test_a_download_that_stands_still(serve, start_engine, do, tmp_path):
    async def stall(exchange):
        await exchange.open_stream(LINE)
        await exchange.gone()

    operation = FetchResults(batch_id="b", ref="f-1", path=str(tmp_path / "results"))
    error = do(start_engine(serve(stall).url), operation, Timeouts(first_token=None, no_progress=0.05, total=None))
    assert (error.kind, error.code) == (ErrorClass.TIMEOUT, "no_progress")
    nothing_is_left(tmp_path)


def test_a_creation_that_was_cut_off_may_have_been_done(serve, start_engine, do, tmp_path):
    (tmp_path / "requests").write_bytes(LINE)
    engine = start_engine(serve(hold).url, wire="anthropic-messages")
    create = CreateBatch(tag="t", model="m", endpoint="", path=str(tmp_path / "requests"))
    error = do(engine, create, Timeouts(total=0.05))
    assert (error.kind, error.billed, error.sent) == (ErrorClass.TIMEOUT, Billed.MAYBE, True)


def test_an_abort(serve, start_engine, tmp_path):
    server = serve(hold)
    engine = start_engine(server.url)
    told, ended = [], threading.Event()
    engine.exchange("k", PollBatch("b-1"), lambda event: (told.append(event), ended.set()))
    assert server.arrived.acquire(timeout=WAIT)
    engine.abort("k")
    assert ended.wait(WAIT)
    assert told[0].error.kind is ErrorClass.CANCELLED
    assert server.disconnected.wait(WAIT)


def test_the_end_of_the_engine_ends_operations(serve, start_engine):
    server = serve(hold)
    engine = start_engine(server.url)
    told = []
    engine.exchange("k", PollBatch("b-1"), told.append)
    assert server.arrived.acquire(timeout=WAIT)
    engine.stop()
    engine.exchange("k", PollBatch("b-1"), told.append)
    assert [event.error.kind for event in told] == [ErrorClass.CANCELLED] * 2
    assert told[1].error.sent is False


@pytest.mark.parametrize("secret", ["sk-test-0123456789abcdef", "opensesame"])
def test_a_key_that_a_reply_echoes_is_scrubbed(serve, start_engine, do, secret):
    """Also one that does not look like a key."""

    async def echo(exchange):
        said = body({"error": {"message": f"what is {secret} doing here", "code": secret}})
        await exchange.reply(said, status="400 Bad Request")

    error = do(start_engine(serve(echo).url, environ={"TEST_KEY": secret}), PollBatch("b-1"))
    assert secret not in repr(error)
    assert error.message.startswith("provider 'test': ")


def test_no_key(serve, start_engine, do):
    server = serve(hold)
    error = do(start_engine(server.url, environ={}), PollBatch("b-1"))
    assert (error.kind, error.scope, error.sent) == (ErrorClass.AUTH, Scope.CREDENTIAL, False)
    assert server.connections == 0


def test_a_provider_without_a_batch_api(serve, start_engine, do):
    error = do(start_engine(serve(hold).url, wire="ollama", allow_private=True), PollBatch("b-1"))
    assert (error.kind, error.sent) == (ErrorClass.INVALID, False)
    assert "no batch API" in error.message


def test_pages_end(serve, start_engine, do):
    async def for_ever(exchange):
        one = {"id": "b-1", "status": "completed", "created_at": 1_790_000_000}
        await exchange.reply(body({"object": "list", "data": [one], "has_more": True}))

    server = serve(for_ever)
    found = do(start_engine(server.url), FindBatch(tag="t", since=1_790_000_000_000, requests=1))
    assert (found.status, found.certain) == (None, False)
    assert len(server.seen) == exchange_module.MAX_PAGES


def test_a_page_that_fails(serve, start_engine, do):
    async def answer(exchange):
        if "after" in exchange.line:
            await exchange.reply(b"<h1>Bad gateway</h1>", status="502 Bad Gateway")
        else:
            one = {"id": "b-1", "status": "completed", "created_at": 1_790_000_000}
            await exchange.reply(body({"object": "list", "data": [one], "has_more": True}))

    error = do(start_engine(serve(answer).url), FindBatch(tag="t", since=1_790_000_000_000, requests=1))
    assert (error.kind, error.http, error.billed) == (ErrorClass.SERVER, 502, Billed.NO)


def test_a_bug_ends_the_operation_and_names_no_key(serve, start_engine, do, caplog, monkeypatch, key):
    async def answer(exchange):
        await exchange.reply(b"{}")

    def break_down(*args, **named):
        raise ZeroDivisionError(key)

    monkeypatch.setattr("callboard.actors.providers.openai_batches.OpenAIBatches.decode", break_down)
    with caplog.at_level(logging.ERROR):
        error = do(start_engine(serve(answer).url), PollBatch("b-1"))
    assert error.code == "internal"
    assert "this is a bug" in caplog.text
    assert key not in caplog.text


class Heard(Actor):
    """Keeps what it is told, under a name."""

    def __init__(self, system, told, ended):
        super().__init__(system)
        self._told, self._ended = told, ended

    def receive(self, message):
        self._told.append(message)
        self._ended.release()


def test_the_providers_actor(serve, key):
    async def answer(exchange):
        if exchange.line.startswith("DELETE"):
            await exchange.reply(b"{}")
        else:
            await exchange.reply(
                body({"error": {"message": "bad key", "code": "invalid_api_key"}}), status="401 Unauthorized"
            )

    server = serve(answer)
    settings = ProviderSettings(name="test", wire="openai-chat", base_url=server.url, key_env="TEST_KEY")
    system = ActorSystem()
    told, limits, ended = [], [], threading.Semaphore(0)
    try:
        system.start_actor("runner", lambda: Heard(system, told, ended))
        system.start_actor(limiter_name("test"), lambda: Heard(system, limits, ended))
        system.start_actor(
            "provider",
            lambda: ProviderActor(
                system, provider="test", make_engine=lambda: CallEngine(settings, environ={"TEST_KEY": key})
            ),
        )
        ref = CallRef(1, 2, 3)
        system.tell("provider", StartExchange(reply_to="runner", call=ref, operation=DeleteFile("f-1")))
        assert ended.acquire(timeout=WAIT)
        assert told == [ExchangeFinished(ref, FileDeleted())]
        system.tell("provider", StartExchange(reply_to="runner", call=CallRef(1, 2, 4), operation=PollBatch("b-1")))
        assert ended.acquire(timeout=WAIT)
        assert ended.acquire(timeout=WAIT)
        (refused,), failed = limits, told[1]
        assert isinstance(refused, KeyRefused)
        assert isinstance(failed, CallFailed)
        assert failed.error.kind is ErrorClass.AUTH
    finally:
        assert system.close(WAIT)
